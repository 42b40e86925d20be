"""`wanimate train lora`: a LoRA from one's own clips."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated, Any, Literal, cast, get_args

import typer
from pydantic import Field

from wanimate.cli.build import Takes, command
from wanimate.cli.options import Checkpoint
from wanimate.cli.report import Reporter
from wanimate.config import GenerateSettings, Mode, PreprocessSettings, RuntimeSettings
from wanimate.config.base import FILES, Option, Settings
from wanimate.config.values import File
from wanimate.errors import InputError, setting

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Train on your own clips.")
TRAINING, EXAMPLES = "Training", "Examples"


@app.callback()
def root() -> None:
    """Train on your own clips."""


class Files(Settings):
    """What is learned from, and what is written."""

    data: Annotated[
        File,
        Option(
            FILES,
            "Folder of clips, each with a picture of whom it shows beside it (dance.mp4, dance.png). Without one, the clip's "
            "first frame is the reference.",
        ),
    ]
    out: Annotated[File, Option(FILES, "LoRA to write, a .safetensors file in peft's layout.")]
    work: Annotated[
        File | None,
        Option(FILES, "Folder for encoded examples, state, loss.png and samples.", shown="OUT without its ending"),
    ] = None


class Taught(Settings):
    """What the examples teach."""

    mode: Annotated[Literal["animation", "replacement", "both"], Option(EXAMPLES, "Which mode the examples teach.")] = (
        "animation"
    )
    relit: Annotated[
        int,
        Field(ge=0),
        Option(
            EXAMPLES,
            "Relighting recipe: so many copies of every reference under other lights take its place. It goes with --mode "
            "replacement.",
            example="4",
        ),
    ] = 0


class Training(Settings):
    """How the adapters are trained."""

    steps: Annotated[int, Field(ge=1), Option(TRAINING, "Steps of the optimiser.", example="1000")] = 1000
    rate: Annotated[float, Field(gt=0), Option(TRAINING, "Peak learning rate (AdamW).", example="1e-4")] = 1e-4
    rank: Annotated[int, Field(ge=1), Option(TRAINING, "Rank of the adapters.", example="32")] = 32
    alpha: Annotated[
        float | None, Field(gt=0), Option(TRAINING, "Their scale is alpha / rank.", shown="the rank", example="32")
    ] = None
    targets: Annotated[
        str,
        Option(
            TRAINING,
            "Which linears of the blocks: all, attention, self-attention, feed-forward, no-cross-attention, or names such as "
            "self_attn.q,ffn.0.",
        ),
    ] = "all"
    accumulate: Annotated[int, Field(ge=1), Option(TRAINING, "Windows a step.", example="1")] = 1
    checkpointing: Annotated[
        bool | None,
        Option(TRAINING, "Recompute blocks in the backward pass: less memory, slower.", shown="for large networks"),
    ] = None
    save_every: Annotated[
        int, Field(ge=1), Option(TRAINING, "Steps between states and points of the curve.", example="50")
    ] = 50
    sample_every: Annotated[int, Field(ge=1), Option(TRAINING, "Steps between samples.", example="250")] = 250
    seed: Annotated[int, Field(ge=0), Option(TRAINING, "Seed of windows, noise and first weights.", example="0")] = 0
    resume: Annotated[bool, Option(TRAINING, "Go on from the state in --work.")] = False


@app.command(no_args_is_help=True)
@command(names={"video": "--data", "image": "--data"})
def lora(
    report: Reporter, checkpoint: Checkpoint = None, *, files: Files, taught: Taught,
    preprocess: Annotated[
        PreprocessSettings, Takes(only=("models", "area", "fps", "max_fps", "max_seconds", "backend"))
    ],
    generate: Annotated[GenerateSettings, Takes(only=("clip_length", "prompt"))], training: Training,
    runtime: Annotated[RuntimeSettings, Takes(only=("device",))],
) -> None:  # fmt: skip
    """Train a LoRA on a folder of clips.

    Every clip is preprocessed and encoded once, in windows of the checkpoint's segment length. Adapters on the transformer
    then learn to draw the true frames from reference, skeleton and face. A run that was stopped, however rudely, goes on with
    --resume and ends with the same weights.

    [bold]Examples[/bold]

    [cyan]wanimate train lora --data clips --out hero.safetensors --checkpoint Wan2.2-Animate-14B --area 832x480[/cyan]

    [cyan]wanimate animate ... --lora hero.safetensors:0.8[/cyan]

    Exit codes: 0 done, 2 bad input, 3 not enough memory, 130 cancelled (go on with --resume).
    """
    out, relit = files.out, taught.relit
    if out.suffix != ".safetensors":
        raise InputError("out", out, "a LoRA is written as .safetensors", "Give a name that ends so.")
    modes: tuple[Mode, ...] = (*get_args(Mode),) if taught.mode == "both" else (taught.mode,)
    if relit and modes != ("replacement",):
        raise InputError("relit", relit, "light is matched in replacement only", f"Add {setting('mode')} replacement.")
    from wanimate.train.adapters import TARGETS, AdapterSettings
    from wanimate.train.examples import ExampleSettings
    from wanimate.train.lora import LoraTraining
    from wanimate.train.own import OwnTraining, train_own
    from wanimate.weights.locate import read_checkpoint_config

    defaults = read_checkpoint_config(checkpoint)[1].defaults
    length = generate.clip_length or defaults.clip_length
    if length % 4 != 1 or length < 5:
        raise InputError("generate.clip_length", length, "a window has 4n+1 frames, 5 at least", "Give 17, 33 or 77.")
    t = training
    large = checkpoint is not None if t.checkpointing is None else t.checkpointing
    targets = TARGETS.get(t.targets) or tuple(name.strip() for name in t.targets.split(","))
    job = OwnTraining(
        files.data, out, files.work or out.with_suffix(""), checkpoint,
        ExampleSettings(modes, preprocess.area or defaults.area, length, defaults.overlap, preprocess, relit, t.seed),
        AdapterSettings(t.rank, t.alpha or t.rank, targets),
        LoraTraining(steps=t.steps, rate=t.rate, accumulate=t.accumulate, save_every=t.save_every, seed=t.seed),
        generate.prompt, 0.0 if relit else 0.1, large, t.sample_every, t.resume, runtime.device,
    )  # fmt: skip
    with closing(cast(Any, train_own(job))) as events:
        for event in events:
            report.event(event)
    words = f"{out}: rank {t.rank}, {t.steps} steps (curve and samples in {job.work})"
    report.done({"lora": str(out), "steps": t.steps}, words)
