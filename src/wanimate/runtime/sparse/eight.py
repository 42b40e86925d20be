"""Queries, keys and values of eight bits for attention that leaves out blocks: float8 on Hopper, int8 elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wanimate.model.int8 import INT8
from wanimate.runtime.kernels import attention8, attention_int8
from wanimate.runtime.kernels.eight import Levels
from wanimate.runtime.kernels.rows import KEYS, fp8_values, half_values
from wanimate.runtime.sparse.choice import plain_scale
from wanimate.runtime.sparse.layout import BlockSizes, Layout, Lists, taken

FP8_SIZES = BlockSizes(attention8.QUERIES, KEYS, (8, 16))
INT8_SIZES = BlockSizes(attention_int8.QUERIES, attention_int8.KEYS, (8, 16))


@dataclass(frozen=True)
class Eight:
    """As `control.Inputs`; q and k levels [1, L, N, d], float8 with scales [1, N] or int8 with scales [1, N, L]; `plain` and
    `v`: the values in bfloat16 and as the kernel takes them."""

    q: Levels
    k: Levels
    v: Levels
    plain: Tensor

    @classmethod
    def of(cls, q: Levels, k: Levels, v: Tensor) -> Eight:
        return cls(q, k, half_values(v) if q[0].dtype == INT8 else fp8_values(v), v)

    def floats(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        q, k = (levels[0].to(torch.bfloat16).transpose(0, 1) for levels, _ in (self.q, self.k))
        v, of_q, of_k, scale = self.plain[0].transpose(0, 1), self.q[1][0], self.k[1][0], plain_scale(q)
        if of_q.ndim == 1:
            return q, k, v, scale * of_q * of_k
        q, k = (x * of_x[..., None].to(x.dtype) for x, of_x in ((q, of_q), (k, of_k)))
        return q, k, v, scale

    def prepared(self, blocks: Tensor) -> Lists:
        return Lists.of(blocks)

    def sparse(self, visits: Any, plan: Layout) -> Tensor:
        return _attend(self.q, self.k, self.v, visits)

    def dense(self, rows: Tensor | None, heads: Tensor | None) -> Tensor:
        q, k, v = self.q, self.k, self.v
        if rows is not None:
            q = _of_tokens(q, rows)
        if heads is not None:
            q, k = _of_heads(q, heads, 2), _of_heads(k, heads, 2)
            v = _of_heads(v, heads, 2 if q[0].dtype == INT8 else 1)
        return _attend(q, k, v, None)


def _attend(q: Levels, k: Levels, v: Levels, visits: Lists | None) -> Tensor:
    kernel = attention_int8.attend if q[0].dtype == INT8 else attention8.attend
    return kernel(q, k, v, visits)


def _of_tokens(x: Levels, which: Tensor) -> Levels:
    levels, scale = x
    return taken(levels, 1, which), scale if scale.ndim == 2 else scale.index_select(2, which)


def _of_heads(x: Levels, heads: Tensor, axis: int) -> Levels:
    return taken(x[0], axis, heads), x[1].index_select(1, heads)
