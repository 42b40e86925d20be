"""Condition tensors: pixels to network range, mask packing, and the 20 condition channels y (model spec, section 3).

Letters: K pixel frames, T latent frames, H W pixels, h = H/8, w = W/8, r frames known from the segment before.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from wanimate.types import Frames


class LatentCodec(Protocol):
    """What the conditions need of a VAE."""

    def encode_each(self, videos: Iterable[Tensor], chunk: int = 1) -> list[Tensor]:
        """Videos [1, 3, K, H, W] in [-1, 1] -> latents [1, 16, T, h, w]; each is asked for when its turn comes."""
        ...


def to_network(frames: Frames, device: torch.device | str = "cpu") -> Tensor:
    """uint8 [k, H, W, 3] -> float32 [3, k, H, W] in [-1, 1]; a quarter of the bytes travel to the device."""
    return rearrange(torch.from_numpy(frames).to(device).float().div_(127.5).sub_(1), "k h w c -> c k h w")


def latent_colours(video: Tensor) -> Tensor:
    """The mean colour behind every latent: [3, K, H, W] -> [3, T, h, w]. The first frame is a latent frame alone, then four are
    one."""
    small = F.avg_pool2d(video.transpose(0, 1), 8).transpose(0, 1)
    rest = small[:, 1:].unflatten(1, (-1, 4)).mean(2) if small.shape[1] > 1 else small[:, 1:]
    return torch.cat((small[:, :1], rest), dim=1)


def resize_faces(faces: Tensor, size: int) -> Tensor:
    """[3, K, S, S] to the network's own face size; averaging when it is smaller."""
    if faces.shape[-1] == size and faces.shape[-2] == size:
        return faces
    small = F.interpolate(faces.transpose(0, 1), (size, size), mode="bilinear", antialias=True, align_corners=False)
    return small.transpose(0, 1)


def known_mask(frames: int, known: int, size: tuple[int, int], person: Tensor | None = None) -> Tensor:
    """Per-frame mask [K, h, w], 1 = keep: the first `known` frames, and around the person where one is given.

    person: [K, H, W] in 0..1, 1 = person; sampled at the top-left pixel of each 8 x 8 block.
    """
    mask = torch.zeros(frames, *size) if person is None else 1 - person[:, ::8, ::8].float()
    mask[:known] = 1
    return mask


def pack_mask(mask: Tensor) -> Tensor:
    """[K, h, w] -> [4, T, h, w]: the first frame fills its four channels, then four frames a latent frame."""
    padded = torch.cat((mask[:1].expand(3, -1, -1), mask))
    return rearrange(padded, "(t c) h w -> c t h w", c=4)


def assemble(mask: Tensor, latents: Tensor, reference: Tensor) -> Tensor:
    """y [20, T+1, h, w] from packed mask [4, T, h, w], condition latents [16, T, h, w], reference latent [16, 1, h, w]."""
    known = repeat(torch.ones_like(reference[:1]), "1 t h w -> c t h w", c=4)
    return torch.cat((torch.cat((known, reference)), torch.cat((mask, latents))), dim=1)
