"""Frames moved along a flow, on any device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def warp(frames: Tensor, flow: Tensor) -> Tensor:
    """The frames as seen from where the flow leads: result(x) = frames(x + flow(x)), linear between pixels.

    Args:
        frames: float32 [n, c, H, W]. Beyond the edge, the edge's pixel counts.
        flow: float32 [n, 2, H, W], in pixels, x first.
    """
    height, width = frames.shape[2:]
    x = torch.linspace(-1, 1, width, device=flow.device).view(1, 1, 1, width)
    y = torch.linspace(-1, 1, height, device=flow.device).view(1, 1, height, 1)
    grid = torch.cat(
        (x + flow[:, :1] / (max(width - 1, 1) / 2), y + flow[:, 1:] / (max(height - 1, 1) / 2)), dim=1
    ).permute(0, 2, 3, 1)
    return F.grid_sample(frames, grid, mode="bilinear", padding_mode="border", align_corners=True)


def luma(frames: Tensor) -> Tensor:
    """RGB [n, 3, H, W], with opacity or without -> luma of BT.709 [n, 1, H, W]."""
    red, green, blue = frames[:, :3].split(1, dim=1)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def resized_flow(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """A flow at another size (w, h), in that size's pixels."""
    width, height = size
    if (height, width) == flow.shape[2:]:
        return flow
    wide, high = width / flow.shape[3], height / flow.shape[2]
    x, y = F.interpolate(flow, size=(height, width), mode="bilinear", align_corners=False).split(1, dim=1)
    return torch.cat((x * wide, y * high), dim=1)
