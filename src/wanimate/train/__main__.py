"""Train the embedded checkpoint.

python -m wanimate.train vae --out build/train/vae
python -m wanimate.train transformer --vae build/train/vae --out build/train/transformer
python -m wanimate.train package --vae build/train/vae --transformer build/train/transformer --out build/mannequin
python -m wanimate.train relight --checkpoint build/mannequin --out build/train/relight
python -m wanimate.train clips --checkpoint build/mannequin --feed /dev/shm/clips      # beside a training with the same --feed

vae, transformer and relight use several GPUs when they are started by torchrun --nproc-per-node N -m -- wanimate.train.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Annotated

import torch
import typer

from wanimate.config import Defaults
from wanimate.model.vae import VideoVae
from wanimate.train import flow, latents
from wanimate.train import vae as vae_training
from wanimate.train.adapters import TARGETS, AdapterSettings, adapter_state, attach, begin_with, write_lora
from wanimate.train.common import Device, Log, default_device, mixed, save_state
from wanimate.train.feed import WAITING, Feed
from wanimate.train.lora import LoraTraining, train_adapters
from wanimate.train.mannequins.assets import load
from wanimate.train.mannequins.world import World, WorldSettings
from wanimate.train.pool import RELIGHT_WORLD, SIZES, WORLD, ClipPool, importance
from wanimate.train.ranks import Ranks, join
from wanimate.train.reports import load_trained_vae, sample, vae_report

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
Out = Annotated[Path, typer.Option(help="Folder for states, weights and the loss log.")]
Seconds = Annotated[float, typer.Option(help="Training time; the learning rate falls to zero at its end.")]
Steps = Annotated[int, typer.Option(help="Most steps; the run ends by whichever limit comes first.")]
Resume = Annotated[bool, typer.Option(help="Go on from state.pt in --out.")]


Record = Annotated[bool, typer.Option(help="Record a step's kernels and launch them together (GPU only).")]


@app.command()
def vae(
    out: Out,
    seconds: Seconds = 480.0,
    steps: Steps = 20000,
    pool: Annotated[int, typer.Option(help="Clips of each size kept on the device.")] = 768,
    part: Annotated[int, typer.Option(help="Clips rendered at once.")] = 24,
    frames: int = 17,
    frame_batch: int = 128,
    clip_batch: int = 8,
    frame_share: Annotated[
        float,
        typer.Option(help="First share of the run that sees single frames only; 0 when going on from a trained one."),
    ] = 0.35,
    face_share: Annotated[float, typer.Option(help="Share of the steps that show cuts around faces.")] = 0.7,
    face_batch: Annotated[int, typer.Option(help="Clips of such a step.")] = 16,
    edges: Annotated[float, typer.Option(help="Weight of the loss on differences between neighbouring pixels.")] = 1.0,
    changes: Annotated[float, typer.Option(help="Weight of the loss on differences from frame to frame.")] = 0.5,
    rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-3,
    refresh: Annotated[int, typer.Option(help="Steps between two renewals of a part of the clips.")] = 90,
    start: Annotated[
        Path | None, typer.Option(help="Checkpoint folder, or folder of a training, to begin with.")
    ] = None,
    decoder_only: Annotated[bool, typer.Option(help="Keep the encoder, and with it the latents, as they are.")] = False,
    device: Device = default_device(),
    record: Record = torch.cuda.is_available(),
    resume: Resume = False,
    seed: int = 0,
) -> None:
    """Train the VAE; writes vae.pt and statistics.pt."""
    ranks, where = join(device)
    mannequins = World(load(device=where), replace(WORLD, compiled=where.type == "cuda", face_size=16))

    def render(count: int, width: int, height: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        batch = mannequins.sample_batch(count, frames, width, height, seed)
        sticks = (batch.skeleton.amax(-1, keepdim=True) > 20).to(torch.uint8) * 128
        weight = importance(batch.region, batch.cover)[..., None]
        return torch.cat((batch.video, weight), -1), torch.cat((batch.skeleton, sticks), -1)

    started = time.monotonic()
    clips = ClipPool(render, pool, part, seed=1_000_000 * (64 * seed + ranks.rank))
    if ranks.first:
        Log(out / "log.jsonl").write(what="pool", clips=len(SIZES) * pool, seconds=time.monotonic() - started)
    config = vae_training.VaeTraining(
        seconds=seconds, steps=steps, frame_batch=frame_batch, clip_batch=clip_batch, frame_share=frame_share,
        face_share=face_share, face_batch=face_batch, edges=edges, changes=changes, rate=rate, refresh=refresh,
        decoder_only=decoder_only, seed=seed,
    )  # fmt: skip
    weights = (
        None if start is None else start / ("vae.safetensors" if (start / "vae.safetensors").is_file() else "vae.pt")
    )
    if start is not None and ranks.first:  # so that a run cut short can be used as well
        known = load_trained_vae(start, torch.device("cpu"))
        save_state(out / "statistics.pt", mean=list(known.params.mean), std=list(known.params.std))
    trained = vae_training.train_vae(config, clips, out, where, resume, weights, ranks, record)
    if ranks.first and not (
        decoder_only and start is not None
    ):  # else the latents and their statistics are the old ones
        mean, std = vae_training.latent_statistics(trained, clips)
        save_state(out / "statistics.pt", mean=mean, std=std)


@app.command()
def transformer(
    out: Out,
    vae: Annotated[Path, typer.Option(help="Folder of the VAE's training.")],
    seconds: Seconds = 720.0,
    steps: Steps = 30000,
    render_seconds: Annotated[float, typer.Option(help="Time for rendering and encoding the clips.")] = 180.0,
    clips: Annotated[int, typer.Option(help="Most clips, of all sizes together.")] = 16000,
    part: Annotated[int, typer.Option(help="Clips rendered at once.")] = 24,
    frames: int = 33,
    batch: int = 28,
    short_batch: int = 48,
    short_share: Annotated[float, typer.Option(help="Share of the run on clips of 17 frames.")] = 0.0,
    device: Device = default_device(),
    face_weight: Annotated[
        float, typer.Option(help="How often more eyes and mouths count in the loss; faces half as often.")
    ] = 8.0,
    rate: Annotated[float, typer.Option(help="AdamW's peak learning rate; Muon's is ten times as high.")] = 1e-3,
    renew: Annotated[int, typer.Option(help="Steps between two renewals of a part of the clips.")] = 96,
    feed: Annotated[Path | None, typer.Option(help="Take the clips from here; `clips` puts them there.")] = None,
    record: Record = torch.cuda.is_available(),
    start: Annotated[Path | None, typer.Option(help="Checkpoint folder to begin with.")] = None,
    resume: Resume = False,
    seed: int = 0,
) -> None:
    """Render and encode clips, then train the transformer on them; writes transformer.pt."""
    ranks, where = join(device)
    data, log = _clips(
        load_trained_vae(vae, where), WORLD, where, ranks, out, part=part, frames=frames, most=clips, seconds=render_seconds,
        seed=seed, face_weight=face_weight, feed=feed,
    )  # fmt: skip
    config = flow.FlowTraining(
        seconds=seconds,
        steps=steps,
        frames=frames,
        batch=batch,
        short_batch=short_batch,
        short_share=short_share,
        short=min(17, frames),
        rate=rate,
        matrix_rate=10 * rate,
        renew=renew,
        seed=seed,
    )
    flow.train_flow(config, data, out, where, resume, start, ranks, record)
    if ranks.first:
        log.write(what="clips seen by this process", count=len(data) + data.renewed * part)


@app.command()
def clips(
    feed: Annotated[Path, typer.Option(help="Folder for the clips, for trainings with the same --feed.")],
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint folder whose VAE encodes them.")],
    relighting: Annotated[bool, typer.Option(help="For relight; otherwise for transformer.")] = False,
    seconds: Annotated[float, typer.Option(help="Time to render.")] = 3600.0,
    part: Annotated[int, typer.Option(help="Clips rendered at once.")] = 24,
    frames: int = 33,
    face_weight: Annotated[float, typer.Option(help="As of transformer; relight has 0.")] = 8.0,
    waiting: Annotated[int, typer.Option(help="Parts that may lie unread; rendering pauses at more.")] = WAITING,
    device: Device = default_device(),
    seed: int = 1000,
) -> None:
    """Render and encode clips beside trainings, or before them, into a folder from which they take them."""
    from wanimate.weights.checkpoint import load_checkpoint

    _, where = join(device)
    codec = load_checkpoint(checkpoint, where, torch.float32).vae
    world, weight, continued = (RELIGHT_WORLD, 0.0, 0.1) if relighting else (WORLD, face_weight, 0.36)
    make = _maker(codec, world, where, seed, part, frames, weight, continued)
    parts, began, number = Feed(feed, waiting), time.monotonic(), 0
    while time.monotonic() - began < seconds:
        if parts.full:
            time.sleep(0.05)
            continue
        parts.put(number % len(SIZES), make(number % len(SIZES)))
        number += 1


def _maker(
    codec: VideoVae, settings: WorldSettings, where: torch.device, seed: int, part: int, frames: int, face_weight: float,
    continued: float,
) -> Callable[[int], latents.LatentClips]:  # fmt: skip
    """What renders and encodes a part of clips of a size."""
    fast = where.type == "cuda"
    if fast:
        vae_training.speed_up(codec)
    mannequins = World(load(device=where), replace(settings, compiled=fast))
    grey: dict[tuple[int, ...], torch.Tensor] = {}
    generator = torch.Generator("cpu").manual_seed(seed)
    seeds = count(1_000_000 * (seed + 1))

    def make(size: int) -> latents.LatentClips:
        rendered = mannequins.sample_batch(part, frames, *SIZES[size], next(seeds))
        return latents.encode_batch(codec, rendered, generator, grey, face_weight, continued)

    return make


def _clips(
    codec: VideoVae, settings: WorldSettings, where: torch.device, ranks: Ranks, out: Path,
    *, part: int, frames: int, most: int, seconds: float, seed: int,
    face_weight: float = 0.0, continued: float = 0.36, feed: Path | None = None,
) -> tuple[latents.LatentSet, Log]:  # fmt: skip
    """Clips of the world, rendered and encoded for `seconds`, or taken from `feed`, at most `most`; training renews them as
    it goes."""
    log = Log(out / "log.jsonl")
    make: Callable[[int], latents.LatentClips | None]
    if feed is None:
        make = _maker(codec, settings, where, 64 * seed + ranks.rank, part, frames, face_weight, continued)
    else:
        make = partial(Feed(feed).take, device=where)
    parts: list[list[latents.LatentClips]] = [[] for _ in SIZES]
    started, drawn = time.monotonic(), 0
    while not all(parts) or (drawn < most and time.monotonic() - started < seconds):
        size = min(range(len(SIZES)), key=lambda i: len(parts[i]))
        made = make(size)
        if made is None:
            time.sleep(0.05)
            continue
        parts[size].append(made)
        drawn += len(made)
    data = latents.LatentSet([latents.LatentClips.cat(p) for p in parts], make)
    if ranks.first:
        log.write(what="clips", count=len(data), seconds=time.monotonic() - started)
    return data, log


@app.command()
def relight(
    out: Out,
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint folder the LoRA is for.")],
    seconds: Seconds = 240.0,
    steps: Steps = 30000,
    render_seconds: Annotated[float, typer.Option(help="Time for rendering and encoding the clips.")] = 30.0,
    clips: Annotated[int, typer.Option(help="Most clips, of all sizes together.")] = 16000,
    part: Annotated[int, typer.Option(help="Clips rendered at once.")] = 24,
    frames: int = 33,
    batch: int = 28,
    rank: Annotated[int, typer.Option(help="Rank of the LoRA, and its alpha.")] = 64,
    targets: Annotated[
        str, typer.Option(help="Linears of the blocks: " + ", ".join(TARGETS) + ".")
    ] = "no-cross-attention",
    rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-3,
    shift: Annotated[float, typer.Option(help="Of the times: the more, the noisier. Light is decided early.")] = 6.0,
    person_weight: Annotated[float, typer.Option(help="How often more errors on the person count.")] = 8.0,
    coarse_weight: Annotated[float, typer.Option(help="Weight of errors of the person's light and shading.")] = 6.0,
    offset: Annotated[float, typer.Option(help="Standard deviation of an offset of the noise on the person.")] = 0.2,
    renew: Annotated[int, typer.Option(help="Steps between two renewals of a part of the clips.")] = 32,
    feed: Annotated[Path | None, typer.Option(help="Take the clips from here; `clips` puts them there.")] = None,
    start: Annotated[Path | None, typer.Option(help="LoRA to begin with, of the same targets.")] = None,
    device: Device = default_device(),
    record: Record = torch.cuda.is_available(),
    resume: Resume = False,
    seed: int = 0,
) -> None:
    """Train a relighting LoRA: the reference stands in another light than the scene, the target in the scene's.

    Writes relighting_lora.safetensors, also on the way. Its learning rate falls over the last 40 % of the time.
    """
    from wanimate.weights.checkpoint import load_checkpoint

    ranks, where = join(device)
    base = load_checkpoint(checkpoint, where, torch.float32)
    data, _ = _clips(
        base.vae, RELIGHT_WORLD, where, ranks, out, part=part, frames=frames, most=clips, seconds=render_seconds, seed=seed,
        continued=0.1, feed=feed,
    )  # fmt: skip
    settings = AdapterSettings(rank=rank, alpha=rank, targets=TARGETS[targets])
    network, fast = base.transformer, where.type == "cuda"
    adapters = attach(network, settings, seed)
    if start is not None:
        begin_with(adapters, start)
    if fast:
        flow.speed_up(network, frames)
    prompts = torch.stack([base.prompts.encode("", negative=negative) for negative in (False, True)]).to(where)
    loss = flow.LossSettings(shift=shift, person_weight=person_weight, coarse_weight=coarse_weight, offset=offset)

    def predict(x: torch.Tensor, t: torch.Tensor, c: latents.LatentClips, dropped: torch.Tensor) -> torch.Tensor:
        with mixed(where):
            return flow.predict(network, prompts[dropped.long()], None, x, t, c, dropped)

    def measure(*fields: torch.Tensor) -> tuple[torch.Tensor]:
        return (flow.flow_loss(predict, latents.LatentClips(*fields), loss),)

    def draw(number: int) -> tuple[torch.Tensor, ...]:
        if number // ranks.count % renew == renew - 1:
            data.renew()
        drawn = data.draw(batch, frames, torch.Generator("cpu").manual_seed(number))
        return tuple(vars(drawn).values())

    def write(done: int) -> None:
        about = {"checkpoint": base.card.name, "steps": str(done), "what": "relighting LoRA"}
        write_lora(adapter_state(adapters), settings, out / "relighting_lora.safetensors", torch.float16, about)

    config = LoraTraining(steps=steps, seconds=seconds, rate=rate, save_every=200, seed=seed)
    done = 0
    for done in train_adapters(config, adapters, measure, draw, out, resume, record, ranks):
        if ranks.first and done % 1000 == 0:
            write(done)
    if ranks.first:
        write(done)


app.command()(vae_report)
app.command()(sample)


@app.command()
def package(
    vae: Annotated[Path, typer.Option(help="Folder of the VAE's training.")],
    transformer: Annotated[Path, typer.Option(help="Folder of the transformer's training.")],
    out: Annotated[Path, typer.Option(help="Checkpoint folder to write.")],
) -> None:
    """Put trained networks into a checkpoint folder."""
    from wanimate.train.package import package as write_package

    note = (
        "it knows only the mannequins it was trained on; for real characters pass --checkpoint with Wan2.2-Animate-14B"
    )
    defaults = Defaults(area=192 * 192, steps=8, shift=3.0, clip_length=33, overlap=5)
    write_package(vae / "vae.pt", vae / "statistics.pt", transformer / "transformer.pt", out, defaults, note)


if __name__ == "__main__":
    app()
