"""Queries, keys and values in float8 for attention that leaves out blocks, on Hopper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wanimate.model.fp8 import FP8
from wanimate.runtime.kernels.attention8 import QUERIES, attend
from wanimate.runtime.kernels.rows import KEYS, Fp8, fp8_values
from wanimate.runtime.sparse.layout import BlockSizes, Layout, Lists

SIZES = BlockSizes(QUERIES, KEYS, (8, 16))


@dataclass(frozen=True)
class Eight:
    """As `control.Inputs`; q and k levels [1, L, N, d] with scales [1, N], `plain` and `v` the values in bfloat16 and as
    `rows.fp8_values` gives them, all in the order of the layout."""

    q: Fp8
    k: Fp8
    v: Fp8
    plain: Tensor

    @classmethod
    def of(cls, q: Fp8, k: Fp8, v: Tensor, order: Tensor) -> Eight:
        """From the order of the grid."""

        def taken(x: Fp8) -> Fp8:
            return x[0].view(torch.uint8).index_select(1, order).view(FP8), x[1]

        plain = v.index_select(1, order)
        return cls(taken(q), taken(k), fp8_values(plain), plain)

    def floats(self) -> tuple[Tensor, Tensor, Tensor]:
        q, k = (
            (levels[0].to(torch.bfloat16) * scale[0, :, None].to(torch.bfloat16)).transpose(0, 1)
            for levels, scale in (self.q, self.k)
        )
        return q, k, self.plain[0].transpose(0, 1)

    def prepared(self, blocks: Tensor) -> Lists:
        return Lists.of(blocks)

    def sparse(self, visits: Any, plan: Layout) -> Tensor:
        return attend(self.q, self.k, self.v, visits)

    def dense(self, rows: Tensor | None, heads: Tensor | None) -> Tensor:
        (q, qs), (k, ks), (v, vs) = self.q, self.k, self.v
        if rows is not None:
            q = q.view(torch.uint8).index_select(1, rows).view(FP8)
        if heads is not None:
            q, k, qs, ks, vs = (_of_heads(x, heads) for x in (q, k, qs, ks, vs))
            v = v.view(torch.uint8).index_select(1, heads).view(FP8)
        return attend((q, qs), (k, ks), (v, vs))


def _of_heads(x: Tensor, heads: Tensor) -> Tensor:
    """Of levels [1, L, N, d] or scales [1, N]."""
    if x.dtype != FP8:
        return x.index_select(1, heads)
    return x.view(torch.uint8).index_select(2, heads).view(FP8)
