"""Clips of the world, encoded once: what the transformer trains on.

Letters: M clips, K frames, T = (K+3)/4 latent frames, h w latent rows and columns, S side of the face pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mannequin.training.averages import mixed
from mannequin.training.pool import HAND, importance
from mannequin.world.world import WorldBatch
from wanimate.model.vae import VideoVae
from wanimate.train.latents import LatentClips


@dataclass
class WorldClips(LatentClips):
    """Clips of the world. face_box: x0 y0 x1 y1 of the face in latent pixels, [M, K, 4], 0 where none is seen."""

    face_box: Tensor


def to_video(pixels: Tensor) -> Tensor:
    """uint8 [n, K, H, W, 3] -> [n, 3, K, H, W] in [-1, 1]."""
    return pixels.permute(0, 4, 1, 2, 3).float() / 127.5 - 1


@torch.no_grad()
def encode_batch(
    vae: VideoVae, batch: WorldBatch, generator: torch.Generator, grey: dict[tuple[int, ...], Tensor],
    face_weight: float = 0.0, continued: float = 0.36,
) -> WorldClips:  # fmt: skip
    """Encode one rendered batch, latents in float16.

    The share `continued` of the clips go on from a segment: their first frame is known, or 5 are; fewer, where with those in
    replacement mode they would be more than half of the batch. Faces count three as person, eyes and mouths five.
    `face_weight`: how often more eyes and mouths count, faces half as often, hands a third.
    """
    video = to_video(batch.video)
    n, _, frames, height, width = video.shape
    known = torch.zeros(n, dtype=torch.long)
    known[torch.rand(n, generator=generator) < continued] = 1
    known[torch.rand(n, generator=generator) < continued / 2] = 5
    replaced = batch.replacement.cpu()
    busy = (2 * replaced + (known > 0)).argsort(descending=True, stable=True)
    half = (n + 1) // 2  # encoded at once, whatever it is: convolutions are chosen by trial for every shape
    busy = busy if replaced.sum() > half else busy[:half]
    known[~replaced & ~torch.isin(torch.arange(n), busy)] = 0
    place = torch.arange(frames)[None] < known[:, None]
    place = place.to(video.device)
    animation = ~batch.replacement
    scene = torch.where(animation.view(-1, 1, 1, 1, 1), 0.0, to_video(batch.background))
    condition = torch.where(place[:, None, :, None, None], video, scene)
    keep = torch.where(animation.view(-1, 1, 1, 1), 0.0, 1 - batch.inpaint_mask[:, :, ::8, ::8].float())
    keep = torch.where(place[:, :, None, None], 1.0, keep)
    packed = in_fours(keep).transpose(1, 2)
    share = F.avg_pool2d(person_weight(batch, face_weight), 8)
    share = in_fours(share).mean(2)

    shape = (frames, height, width)
    if shape not in grey:
        grey[shape] = encode(vae, torch.zeros(half, 3, *shape, device=video.device), half)[:1]
    latents = grey[shape].repeat(n, 1, 1, 1, 1)
    busy = busy.to(video.device)
    latents[busy] = encode(vae, condition[busy], half)
    return WorldClips(
        target=encode(vae, video, half),
        pose=encode(vae, to_video(batch.skeleton), half),
        known=latents,
        reference=encode(vae, to_video(batch.reference[:, None]), half),
        keep=packed.half(),
        person=share.half(),
        face=batch.face,
        face_box=seen_faces(batch).half(),
    )


def in_fours(frames: Tensor) -> Tensor:
    """Frames [M, K, ...] by latent frame, [M, T, 4, ...]; the first one stands for four."""
    return torch.cat((frames[:, :1].expand(-1, 3, *frames.shape[2:]), frames), dim=1).unflatten(1, (-1, 4))


def seen_faces(batch: WorldBatch) -> Tensor:
    """`WorldClips.face_box`; a face is seen where most of its points are in the picture and not turned away."""
    seen = batch.keypoints[:, :, 23:91, 2].mean(-1, keepdim=True) > 0.5
    return torch.where(seen, batch.face_box / 8, 0.0)


def person_weight(batch: WorldBatch, face_weight: float) -> Tensor:
    """How much each pixel counts as person, float32 [n, K, H, W]: see `encode_batch`."""
    weight = importance(batch.region, batch.cover).float()  # its bytes would overflow
    return (batch.cover.float() + 4 * weight + face_weight * weight * (weight >= HAND)) / 255


@torch.no_grad()
def encode(vae: VideoVae, video: Tensor, at_once: int) -> Tensor:
    """Latents of clips [n, 3, K, H, W], float16 [n, 16, T, h, w]; convolutions see `at_once` of them."""
    with mixed(video.device):
        return torch.cat([vae.encode_piece(part, {}).half() for part in video.split(at_once)])


class LatentSet:
    """Clips of several kinds (sizes and lengths), in parts that are kept as they came; `draw` takes a batch of one kind."""

    def __init__(
        self, kinds: list[list[WorldClips]], make: Callable[[int], WorldClips | None] | None = None, most: int = 10**9
    ) -> None:
        """`make` gives new clips of a kind, or None; beyond `most` clips the oldest are dropped."""
        self.kinds, self.make, self.most = kinds, make, most
        self.seen = len(self)
        self._told: Callable[[WorldClips], WorldClips] | None = None

    def __len__(self) -> int:
        return sum(len(part) for parts in self.kinds for part in parts)

    def tell(self, told: Callable[[WorldClips], WorldClips]) -> None:
        """Keep every part as `told` gives it back, those to come as well."""
        self.kinds = [[told(part) for part in parts] for parts in self.kinds]
        self._told = told

    def renew(self) -> None:
        """Add a new part, if there is one, of the kind of which there are fewest."""
        if self.make is None:
            return
        for kind in sorted(range(len(self.kinds)), key=lambda i: len(self.kinds[i])):
            new = self.make(kind)
            if new is not None:
                break
        else:
            return
        self.kinds[kind].append(new if self._told is None else self._told(new))
        self.seen += len(new)
        while len(self) > self.most:
            del max(self.kinds, key=len)[0]

    def draw(self, batch: int, generator: torch.Generator, short_batch: int | None = None) -> WorldClips:
        """`batch` random clips of a random kind; `short_batch` of those that have fewer frames than others."""
        parts = self.kinds[int(torch.randint(len(self.kinds), (), generator=generator))]
        longest = max(known[0].target.shape[2] for known in self.kinds)
        if short_batch is not None and parts[0].target.shape[2] < longest:
            batch = short_batch
        ends = torch.tensor([len(part) for part in parts]).cumsum(0)
        chosen = torch.randint(int(ends[-1]), (batch,), generator=generator)
        which = torch.searchsorted(ends, chosen, right=True)
        rows = [(parts[i], int(c - ends[i]) + len(parts[i])) for i, c in zip(which.tolist(), chosen, strict=True)]
        return WorldClips(
            **{name: _whole(torch.stack([getattr(part, name)[row] for part, row in rows])) for name in vars(parts[0])}
        )


def _whole(values: Tensor) -> Tensor:
    return values.float() if values.is_floating_point() else values
