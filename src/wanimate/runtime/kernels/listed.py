"""Attention to the blocks of keys of a list, by one Triton kernel, in bfloat16 or float16.

Letters: L tokens in the order of the layout, N heads, d width of a head, Q blocks of queries.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from wanimate.runtime.kernels.jit import jit
from wanimate.runtime.sparse.layout import BlockSizes, Layout, Lists

QUERIES, KEYS, WARPS, STAGES = 128, 64, 8, 2
"""Two stages of keys and values, and the queries, are 96 KiB of shared memory: GPUs of capability 8.6 and 8.9 have 99."""


@jit
def _attend(  # type: ignore[no-untyped-def]
    q, k, v, lists, counts, out, tokens, most, factor, N: tl.constexpr, d: tl.constexpr, QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
):  # fmt: skip
    block, head = tl.program_id(0), tl.program_id(1)  # blocks of one head run together: its keys stay in the cache
    column = head * d + tl.arange(0, d)[None, :]
    row = block.to(tl.int64) * QUERIES + tl.arange(0, QUERIES)
    place = row[:, None] * (N * d) + column
    mine = tl.load(q + place, mask=(row < tokens)[:, None], other=0.0)
    own = head.to(tl.int64) * tl.num_programs(0) + block
    top = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    mixed = tl.zeros((QUERIES, d), tl.float32)
    count = tl.load(counts + own)
    for i in range(count):
        key = tl.load(lists + own * most + i).to(tl.int64) * KEYS + tl.arange(0, KEYS)
        there = key < tokens
        where = key[:, None] * (N * d) + column
        s = tl.dot(mine, tl.trans(tl.load(k + where, mask=there[:, None], other=0.0))) * factor
        s = tl.where(there[None, :], s, float("-inf"))  # of every block some keys are there
        now = tl.maximum(top, tl.max(s, axis=1))
        before = tl.exp2(top - now)
        p = tl.exp2(s - now[:, None])
        total = total * before + tl.sum(p, axis=1)
        values = tl.load(v + where, mask=there[:, None], other=0.0)
        mixed = tl.dot(p.to(values.dtype), values, mixed * before[:, None])
        top = now
    tl.store(out + place, (mixed / total[:, None]).to(out.dtype.element_ty), mask=(row < tokens)[:, None])


class ListedAttention:
    """A `runtime.sparse.control.BlockKernel`."""

    sizes = BlockSizes(QUERIES, KEYS, (8, 16))

    def prepared(self, blocks: Tensor) -> Lists:
        return Lists.of(blocks)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, visits: Any, plan: Layout) -> Tensor:
        return attend_listed(q, k, v, visits)


def attend_listed(q: Tensor, k: Tensor, v: Tensor, visits: Lists) -> Tensor:
    """softmax(q k^T / sqrt(d)) v over the blocks of `KEYS` keys that each `QUERIES` queries visit: [L, N, d] each -> [L, N, d].

    d is a power of two from 16 on.
    """
    q, k, v = (x.contiguous() for x in (q, k, v))
    tokens, heads, width = q.shape
    blocks = triton.cdiv(tokens, QUERIES)
    assert visits.counts.shape == (heads, blocks), "the lists are of other queries"
    out = torch.empty_like(q)
    _attend[(blocks, heads)](
        q, k, v, visits.blocks, visits.counts, out, tokens, visits.blocks.shape[2], 1 / (math.sqrt(width) * math.log(2)),
        N=heads, d=width, QUERIES=QUERIES, KEYS=KEYS, num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
    return out
