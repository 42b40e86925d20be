"""Where the person of a segment is, as its guides tell."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wanimate.preprocess.pose.skeleton import HAND_COLOUR, LIMB_COLOURS
from wanimate.types import Frames

BLOCK = 8
"""Pixels of a side of the blocks of `Places.cover`."""
_LEAST = 160
"""Blocks of `Places.parts` along the shorter side: the drawn limbs are wider than one."""

PARTS = ("torso", "upper arms", "forearms", "thighs", "shins", "head", "feet")
_PART_OF_LIMB = (0, 0, 1, 2, 1, 2, 0, 3, 4, 0, 3, 4, 5, 5, 5, 5, 5, 6, 6)  # hands belong to the forearms
_NEAR = 0.1
"""How far a pixel may be from a limb's colour, as a share of the range: guides may have been encoded with losses."""


@dataclass(frozen=True)
class Places:
    """The person of a segment of K frames: `cover` [K, h, w] of 0 and 1, blocks of 8 x 8 pixels that it may touch; `parts`
    uint8 [K, H/b, W/b], blocks of b x b pixels on its skeleton: 0 for none, otherwise 1 + the index in PARTS."""

    cover: Tensor
    parts: Tensor

    def lines(self, frames: slice) -> Tensor:
        """[k, parts, H/b, W/b] of 0 and 1."""
        numbers = torch.arange(1, len(PARTS) + 1, device=self.parts.device)[:, None, None]
        return (self.parts[frames, None] == numbers).float()


def places_of(skeletons: Tensor, mask: Frames | None) -> Places:
    """skeletons: as drawn, on black, [3, K, H, W] in [-1, 1]; mask: uint8 [K, H, W, 3], white where the person is.

    Without a mask the body reaches a sixteenth of the shorter side beyond the lines of its skeleton.
    """
    side = min(skeletons.shape[2:])
    block = next((b for b in (8, 4, 2) if side // b >= _LEAST), 1)
    if mask is None:
        drawn = (skeletons.amax(0) > -0.9).to(torch.float16 if skeletons.is_cuda else torch.float32)
        reach = round(side / BLOCK / 16)
        cover = F.max_pool2d(F.max_pool2d(drawn, BLOCK), 2 * reach + 1, 1, reach)
    else:
        person = torch.from_numpy(mask[..., 0]).to(skeletons.device) > 127
        cover = F.max_pool2d(person.to(torch.float16 if skeletons.is_cuda else torch.float32), BLOCK)
    return Places(cover.float(), _parts(skeletons, block))


def _parts(skeletons: Tensor, block: int) -> Tensor:
    """`Places.parts`: every limb has a colour of its own."""
    height, width = (n // block for n in skeletons.shape[2:])
    pixels = skeletons[:, :, block // 2 :: block, block // 2 :: block][:, :, :height, :width]
    parts = torch.zeros(pixels.shape[1:], dtype=torch.uint8, device=pixels.device)
    nearest = torch.full(pixels.shape[1:], 2 * _NEAR, device=pixels.device)
    limbs = zip((*LIMB_COLOURS, HAND_COLOUR), (*_PART_OF_LIMB, PARTS.index("forearms")), strict=True)
    for colour, part in limbs:
        there = torch.tensor(colour, device=pixels.device).view(3, 1, 1, 1) / 127.5 - 1
        away = (pixels - there).abs().amax(0)
        parts[away < nearest] = part + 1
        nearest = torch.minimum(nearest, away)
    return parts
