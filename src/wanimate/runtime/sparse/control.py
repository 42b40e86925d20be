"""Self-attention that leaves out blocks of keys, within an error that is asked for.

Every few calls of a layer the choice is renewed: blocks of keys are ranked by the mass that they are thought to hold, and for
each head the fewest are taken with which some queries, computed with all keys as well, come out within the error. In every
call some other queries are computed with all keys. A head that is off by more than the error is computed again with all keys
at once, and its choice is renewed with a wider margin. Heads that are not sparse stay dense.

One `SparseRun` serves all layers of a network. It keeps a choice for each layer and each `Context`, so that the branches of
guidance and the segments of a job have their own.

Letters: B batch, L tokens, N heads, d width of a head, Q and K blocks of queries and keys, R sampled queries.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wanimate.model.attention import Attend
from wanimate.model.transformer import AnimateTransformer, Context, StepCacheHook
from wanimate.runtime.patches import Change, method
from wanimate.runtime.sparse.choice import DENSE, block_mass, level_errors, ranked, visited
from wanimate.runtime.sparse.layout import BlockSizes, Layout, layout
from wanimate.runtime.sparse.reference import attend_blocks
from wanimate.types import AttentionStep

RENEW = 4
"""Calls of a layer for which a choice holds."""
SHARE = 1 / 200
"""Of a layer's queries, those that are computed with all keys in every call to measure the error."""
LEAST = 64
"""Sampled queries at least. They are of as many blocks as can be: some blocks are off by far more than others."""
MARGIN, TIGHTER, EASIER = 0.7, 0.7, 1.1
"""Where a choice is made, the error may be this share of the one asked for. After a head was off by more, its share shrinks,
and grows back with every renewal."""
WORTH = 0.9
"""A head that has to visit more blocks than this is dense."""

BlockAttend = Callable[[Tensor, Tensor, Tensor, Tensor, Layout], Tensor]
"""As `reference.attend_blocks`."""


@dataclass(eq=False)
class SparseMeter:
    """Sums over the calls since they were last taken. A transformer and its LoRA views share one."""

    visited: float = 0.0
    pairs: float = 0.0
    error: float = 0.0

    def __deepcopy__(self, memo: dict[int, Any]) -> SparseMeter:
        return self

    def add(self, visited: float, pairs: float, error: float) -> None:
        self.visited, self.pairs, self.error = self.visited + visited, self.pairs + pairs, max(self.error, error)

    def take(self) -> AttentionStep:
        """What has been measured, which is then forgotten."""
        return step_of([self.take_sums()])

    def take_sums(self) -> list[float]:
        """The same as three sums of this rank's heads."""
        found = [self.visited, self.pairs, self.error]
        self.visited = self.pairs = self.error = 0.0
        return found


def step_of(sums: list[list[float]]) -> AttentionStep:
    """From the sums of one rank or several."""
    pairs = sum(rank[1] for rank in sums)
    density = sum(rank[0] for rank in sums) / pairs if pairs else 0.0
    return AttentionStep(density, max(rank[2] for rank in sums))


class _Ordered(NamedTuple):
    """One video's queries, keys and values, [N, L, d] each, in the order of the layout."""

    q: Tensor
    k: Tensor
    v: Tensor


@dataclass(eq=False)
class _Choice:
    """`blocks` bool [N, Q, K]; `density` [N]; `made`: the call at which it was made."""

    blocks: Tensor
    density: Tensor
    made: int
    dense: bool


@dataclass(eq=False)
class _Layer:
    """One layer's choice in one context. `margin` [N]: shares of the error that the next choice may come to."""

    calls: int = 0
    choice: _Choice | None = None
    margin: Tensor | None = None
    stale: bool = True


@dataclass(eq=False)
class SparseRun:
    """What all layers of one network share. A copy of the network starts with no choices."""

    error: float
    meter: SparseMeter = field(default_factory=SparseMeter)
    sizes: BlockSizes = field(default_factory=BlockSizes)
    blocks: BlockAttend = attend_blocks
    grid: tuple[int, int, int] | None = None
    layers: dict[int, _Layer] = field(default_factory=dict)
    _known: list[tuple[weakref.ref[Context], dict[int, _Layer]]] = field(default_factory=list)

    def __deepcopy__(self, memo: dict[int, Any]) -> SparseRun:
        memo[id(self)] = copied = SparseRun(self.error, self.meter, self.sizes, self.blocks)
        return copied

    def enter(self, context: Context) -> None:
        """The coming calls are of this context."""
        self.grid = context.grid
        self._known = [(known, layers) for known, layers in self._known if known() is not None]
        for known, layers in self._known:
            if known() is context:
                self.layers = layers
                return
        self.layers = {}
        self._known.append((weakref.ref(context), self.layers))

    def leave(self) -> None:
        self.grid, self.layers = None, {}


@dataclass(frozen=True, eq=False)
class SparseAttention:
    """Attention (`model.attention.Attend`) of one layer; `dense` computes with all keys. Tokens come in the order of the grid.

    Outside of a network's blocks, for a batch of several videos, and for queries that are not all tokens, it is `dense`.
    """

    layer: int
    run: SparseRun
    dense: Attend

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        run = self.run
        if run.grid is None or len(q) > 1:
            return self.dense(q, k, v)
        plan = layout(run.grid, run.sizes, q.device)
        assert plan.tokens == q.shape[1], "the tokens are not those of the grid"
        state = run.layers.setdefault(self.layer, _Layer())
        ordered = _Ordered(*(x[0].index_select(0, plan.order).transpose(0, 1) for x in (q, k, v)))
        choice = self._choice(state, plan, ordered)
        rows, _ = self._sample(state, plan, 1)
        state.calls += 1
        heads, pairs = len(choice.density), q.shape[2] * plan.shape[0] * plan.shape[1]
        if choice.dense:
            run.meter.add(pairs, pairs, 0.0)
            return self.dense(q, k, v)
        found = run.blocks(ordered.q, ordered.k, ordered.v, choice.blocks, plan)
        errors = self._errors(found, ordered, rows)
        count = float(choice.density.sum()) * pairs / heads
        out = found.transpose(0, 1).index_select(0, plan.place)[None]
        wrong = errors > run.error
        if bool(wrong.any()):
            some = wrong.nonzero()[:, 0]
            out[:, :, some] = self.dense(*(x[:, :, some] for x in (q, k, v))).to(out.dtype)
            errors = errors.masked_fill(wrong, 0.0)
            count += len(some) * pairs / heads
            assert state.margin is not None
            state.margin = torch.where(wrong, TIGHTER * state.margin, state.margin)
            state.stale = True
        run.meter.add(count, pairs, float(errors.max()))
        return out

    def _choice(self, state: _Layer, plan: Layout, ordered: _Ordered) -> _Choice:
        """The layer's choice, made anew where it is old or was wrong."""
        q, k, v = ordered
        known = state.choice
        if known is not None and not state.stale and state.calls - known.made < RENEW:
            return known
        if state.margin is None:
            state.margin = torch.full((len(q),), MARGIN, device=q.device)
        elif not state.stale:
            state.margin = (EASIER * state.margin).clamp(max=MARGIN)
        rank, counts = ranked(block_mass(q, k, plan), plan.always)
        rows, of = self._sample(state, plan, 0)
        errors = level_errors(q[:, rows], k, v, rank[:, of], counts[:, of], plan)
        density = counts.float().mean(1) / plan.shape[1]  # [N, levels]
        usable = (errors <= self.run.error * state.margin[:, None]) & (density <= WORTH)
        usable[:, DENSE] = True
        level = usable.int().argmax(-1)
        chosen = density.gather(-1, level[:, None])[:, 0]
        blocks = visited(rank, counts, level)
        state.choice = _Choice(blocks, chosen, state.calls, bool((level == DENSE).all()))
        state.stale = False
        return state.choice

    def _sample(self, state: _Layer, plan: Layout, what: int) -> tuple[Tensor, Tensor]:
        """Places of random queries [R] and their blocks [R]; the same in every run of a job."""
        generator = torch.Generator().manual_seed(1_000_003 * self.layer + 2 * state.calls + what)
        wanted = max(LEAST, int(SHARE * plan.tokens))
        rows = torch.randperm(plan.tokens, generator=generator)[:wanted].to(plan.order.device)
        return rows, rows // plan.sizes.queries

    def _errors(self, found: Tensor, ordered: _Ordered, rows: Tensor) -> Tensor:
        """Relative L2 error of each head [N], as the sampled queries show it."""
        q, k, v = (x.transpose(0, 1)[None] for x in ordered)
        wanted = self.dense(q[:, rows], k, v)[0].transpose(0, 1).float()
        off = found[:, rows].float() - wanted
        return (off.square().sum((1, 2)) / wanted.square().sum((1, 2)).clamp_min(1e-30)).sqrt()


def sparse_changes(model: AnimateTransformer, run: SparseRun, dense: Attend) -> list[Change]:
    """Changes (`runtime.patches`) that give every block's self-attention to a run."""
    blocks: list[Any] = list(model.blocks.children())
    attends: list[Change] = [
        (block.self_attn, "attend", SparseAttention(i, run, dense)) for i, block in enumerate(blocks)
    ]
    return [(model, "sparse", run), method(model, "run_blocks", _run_blocks), *attends]


def _run_blocks(
    model: AnimateTransformer, tokens: Tensor, e0: Tensor, context: Context, hook: StepCacheHook | None = None
) -> Tensor:
    """`AnimateTransformer.run_blocks`, which tells the run what it is called for."""
    run: SparseRun = model.__dict__["sparse"]
    run.enter(context)
    try:
        return AnimateTransformer.run_blocks(model, tokens, e0, context, hook)
    finally:
        run.leave()


def meter_of(model: AnimateTransformer) -> SparseMeter | None:
    """The meter of a network whose attention is sparse."""
    run = model.__dict__.get("sparse")
    return None if run is None else run.meter
