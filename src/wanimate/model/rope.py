"""Rotary positions over frame, row and column (RoFormer, arXiv 2104.09864; axis split: model spec, section 4.4)."""

from __future__ import annotations

import torch
from torch import Tensor

Rope = tuple[Tensor, Tensor]
"""cos and sin, float32 [L, head_dim / 2] each."""


def rope_table(grid: tuple[int, int, int], head_dim: int, device: torch.device | str = "cpu") -> Rope:
    """cos and sin of every token of a (frames, rows, columns) grid, column fastest.

    The head's complex pairs are split over the axes: row and column take a third each (rounded down), time the rest.
    Angles are float64; the tables are float32.
    """
    pairs = head_dim // 2
    spatial = pairs // 3
    angles = []
    for axis, (length, count) in enumerate(zip(grid, (pairs - 2 * spatial, spatial, spatial), strict=True)):
        position = torch.arange(length, dtype=torch.float64, device=device)
        frequency = 10000.0 ** (-torch.arange(count, dtype=torch.float64, device=device) / count)
        shape = [1, 1, 1, count]
        shape[axis] = length
        angles.append(torch.outer(position, frequency).view(shape).expand(*grid, count))
    angle = torch.cat(angles, dim=-1).reshape(-1, pairs)
    return angle.cos().float(), angle.sin().float()


def apply_rope(x: Tensor, rope: Rope) -> Tensor:
    """Rotate adjacent channel pairs of x [B, L, N, head_dim]; computed and returned in float32."""
    cos, sin = (table[:, None] for table in rope)
    real, imag = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((real * cos - imag * sin, real * sin + imag * cos), dim=-1).flatten(-2)
