"""`wanimate doctor`: what this machine can run, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wanimate.cli import options as o
from wanimate.cli.report import reporting
from wanimate.config import GenerateSettings, Mode, ParallelSettings, RuntimeSettings


def doctor(
    models: o.Models = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Plan a job with this checkpoint folder.", show_default="none")
    ] = None,
    clip: Annotated[Path | None, typer.Option(help="The job's performer.", show_default="one segment")] = None,
    mode: Annotated[
        str,
        typer.Option(
            help="The job: the character in its own picture, or in the clip's scene.",
            metavar=f"[{o.choices(Mode)}]",
        ),
    ] = o.MODE,
    area: o.Area = o.PREPROCESS["area"],
    steps: o.Steps = o.GENERATE["steps"],
    guidance: o.Guidance = o.GENERATE["guidance"],
    clip_length: o.ClipLength = o.GENERATE["clip_length"],
    overlap: o.Overlap = o.GENERATE["overlap"],
    cache: o.Cache = o.GENERATE["cache"],
    lora: o.Loras = o.GENERATE["lora"],
    lora_fuse: o.LoraFuse = o.GENERATE["lora_fuse"],
    lora_partial: o.LoraPartial = o.GENERATE["lora_partial"],
    relight: o.Relight = o.GENERATE["relight"],
    speed: o.SpeedMode = o.RUNTIME["speed"],
    weights_dtype: o.WeightsDtype = o.RUNTIME["weights_dtype"],
    blocks: o.Blocks = o.RUNTIME["blocks"],
    vae_tile: o.VaeTile = o.RUNTIME["vae_tile"],
    gpu_memory: o.GpuMemory = o.RUNTIME["gpu_memory"],
    gpus: o.Gpus = o.PARALLEL["gpus"],
    shard_weights: o.ShardWeights = o.PARALLEL["shard_weights"],
    split_guidance: o.SplitGuidance = o.PARALLEL["split_guidance"],
    as_json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Tell what this machine can run: processor, memory, GPUs, detectors, encoders, and which of them is used and why.

    With --checkpoint, also what a job would take, its LoRAs counted: where its weights would live, peak memory, seconds.
    Reads no weights but the LoRAs' and changes nothing.

    [bold]Examples[/bold]

    [cyan]wanimate doctor --checkpoint ~/models/Wan2.2-Animate-14B --area 1280x720 --clip performer.mp4[/cyan]

    [cyan]wanimate doctor --checkpoint ~/models/Wan2.2-Animate-14B --mode replacement --lora hero.safetensors:0.8[/cyan]

    Exit codes: 2 bad input; 3 the job does not fit, and the message names the nearest setting that does.
    """
    with reporting(False, debug):
        chosen = o.parse_mode(mode)
        settings = o.make(
            GenerateSettings, steps=steps, guidance=guidance, clip_length=clip_length, overlap=overlap, cache=cache, lora=lora,
            lora_fuse=lora_fuse, lora_partial=lora_partial, relight=relight,
        )  # fmt: skip
        runtime = o.make(
            RuntimeSettings, speed=speed, weights_dtype=weights_dtype, blocks=blocks, vae_tile=vae_tile,
            gpu_memory=gpu_memory,
        )  # fmt: skip
        spread = o.make(ParallelSettings, gpus=gpus, shard_weights=shard_weights, split_guidance=split_guidance)
        pixels = o.parse_area(area)
        from wanimate.measure.doctor import examine, plan_job

        report = examine(models)
        if checkpoint is not None:
            report["plan"] = plan_job(checkpoint, clip, pixels, settings, runtime, mode=chosen, spread=spread)
        if as_json:
            print(json.dumps(report, ensure_ascii=False))
            return
        console = Console(highlight=False)
        marks = {"yes": "[green]yes[/green]", "slow": "[yellow]slow[/yellow]", "no": "[red]no[/red]"}
        machine = Table("what", "found", box=None, header_style="bold", padding=(0, 2))
        for name, found in report["machine"].items():
            machine.add_row(name, escape(str(found)))
        backends = Table("for", "backend", "there", "used", "why", box=None, header_style="bold", padding=(0, 2))
        for b in report["backends"]:
            backends.add_row(
                b["for"],
                b["name"],
                marks["yes" if b["available"] else "no"],
                "●" if b["used"] else "",
                escape(b["why"]),
            )
        jobs = Table("job", "can run", "why", box=None, header_style="bold", padding=(0, 2))
        for job in report["jobs"]:
            jobs.add_row(job["name"], marks[job["verdict"]], escape(job["why"]))
        for table in (machine, backends, jobs):
            console.print(table)
            console.print()
        if "plan" in report:
            plan = Table("plan", "forecast", box=None, header_style="bold", padding=(0, 2))
            for name, found in report["plan"].items():
                plan.add_row(name, escape(str(found)))
            console.print(plan)
