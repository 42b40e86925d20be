"""`wanimate replace`: the character in the performer's own scene."""

from __future__ import annotations

from wanimate.cli import options as o
from wanimate.cli.ranks import run
from wanimate.cli.report import reporting
from wanimate.config import GenerateSettings, Job, OutputSettings, ParallelSettings, RuntimeSettings


def replace(
    image: o.Image,
    video: o.Video,
    out: o.Out,
    checkpoint: o.Checkpoint = None,
    models: o.Models = o.PREPROCESS["models"],
    area: o.Area = o.PREPROCESS["area"],
    fps: o.Fps = o.PREPROCESS["fps"],
    max_fps: o.MaxFps = o.PREPROCESS["max_fps"],
    allow_any_length: o.AllowAnyLength = False,
    smooth: o.Smooth = o.PREPROCESS["smooth"],
    backend: o.Backend = o.PREPROCESS["backend"],
    face_size: o.FaceSize = o.PREPROCESS["face_size"],
    person: o.Person = o.PREPROCESS["person"],
    mask: o.MaskFile = o.PREPROCESS["mask"],
    sam2: o.Sam2 = o.PREPROCESS["sam2"],
    iterations: o.Iterations = o.PREPROCESS["iterations"],
    k: o.KernelSide = o.PREPROCESS["k"],
    w_len: o.GridColumns = o.PREPROCESS["w_len"],
    h_len: o.GridRows = o.PREPROCESS["h_len"],
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
    composite: o.Composite = o.OUTPUT["composite"],
    feather: o.Feather = o.OUTPUT["feather"],
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
    """Put the character of a picture in the place of the performer of a clip; the scene stays.

    The performer is found and cut out of every frame, and the network draws the character into the hole after the
    performer's skeleton and face. Size, rate, length and sound are the clip's. Frames without the performer stay as they
    are, and so does everything around the hole unless --no-composite is given.

    [bold]Examples[/bold]

    [cyan]wanimate replace --image hero.png --video dance.mp4 --out hero.mp4 --sheet[/cyan]

    [cyan]wanimate replace --image hero.png --video dance.mp4 --out hero.mp4 --w-len 8 --h-len 16[/cyan]

    Exit codes: 0 done, 2 bad input, 3 not enough memory, 130 cancelled.
    """
    with reporting(as_json, debug) as report:
        preprocess = o.preprocess_settings(
            area, fps, max_fps, allow_any_length,
            smooth=smooth, backend=backend, face_size=face_size, person=person, compat=compat, models=models,
            mask=mask, sam2=sam2, iterations=iterations, k=k, w_len=w_len, h_len=h_len,
        )  # fmt: skip
        generate = o.make(
            GenerateSettings, steps=steps, solver=solver, shift=shift, guidance=guidance, clip_length=clip_length,
            overlap=overlap, seed=seed, prompt=prompt, negative_prompt=negative_prompt, compat=compat, lora=lora,
            lora_fuse=lora_fuse, lora_partial=lora_partial, relight=relight, relight_strength=relight_strength,
            cache=cache, cache_gate=cache_gate,
        )  # fmt: skip
        output = o.make(
            OutputSettings, codec=codec, crf=crf, audio=audio, sheet=sheet, composite=composite, feather=feather
        )
        job = Job(
            image=image, video=video, out=out, mode="replacement", preprocess=preprocess, generate=generate, output=output,
            keep_guides=keep_guides,
        )  # fmt: skip
        runtime = o.make(
            RuntimeSettings, speed=speed, weights_dtype=weights_dtype, blocks=blocks, vae_tile=vae_tile,
            gpu_memory=gpu_memory,
        )  # fmt: skip
        parallel = o.make(ParallelSettings, gpus=gpus, shard_weights=shard_weights, split_guidance=split_guidance)
        run(report, checkpoint, runtime, parallel, out, lambda animator: animator.run(job))
