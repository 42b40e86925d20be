"""Clips for a training: rendered and encoded by the process that trains, or taken from a folder that others fill."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path

import torch

from mannequin.options import REQUIRED, option
from mannequin.training import vae as vae_training
from mannequin.training.clip_latents import LatentSet, encode_batch, join_clips
from mannequin.training.feed import WAITING, Feed
from mannequin.training.pool import RELIGHT_WORLD, SIZES, WORLD
from mannequin.training.ranks import join
from mannequin.training.run import CUDA
from mannequin.world.assets import load
from mannequin.world.world import World, WorldSettings
from wanimate.model.vae import VideoVae
from wanimate.train.common import ALONE, Log, Process
from wanimate.train.latents import LatentClips


@dataclass(frozen=True)
class ClipSettings:
    """How clips are rendered and encoded. The share `continued` of them goes on from an earlier segment."""

    part: int = option(24, "clips rendered at once")
    frames: int = option(33, "frames of a clip, 4n+1")
    face_weight: float = option(
        8.0, "how often more eyes and mouths count in the loss; faces half as often; relight has 0"
    )
    seed: int = option(0, "of clips, noise and first weights")
    world: WorldSettings = WORLD
    continued: float = 0.36

    @property
    def relighting(self) -> ClipSettings:
        """The same for the relighting LoRA."""
        return replace(self, world=RELIGHT_WORLD, continued=0.1, face_weight=0.0)


@dataclass(frozen=True)
class SupplySettings:
    """How many clips a training begins with."""

    render_seconds: float = option(180.0, "time for rendering and encoding the clips")
    clips: int = option(16000, "most clips, of all sizes together")
    feed: Path | None = option(None, "take the clips from this folder; the command `clips` puts them there")


@dataclass(frozen=True)
class Rendering:
    """What the command `clips` is told."""

    feed: Path = option(REQUIRED, "folder for the clips, for trainings with the same --feed")
    vae: Path = option(REQUIRED, "folder of the VAE that encodes them: of its training, or of a checkpoint")
    relighting: bool = option(False, "for relight; otherwise for transformer")
    seconds: float = option(3600.0, "time to render")
    waiting: int = option(WAITING, "parts that may lie unread; rendering pauses at more")
    device: str = option("cuda" if CUDA else "cpu", "cuda or cpu")


def clip_maker(codec: VideoVae, settings: ClipSettings, where: torch.device, seed: int) -> Callable[[int], LatentClips]:
    """What renders and encodes a part of clips of a size, given by its index in SIZES."""
    fast = where.type == "cuda"
    if fast:
        vae_training.speed_up(codec)
    mannequins = World(load(device=where), replace(settings.world, compiled=fast))
    grey: dict[tuple[int, ...], torch.Tensor] = {}
    generator = torch.Generator("cpu").manual_seed(seed)
    seeds = count(1_000_000 * (seed + 1))

    def make(size: int) -> LatentClips:
        rendered = mannequins.sample_batch(settings.part, settings.frames, *SIZES[size], next(seeds))
        return encode_batch(codec, rendered, generator, grey, settings.face_weight, settings.continued)

    return make


def gather(
    codec: VideoVae,
    settings: ClipSettings,
    supply: SupplySettings,
    where: torch.device,
    log: Log,
    process: Process = ALONE,
) -> LatentSet:
    """Clips made for `render_seconds` or taken from `feed`, at most `clips`; training renews them as it goes."""
    make: Callable[[int], LatentClips | None]
    if supply.feed is None:
        make = clip_maker(codec, settings, where, 64 * settings.seed + process.rank)
    else:
        make = partial(Feed(supply.feed).take, device=where)
    parts: list[list[LatentClips]] = [[] for _ in SIZES]
    started, drawn = time.monotonic(), 0
    while not all(parts) or (drawn < supply.clips and time.monotonic() - started < supply.render_seconds):
        size = min(range(len(SIZES)), key=lambda i: len(parts[i]))
        made = make(size)
        if made is None:
            time.sleep(0.05)
            continue
        parts[size].append(made)
        drawn += len(made)
    data = LatentSet([join_clips(p) for p in parts], make)
    if process.first:
        log.write(what="clips", count=len(data), seconds=time.monotonic() - started)
    return data


def fill(job: Rendering, settings: ClipSettings) -> None:
    """Render and encode clips into a folder from which trainings take them, for `job.seconds`."""
    _, where = join(job.device)
    codec = vae_training.load_trained_vae(job.vae, where)
    make = clip_maker(codec, settings.relighting if job.relighting else settings, where, settings.seed)
    parts, began, number = Feed(job.feed, job.waiting), time.monotonic(), 0
    while time.monotonic() - began < job.seconds:
        if parts.full:
            time.sleep(0.05)
            continue
        parts.put(number % len(SIZES), make(number % len(SIZES)))
        number += 1
