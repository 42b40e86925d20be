"""`wanimate train lora`: a LoRA from one's own clips."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from wanimate.cli import options as o
from wanimate.cli.report import reporting
from wanimate.config import Mode
from wanimate.errors import InputError

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Train on your own clips.")
TRAINING, EXAMPLES = "Training", "Examples"


@app.callback()
def root() -> None:
    """Train on your own clips."""


@app.command(no_args_is_help=True)
def lora(
    data: Annotated[
        Path,
        o.option(
            o.FILES,
            "Folder of clips, each with a picture of whom it shows beside it (dance.mp4, dance.png); without one the "
            "clip's first frame is the reference.",
        ),
    ],
    out: Annotated[Path, o.option(o.FILES, "LoRA to write, a .safetensors file in peft's layout.")],
    checkpoint: o.Checkpoint = None,
    work: Annotated[
        Path | None,
        o.option(
            o.FILES, "Folder for encoded examples, state, loss.png and samples.", show_default="OUT without its ending"
        ),
    ] = None,
    models: o.Models = o.PREPROCESS["models"],
    mode: Annotated[
        str, o.option(EXAMPLES, "Which mode the examples teach.", metavar="[animation|replacement|both]")
    ] = "animation",
    relit: Annotated[
        int,
        o.option(
            EXAMPLES,
            "Relighting recipe: use so many copies of every reference under other lights instead of it; goes with --mode "
            "replacement.",
        ),
    ] = 0,
    area: o.Area = o.PREPROCESS["area"],
    fps: o.Fps = o.PREPROCESS["fps"],
    max_fps: o.MaxFps = o.PREPROCESS["max_fps"],
    allow_any_length: o.AllowAnyLength = False,
    backend: o.Backend = o.PREPROCESS["backend"],
    clip_length: o.ClipLength = o.GENERATE["clip_length"],
    prompt: o.Prompt = o.GENERATE["prompt"],
    steps: Annotated[int, o.option(TRAINING, "Steps of the optimiser.", min=1)] = 1000,
    rate: Annotated[float, o.option(TRAINING, "Peak learning rate (AdamW).", min=0.0)] = 1e-4,
    rank: Annotated[int, o.option(TRAINING, "Rank of the adapters.", min=1)] = 32,
    alpha: Annotated[float | None, o.option(TRAINING, "Their scale is alpha / rank.", show_default="the rank")] = None,
    targets: Annotated[
        str,
        o.option(
            TRAINING,
            "Which linears of the blocks: all, attention, self-attention, feed-forward, no-cross-attention, or names such "
            "as self_attn.q,ffn.0.",
        ),
    ] = "all",
    accumulate: Annotated[int, o.option(TRAINING, "Windows a step.", min=1)] = 1,
    checkpointing: Annotated[
        bool | None,
        o.option(
            TRAINING, "Recompute blocks in the backward pass: less memory, slower.", show_default="for large networks"
        ),
    ] = None,
    save_every: Annotated[int, o.option(TRAINING, "Steps between states and points of the curve.", min=1)] = 50,
    sample_every: Annotated[int, o.option(TRAINING, "Steps between samples.", min=1)] = 250,
    seed: Annotated[int, o.option(TRAINING, "Of windows, noise and first weights.", min=0)] = 0,
    resume: Annotated[bool, o.option(TRAINING, "Go on from the state in --work.", "--resume")] = False,
    device: Annotated[str | None, o.option(o.RUN, "cuda or cpu.", show_default="the GPU, if there is one")] = None,
    as_json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Train a LoRA on a folder of clips.

    Every clip is preprocessed and encoded once, in windows of the checkpoint's segment length; then adapters on the
    transformer learn to draw the true frames from reference, skeleton and face. A run that was stopped, however rudely,
    goes on with --resume and ends with the same weights.

    [bold]Examples[/bold]

    [cyan]wanimate train lora --data clips --out hero.safetensors --checkpoint Wan2.2-Animate-14B --area 832x480[/cyan]

    [cyan]wanimate animate ... --lora hero.safetensors:0.8[/cyan]

    Exit codes: 0 done, 2 bad input, 3 not enough memory, 130 cancelled (go on with --resume).
    """
    with reporting(as_json, debug) as report:
        if out.suffix != ".safetensors":
            raise InputError("out", out, "a LoRA is written as .safetensors", "Give a name that ends so.")
        modes = (*get_args(Mode),) if mode == "both" else (o.parse_mode(mode),)
        if relit and modes != ("replacement",):
            raise InputError("relit", relit, "light is matched in replacement only", "Add --mode replacement.")
        preprocess = o.preprocess_settings(area, fps, max_fps, allow_any_length, backend=backend, models=models)
        from wanimate.train.adapters import TARGETS, AdapterSettings
        from wanimate.train.examples import ExampleSettings
        from wanimate.train.lora import LoraTraining
        from wanimate.train.own import OwnTraining, train_own
        from wanimate.weights.locate import read_checkpoint_config

        defaults = read_checkpoint_config(checkpoint)[1].defaults
        length = clip_length or defaults.clip_length
        if length % 4 != 1 or length < 5:
            raise InputError(
                "generate.clip_length", length, "a window has 4n+1 frames, 5 at least", "Give 17, 33 or 77."
            )
        large = checkpoint is not None if checkpointing is None else checkpointing
        job = OwnTraining(
            data, out, work or out.with_suffix(""), checkpoint,
            ExampleSettings(modes, preprocess.area or defaults.area, length, defaults.overlap, preprocess, relit, seed),
            AdapterSettings(rank, alpha or rank, TARGETS.get(targets) or tuple(t.strip() for t in targets.split(","))),
            LoraTraining(steps=steps, rate=rate, accumulate=accumulate, save_every=save_every, seed=seed),
            prompt, 0.0 if relit else 0.1, large, sample_every, resume, device,
        )  # fmt: skip
        for event in train_own(job):
            report.event(event)
        report.done(
            {"lora": str(out), "steps": steps}, f"{out}: rank {rank}, {steps} steps (curve and samples in {job.work})"
        )
