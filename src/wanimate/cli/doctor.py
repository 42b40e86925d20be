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
from wanimate.cli.ranks import check_spread
from wanimate.cli.report import Reporter
from wanimate.config import GenerateSettings, Job, Mode, ParallelSettings, PreprocessSettings, RuntimeSettings
from wanimate.config.base import FILES

Checkpoint = Annotated[Path | None, option(FILES, "Plan a job with this checkpoint folder.", show_default="none")]
Clip = Annotated[Path | None, option(FILES, "The job's performer.", show_default="one segment")]
MARKS = {"yes": "[green]yes[/green]", "slow": "[yellow]slow[/yellow]", "no": "[red]no[/red]"}
PLANNED = (
    "steps", "guidance", "clip_length", "overlap", "cache", "lora", "lora_fuse", "lora_partial", "relight",
)  # fmt: skip


@command(names={"video": "--clip"})
def doctor(
    report: Reporter, checkpoint: Checkpoint = None, clip: Clip = None, mode: Annotated[Mode, One(Job, "mode")] = "animation",
    *, preprocess: Annotated[PreprocessSettings, Takes(only=("models", "area"))],
    generate: Annotated[GenerateSettings, Takes(only=PLANNED)], runtime: RuntimeSettings, parallel: ParallelSettings,
) -> None:  # fmt: skip
    """Tell what this machine can run: processor, memory, GPUs, detectors, encoders, and which of them is used and why.

    With --checkpoint, it also tells what a job would take, its LoRAs counted: where its weights would live, peak memory,
    seconds. It reads no weights but the LoRAs' and changes nothing.

    [bold]Examples[/bold]

    [cyan]wanimate doctor --checkpoint ~/models/Wan2.2-Animate-14B --area 1280x720 --clip performer.mp4[/cyan]

    [cyan]wanimate doctor --checkpoint ~/models/Wan2.2-Animate-14B --mode replacement --lora hero.safetensors:0.8[/cyan]

    Exit codes: 2 bad input; 3 the job does not fit, and the message names the nearest setting that does.
    """
    check_spread(runtime, parallel, parallel.gpus)
    from wanimate.measure.doctor import examine, plan_job

    found = examine(preprocess.models)
    if checkpoint is not None:
        found["plan"] = plan_job(checkpoint, clip, preprocess.area, generate, runtime, mode=mode, spread=parallel)
    report.done(found, list(_tables(found)))


def _tables(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    if "machine" in found:
        yield from (_pairs("what", "found", found["machine"]), "")
    if "backends" in found:
        backends = _table("for", "backend", "there", "used", "why")
        for b in found["backends"]:
            there = MARKS["yes" if b["available"] else "no"]
            backends.add_row(b["for"], b["name"], there, "●" if b["used"] else "", escape(b["why"]))
        yield from (backends, "")
    if "jobs" in found:
        jobs = _table("job", "can run", "why")
        for job in found["jobs"]:
            jobs.add_row(job["name"], MARKS[job["verdict"]], escape(job["why"]))
        yield from (jobs, "")
    if "plan" in found:
        yield _pairs("plan", "forecast", found["plan"])


def _pairs(name: str, value: str, rows: Mapping[str, Any]) -> Table:
    table = _table(name, value)
    for key, found in rows.items():
        table.add_row(key, escape(str(found)))
    return table


def _table(*heads: str) -> Table:
    return Table(*heads, box=None, header_style="bold", padding=(0, 2))
