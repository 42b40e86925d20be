"""Where the person of a segment is, as its guides tell."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wanimate.types import Frames

BLOCK = 8
"""Pixels of a side of the blocks of `Places.cover`."""
_LEAST = 160
"""Blocks of `Places.lines` along the shorter side: a body's limbs are wider than one."""


@dataclass(frozen=True)
class Places:
    """The person of a segment of K frames: `cover` [K, h, w] of 0 and 1, blocks of 8 x 8 pixels that it may touch; `lines`
    [K, H/b, W/b] of 0 and 1, blocks of b x b pixels on its skeleton."""

    cover: Tensor
    lines: Tensor


def places_of(skeletons: Tensor, mask: Frames | None) -> Places:
    """skeletons: as drawn, on black, [3, K, H, W] in [-1, 1]; mask: uint8 [K, H, W, 3], white where the person is.

    Without a mask the body reaches a sixteenth of the shorter side beyond the lines of its skeleton.
    """
    drawn = (skeletons.amax(0) > -0.9).to(torch.float16 if skeletons.is_cuda else torch.float32)
    side = min(drawn.shape[1:])
    fine = next((b for b in (8, 4, 2) if side // b >= _LEAST), 1)
    lines = F.max_pool2d(drawn, fine).float()
    if mask is None:
        reach = round(side / BLOCK / 16)
        cover = F.max_pool2d(F.max_pool2d(drawn, BLOCK), 2 * reach + 1, 1, reach)
    else:
        person = torch.from_numpy(mask[..., 0]).to(drawn.device) > 127
        cover = F.max_pool2d(person.to(drawn.dtype), BLOCK)
    return Places(cover.float(), lines)
