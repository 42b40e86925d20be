"""`wanimate check`: what a finished video is, and whether it is what its receiver asks for."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.markup import escape
from rich.table import Table

from wanimate.cli.build import command
from wanimate.cli.report import Reporter
from wanimate.errors import InputError

if TYPE_CHECKING:
    from wanimate.measure.deliverable import Deliverable

_FAILED = 1
File = Annotated[Path, typer.Argument(help="A video.")]
Asked = Annotated[str, typer.Option(help="Who receives it: any, web, broadcast or vfx.", metavar="PRESET")]


@command()
def check(report: Reporter, file: File, preset: Asked = "any") -> None:
    """Look through a finished video: codec, profile, level, colour tags, range, constant rate, frames, sound and its loudness
    (EBU R 128), black and frozen frames, alpha, timecode.

    Every frame is decoded. With a preset the findings are held against what a web page, a broadcaster or an effects house asks.

    [bold]Examples[/bold]

    [cyan]wanimate check hero.mp4[/cyan]

    [cyan]wanimate check shot_v003.mov --preset vfx --json[/cyan]

    Exit codes: 0 it keeps every rule, 1 it breaks one, 2 it cannot be read.
    """
    from wanimate.measure.deliverable import examine
    from wanimate.measure.presets import Preset, held

    if preset not in get_args(Preset):
        raise InputError("preset", preset, "there is no such choice", f"Give {' or '.join(get_args(Preset))}.")
    found = examine(file)
    verdicts = held(found, preset)  # type: ignore[arg-type]
    passed = all(verdict.passed for verdict in verdicts)
    data = {
        "file": str(file), "preset": preset, "passed": passed, "found": found.to_dict(),
        "rules": [asdict(verdict) for verdict in verdicts],
    }  # fmt: skip
    table = Table("", "rule", "found", "wanted", box=None, header_style="bold", padding=(0, 2))
    for verdict in verdicts:
        mark = "[green]ok[/green]" if verdict.passed else "[red]no[/red]"
        table.add_row(mark, verdict.name, escape(verdict.found), escape(verdict.wanted))
    report.done(data, [_told(file, found), "", table])
    if not passed:
        raise typer.Exit(_FAILED)


def _told(file: Path, found: Deliverable) -> str:
    level = "" if found.level is None else f", level {found.level:.1f}"
    sound = "no sound" if found.sound is None else f"{found.sound.codec} sound of {found.sound.seconds:.2f} s"
    return escape(
        f"{file}: {found.codec} {found.profile or ''}{level}, {found.pixels}, {found.width}x{found.height}, "
        f"{found.picture.frames} frames at {float(found.rate):.6g}/s, {found.timecode or 'no timecode'}, {sound}"
    )
