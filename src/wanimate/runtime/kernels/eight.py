"""Attention whose queries and keys are rounded to eight bits, as whoever calls it sees it. It needs no Triton."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from wanimate.model.fp8 import hadamard
from wanimate.model.rope import Rope

Levels = tuple[Tensor, Tensor]
"""Numbers of eight bits, and their scales."""


class EightBits(ABC):
    """Attention (`model.attention.Attend`) that rounds queries and keys, after a Hadamard transform."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if len(q) > 1:
            return torch.cat([self(*one) for one in zip(q.split(1), k.split(1), v.split(1), strict=True)])
        return self.rounded(*self.levels(q, k), v)

    def levels(self, q: Tensor, k: Tensor) -> tuple[Levels, Levels]:
        """One video's queries and keys as `rounded` takes them."""
        width = q.shape[-1]
        signs = hadamard(width, q.device).to(q.dtype)
        return self.heads(q @ signs), self.heads(k @ (signs / width), smooth=True)

    @abstractmethod
    def heads(self, x: Tensor, smooth: bool = False) -> Levels:
        """x [1, R, N, d] in eight bits; `smooth`, for keys, takes the mean over tokens away."""

    @abstractmethod
    def prepared(
        self, x: Tensor, weight: Tensor, eps: float, rope: Rope, heads: int, common: Tensor | None = None
    ) -> Levels:
        """What `levels` gives of either, from what their layer gives."""

    @abstractmethod
    def rounded(self, q: Levels, k: Levels, v: Tensor) -> Tensor:
        """The same of one video's queries and keys that are rounded already, both rotated alike."""
