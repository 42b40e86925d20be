"""The product of int8 matrices by one Triton kernel: scales and bias are applied to the sums before they leave the chip.

Letters: R rows, I inputs, O outputs.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from wanimate.runtime.kernels.jit import jit

SHAPE: dict[str, Any] = {"BM": 128, "BN": 256, "BK": 128, "num_warps": 8, "num_stages": 3}
"""96 KiB of shared memory (144 on Hopper): GPUs of 8.6, 8.9 and 12.0 have 99. With half of it, a seventh slower."""
GROUP = 8
"""Blocks of rows that go through the same columns together: what they read stays in the cache."""


@jit
def _multiply(  # type: ignore[no-untyped-def]
    x, w, x_scale, w_scale, bias, out, rows, outs, ins, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    GROUP: tl.constexpr, WHOLE: tl.constexpr, BIASED: tl.constexpr,
):  # fmt: skip
    down, across = tl.cdiv(rows, BM), tl.cdiv(outs, BN)
    group = tl.program_id(0) // (GROUP * across)
    high = tl.minimum(down - group * GROUP, GROUP)
    within = tl.program_id(0) % (GROUP * across)
    row = (group * GROUP + within % high).to(tl.int64) * BM + tl.arange(0, BM)
    column = (within // high).to(tl.int64) * BN + tl.arange(0, BN)
    step = tl.arange(0, BK)
    left = x + tl.minimum(row, rows - 1)[:, None] * ins + step[None, :]  # what is read twice is not written
    right = w + tl.minimum(column, outs - 1)[:, None] * ins + step[None, :]
    sums = tl.zeros((BM, BN), tl.int32)
    for i in range(tl.cdiv(ins, BK)):
        if WHOLE:
            a, b = tl.load(left), tl.load(right)
        else:
            there = (i * BK + step < ins)[None, :]
            a, b = tl.load(left, mask=there, other=0), tl.load(right, mask=there, other=0)
        sums = tl.dot(a, tl.trans(b), sums, out_dtype=tl.int32)
        left += BK
        right += BK
    scale = tl.load(x_scale + row, mask=row < rows, other=0.0)
    y = sums.to(tl.float32) * scale[:, None] * tl.load(w_scale + column, mask=column < outs, other=0.0)[None, :]
    if BIASED:
        y += tl.load(bias + column, mask=column < outs, other=0.0).to(tl.float32)[None, :]
    place = row[:, None] * outs + column[None, :]
    tl.store(out + place, y.to(out.dtype.element_ty), mask=(row < rows)[:, None] & (column < outs)[None, :])


def multiply(x: Tensor, row_scale: Tensor, levels: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """As `model.int8.int8_product`, without its sums in memory."""
    x, levels = x.contiguous(), levels.contiguous()
    rows, (outs, ins) = len(x), levels.shape
    columns = scale.reshape(-1).expand(outs).contiguous()
    out = torch.empty(rows, outs, dtype=torch.bfloat16, device=x.device)
    grid = (triton.cdiv(rows, SHAPE["BM"]) * triton.cdiv(outs, SHAPE["BN"]),)
    _multiply[grid](
        x, levels, row_scale.contiguous(), columns, columns if bias is None else bias, out, rows, outs, ins, GROUP=GROUP,
        WHOLE=ins % SHAPE["BK"] == 0, BIASED=bias is not None, **SHAPE,
    )  # fmt: skip
    return out
