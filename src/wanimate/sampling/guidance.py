"""Classifier-free guidance (arXiv 2207.12598) with a blank face in the unconditional branch (model spec, section 4.8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from wanimate.model.transformer import Context, StepCacheHook
from wanimate.sampling.cache import Caching, StepCache
from wanimate.types import Conditions

Key = tuple[int, ...]
Network = Callable[[Tensor, Tensor], Tensor]
"""(x [16, T+1, h, w], timestep []) -> flow of the same shape, float32."""


class SegmentNetwork(Protocol):
    """The network of one segment's steps; a call is a step."""

    @property
    def skipped(self) -> int:
        """How many of its steps so far a cache has answered."""
        ...

    def __call__(self, x: Tensor, t: Tensor) -> Tensor: ...


class FlowModel(Protocol):
    """`AnimateTransformer`, or what works like it."""

    def prepare(self, text: Tensor, image_tokens: Tensor | None, face: Tensor, pose_latents: Tensor) -> Context: ...

    def __call__(
        self, x: Tensor, t: Tensor, y: Tensor, context: Context, hook: StepCacheHook | None = None
    ) -> Tensor: ...

    def total(self, parts: Tensor, context: Context) -> Tensor: ...


@dataclass(frozen=True)
class GuidedNetwork:
    """v = v_u + scale (v_c - v_u); the unconditional branch exists only where the scale asks for it."""

    transformer: FlowModel
    y: Tensor
    positive: Context
    negative: Context | None
    scale: float
    cache: StepCache | None = None

    @property
    def skipped(self) -> int:
        return 0 if self.cache is None else self.cache.skipped

    @torch.inference_mode()
    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        if self.cache is not None:
            self.cache.begin()
        v = self._flow(x, t, self.positive, 0)
        if self.negative is None:
            return v
        unconditional = self._flow(x, t, self.negative, 1)
        return unconditional + self.scale * (v - unconditional)

    def _flow(self, x: Tensor, t: Tensor, context: Context, branch: int) -> Tensor:
        hook = None if self.cache is None else self.cache.branches[branch]
        out: Tensor = self.transformer(x[None], t[None], self.y[None], context, hook)
        return out[0]


@torch.inference_mode()
def guided(
    transformer: FlowModel, conditions: Conditions, scale: float, caching: Caching | None = None
) -> GuidedNetwork:
    """Everything a segment's steps share, computed once. `scale` 1 runs one branch."""
    positive = prepared(transformer, conditions)
    negative = None if scale == 1 else prepared(transformer, conditions, unconditional=True)
    cache = None
    if caching is not None:
        cache = caching.make(lambda parts: transformer.total(parts, positive), positive.pose.dtype)
    return GuidedNetwork(transformer, conditions.y, positive, negative, scale, cache)


def prepared(transformer: FlowModel, conditions: Conditions, unconditional: bool = False) -> Context:
    """The context of one branch; the unconditional one has the negative prompt and a blank face."""
    c = conditions
    image = None if c.image_tokens is None else c.image_tokens[None]
    text, face = c.text, c.face
    if unconditional:
        assert c.negative is not None
        text, face = c.negative, torch.full_like(face, -1.0)
    return transformer.prepare(text[None], image, face[None], c.pose_latents[None])


class PhasedNetwork:
    """Networks that take turns over the steps of one segment; a call is a step. Each is made anew, with all that it prepares.

    `key` tells which one a step needs; `make` makes it, from its key and the step at which it takes over.
    """

    def __init__(self, key: Callable[[int], Key], make: Callable[[Key, int], SegmentNetwork]) -> None:
        self.key, self.make, self.step = key, make, 0
        self.current = key(0)
        self.network: SegmentNetwork | None = make(self.current, 0)
        self._before = 0

    @property
    def skipped(self) -> int:
        return self._before + (0 if self.network is None else self.network.skipped)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        wanted = self.key(self.step)
        if wanted != self.current or self.network is None:
            self._before, self.network = self.skipped, None  # its memory is needed by the next one
            self.current, self.network = wanted, self.make(wanted, self.step)
        self.step += 1
        return self.network(x, t)
