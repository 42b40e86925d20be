"""`wanimate animate` and `wanimate generate`: both end in a video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from wanimate.cli import options as o
from wanimate.cli.ranks import run
from wanimate.cli.report import Reporter, reporting
from wanimate.config import GenerateSettings, Job, OutputSettings, ParallelSettings, RuntimeSettings
from wanimate.errors import InputError
from wanimate.finish.lock import record_path

if TYPE_CHECKING:
    from wanimate.api import Animator
    from wanimate.events import Event
    from wanimate.types import Result


def animate(
    image: o.Image,
    video: o.Video,
    out: o.Out,
    checkpoint: o.Checkpoint = None,
    models: o.Models = o.PREPROCESS["models"],
    area: o.Area = o.PREPROCESS["area"],
    fps: o.Fps = o.PREPROCESS["fps"],
    max_fps: o.MaxFps = o.PREPROCESS["max_fps"],
    allow_any_length: o.AllowAnyLength = False,
    retarget: o.RetargetMode = o.PREPROCESS["retarget"],
    smooth: o.Smooth = o.PREPROCESS["smooth"],
    backend: o.Backend = o.PREPROCESS["backend"],
    face_size: o.FaceSize = o.PREPROCESS["face_size"],
    person: o.Person = o.PREPROCESS["person"],
    compat: o.Compat = o.PREPROCESS["compat"],
    steps: o.Steps = o.GENERATE["steps"],
    solver: o.SolverName = o.GENERATE["solver"],
    shift: o.Shift = o.GENERATE["shift"],
    guidance: o.Guidance = o.GENERATE["guidance"],
    clip_length: o.ClipLength = o.GENERATE["clip_length"],
    overlap: o.Overlap = o.GENERATE["overlap"],
    seed: o.Seed = o.GENERATE["seed"],
    prompt: o.Prompt = o.GENERATE["prompt"],
    negative_prompt: o.NegativePrompt = o.GENERATE["negative_prompt"],
    lora: o.Loras = o.GENERATE["lora"],
    lora_fuse: o.LoraFuse = o.GENERATE["lora_fuse"],
    lora_partial: o.LoraPartial = o.GENERATE["lora_partial"],
    relight: o.Relight = o.GENERATE["relight"],
    relight_strength: o.RelightStrength = o.GENERATE["relight_strength"],
    cache: o.Cache = o.GENERATE["cache"],
    cache_gate: o.CacheGate = o.GENERATE["cache_gate"],
    codec: o.CodecName = o.OUTPUT["codec"],
    crf: o.Crf = o.OUTPUT["crf"],
    audio: o.Audio = o.OUTPUT["audio"],
    sheet: o.Sheet = o.OUTPUT["sheet"],
    keep_guides: o.KeepGuides = None,
    gpus: o.Gpus = o.PARALLEL["gpus"],
    shard_weights: o.ShardWeights = o.PARALLEL["shard_weights"],
    split_guidance: o.SplitGuidance = o.PARALLEL["split_guidance"],
    speed: o.SpeedMode = o.RUNTIME["speed"],
    weights_dtype: o.WeightsDtype = o.RUNTIME["weights_dtype"],
    blocks: o.Blocks = o.RUNTIME["blocks"],
    vae_tile: o.VaeTile = o.RUNTIME["vae_tile"],
    gpu_memory: o.GpuMemory = o.RUNTIME["gpu_memory"],
    as_json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Let the character of a picture perform what a performer does in a clip.

    The clip's body, hands and face are found and drawn as guides; the network then draws the character frame by frame
    after them. Rate, length and sound are the clip's. Everything that can be checked is checked before anything is
    loaded; Ctrl-C stops at any time and leaves nothing half-written.

    [bold]Examples[/bold]

    [cyan]wanimate animate --image hero.png --video dance.mp4 --out hero.mp4 --sheet[/cyan]

    [cyan]wanimate animate --image hero.png --video dance.mp4 --out hero.mp4 --area 1280x720 --seed 7
    --checkpoint ~/models/Wan2.2-Animate-14B[/cyan]

    Exit codes: 0 done, 2 bad input, 3 not enough memory, 130 cancelled.
    """
    with reporting(as_json, debug) as report:
        preprocess = o.preprocess_settings(
            area, fps, max_fps, allow_any_length,
            retarget=retarget, smooth=smooth, backend=backend, face_size=face_size, person=person, compat=compat, models=models,
        )  # fmt: skip
        generate = o.make(
            GenerateSettings, steps=steps, solver=solver, shift=shift, guidance=guidance, clip_length=clip_length,
            overlap=overlap, seed=seed, prompt=prompt, negative_prompt=negative_prompt, compat=compat, lora=lora,
            lora_fuse=lora_fuse, lora_partial=lora_partial, relight=relight, relight_strength=relight_strength,
            cache=cache, cache_gate=cache_gate,
        )  # fmt: skip
        output = o.make(OutputSettings, codec=codec, crf=crf, audio=audio, sheet=sheet)
        job = Job(
            image=image, video=video, out=out, preprocess=preprocess, generate=generate, output=output,
            keep_guides=keep_guides,
        )  # fmt: skip
        runtime = o.make(
            RuntimeSettings, speed=speed, weights_dtype=weights_dtype, blocks=blocks, vae_tile=vae_tile,
            gpu_memory=gpu_memory,
        )  # fmt: skip
        parallel = o.make(ParallelSettings, gpus=gpus, shard_weights=shard_weights, split_guidance=split_guidance)
        run(report, checkpoint, runtime, parallel, out, lambda animator: animator.run(job))


Guides = Annotated[
    list[Path],
    typer.Argument(
        help="Folders made by [cyan]wanimate preprocess[/cyan], or published sets of src_*.mp4 files. Several are made "
        "with the same weights, one after the other; --out is then a folder."
    ),
]


def generate(
    guides: Guides,
    out: o.Out,
    checkpoint: o.Checkpoint = None,
    steps: o.Steps = o.GENERATE["steps"],
    solver: o.SolverName = o.GENERATE["solver"],
    shift: o.Shift = o.GENERATE["shift"],
    guidance: o.Guidance = o.GENERATE["guidance"],
    clip_length: o.ClipLength = o.GENERATE["clip_length"],
    overlap: o.Overlap = o.GENERATE["overlap"],
    seed: o.Seed = o.GENERATE["seed"],
    prompt: o.Prompt = o.GENERATE["prompt"],
    negative_prompt: o.NegativePrompt = o.GENERATE["negative_prompt"],
    lora: o.Loras = o.GENERATE["lora"],
    lora_fuse: o.LoraFuse = o.GENERATE["lora_fuse"],
    lora_partial: o.LoraPartial = o.GENERATE["lora_partial"],
    relight: o.Relight = o.GENERATE["relight"],
    relight_strength: o.RelightStrength = o.GENERATE["relight_strength"],
    cache: o.Cache = o.GENERATE["cache"],
    cache_gate: o.CacheGate = o.GENERATE["cache_gate"],
    compat: o.Compat = o.GENERATE["compat"],
    codec: o.CodecName = o.OUTPUT["codec"],
    crf: o.Crf = o.OUTPUT["crf"],
    audio: o.Audio = o.OUTPUT["audio"],
    sheet: o.Sheet = o.OUTPUT["sheet"],
    composite: o.Composite = o.OUTPUT["composite"],
    feather: o.Feather = o.OUTPUT["feather"],
    gpus: o.Gpus = o.PARALLEL["gpus"],
    shard_weights: o.ShardWeights = o.PARALLEL["shard_weights"],
    split_guidance: o.SplitGuidance = o.PARALLEL["split_guidance"],
    speed: o.SpeedMode = o.RUNTIME["speed"],
    weights_dtype: o.WeightsDtype = o.RUNTIME["weights_dtype"],
    blocks: o.Blocks = o.RUNTIME["blocks"],
    vae_tile: o.VaeTile = o.RUNTIME["vae_tile"],
    gpu_memory: o.GpuMemory = o.RUNTIME["gpu_memory"],
    as_json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Make the video from guides that exist already: try seeds and settings without finding the performer again.

    [bold]Example[/bold]

    [cyan]wanimate generate guides --out hero.mp4 --steps 30 --seed 8[/cyan]

    [cyan]wanimate generate monday tuesday wednesday --out week[/cyan]
    """
    with reporting(as_json, debug) as report:
        places = results(guides, out, codec)
        settings = o.make(
            GenerateSettings, steps=steps, solver=solver, shift=shift, guidance=guidance, clip_length=clip_length,
            overlap=overlap, seed=seed, prompt=prompt, negative_prompt=negative_prompt, compat=compat, lora=lora,
            lora_fuse=lora_fuse, lora_partial=lora_partial, relight=relight, relight_strength=relight_strength,
            cache=cache, cache_gate=cache_gate,
        )  # fmt: skip
        output = o.make(
            OutputSettings, codec=codec, crf=crf, audio=audio, sheet=sheet, composite=composite, feather=feather
        )
        runtime = o.make(
            RuntimeSettings, speed=speed, weights_dtype=weights_dtype, blocks=blocks, vae_tile=vae_tile,
            gpu_memory=gpu_memory,
        )  # fmt: skip
        parallel = o.make(ParallelSettings, gpus=gpus, shard_weights=shard_weights, split_guidance=split_guidance)
        run(
            report,
            checkpoint,
            runtime,
            parallel,
            out,
            *(
                partial(_generate, folder, place, settings, output)
                for folder, place in zip(guides, places, strict=True)
            ),
        )


def _generate(
    folder: Path, place: Path, settings: GenerateSettings, output: OutputSettings, animator: Animator
) -> Iterator[Event]:
    return animator.generate(folder, place, settings, output)


def results(guides: Sequence[Path], out: Path, codec: str) -> list[Path]:
    """Where each folder's result goes: `out`, or within it, called as the folder is.

    Raises:
        InputError: the results of several folders cannot be told apart, or one of the folders holds no guides.
    """
    if len(guides) == 1:
        return [out]
    if out.suffix or out.is_file():
        raise InputError("out", out, f"{len(guides)} results need a folder", "Name a folder.")
    names = [folder.resolve().name for folder in guides]
    for folder, name in zip(guides, names, strict=True):
        if names.count(name) > 1:
            raise InputError("guides", folder, f"several folders are called {name}", "Rename one, or run them apart.")
        from wanimate.preprocess.guides import load_guides

        load_guides(folder)  # what cannot be used is refused before the first one takes its hours
    suffix = {"png": "", "ffv1": ".mkv"}.get(codec, ".mp4")
    return [out / f"{name}{suffix}" for name in names]


def finish(report: Reporter, events: Iterator[Event]) -> None:
    """Pass the events on; a cancelled job is closed before anything is said, so that it has tidied up by then."""
    from wanimate.events import Finished

    result: Result | None = None
    with closing(cast(Any, events)):
        for event in events:
            report.event(event)
            if isinstance(event, Finished):
                result = event.result
    assert result is not None, "a job ends with its result"
    width, height = result.size
    record = record_path(result.out)
    data = {
        "out": result.out, "frames": result.count, "width": width, "height": height, "fps": result.fps,
        "seed": result.seed, "sheet": result.sheet, "record": record, "seconds": result.manifest.get("seconds"),
    }  # fmt: skip
    more = f", {result.sheet.name}" if result.sheet else ""
    report.done(
        data,
        f"{result.out}: {result.count} frames of {width}x{height} at {float(result.fps):g}/s, seed {result.seed} "
        f"(beside it {record.name}{more})",
    )
