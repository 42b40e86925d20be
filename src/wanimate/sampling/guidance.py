"""Classifier-free guidance (arXiv 2207.12598) with a blank face in the unconditional branch (model spec, section 4.8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from wanimate.model.transformer import AnimateTransformer, Context
from wanimate.types import Conditions

Key = tuple[int, ...]
Network = Callable[[Tensor, Tensor], Tensor]
"""(x [16, T+1, h, w], timestep []) -> flow of the same shape, float32."""


@dataclass(frozen=True)
class GuidedNetwork:
    """v = v_u + scale (v_c - v_u); the unconditional branch exists only where the scale asks for it."""

    transformer: AnimateTransformer
    y: Tensor
    positive: Context
    negative: Context | None
    scale: float

    @torch.inference_mode()
    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        v = self._flow(x, t, self.positive)
        if self.negative is None:
            return v
        unconditional = self._flow(x, t, self.negative)
        return unconditional + self.scale * (v - unconditional)

    def _flow(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        out: Tensor = self.transformer(x[None], t[None], self.y[None], context)
        return out[0]


@torch.inference_mode()
def guided(transformer: AnimateTransformer, conditions: Conditions, scale: float) -> GuidedNetwork:
    """Everything a segment's steps share, computed once. `scale` 1 runs one branch."""
    c = conditions
    image = None if c.image_tokens is None else c.image_tokens[None]
    positive = transformer.prepare(c.text[None], image, c.face[None], c.pose_latents[None])
    negative = None
    if scale != 1:
        assert c.negative is not None
        blank = torch.full_like(c.face, -1.0)
        negative = transformer.prepare(c.negative[None], image, blank[None], c.pose_latents[None])
    return GuidedNetwork(transformer, c.y, positive, negative, scale)


class PhasedNetwork:
    """Networks that take turns over the steps of one segment; a call is a step. Each is made anew, with all that it prepares.

    `key` tells which one a step needs; `make` makes it.
    """

    def __init__(self, key: Callable[[int], Key], make: Callable[[Key], Network]) -> None:
        self.key, self.make, self.step = key, make, 0
        self.current = key(0)
        self.network: Network | None = make(self.current)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        wanted = self.key(self.step)
        if wanted != self.current or self.network is None:
            self.network = None  # its memory is needed by the next one
            self.current, self.network = wanted, self.make(wanted)
        self.step += 1
        return self.network(x, t)
