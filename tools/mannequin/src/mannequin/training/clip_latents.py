"""Clips of the world, encoded once: what the transformer trains on.

Letters: M clips, K frames, T = (K+3)/4 latent frames, h w latent rows and columns, S side of the face pictures.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mannequin.training.averages import mixed
from mannequin.training.pool import HAND, SIZES, importance
from mannequin.world.world import WorldBatch
from wanimate.model.vae import VideoVae
from wanimate.train.latents import LatentClips


def join_clips(parts: list[LatentClips]) -> LatentClips:
    """Clips of one size, one part after the other."""
    return LatentClips(*(torch.cat([getattr(p, name) for p in parts]) for name in vars(parts[0])))


def to_video(pixels: Tensor) -> Tensor:
    """uint8 [n, K, H, W, 3] -> [n, 3, K, H, W] in [-1, 1]."""
    return pixels.permute(0, 4, 1, 2, 3).float() / 127.5 - 1


@torch.no_grad()
def encode_batch(
    vae: VideoVae, batch: WorldBatch, generator: torch.Generator, grey: dict[tuple[int, ...], Tensor],
    face_weight: float = 0.0, continued: float = 0.36,
) -> LatentClips:  # fmt: skip
    """Encode one rendered batch, latents in float16.

    The share `continued` of the clips go on from a segment: their first frame is known, or 5 are. Faces count three as person,
    eyes and mouths five. `face_weight`: how often more eyes and mouths count, faces half as often, hands a third.
    """
    video = to_video(batch.video)
    n, _, frames, height, width = video.shape
    known = torch.zeros(n, dtype=torch.long)
    known[torch.rand(n, generator=generator) < continued] = 1
    known[torch.rand(n, generator=generator) < continued / 2] = 5
    place = torch.arange(frames)[None] < known[:, None]
    place = place.to(video.device)
    animation = ~batch.replacement
    scene = torch.where(animation.view(-1, 1, 1, 1, 1), 0.0, to_video(batch.background))
    condition = torch.where(place[:, None, :, None, None], video, scene)
    keep = torch.where(animation.view(-1, 1, 1, 1), 0.0, 1 - batch.inpaint_mask[:, :, ::8, ::8].float())
    keep = torch.where(place[:, :, None, None], 1.0, keep)
    packed = torch.cat((keep[:, :1].expand(-1, 3, -1, -1), keep), dim=1).unflatten(1, (-1, 4)).transpose(1, 2)
    share = F.avg_pool2d(person_weight(batch, face_weight), 8)
    share = torch.cat((share[:, :1].expand(-1, 3, -1, -1), share), dim=1).unflatten(1, (-1, 4)).mean(2)

    shape = (frames, height, width)
    if shape not in grey:
        grey[shape] = _encode(vae, torch.zeros(1, 3, *shape, device=video.device))
    # Every clip's condition is encoded, the grey ones too: batches of one shape are quicker than a few clips less.
    busy = (batch.replacement | place[:, 0]).view(-1, 1, 1, 1, 1)
    latents = torch.where(busy, _encode(vae, condition), grey[shape])
    return LatentClips(
        target=_encode(vae, video),
        pose=_encode(vae, to_video(batch.skeleton)),
        known=latents,
        reference=_encode(vae, to_video(batch.reference[:, None])),
        keep=packed.half(),
        person=share.half(),
        face=batch.face,
    )


def person_weight(batch: WorldBatch, face_weight: float) -> Tensor:
    """How much each pixel counts as person, float32 [n, K, H, W]: see `encode_batch`."""
    weight = importance(batch.region, batch.cover).float()  # its bytes would overflow
    return (batch.cover.float() + 4 * weight + face_weight * weight * (weight >= HAND)) / 255


def _encode(vae: VideoVae, video: Tensor) -> Tensor:
    with mixed(video.device):
        return vae.encode_piece(video, {}).half()


class LatentSet:
    """Clips of every size; `draw` takes a random batch of one size, cut to its first `frames` frames.

    The VAE looks back only, so the latents of a clip's beginning are those of the shorter clip.
    """

    def __init__(self, clips: list[LatentClips], make: Callable[[int], LatentClips | None] | None = None) -> None:
        assert len(clips) == len(SIZES)
        self.clips, self.make = clips, make
        self.renewed = 0

    def __len__(self) -> int:
        return sum(len(c) for c in self.clips)

    def renew(self) -> None:
        """Replace the oldest clips of one size by new ones, if there are any; sizes take turns."""
        if self.make is None:
            return
        size = self.renewed % len(self.clips)
        old, new = self.clips[size], self.make(size)
        if new is None:
            return
        start = (self.renewed // len(self.clips) * len(new)) % len(old)
        count = min(len(new), len(old) - start)
        for name, tensor in vars(old).items():
            tensor[start : start + count] = getattr(new, name)[:count]
        self.renewed += 1

    def draw(self, batch: int, frames: int, generator: torch.Generator) -> LatentClips:
        clips = self.clips[int(torch.randint(len(self.clips), (), generator=generator))]
        index = torch.randint(len(clips), (batch,), generator=generator).to(clips.target.device, non_blocking=True)
        t = (frames + 3) // 4
        return LatentClips(
            target=clips.target[index, :, :t].float(),
            pose=clips.pose[index, :, :t].float(),
            known=clips.known[index, :, :t].float(),
            reference=clips.reference[index].float(),
            keep=clips.keep[index, :, :t].float(),
            person=clips.person[index, :t].float(),
            face=clips.face[index, :frames],
        )
