"""Train a LoRA on one's own clips: `wanimate train lora`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recomputed

from wanimate.errors import InputError, OutputError, setting
from wanimate.events import Event, Notice, Stage, StageFinished, StageProgress, StageStarted
from wanimate.finish.decode import to_pixels, to_unit
from wanimate.media.files import (
    AtomicFile,
    json_bytes,
    kept_error,
    kept_name,
    missing_folders,
    read_marked,
    remove_empty,
)
from wanimate.media.lock import NameLock
from wanimate.media.places import check_names
from wanimate.media.png import write_png
from wanimate.model.transformer import AnimateTransformer
from wanimate.train.adapters import AdapterSettings, adapter_state, attach, write_lora
from wanimate.train.examples import Encoders, Examples, ExampleSettings, Source, find_sources, prepare
from wanimate.train.flow import Flow, LossSettings, flow_loss, predict, sample
from wanimate.train.latents import LatentClips
from wanimate.train.lora import LoraTraining, train_adapters
from wanimate.weights.checkpoint import Checkpoint, load_checkpoint

MARK, FORMAT = "training.json", "wanimate-training"
"""Says in the working folder that a training made what lies there."""
_FILES = ("state.pt", "log.jsonl", "loss.png", "samples", "examples", MARK)


@dataclass(frozen=True)
class OwnTraining:
    """Everything `train_own` is told. `work`: folder for examples, state, loss curve and samples.

    `checkpointing`: blocks are computed again in the backward pass instead of kept, for large networks. `dtype`: the file's.
    """

    data: Path
    out: Path
    work: Path
    checkpoint: Path | None
    examples: ExampleSettings
    adapters: AdapterSettings
    training: LoraTraining
    prompt: str = ""
    drop_face: float = 0.1
    checkpointing: bool = False
    sample_every: int = 250
    resume: bool = False
    device: str | None = None
    dtype: torch.dtype = torch.float16


def train_own(job: OwnTraining) -> Iterator[Event]:
    """Clips -> examples -> adapters -> `job.out`. The file appears whole, at the end.

    Raises:
        InputError: data, checkpoint or settings cannot be used; there is a state and `resume` is off, or none and it is on.
        OutputError: `out` exists already; `out` or `work` cannot be written, or would lose a file that no training made.
    """
    sources = find_sources(job.data)
    with _places(job):
        yield from _trained(job, sources)


@contextmanager
def _places(job: OwnTraining) -> Iterator[None]:
    """The names of a training, held until the end of the block. What cannot be written is refused before anything is read."""
    out, work, mark = job.out, job.work, job.work / MARK
    if os.path.lexists(out):
        raise OutputError("out", out, "it exists already", "Give another name; nothing is written over.")
    check_names("out", out, (out,))
    check_names("work", work, (work, mark))
    if (work / "state.pt").exists() and not job.resume:
        rule = "an earlier run's state is there"
        raise InputError("work", work, rule, f"Go on with {setting('resume')}, or give another folder.")
    if os.path.lexists(work) and not work.is_dir():
        raise OutputError("work", work, "this is not a folder", "Give another name.")
    if read_marked(mark, FORMAT) is None and (os.path.lexists(mark) or not (work / "state.pt").exists()):
        taken = next((name for name in _FILES if os.path.lexists(work / name)), None)
        if taken is not None:
            rule = f"{taken} in it would be written over, and nothing proves that a training made it"
            raise OutputError("work", work, rule, "Give another folder.")
    with NameLock(out), NameLock(work, "work"):
        made = missing_folders(mark)
        with AtomicFile(mark, "work") as file:
            file.write(json_bytes({"format": FORMAT, "out": str(out)}))
        try:
            yield
        finally:
            if not any(path != mark for path in work.iterdir()):
                mark.unlink()
                remove_empty(made)


def _trained(job: OwnTraining, sources: list[Source]) -> Iterator[Event]:
    started = time.perf_counter()
    yield StageStarted(Stage.LOAD)
    base = load_checkpoint(job.checkpoint, job.device)
    yield StageFinished(Stage.LOAD, time.perf_counter() - started)
    text = torch.stack(_padded([base.prompts.encode(job.prompt), base.prompts.encode("", negative=True)])).to(
        base.device
    )
    encoders = Encoders(named(base), base.vae, base.image, base.face_size, base.device)
    files = yield from prepare(sources, job.examples, encoders, job.work / "examples")
    yield Notice(f"{len(files)} windows from {len(sources)} clips")
    adapters = attach(base.transformer, job.adapters, job.training.seed)
    network = base.transformer
    if job.checkpointing:
        recompute_blocks(network)
    loss = LossSettings(shift=base.config.defaults.shift, drop_face=job.drop_face)

    def measure(*fields: Tensor) -> tuple[Tensor]:
        flow, clips = with_conditions(network, text, fields)
        return (flow_loss(flow, clips, loss),)

    examples = Examples(files, base.device, job.training.seed)
    started = time.perf_counter()
    yield StageStarted(Stage.TRAIN, job.training.steps)
    for done in train_adapters(job.training, adapters, measure, examples.draw, job.work, job.resume):
        yield StageProgress(Stage.TRAIN, done, job.training.steps)
        if done % job.sample_every == 0 or done == job.training.steps:
            write_sample(base, text, examples, job.work / "samples" / f"step_{done:06d}.png")
    about = {"checkpoint": base.config.name, "steps": str(job.training.steps), "clips": str(len(sources))}
    place = kept_name(job.out) if os.path.lexists(job.out) else job.out
    write_lora(adapter_state(adapters), job.adapters, place, job.dtype, about)
    if place != job.out:
        raise kept_error(job.out, OSError(0, "somebody has written it meanwhile"), place)
    yield StageFinished(Stage.TRAIN, time.perf_counter() - started)


def recompute_blocks(network: AnimateTransformer) -> None:
    """Keep only the input of each block and fuser for the backward pass (gradient checkpointing, arXiv 1604.06174)."""
    for block in (*network.blocks, *network.face_adapter.fuser_blocks):
        setattr(block, "forward", partial(recomputed, block.forward, use_reentrant=False))  # noqa: B010 - replaces a method


def with_conditions(network: AnimateTransformer, text: Tensor, fields: tuple[Tensor, ...]) -> tuple[Flow, LatentClips]:
    """The network's flow on what `Examples.draw` gave, and its clips; `text` holds the prompt and the negative one."""
    clips, image = LatentClips(*fields[:7]), fields[7] if len(fields) > 7 else None

    def flow(x: Tensor, t: Tensor, clips: LatentClips, dropped: Tensor) -> Tensor:
        return predict(network, text[dropped.long()], image, x, t, clips, dropped)

    return flow, clips


@torch.no_grad()
def write_sample(base: Checkpoint, text: Tensor, examples: Examples, path: Path, columns: int = 4) -> None:
    """Example 0 as the network now makes it, always from the same noise: true frames above, generated ones below."""
    flow, clips = with_conditions(base.transformer, text, examples.draw(0))
    rows = []
    for z in (clips.target, sample(flow, clips, base.config.defaults)):
        frames = to_pixels(to_unit(base.vae.decode(z.clone())[0].float()))
        chosen = [round(i * (len(frames) - 1) / (columns - 1)) for i in range(columns)]
        rows.append(cv2.hconcat([frames[i] for i in chosen]))
    write_png(path, cv2.vconcat(rows), "work")


def _padded(prompts: list[Tensor]) -> list[Tensor]:
    """Prompts of one length; the network pads with zeros as well."""
    longest = max(len(p) for p in prompts)
    return [torch.nn.functional.pad(p, (0, 0, 0, longest - len(p))) for p in prompts]


def named(base: Checkpoint) -> str:
    """What the examples of this checkpoint depend on: its VAE, told by its weights."""
    weight = base.vae.decoder.conv1.weight
    return f"{base.config.name} {weight.double().sum().item():.9g}"
