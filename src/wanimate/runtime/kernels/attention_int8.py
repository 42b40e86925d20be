"""Attention whose queries and keys are int8, by one Triton kernel, for GPUs without Hopper's (`attention8`).

Queries and keys have a scale for each token and head, and keys have lost what they have in common (`rows.rms_int8`). Their
products are exact. Values are float16, and so are the sums over one tile of keys; sums over tiles are float32.

Letters: L tokens, N heads, d width of a head, Q blocks of queries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from wanimate.model.rope import Rope
from wanimate.runtime.kernels.eight import EightBits
from wanimate.runtime.kernels.jit import jit
from wanimate.runtime.kernels.rows import Int8, half_values, int8_heads, rms_int8
from wanimate.runtime.sparse.layout import Lists

QUERIES, KEYS, WARPS, STAGES = 128, 64, 8, 3
"""Keys and values on their way, and queries, are 65 KiB of shared memory (89 on Hopper): GPUs of 8.6, 8.9 and 12.0 have 99."""
CAPABILITY = (8, 0)
"""From here on GPUs multiply int8 matrices in Triton."""
WIDTHS = (32, 64, 128)
"""Of a head."""


@jit
def _step(  # type: ignore[no-untyped-def]
    q, k, v, k_scale, first, tokens, factor, top, total, mixed, N: tl.constexpr, d: tl.constexpr, KEYS: tl.constexpr,
    LAST: tl.constexpr,
):  # fmt: skip
    """Softmax goes on with one more tile of keys; of the last one some are not there. `top` is before the factor of a row."""
    start = first.to(tl.int64) * (N * d)
    place = tl.arange(0, KEYS)[:, None] * (N * d) + tl.arange(0, d)[None, :]
    there = first + tl.arange(0, KEYS) < tokens
    if LAST:
        keys = tl.load(k + start + place, mask=there[:, None], other=0)
        values = tl.load(v + start + place, mask=there[:, None], other=0.0)
        scale = tl.load(k_scale + first + tl.arange(0, KEYS), mask=there, other=0.0)
    else:
        keys, values = tl.load(k + start + place), tl.load(v + start + place)
        scale = tl.load(k_scale + first + tl.arange(0, KEYS))
    s = tl.dot(q, tl.trans(keys)).to(tl.float32) * scale[None, :]
    if LAST:
        s = tl.where(there[None, :], s, float("-inf"))
    now = tl.maximum(top, tl.max(s, axis=1))
    before = tl.exp2((top - now) * factor)
    p = tl.exp2(s * factor[:, None] - (now * factor)[:, None])
    total = total * before + tl.sum(p, axis=1)
    mixed = mixed * before[:, None] + tl.dot(p.to(values.dtype), values, out_dtype=values.dtype).to(tl.float32)
    return now, total, mixed


@jit
def _attend(  # type: ignore[no-untyped-def]
    q, q_scale, k, k_scale, v, v_scale, lists, counts, out, queries, tokens, most, factor, N: tl.constexpr, d: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, LISTED: tl.constexpr,
):  # fmt: skip
    block, head = tl.program_id(0), tl.program_id(1)  # blocks of one head run together: its keys stay in the cache
    row = block.to(tl.int64) * QUERIES + tl.arange(0, QUERIES)
    place = row[:, None] * (N * d) + head * d + tl.arange(0, d)[None, :]
    there = row < queries
    mine = tl.load(q + place, mask=there[:, None], other=0)
    factor = factor * tl.load(q_scale + head.to(tl.int64) * queries + row, mask=there, other=1.0)
    k, v, k_scale = k + head * d, v + head * d, k_scale + head.to(tl.int64) * tokens
    own = head.to(tl.int64) * tl.num_programs(0) + block
    if LISTED:
        count = tl.load(counts + own)
        lists += own * most
        last = tl.load(lists + count - 1).to(tl.int32) * KEYS
    else:
        count = tl.cdiv(tokens, KEYS)
        last = (count - 1) * KEYS
    top, total = tl.full((QUERIES,), float("-inf"), tl.float32), tl.zeros((QUERIES,), tl.float32)
    mixed = tl.zeros((QUERIES, d), tl.float32)
    top, total, mixed = _step(mine, k, v, k_scale, last, tokens, factor, top, total, mixed, N, d, KEYS, True)
    for i in range(count - 1):
        if LISTED:
            first = tl.load(lists + i).to(tl.int32) * KEYS
        else:
            first = i * KEYS
        top, total, mixed = _step(mine, k, v, k_scale, first, tokens, factor, top, total, mixed, N, d, KEYS, False)
    mixed = mixed * (tl.load(v_scale + head) / total)[:, None]
    tl.store(out + place, mixed.to(out.dtype.element_ty), mask=there[:, None])


@dataclass(frozen=True)
class Int8Attention(EightBits):
    """Rounds queries and keys to int8, a scale for each token and head."""

    def heads(self, x: Tensor, smooth: bool = False) -> Int8:
        return int8_heads(x, smooth)

    def prepared(
        self, x: Tensor, weight: Tensor, eps: float, rope: Rope, heads: int, common: Tensor | None = None
    ) -> Int8:
        return rms_int8(x, weight, eps, rope, heads, common)

    def rounded(self, q: Int8, k: Int8, v: Tensor) -> Tensor:
        return attend(q, k, half_values(v)).to(v.dtype)


def attend(q: Int8, k: Int8, v: tuple[Tensor, Tensor], visits: Lists | None = None) -> Tensor:
    """q levels [1, Lq, N, d], k [1, Lk, N, d] with scales [1, N, L], v float16 [1, Lk, N, d] with scales [1, N]
    -> bfloat16 [1, Lq, N, d]. `visits`: which tiles of `KEYS` keys each `QUERIES` queries visit; None is all.

    Raises:
        RuntimeError: a GPU before Ampere, or heads of a width that the kernel is not for.
    """
    (q8, q_scale), (k8, k_scale), (half, v_scale) = q, k, v
    _, queries, heads, width = q8.shape
    if width not in WIDTHS:
        raise RuntimeError(f"heads of {width} numbers: the kernel is for {', '.join(map(str, WIDTHS))}")
    if q8.is_cuda and torch.cuda.get_device_capability(q8.device) < CAPABILITY:
        raise RuntimeError("the kernel needs compute capability 8.0")
    blocks = triton.cdiv(queries, QUERIES)
    out = torch.empty(q8.shape, dtype=torch.bfloat16, device=q8.device)
    lists, counts, most = q_scale, q_scale, 0
    if visits is not None:
        assert visits.counts.shape == (heads, blocks), "the lists are of other queries"
        lists, counts, most = visits.blocks, visits.counts, visits.blocks.shape[2]
    _attend[(blocks, heads)](
        q8, q_scale, k8, k_scale, half, v_scale, lists, counts, out, queries, k8.shape[1], most,
        1 / (math.sqrt(width) * math.log(2)), N=heads, d=width, QUERIES=QUERIES, KEYS=KEYS, LISTED=visits is not None,
        num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
    return out
