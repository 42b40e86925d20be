"""`wanimate doctor`: what this machine can run, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from wanimate.cli.build import One, Takes, command
from wanimate.cli.options import option
from wanimate.cli.report import Reporter
from wanimate.config import (
    GenerateSettings,
    Job,
    Mode,
    ParallelSettings,
    PreprocessSettings,
    RuntimeSettings,
    check_spread,
)
from wanimate.config.base import FILES
from wanimate.errors import InputError, setting

Checkpoint = Annotated[Path | None, option(FILES, "Plan a job with this checkpoint folder.", show_default="none")]
Clip = Annotated[Path | None, option(FILES, "The job's performer.", show_default="one segment")]
Gpu = Annotated[
    str | None,
    option(
        FILES,
        "Forecast a GPU that is not here: A10G, 3090, 4090, 5090, H100 or H200.",
        metavar="NAME",
        show_default="none",
    ),
]
MARKS: dict[object, str] = {
    "yes": "[green]yes[/green]", "slow": "[yellow]slow[/yellow]", "no": "[red]no[/red]",
    True: "[green]yes[/green]", False: "[red]no[/red]",
}  # fmt: skip
PLANNED = (
    "steps", "guidance", "clip_length", "overlap", "cache", "lora", "lora_fuse", "lora_partial", "relight",
)  # fmt: skip


@command(names={"video": "--clip"})
def doctor(
    report: Reporter, checkpoint: Checkpoint = None, clip: Clip = None, mode: Annotated[Mode, One(Job, "mode")] = "animation",
    gpu: Gpu = None, *, preprocess: Annotated[PreprocessSettings, Takes(only=("models", "area"))],
    generate: Annotated[GenerateSettings, Takes(only=PLANNED)], runtime: RuntimeSettings, parallel: ParallelSettings,
) -> None:  # fmt: skip
    """Tell what this machine can run: processor, memory, GPUs, detectors, encoders, and which of them is used and why.

    With --checkpoint, it also tells what a job would take, its LoRAs counted: where its weights would live, peak memory,
    seconds. It reads no weights but the LoRAs' and changes nothing.

    With --gpu, it forecasts memory and seconds a step of the published 14B on a GPU that is not here, from its datasheet.

    [bold]Examples[/bold]

    [cyan]wanimate doctor --checkpoint ~/models/Wan2.2-Animate-14B --area 1280x720 --clip performer.mp4[/cyan]

    [cyan]wanimate doctor --checkpoint ~/models/Wan2.2-Animate-14B --mode replacement --lora hero.safetensors:0.8[/cyan]

    [cyan]wanimate doctor --gpu 4090[/cyan]

    Exit codes: 2 bad input; 3 the job does not fit, and the message names the nearest setting that does.
    """
    check_spread(runtime, parallel, parallel.gpus)
    if clip is not None and checkpoint is None:
        raise InputError("clip", clip, "it is for the plan of a job", f"Give {setting('checkpoint')} too.")
    from wanimate.measure.doctor import examine, plan_job
    from wanimate.runtime.planning.cards import card_named, datasheet, forecast

    card = None if gpu is None else card_named(gpu)
    found = examine(preprocess.models, report.spelling, runtime)
    if checkpoint is not None:
        found["plan"] = plan_job(
            checkpoint, clip, preprocess.area, generate, runtime, mode=mode, spread=parallel, spelling=report.spelling
        )
    if card is not None:
        found |= {"datasheet": datasheet(card), "forecast": forecast(card)}
    report.done(found, list(_tables(found)))


def _tables(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """A table for each part of the report: pairs of a name and a finding, or rows with the same names."""
    for part, rows in found.items():
        if isinstance(rows, Mapping):
            rows = [{part: name, "found": value} for name, value in rows.items()]
        if not rows:
            continue
        table = Table(*rows[0], box=None, header_style="bold", padding=(0, 2))
        for row in rows:
            table.add_row(*(_told(value) for value in row.values()))
        yield from (table, "")


def _told(value: object) -> str:
    """Numbers are no marks, though 1 is equal to True."""
    mark = MARKS.get(value) if isinstance(value, bool | str) else None
    return mark or escape(str(value))
