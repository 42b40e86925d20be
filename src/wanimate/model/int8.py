"""Whole numbers of eight bits: what rounds to them, and the matrix product of them, whose sums are exact.

Letters: R rows, I inputs, O outputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

INT8 = torch.int8
MOST = 127.0
"""The largest level; -128 is not used."""
ROWS = 8192
"""Rows that are multiplied at once: their sums take four bytes each, twice what comes out of them."""
LEAST_ROWS, STEP = 32, 8
"""cuBLAS takes more than 16 rows, and sides that are multiples of 8."""


def to_int8(x: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Int8 levels of x, and the float32 scales that give it back; one scale for all that lies along `axes`, kept as ones.

    The largest number of each group becomes the largest level.
    """
    wide = x.float()
    scale = wide.abs().amax(axes, keepdim=True).clamp_min(1e-12) / MOST
    return (wide / scale).round().clamp(-MOST, MOST).to(INT8), scale


def int8_product(x: Tensor, row_scale: Tensor, levels: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """(x * row_scale) (levels * scale)^T + bias: int8 [R, I] and [O, I] -> bfloat16 [R, O].

    row_scale float32 [R, 1]; scale float32 [O, 1] or one number. I is less than 2**31 / 127**2, about 133,000.
    """
    columns = scale.reshape(1, -1)
    out = torch.empty(len(x), len(levels), dtype=torch.bfloat16, device=x.device)
    other = _filled(levels, STEP).t()
    for first in range(0, len(x), ROWS):
        part = slice(first, first + ROWS)
        rows = x[part]
        sums = torch._int_mm(_filled(rows, LEAST_ROWS), other)[: len(rows), : len(levels)]
        made = sums.float() * row_scale[part] * columns
        out[part] = made if bias is None else made + bias.float()
    return out


def _filled(x: Tensor, least: int) -> Tensor:
    """With zeros, so that it has `least` rows or more, and sides that are multiples of `STEP`."""
    down, across = max(least - len(x), -len(x) % STEP), -x.shape[1] % STEP
    return F.pad(x, (0, across, 0, down)) if down or across else x.contiguous()
