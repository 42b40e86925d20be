"""Clips for a training: rendered and encoded by the process that trains, or taken from a folder that others fill."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

import torch

from mannequin.options import REQUIRED, option
from mannequin.training import vae as vae_training
from mannequin.training.clip_latents import LatentSet, WorldClips, encode_batch
from mannequin.training.feed import WAITING, Feed
from mannequin.training.pool import RELIGHT_WORLD, SIZES, WORLD
from mannequin.training.ranks import join
from mannequin.training.run import CUDA
from mannequin.world.assets import load
from mannequin.world.world import World, WorldSettings
from wanimate.errors import InputError
from wanimate.model.vae import VideoVae
from wanimate.train.common import ALONE, Log, Process

SHORT = 17
"""Frames of short clips."""


class Kind(NamedTuple):
    """A part has `clips` clips of these pixels and frames."""

    width: int
    height: int
    frames: int
    clips: int


@dataclass(frozen=True)
class ClipSettings:
    """How clips are rendered and encoded. The share `continued` of them goes on from an earlier segment.

    Short clips show twice as many people for the same work; what lasts longer is learnt from the others.
    """

    part: int = option(24, "clips rendered at once")
    frames: int = option(33, "frames of a clip, 4n+1")
    short_part: int = option(48, "clips of 17 frames rendered at once, beside the others; 0: none")
    face_weight: float = option(
        8.0, "how often more eyes and mouths count in the loss; faces half as often; relight has 0"
    )
    near: float = option(WORLD.near, "share of the clips that show people from near")
    seed: int = option(0, "of clips, noise and first weights")
    world: WorldSettings = WORLD
    continued: float = 0.36

    @property
    def relighting(self) -> ClipSettings:
        """The same for the relighting LoRA."""
        return replace(self, world=RELIGHT_WORLD, continued=0.1, face_weight=0.0)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """All kinds of parts."""
        long = tuple(Kind(*size, self.frames, self.part) for size in SIZES)
        if not self.short_part:
            return long
        return *long, *(Kind(*size, min(SHORT, self.frames), self.short_part) for size in SIZES)


@dataclass(frozen=True)
class SupplySettings:
    """How many clips a training begins with."""

    render_seconds: float = option(180.0, "time for rendering and encoding the clips")
    clips: int = option(16000, "most clips kept, of all kinds together")
    feed: Path | None = option(None, "take the clips from this folder; the command `clips` puts them there")


@dataclass(frozen=True)
class Rendering:
    """What the command `clips` is told."""

    feed: Path = option(REQUIRED, "folder for the clips, for trainings with the same --feed")
    vae: Path = option(REQUIRED, "folder of the VAE that encodes them: of its training, or of a checkpoint")
    relighting: bool = option(False, "for relight; otherwise for transformer")
    held_out: bool = option(False, "of bodies that are never trained on: for --fresh")
    seconds: float = option(3600.0, "time to render")
    parts: int = option(10**9, "most parts to render")
    waiting: int = option(WAITING, "parts that may lie unread; rendering pauses at more")
    device: str = option("cuda" if CUDA else "cpu", "cuda or cpu")


def clip_maker(
    codec: VideoVae, settings: ClipSettings, where: torch.device, seed: int, held_out: bool = False
) -> Callable[[int], WorldClips]:
    """What renders and encodes a part of clips of a kind, given by its index in `settings.kinds`."""
    fast = where.type == "cuda"
    if fast:
        vae_training.speed_up(codec)
    mannequins = World(load(device=where), replace(settings.world, near=settings.near, compiled=fast))
    grey: dict[tuple[int, ...], torch.Tensor] = {}
    generator = torch.Generator("cpu").manual_seed(seed)
    seeds = count(1_000_000 * (seed + 1))

    def make(kind: int) -> WorldClips:
        width, height, frames, count = settings.kinds[kind]
        rendered = mannequins.sample_batch(count, frames, width, height, next(seeds), held_out)
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
    """Clips made for `render_seconds`, or those that lie in `feed`; training adds to them as it goes, at most `clips`."""
    make: Callable[[int], WorldClips | None]
    if supply.feed is None:
        make = clip_maker(codec, settings, where, 64 * settings.seed + process.rank)
    else:
        make = partial(Feed(supply.feed).take, device=where)
    data = LatentSet([[] for _ in settings.kinds], make, supply.clips)
    started = time.monotonic()
    while not all(data.kinds) or (len(data) < supply.clips and time.monotonic() - started < supply.render_seconds):
        known = data.seen
        data.renew()
        if data.seen > known:
            continue
        if all(data.kinds):  # nothing lies unread
            break
        time.sleep(0.05)
    if process.first:
        log.write(what="clips", count=len(data), seconds=time.monotonic() - started)
    return data


def fill(job: Rendering, settings: ClipSettings) -> None:
    """Render and encode clips into a folder from which trainings take them, for `job.seconds`."""
    _, where = join(job.device)
    codec = vae_training.load_trained_vae(job.vae, where)
    wanted = settings.relighting if job.relighting else settings
    make = clip_maker(codec, wanted, where, settings.seed, job.held_out)
    parts, began, number = Feed(job.feed, job.waiting), time.monotonic(), 0
    while number < job.parts and time.monotonic() - began < job.seconds:
        if parts.full:
            time.sleep(0.05)
            continue
        kind = number % len(wanted.kinds)
        parts.put(kind, make(kind))
        number += 1


def held_out_clips(folder: Path, settings: ClipSettings, where: torch.device) -> LatentSet:
    """What `clips --held-out` put into a folder.

    Raises:
        InputError: it has not a part of every kind.
    """
    feed = Feed(folder)
    kinds = [list(feed.read(kind, where)) for kind in range(len(settings.kinds))]
    if not all(kinds):
        rule = "it has no clips of some sizes or lengths"
        raise InputError("fresh", folder, rule, "Render them with `clips --held-out`, at least one part of every kind.")
    return LatentSet(kinds)
