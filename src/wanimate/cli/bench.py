"""`wanimate bench`: what jobs take on this machine."""

from __future__ import annotations

import json
import re
import tempfile
from datetime import date
from pathlib import Path
from typing import Annotated, get_args

from rich.table import Table

from wanimate.cli.build import Takes, command
from wanimate.cli.options import option
from wanimate.cli.report import Reporter
from wanimate.config import Mode, RuntimeSettings
from wanimate.config.base import FILES
from wanimate.errors import InputError

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
    from wanimate.measure.bench import COLUMNS, BenchOrder, as_markdown, bench, engine_to_bench
    from wanimate.measure.doctor import machine_words

    modes = tuple(mode or get_args(Mode))
    for one in modes:
        if one not in get_args(Mode):
            raise InputError("mode", one, "there is no such mode", f"Give {' or '.join(get_args(Mode))}.")
    order = BenchOrder(modes, tuple(_size(words) for words in size or ()), frames, steps)
    make_engine, weights = engine_to_bench(checkpoint, runtime, order)
    rows = []
    with tempfile.TemporaryDirectory(prefix="wanimate-bench-") as folder:
        for row in bench(make_engine, order, Path(folder)):
            rows.append(row)
            report.note(f"{row.mode} {row.size}, {row.start}: {row.measured.seconds:.1f} s")
    libraries = ", ".join(f"{name} {version}" for name, version in versions().items() if version)
    first = rows[0].measured
    job = f"{first.frames} frames, {first.steps} steps, speed {runtime.speed}, {first.placement}, attention {first.attention}"
    head = [str(date.today()), machine_words(), libraries, f"weights: {weights}", job]
    text = as_markdown(rows, head)
    data = {"weights": weights, "machine": head[1], "speed": runtime.speed, "rows": [row.to_dict() for row in rows]}
    if out is not None:
        out.write_text(text)
        out.with_suffix(".json").write_text(json.dumps(data | {"versions": versions()}, indent=1) + "\n")
    table = Table(*COLUMNS, box=None, header_style="bold", padding=(0, 1))
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| mode"):
            table.add_row(*(cell.strip() for cell in line.strip("|").split("|")))
    report.done(data, [*head, "", table])


def _size(words: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{2,5})x(\d{2,5})", words)
    sides = (int(found[1]), int(found[2])) if found else (0, 0)
    if min(sides) < SIDE or any(side % SIDE for side in sides):
        raise InputError("size", words, f"both sides have to be multiples of {SIDE}", "Give one such as 1280x720.")
    return sides
