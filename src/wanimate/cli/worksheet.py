"""`wanimate worksheet`: the adoption sheet, filled from measurements, from this machine, and from answers."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.markup import escape

from wanimate.cli.build import Takes, command
from wanimate.cli.options import Checkpoint, option
from wanimate.cli.report import Reporter
from wanimate.config import RuntimeSettings
from wanimate.config.base import FILES
from wanimate.config.values import parse_area, parse_rate
from wanimate.errors import InputError

if TYPE_CHECKING:
    from wanimate.measure.worksheet.found import Machine
    from wanimate.measure.worksheet.pace import Pace

RUN = "The measured run"


@command(
    names={
        "out": "--out", "answers": "--answers", "guides": "--guides", "size": "--size", "fps": "--fps",
        "overwrite": "--overwrite", "checkpoint": "--checkpoint", "certificate": "--certificate", "preprocess.area": "--size",
    }
)  # fmt: skip
def worksheet(
    report: Reporter,
    out: Annotated[Path, option(FILES, "The sheet, NAME.md. NAME.json is written beside it.", metavar="FILE")],
    answers: Annotated[
        Path | None, option(FILES, "Answers, a TOML or JSON file.", metavar="FILE", show_default="those of the last sheet")
    ] = None,
    guides: Annotated[Path | None, option(FILES, "A folder of guides, as the studio makes them.", show_default="none")] = None,
    signing: Annotated[
        Path | None,
        option(
            FILES, "Certificate that results are signed with, a PEM file.", "--certificate", metavar="FILE",
            show_default="that of `wanimate marks init`",
        ),
    ] = None,
    overwrite: Annotated[bool, option(FILES, "Write over a sheet that was changed by hand.", "--overwrite")] = False,
    checkpoint: Checkpoint = None,
    size: Annotated[
        str | None, option(RUN, "The studio's size: 1280x720, or a number of pixels.", show_default="the checkpoint's own")
    ] = None,
    fps: Annotated[str, option(RUN, "The studio's frames a second.", metavar="RATE")] = "24",
    no_run: Annotated[
        bool, option(RUN, "Measure nothing. What an earlier sheet of this machine has measured stays.", "--no-run")
    ] = False,
    *, runtime: Annotated[RuntimeSettings, Takes(only=("device", "speed"))],
) -> None:  # fmt: skip
    """Write the adoption sheet: GPU, seconds, memory and cost of both modes at the studio's size, preprocessing, a pilot by
    risk, questions of brand and law. Every line says whether it was measured, found or asked.

    Both modes run once on a packaged clip. Answers are kept from sheet to sheet.

    [bold]Examples[/bold]

    [cyan]wanimate worksheet --out adoption.md --checkpoint ~/models/Wan2.2-Animate-14B --size 1280x720[/cyan]

    [cyan]wanimate worksheet --out adoption.md --no-run --answers answers.toml[/cyan]
    """
    from wanimate.measure.worksheet.answers import read_answers
    from wanimate.measure.worksheet.found import certificate, flow, machine
    from wanimate.measure.worksheet.sheet import Facts, earlier, write

    area, rate = _read("size", size, parse_area, "1280x720"), _read("fps", fps, parse_rate, "24 or 24000/1001")
    before, paces, on = earlier(out)
    said = before if answers is None else read_answers(answers).over(before)
    signed, here = certificate(signing), machine()
    guides_found = None if guides is None else flow(guides)
    measured = _kept(paces, on, here) if no_run else _measured(report, checkpoint, area, runtime)
    found = write(out, Facts(here, measured, guides_found, signed, rules_checked(), float(rate)), said, overwrite)
    left = [line.key for line in found if line.value is None]
    marked = {mark: sum(line.mark == mark for line in found) for mark in ("measured", "found", "asked", "derived")}
    data = {"out": out, "json": out.with_suffix(".json"), "lines": len(found), "to_be_answered": left, **marked}
    report.done(
        data,
        escape(f"{out}: {len(found)} lines, {len(left)} to be answered (beside it {out.with_suffix('.json').name})"),
    )


def rules_checked(file: Any = files("wanimate.approval") / "rules.toml") -> str | None:
    """The oldest day on which a row of the house's table of rules was checked; None where there is no table."""
    if not file.is_file():
        return None
    return min(_days(tomllib.loads(file.read_text(encoding="utf-8"))), default=None)


def _days(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, one in value.items():
            if name == "checked_on":
                yield str(one)
            else:
                yield from _days(one)
    elif isinstance(value, list):
        for one in value:
            yield from _days(one)


def _read(field: str, text: str | None, read: Callable[[Any], Any], example: str) -> Any:
    """A value as settings read it; None of None."""
    try:
        return None if text is None else read(text)
    except ValueError as error:
        raise InputError(field, text, str(error), f"Write it as {example}.") from error


def _measured(report: Reporter, checkpoint: Path | None, area: int | None, runtime: RuntimeSettings) -> list[Pace]:
    from wanimate.measure.worksheet.pace import measure

    with closing(measure(checkpoint, area, runtime)) as events:
        while True:
            try:
                report.event(next(events))
            except StopIteration as end:
                found: list[Pace] = end.value
                return found


def _kept(paces: tuple[Pace, ...], on: dict[str, Any], here: Machine) -> list[Pace]:
    """What an earlier sheet has measured, if it was on this GPU."""
    return list(paces) if (on.get("gpu"), on.get("driver")) == (here.gpu, here.driver) else []
