"""Float8 numbers: what rounds to them, and the matrix product of them.

Letters: R rows, I inputs, O outputs.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

FP8 = torch.float8_e4m3fn
LARGEST = 448.0
"""The largest number of float8_e4m3fn."""


def to_fp8(x: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Float8 levels of x, and the float32 scales that give it back; one scale for all that lies along `axes`, kept as ones.

    The largest number of each group becomes the largest level.
    """
    wide = x.float()
    scale = wide.abs().amax(axes, keepdim=True).clamp_min(1e-12) / LARGEST
    return (wide / scale).clamp(-LARGEST, LARGEST).to(FP8), scale


def fp8_product(x: Tensor, row_scale: Tensor, levels: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """(x * row_scale) (levels * scale)^T + bias as a product of float8 matrices: [R, I] and [O, I] -> bfloat16 [R, O].

    row_scale float32 [R, 1]; scale float32 [O, 1] or one number. Needs a GPU of compute capability 8.9 or more; I and O are
    multiples of 16.
    """
    columns = scale.reshape(1, -1).expand(1, levels.shape[0]).contiguous()
    bias = None if bias is None else bias.to(torch.bfloat16)
    return torch._scaled_mm(
        x, levels.t(), row_scale, columns, bias, out_dtype=torch.bfloat16, use_fast_accum=True
    )  # fmt: skip


@cache
def hadamard(width: int, device: torch.device) -> Tensor:
    """The symmetric matrix of signs [width, width], a power of two, in bfloat16; times itself it is width times the identity.

    Turned by it, queries and keys give the scores that they gave, and what stands out in one channel is spread over all: float8
    loses less of it (FlashAttention-3, arXiv 2407.08608, section 3.3).
    """
    signs, two = torch.ones(1, 1), torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    while len(signs) < width:
        signs = torch.kron(signs, two)
    return signs.to(device, torch.bfloat16)
