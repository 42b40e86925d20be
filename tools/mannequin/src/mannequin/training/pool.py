"""A pool of rendered clips on the training device, renewed piece by piece while training draws from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from mannequin.training.networks import TRANSFORMER
from mannequin.world.appearance import REGIONS
from mannequin.world.world import WorldSettings

WORLD = WorldSettings(
    face_size=TRANSFORMER.motion.size, framings=(0.25, 0.2, 0.4, 0.15), replacement=0.25, relight=0.0, near=0.5
)
"""What the embedded networks are trained on: closer than the world's default, so that faces and hands have pixels, and half
of it from near.

Reference and scene share their light: relighting is a LoRA's work, as in the paper (arXiv 2509.14055).
"""
RELIGHT_WORLD = replace(WORLD, replacement=1.0, relight=0.9, wide_lights=True, white=0.8)
"""What the relighting LoRA is trained on: one clip in ten keeps the light, so that it learns to leave it alone as well.

Scenes with something white in them: from scenes in any colour alone, light can hardly be told (dev/LOG.md, 2026-11-27)."""
FACE, HAND = 128, 90
"""`importance` of a face, what is more important lies in one; and of a hand."""
SMALL = tuple(REGIONS[name] for name in ("eye", "mouth"))

PLACES = 8
"""So many places on the hands of a clip are kept."""

Render = Callable[[int, int, int, int], tuple[Tensor, Tensor]]
"""(count, width, height, seed) -> video and skeleton, uint8 [count, F, H, W, 4] each: RGB, and where errors weigh more."""

SIZES = ((256, 256), (192, 336), (336, 192))
"""Width and height of the pictures; they have 256 and 252 tokens a latent frame."""


def importance(region: Tensor, cover: Tensor) -> Tensor:
    """How much errors count beyond the scene's, uint8 like `region`: eyes and mouth most, then the face, hands, other bare
    skin, the person."""
    small = torch.isin(region, torch.tensor(SMALL, device=region.device, dtype=region.dtype))
    weight = torch.where(region == REGIONS["skin"], 55, cover // 8)
    weight = torch.where(region == REGIONS["hand"], HAND, weight)
    weight = torch.where(region == REGIONS["face"], FACE, weight)
    return torch.where(small, 255, weight).to(torch.uint8)


def face_places(weight: Tensor) -> Tensor:
    """Middle of the face over a clip, [n, 2] x y pixels, from `importance` [n, F, H, W]; of the picture where none is seen."""
    face = (weight >= FACE).float()
    total = face.sum((1, 2, 3))
    middle = []
    for axis in (3, 2):
        size = weight.shape[axis]
        along = face.sum(tuple({1, 2, 3} - {axis})) @ (torch.arange(size, device=weight.device) + 0.5)
        middle.append(torch.where(total > 0, along / total.clamp_min(1), size / 2))
    return torch.stack(middle, dim=1)


def hand_places(weight: Tensor, seed: int) -> Tensor:
    """PLACES places on hands of each clip, [n, PLACES, 2] x y pixels, from `importance` [n, F, H, W]; where fewer are seen,
    others are any."""
    seen = (weight[:, ::2, ::4, ::4] == HAND).float()
    chance = torch.rand(seen.shape, generator=torch.Generator(weight.device).manual_seed(seed), device=weight.device)
    place = (chance + seen).flatten(1).topk(PLACES).indices % seen[0, 0].numel()
    width = seen.shape[3]
    return torch.stack((place % width, place // width), dim=-1) * 4.0 + 2.0


class ClipPool:
    """`capacity` clips of every size; `refresh` replaces `step` of one size."""

    def __init__(self, render: Render, capacity: int, step: int, seed: int = 0) -> None:
        self.render, self.capacity, self.step, self.seed = render, capacity, step, seed
        self.videos: list[Tensor] = []
        self.skeletons: list[Tensor] = []
        self.faces: list[Tensor] = []
        self.hands: list[Tensor] = []
        self.cursor = 0
        for width, height in SIZES:
            parts = [self._draw(width, height) for _ in range(max(1, capacity // step))]
            self.videos.append(torch.cat([p[0] for p in parts]))
            self.skeletons.append(torch.cat([p[1] for p in parts]))
            self.faces.append(torch.cat([face_places(p[0][..., 3]) for p in parts]))
            self.hands.append(torch.cat([hand_places(p[0][..., 3], self.seed) for p in parts]))

    def _draw(self, width: int, height: int) -> tuple[Tensor, Tensor]:
        self.seed += 1
        return self.render(self.step, width, height, self.seed)

    def refresh(self) -> None:
        size = self.cursor % len(SIZES)
        count = len(self.videos[size])
        start = (self.cursor // len(SIZES) * self.step) % count
        video, skeleton = self._draw(*SIZES[size])
        stop = min(start + self.step, count)
        self.videos[size][start:stop] = video[: stop - start]
        self.skeletons[size][start:stop] = skeleton[: stop - start]
        self.faces[size][start:stop] = face_places(video[..., 3])[: stop - start]
        self.hands[size][start:stop] = hand_places(video[..., 3], self.seed)[: stop - start]
        self.cursor += 1

    def frames(self, batch: int, crop: int, generator: torch.Generator) -> Tensor:
        """Single frames [batch, 4, 1, crop, crop]: see `clips`."""
        return self._cut(batch, crop, generator, single=True)

    def clips(self, batch: int, crop: int, generator: torch.Generator) -> Tensor:
        """Square cuts of clips of one size, [batch, 4, F, crop, crop]: three quarters renders, one quarter skeletons.

        Channels: RGB in [-1, 1] and a weight in [0, 1]. Of pictures narrower than `crop` there are narrower cuts, and more.
        """
        return self._cut(batch, crop, generator, single=False)

    def details(self, batch: int, crop: int, generator: torch.Generator, single: bool, hands: bool = False) -> Tensor:
        """Square cuts around the faces or hands of clips, each somewhere else: like `clips`, or like `frames` if `single`."""
        size = int(torch.randint(len(SIZES), (), generator=generator))
        source, (width, height) = self.videos[size], SIZES[size]
        device, crop = source.device, min(crop, width, height)
        clip = torch.randint(len(source), (batch,), generator=generator).to(device, non_blocking=True)
        shift = ((torch.rand(batch, 2, generator=generator) - 0.5) * (crop / 2)).to(device, non_blocking=True)
        which = torch.randint(PLACES, (batch,), generator=generator).to(device, non_blocking=True)
        middle = self.hands[size][clip, which] if hands else self.faces[size][clip]
        corner = (middle + shift - crop / 2).round().long()
        reach = torch.arange(crop, device=device)
        x = (corner[:, 0].clamp(0, width - crop)[:, None] + reach)[:, None, None, :]
        y = (corner[:, 1].clamp(0, height - crop)[:, None] + reach)[:, None, :, None]
        if single:
            time = torch.randint(source.shape[1], (batch, 1), generator=generator).to(device, non_blocking=True)
        else:
            time = torch.arange(source.shape[1], device=device)[None]
        return augment(source[clip[:, None, None, None], time[:, :, None, None], y, x], generator, strange=False)

    def _cut(self, batch: int, crop: int, generator: torch.Generator, single: bool) -> Tensor:
        size = int(torch.randint(len(SIZES), (), generator=generator))
        width, height = SIZES[size]
        side = min(crop, width, height)
        batch, crop = round(batch * (crop / side) ** 2), side
        x = int(torch.randint(width - crop + 1, (), generator=generator))
        y = int(torch.randint(height - crop + 1, (), generator=generator))
        parts = []
        for source, count in ((self.videos[size], batch - batch // 4), (self.skeletons[size], batch // 4)):
            clip = torch.randint(source.shape[0], (count,), generator=generator).to(source.device, non_blocking=True)
            if single:
                frame = torch.randint(source.shape[1], (count,), generator=generator).to(
                    source.device, non_blocking=True
                )
                parts.append(source[:, :, y : y + crop, x : x + crop][clip, frame][:, None])
            else:
                parts.append(source[:, :, y : y + crop, x : x + crop][clip])
        return augment(torch.cat(parts), generator)


def augment(pixels: Tensor, generator: torch.Generator, strange: bool = True) -> Tensor:
    """uint8 [B, F, H, W, 4] -> [B, 4, F, H, W], sometimes mirrored; if `strange`, sometimes with colours permuted and some
    with a black rectangle."""
    video = pixels.permute(0, 4, 1, 2, 3).float()
    video[:, :3] = video[:, :3] / 127.5 - 1
    video[:, 3] /= 255
    if torch.rand((), generator=generator) < 0.5:
        video = video.flip(-1)
    if not strange:
        return video
    if torch.rand((), generator=generator) < 0.5:
        video = video[:, [*torch.randperm(3, generator=generator).tolist(), 3]]
    holes = max(1, len(video) // 12)
    height, width = video.shape[-2:]
    y, x = (int(torch.randint(n // 2, (), generator=generator)) for n in (height, width))
    video[:holes, :3, :, y : y + height // 2, x : x + width // 3] = -1
    return video
