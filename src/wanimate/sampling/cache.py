"""Step caching: steps whose last block is forecast from earlier steps instead of computed.

`taylor` is CG-Taylor (arXiv 2508.02240): the forecast of the first block's output tells how far the forecast of the last one's
can be trusted. `early-taylor` does so from the fourth step on: the first six are many where there are twenty.
`first-block` adds the change that the other blocks made in the last full step, while the first block's own change stays nearly
the same (known as FBCache, after TeaCache, arXiv 2411.19108). `magnitude` does so for all blocks, while the
sizes of those changes, measured on the way, promise a small error (MagCache, arXiv 2506.09045).

"The first block's output" is what the second one receives: with the first face residual, so that the gate sees the face, and a
skipped step of `first-block` has the residual of its own face. With guidance the conditional branch decides and the other one
follows; each has a history of its own. Histories are in the type of the network's weights, sums and forecasts in float32.
A cache lives as long as its network: one segment, or less where the LoRAs change within it.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wanimate.config import CacheKind
from wanimate.errors import InputError, setting
from wanimate.model.transformer import StepCacheHook

Total = Callable[[Tensor], Tensor]
"""Numbers of each token, [n, L], to their sums over all tokens and ranks, [n]. All ranks call it together."""

GATES: dict[CacheKind, float] = {"taylor": 0.05, "early-taylor": 0.05, "first-block": 0.04, "magnitude": 0.02}
"""Gates where none is given, by `benchmarks/quality.py`. For Wan 2.1 with 50 steps CG-Taylor's authors give 0.18 to 0.36."""
TURBO: CacheKind = "early-taylor"
"""The cache of choice, with its own gate: at 0.41 of the arithmetic it comes 8 dB closer to the full computation than as
much spent on fewer plain steps, and 11 dB in faces (the first `mannequin`, 20 steps)."""
KEPT: dict[CacheKind, tuple[int, int]] = {
    "taylor": (6, 2), "early-taylor": (6, 2), "first-block": (3, 1), "magnitude": (1, 1),
}  # fmt: skip
"""Tensors [L, D] that a cache holds at most, for the branch that decides and for the one that follows."""
ROWS = 8192
"""Tokens handled at once, so that float32 copies of a whole video are not made on the way."""


@dataclass(frozen=True)
class Caching:
    """What a network that takes over at step `start` of `steps`, counted from 0, is to do."""

    kind: CacheKind
    gate: float
    steps: int
    start: int = 0

    @classmethod
    def of(cls, kind: CacheKind | None, gate: float | None, steps: int) -> Caching | None:
        """None where nothing is to be cached.

        Raises:
            InputError: there is no such cache, or a gate without a cache.
        """
        if kind is None or kind == "none":
            if gate is not None:
                raise InputError(
                    "generate.cache_gate",
                    gate,
                    "there is no cache that it could belong to",
                    f"Give {setting('generate.cache')} too.",
                )
            return None
        if kind not in _CACHES:
            raise InputError("generate.cache", kind, "unknown cache", f"Choose one of none, {', '.join(_CACHES)}.")
        return cls(kind, GATES[kind] if gate is None else gate, steps)

    def __str__(self) -> str:
        return f"step cache {self.kind} (gate {self.gate:g})"

    def at(self, start: int) -> Caching:
        """For a network that takes over at step `start`."""
        return replace(self, start=start)

    def make(self, total: Total, dtype: torch.dtype) -> StepCache | None:
        """A fresh cache; None where no step can be skipped, so that few steps cost nothing."""
        kind = _CACHES[self.kind]
        if kind.warm_up(self) > self.steps - 2:
            return None
        return kind(self, total, dtype)

    def kept(self, branches: int) -> int:
        """Tensors of all tokens, [L, D] in the weights' type, that it holds at most."""
        return 0 if _CACHES[self.kind].warm_up(self) > self.steps - 2 else sum(KEPT[self.kind][:branches])


class StepCache(ABC):
    """Decides for each step of a network whether it is computed (full) or skipped; the last one is always full.

    `branches`: the shortcuts of guidance's conditional and unconditional branch. Either may be absent from this process, where
    guidance is split over ranks: then both ask for the decision, and `total` gives both the conditional one's sums.
    """

    def __init__(self, caching: Caching, total: Total, dtype: torch.dtype) -> None:
        self.gate, self.steps = caching.gate, caching.steps
        self.warm = self.warm_up(caching)
        self.dtype = dtype
        self.step, self.skipped = caching.start - 1, 0
        self._total, self._full = total, True
        self.decided = True
        me, kind = (
            weakref.proxy(self),
            type(self),
        )  # branches keep no cache alive: their histories go with their segment
        self.branches: tuple[StepCacheHook, StepCacheHook] = (kind.branch(me, True), kind.branch(me, False))

    @staticmethod
    @abstractmethod
    def warm_up(caching: Caching) -> int:
        """The first step, from 0 on, that may be skipped."""

    @abstractmethod
    def branch(self, leads: bool) -> StepCacheHook: ...

    def begin(self) -> None:
        """The next step begins."""
        self.step += 1
        self.decided = False

    @property
    def keeps(self) -> bool:
        """Whether a later step may make use of what this one finds."""
        return self.step + 1 < self.steps - 1

    def full(self, decide: Callable[[], bool]) -> bool:
        """Whether this step is computed; `decide` is asked once a step."""
        if not self.decided:
            self._full, self.decided = decide(), True
            self.skipped += not self._full
        return self._full

    def share(self, parts: Tensor) -> float:
        """Relation of the sums over all tokens of parts [2, L]; infinite where it is not one. Costs the step's one wait for
        the device."""
        part, whole = self._total(parts).tolist()
        return part / whole if whole > 0 else float("inf")


class Series:
    """A sequence of tensors [1, L, D] at its last known step: its value and its differences up to `order`.

    Differences are divided by the spacing of the steps that made them: f_i = (f_{i-1} - f_{i-1} before) / spacing. The forecast
    x steps on is sum f_i x^i / i!: exact for straight lines, at any spacing.
    """

    def __init__(self, order: int, dtype: torch.dtype) -> None:
        self.order, self.dtype = order, dtype
        self.step = 0
        self.terms: list[Tensor] = []

    def record(self, step: int, value: Tensor) -> None:
        """The value at a later step than all before."""
        known, spacing = len(self.terms), step - self.step
        if known <= self.order:
            self.terms.append(torch.empty_like(value, dtype=self.dtype))
        for s in pieces(value):
            term = value[:, s].float()
            for i, kept in enumerate(self.terms):
                after = (term - kept[:, s].float()) / spacing if i < known else term
                kept[:, s] = term
                term = after
        self.step = step

    def at(self, step: int, rows: slice = slice(None)) -> Tensor:
        """The forecast, float32, of some tokens."""
        x, out = float(step - self.step), self.terms[-1][:, rows].float()
        for i in range(len(self.terms) - 1, 0, -1):
            out = torch.add(self.terms[i - 1][:, rows].float(), out, alpha=x / i)
        return out


class TaylorCache(StepCache):
    """CG-Taylor: a step is full where the forecast of the first block's output is off by the gate or more, relative.

    The gate is asked after the warm-up only; until then, as whenever it fails, both series are refreshed. After a change of the
    network, as at the start, the last block's series needs its two full steps.
    """

    FIRST_ORDER, LAST_ORDER, WARM_UP = 3, 1, 6

    @staticmethod
    def warm_up(caching: Caching) -> int:
        return max(TaylorCache.WARM_UP, caching.start + TaylorCache.LAST_ORDER + 1)

    def branch(self, leads: bool) -> StepCacheHook:
        return _TaylorBranch(self, leads)


class EarlyTaylorCache(TaylorCache):
    """CG-Taylor that asks its gate as soon as the forecasts curve: the gate finds by itself where nothing can be skipped."""

    @staticmethod
    def warm_up(caching: Caching) -> int:
        return caching.start + TaylorCache.LAST_ORDER + 2


class _TaylorBranch:
    def __init__(self, cache: TaylorCache, leads: bool) -> None:
        self.cache, self.leads = cache, leads
        self.seen = Series(cache.FIRST_ORDER, cache.dtype)
        self.last = Series(cache.LAST_ORDER, cache.dtype)

    def enter(self, tokens: Tensor) -> Tensor | None:
        """The branch that follows has no use for its first block. Where it does not know the decision yet, it runs it all the
        same: with weights spread over the ranks, all have to be at the same block."""
        return self._answer(lambda: _nothing(tokens)) if self.cache.decided else None

    def first(self, tokens: Tensor) -> Tensor | None:
        if not self.leads:
            return self._answer(lambda: _nothing(tokens))
        known = self._answer(lambda: _differences(tokens, lambda s: self.seen.at(self.cache.step, s)))
        if known is None and self.cache.keeps:
            self.seen.record(self.cache.step, tokens)
        return known

    def leave(self, tokens: Tensor) -> None:
        if self.cache.keeps:
            self.last.record(self.cache.step, tokens)

    def _answer(self, parts: Callable[[], Tensor]) -> Tensor | None:
        cache = self.cache

        def decide() -> bool:
            return not cache.warm <= cache.step < cache.steps - 1 or not cache.share(parts()) < cache.gate

        return None if cache.full(decide) else self.last.at(cache.step)


class FirstBlockCache(StepCache):
    """A step is full where the first block's change of the tokens differs from the last full step's by the gate or more."""

    @staticmethod
    def warm_up(caching: Caching) -> int:
        return _a_fifth(caching)

    def branch(self, leads: bool) -> StepCacheHook:
        return _FirstBlockBranch(self, leads)


class _FirstBlockBranch:
    def __init__(self, cache: FirstBlockCache, leads: bool) -> None:
        self.cache, self.leads = cache, leads
        self.change: Tensor | None = None
        self.rest: Tensor | None = None
        self._before: Tensor | None = None
        self._first: Tensor | None = None

    def enter(self, tokens: Tensor) -> Tensor | None:
        if self.leads and self.cache.step < self.cache.steps - 1:
            self._before = tokens.to(self.cache.dtype, copy=True)
        return None

    def first(self, tokens: Tensor) -> Tensor | None:
        cache, before, change = self.cache, self._before, self.change
        self._before = None
        now = None if before is None else _change(before, tokens)

        def decide() -> bool:
            if not cache.warm <= cache.step < cache.steps - 1:
                return True
            if now is None or change is None:
                return not cache.share(_nothing(tokens)) < cache.gate
            return not cache.share(_differences(change, lambda s: now[:, s].float())) < cache.gate

        if not cache.full(decide):
            assert self.rest is not None
            return tokens.float() + self.rest.float()
        if cache.keeps:
            self.change, self.rest = now, None
            self._first = tokens.to(cache.dtype, copy=True)
        return None

    def leave(self, tokens: Tensor) -> None:
        if self._first is not None:
            self.rest, self._first = _change(self._first, tokens), None


class MagnitudeCache(StepCache):
    """Skips while the error that the sizes of the blocks' changes promise stays below the gate, at most `MOST` in a row.

    A table of ratios is not given but measured: a full step compares the sizes of the tokens' changes with those of the full
    step before; the mean ratio, spread over the steps between, g, is taken to go on. The k-th skipped step in a row adds
    |1 - g^k| to the error.
    """

    MOST = 3

    def __init__(self, caching: Caching, total: Total, dtype: torch.dtype) -> None:
        super().__init__(caching, total, dtype)
        self.ratio: Tensor | None = None
        self.measured, self.spacing = -1, 1
        self.error, self.row = 0.0, 0

    @staticmethod
    def warm_up(caching: Caching) -> int:
        return max(_a_fifth(caching), caching.start + 2)

    def branch(self, leads: bool) -> StepCacheHook:
        return _MagnitudeBranch(self, leads)

    def decide(self) -> bool:
        """Known before the step begins."""
        if not self.warm <= self.step < self.steps - 1 or self.ratio is None:
            return True
        part, whole = self.ratio.tolist()
        growth = (part / whole) ** (1 / self.spacing)
        error = self.error + abs(1 - growth ** (self.row + 1))
        if not error < self.gate or self.row == self.MOST:
            return True
        self.error, self.row = error, self.row + 1
        return False

    def measure(self, parts: Callable[[], Tensor], spacing: int) -> None:
        """After a full step that skipped ones may follow; every branch calls it, and the first one's parts are taken."""
        if self.measured != self.step:
            self.ratio, self.measured = self._total(parts()), self.step
            self.spacing, self.error, self.row = spacing, 0.0, 0


class _MagnitudeBranch:
    def __init__(self, cache: MagnitudeCache, leads: bool) -> None:
        self.cache, self.leads = cache, leads
        self.change: Tensor | None = None
        self.size: Tensor | None = None
        self.step = 0
        self._before: Tensor | None = None

    def enter(self, tokens: Tensor) -> Tensor | None:
        if not self.cache.full(self.cache.decide):
            assert self.change is not None
            return tokens.float() + self.change.float()
        self.change = None
        self._before = tokens.to(self.cache.dtype, copy=True) if self.cache.keeps else None
        return None

    def first(self, tokens: Tensor) -> Tensor | None:
        return None

    def leave(self, tokens: Tensor) -> None:
        if self._before is None:
            return
        self.change, self._before = _change(self._before, tokens), None
        size = torch.cat([self.change[0, s].float().norm(dim=-1) for s in pieces(tokens)])
        earlier, spacing = self.size, self.cache.step - self.step
        self.size, self.step = size, self.cache.step
        if earlier is not None:
            parts = torch.stack((size / earlier.clamp_min(1e-12), torch.ones_like(size)))
            self.cache.measure(lambda: parts, spacing)


_CACHES: dict[CacheKind, type[StepCache]] = {
    "taylor": TaylorCache, "early-taylor": EarlyTaylorCache, "first-block": FirstBlockCache, "magnitude": MagnitudeCache,
}  # fmt: skip


def pieces(tokens: Tensor) -> Iterator[slice]:
    """Slices of [B, L, D] along L."""
    return (slice(i, i + ROWS) for i in range(0, tokens.shape[1], ROWS))


def _differences(real: Tensor, forecast: Callable[[slice], Tensor]) -> Tensor:
    """Of each token of real [1, L, D]: sum |forecast - real| and sum |real|, [2, L] float32."""
    parts = []
    for s in pieces(real):
        some = real[:, s].float()
        parts.append(torch.stack(((forecast(s) - some).abs().sum(-1)[0], some.abs().sum(-1)[0])))
    return torch.cat(parts, dim=-1)


def _nothing(tokens: Tensor) -> Tensor:
    """What a branch that does not decide gives in place of `_differences`."""
    return tokens.new_zeros(2, tokens.shape[1], dtype=torch.float32)


def _change(before: Tensor, after: Tensor) -> Tensor:
    """after - before, in the place of `before`."""
    for s in pieces(before):
        before[:, s] = after[:, s].float() - before[:, s].float()
    return before


def _a_fifth(caching: Caching) -> int:
    """MagCache's share of steps that are always computed; at least one is needed before any can be skipped."""
    return max(-(-caching.steps // 5), caching.start + 1)
