"""`wanimate bench`: what jobs take on this machine."""

from __future__ import annotations

import json
import re
import tempfile
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from rich.table import Table

from wanimate.cli.build import Takes, command
from wanimate.cli.options import option
from wanimate.cli.report import Reporter
from wanimate.config import Mode, RuntimeSettings
from wanimate.config.base import FILES
from wanimate.errors import InputError

if TYPE_CHECKING:
    from wanimate.measure.bench import BenchRow

Checkpoint = Annotated[
    Path | None,
    option(
        FILES,
        "Checkpoint folder.",
        show_default="random weights of the 14B's size where a GPU holds them, else mannequin",
    ),
]
Out = Annotated[Path | None, option(FILES, "Markdown file to write; its JSON lies beside it.", show_default="none")]
Sizes = Annotated[
    list[str] | None,
    option(
        FILES, "Width and height in pixels; may be given again.", metavar="WxH", show_default="832x480 and 1280x720"
    ),
]
Modes = Annotated[list[str] | None, option(FILES, "animation or replacement; may be given again.", show_default="both")]
Frames = Annotated[int | None, option(FILES, "Frames of a job.", min=1, show_default="one segment")]
Steps = Annotated[int | None, option(FILES, "Steps of a segment.", min=1, show_default="the checkpoint's")]
SIDE = 16


@command()
def bench(
    report: Reporter, checkpoint: Checkpoint = None, out: Out = None, size: Sizes = None, mode: Modes = None,
    frames: Frames = None, steps: Steps = None,
    *, runtime: Annotated[RuntimeSettings, Takes(without=("attention_error",))],
) -> None:  # fmt: skip
    """Measure jobs on this machine: seconds, peaks of memory and, where the driver tells, watt-hours.

    Each mode and size runs twice: cold, with weights to be opened, and warm. Guides are moving shapes that it draws itself.
    Without --checkpoint the weights are random, of the 14B's size, if a GPU here holds them whole. Otherwise the small
    checkpoint of the package runs, which takes seconds on a processor.

    [bold]Examples[/bold]

    [cyan]wanimate bench --checkpoint ~/models/Wan2.2-Animate-14B --speed fast --out bench.md[/cyan]

    [cyan]wanimate bench --size 1280x720 --mode animation --speed turbo[/cyan]
    """
    from wanimate.finish.record import versions
    from wanimate.measure.bench import COLUMNS, BenchOrder, bench, engine_to_bench
    from wanimate.media.files import AtomicFile

    modes = tuple(mode or get_args(Mode))
    for one in modes:
        if one not in get_args(Mode):
            raise InputError("mode", one, "there is no such mode", f"Give {' or '.join(get_args(Mode))}.")
    order = BenchOrder(modes, tuple(_size(words) for words in size or ()), frames, steps)
    make_engine, weights = engine_to_bench(checkpoint, runtime, order)
    if out is not None and out.suffix == ".json":
        raise InputError("out", out, "it is the name of the JSON that lies beside it", "Give one that ends with .md.")
    rows: list[BenchRow] = []
    with ExitStack() as opened:  # what cannot be written is refused before minutes are spent
        files = (
            [] if out is None else [opened.enter_context(AtomicFile(path)) for path in (out, out.with_suffix(".json"))]
        )
        folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="wanimate-bench-"))
        for row in bench(make_engine, order, Path(folder)):
            rows.append(row)
            report.note(f"{row.mode} {row.size}, {row.start}: {row.measured.seconds:.1f} s")
        head, text, data = _report(rows, weights, runtime)
        for file, content in zip(
            files, (text, json.dumps(data | {"versions": versions()}, indent=1) + "\n"), strict=False
        ):
            file.write(content.encode())
    table = Table(*COLUMNS, box=None, header_style="bold", padding=(0, 1))
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| mode"):
            table.add_row(*(cell.strip() for cell in line.strip("|").split("|")))
    report.done(data, [*head, "", table])


def _report(rows: list[BenchRow], weights: str, runtime: RuntimeSettings) -> tuple[list[str], str, dict[str, Any]]:
    """What stands above the table, all of it as Markdown, and as data."""
    from wanimate.finish.record import versions
    from wanimate.measure.bench import as_markdown
    from wanimate.measure.doctor import machine_words

    libraries = ", ".join(f"{name} {version}" for name, version in versions().items() if version)
    first = rows[0].measured
    job = f"{first.frames} frames, {first.steps} steps, speed {runtime.speed}, {first.placement}, attention {first.attention}"
    head = [str(date.today()), machine_words(), libraries, f"weights: {weights}", job]
    data = {"weights": weights, "machine": head[1], "speed": runtime.speed, "rows": [row.to_dict() for row in rows]}
    return head, as_markdown(rows, head), data


def _size(words: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{2,5})x(\d{2,5})", words)
    sides = (int(found[1]), int(found[2])) if found else (0, 0)
    if min(sides) < SIDE or any(side % SIDE for side in sides):
        raise InputError("size", words, f"both sides have to be multiples of {SIDE}", "Give one such as 1280x720.")
    return sides
