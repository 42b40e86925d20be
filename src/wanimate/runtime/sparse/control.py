"""Self-attention that leaves out blocks of keys, within an error that is asked for.

Every few calls of a layer the choice is renewed: blocks of keys are ranked by the mass that they are thought to hold, and for
each head the fewest are taken with which some queries, computed with all keys as well, come out within the error. In every
call some other queries are computed with all keys. A head that is off by more than the error is computed again with all keys
at once, and its choice is renewed with a wider margin. Heads that are not sparse stay dense.

Tokens are in the order of the layout in all blocks of the network (`Context.order`), so that a block is a run of them.

One `SparseRun` serves all layers of a network. It keeps a choice for each layer and each `Context`, so that the branches of
guidance and the segments of a job have their own.

Letters: B batch, L tokens, N heads, d width of a head, Q and K blocks of queries and keys, R sampled queries.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from wanimate.model.attention import Attend
from wanimate.model.transformer import AnimateTransformer, Context, StepCacheHook
from wanimate.runtime.kernels.eight import EightBits, Levels
from wanimate.runtime.patches import Change, method
from wanimate.runtime.sparse.choice import DENSE, block_mass, level_errors, plain_scale, ranked, visited
from wanimate.runtime.sparse.layout import BlockSizes, Layout, layout
from wanimate.runtime.sparse.reference import attend_blocks
from wanimate.types import AttentionStep

RENEW, RENEW_DENSE = 4, 8
"""Calls of a layer for which a choice holds; the second one where no head left anything out, so that unknown weights lose
little by being asked."""
SHARE = 1 / 200
"""Of a layer's queries, those that are computed with all keys in every call to measure the error."""
LEAST = 64
"""Sampled queries at least. They are of as many blocks as can be: some blocks are off by far more than others."""
MARGIN, TIGHTER, EASIER = 0.7, 0.7, 1.1
"""Where a choice is made, the error may be this share of the one asked for. After a head was off by more, its share shrinks,
and grows back with every renewal."""
CHOOSING = 128
"""Sampled queries by which the choice is made, at most."""
WORTH = 0.9
"""A head that has to visit more blocks than this is dense, where the kernel that visits some is as quick as the one for all."""


class BlockKernel(Protocol):
    """Attention to the blocks that are visited, q, k and v [L, N, d] -> [L, N, d]."""

    def prepared(self, blocks: Tensor) -> Any:
        """What the call wants of the blocks, bool [N, Q, K]."""
        ...

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, visits: Any, plan: Layout) -> Tensor: ...


class Reference:
    """A `BlockKernel` in plain PyTorch."""

    def prepared(self, blocks: Tensor) -> Tensor:
        return blocks

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, visits: Any, plan: Layout) -> Tensor:
        q, k, v = (x.transpose(0, 1) for x in (q, k, v))
        return attend_blocks(q, k, v, visits, plan).transpose(0, 1)


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


class Inputs(Protocol):
    """One video's queries, keys and values, and what computes with them."""

    def floats(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q, k and v [N, L, d], for the choice, and what makes scores of products of q and k, float32 [N]."""
        ...

    def prepared(self, blocks: Tensor) -> Any:
        """What `sparse` wants of the blocks that are visited, bool [N, Q, K]."""
        ...

    def sparse(self, visits: Any, plan: Layout) -> Tensor:
        """Attention to those blocks: [1, L, N, d]."""
        ...

    def dense(self, rows: Tensor | None, heads: Tensor | None) -> Tensor:
        """Attention to all keys of some queries (None: all) and some heads (None: all): [1, R, N, d]."""
        ...


@dataclass(frozen=True)
class Plain:
    """As they are, [1, L, N, d] each."""

    q: Tensor
    k: Tensor
    v: Tensor
    attend: Attend
    blocks: BlockKernel

    def floats(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        q, k, v = (x[0].transpose(0, 1) for x in (self.q, self.k, self.v))
        return q, k, v, plain_scale(q)

    def prepared(self, blocks: Tensor) -> Any:
        return self.blocks.prepared(blocks)

    def sparse(self, visits: Any, plan: Layout) -> Tensor:
        return self.blocks(self.q[0], self.k[0], self.v[0], visits, plan)[None]

    def dense(self, rows: Tensor | None, heads: Tensor | None) -> Tensor:
        q = self.q if rows is None else self.q[:, rows]
        k, v = self.k, self.v
        if heads is not None:
            q, k, v = (x[:, :, heads] for x in (q, k, v))
        return self.attend(q, k, v)


@dataclass(eq=False)
class _Choice:
    """`visits`: as `Inputs.prepared` gives them, None where all heads are `dense`; `density` [N]; `total`: pairs of blocks that
    are visited; `made`: the call at which it was made."""

    visits: Any
    density: Tensor
    total: float
    made: int
    dense: bool

    def old(self, calls: int) -> bool:
        return calls - self.made >= (RENEW_DENSE if self.dense else RENEW)


@dataclass(eq=False)
class _Layer:
    """One layer's choice in one context. `margin` [N]: shares of the error that the next choice may come to."""

    calls: int = 0
    choice: _Choice | None = None
    margin: Tensor | None = None
    stale: bool = True


@dataclass(eq=False)
class SparseRun:
    """What all layers of one network share, `layers` by layer and part of its heads. A copy of the network starts with no
    choices. `worth`: the density up to which leaving out blocks is quicker than attention with all keys."""

    error: float
    meter: SparseMeter = field(default_factory=SparseMeter)
    sizes: BlockSizes = field(default_factory=BlockSizes)
    blocks: BlockKernel = field(default_factory=Reference)
    worth: float = WORTH
    grid: tuple[int, int, int] | None = None
    layers: dict[tuple[int, int], _Layer] = field(default_factory=dict)
    _known: list[tuple[weakref.ref[Context], dict[tuple[int, int], _Layer]]] = field(default_factory=list)

    def __deepcopy__(self, memo: dict[int, Any]) -> SparseRun:
        memo[id(self)] = copied = SparseRun(self.error, self.meter, self.sizes, self.blocks, self.worth)
        return copied

    def enter(self, context: Context) -> None:
        """The coming calls are of this context."""
        assert context.order is not None, "the context was made before attention left anything out"
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
    """Attention (`model.attention.Attend`) of one layer, or of a part of its heads; `dense` computes with all keys. Tokens come
    in the order of the layout.

    Outside of a network's blocks, and for a batch of several videos, it is `dense`.
    """

    layer: int
    run: SparseRun
    dense: Attend
    part: int = 0

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.run.grid is None or len(q) > 1:
            return self.dense(q, k, v)
        if isinstance(self.dense, EightBits):
            return self.rounded(*self.dense.levels(q, k), v)
        if self._stays_dense(q):
            return self.dense(q, k, v)
        found = self._attend(Plain(q, k, v, self.dense, self.run.blocks), q)
        return self.dense(q, k, v) if found is None else found

    def rounded(self, q: Levels, k: Levels, v: Tensor) -> Tensor:
        """As that of `dense`, which rounds to eight bits."""
        assert isinstance(self.dense, EightBits)
        found: Tensor | None = None
        if self.run.grid is not None and not self._stays_dense(v):
            from wanimate.runtime.sparse.eight import Eight

            found = self._attend(Eight.of(q, k, v), v)
        if found is None:
            found = self.dense.rounded(q, k, v)
        return found.to(v.dtype)

    def _stays_dense(self, x: Tensor) -> bool:
        """Whether the coming call, of x [1, L, N, d], visits everything; it is counted then."""
        state = self.run.layers.get((self.layer, self.part))
        choice = None if state is None else state.choice
        if state is None or choice is None or not choice.dense or choice.old(state.calls):
            return False
        state.calls += 1
        plan = self._plan(x)
        pairs = x.shape[2] * plan.shape[0] * plan.shape[1]
        self.run.meter.add(pairs, pairs, 0.0)
        return True

    def _plan(self, x: Tensor) -> Layout:
        assert self.run.grid is not None
        plan = layout(self.run.grid, self.run.sizes, x.device)
        assert plan.tokens == x.shape[1], "the tokens are not those of the grid"
        return plan

    def _attend(self, given: Inputs, x: Tensor) -> Tensor | None:
        """What the inputs, of which x is one, come to: [1, L, N, d]; None where all heads visit everything."""
        run, state = self.run, self.run.layers.setdefault((self.layer, self.part), _Layer())
        plan = self._plan(x)
        choice = self._choice(state, plan, given)
        rows = self._sample(state, plan, 1, max(LEAST, int(SHARE * plan.tokens)))
        state.calls += 1
        heads = len(choice.density)
        pairs = heads * plan.shape[0] * plan.shape[1]
        if choice.dense:
            run.meter.add(pairs, pairs, 0.0)
            return None
        found = given.sparse(choice.visits, plan)
        errors = _relative(found[:, rows], given.dense(rows, None))
        wrong = errors > run.error
        largest, bad = torch.stack((errors.masked_fill(wrong, 0.0).max(), wrong.any().float())).tolist()
        count = choice.total
        if bad:
            some = wrong.nonzero()[:, 0]
            found[:, :, some] = given.dense(None, some).to(found.dtype)
            count += len(some) * pairs / heads
            assert state.margin is not None
            state.margin = torch.where(wrong, TIGHTER * state.margin, state.margin)
            state.stale = True
        run.meter.add(count, pairs, largest)
        return found

    def _choice(self, state: _Layer, plan: Layout, given: Inputs) -> _Choice:
        """The layer's choice, made anew where it is old or was wrong."""
        known = state.choice
        if known is not None and not state.stale and not known.old(state.calls):
            return known
        state.choice = known = None  # its memory is needed by the next one
        q, k, v, scale = given.floats()
        if state.margin is None:
            state.margin = torch.full((len(q),), MARGIN, device=q.device)
        elif not state.stale:
            state.margin = (EASIER * state.margin).clamp(max=MARGIN)
        rank, counts = ranked(block_mass(q, k, scale, plan), plan.always)
        rows = self._sample(state, plan, 0, min(CHOOSING, max(LEAST, int(SHARE * plan.tokens))))
        of = rows // plan.sizes.queries
        errors = level_errors(q[:, rows], k, v, scale, rank[:, of], counts[:, of], plan)
        density = counts.float().mean(1) / plan.shape[1]  # [N, levels]
        usable = (errors <= self.run.error * state.margin[:, None]) & (density <= self.run.worth)
        usable[:, DENSE] = True
        level = usable.int().argmax(-1)
        chosen = density.gather(-1, level[:, None])[:, 0]
        total = float(chosen.sum()) * plan.shape[0] * plan.shape[1]
        dense = bool((level == DENSE).all())
        visits = None if dense else given.prepared(visited(rank, counts, level))
        state.choice = _Choice(visits, chosen, total, state.calls, dense)
        state.stale = False
        return state.choice

    def _sample(self, state: _Layer, plan: Layout, what: int, wanted: int) -> Tensor:
        """Places of queries [R], a random one of each of R equal runs; the same in every run of a job."""
        generator = torch.Generator().manual_seed(1_000_003 * self.layer + 2 * state.calls + what)
        count = min(wanted, plan.tokens)
        bounds = torch.arange(count + 1) * plan.tokens // count
        rows = bounds[:-1] + (torch.rand(count, generator=generator) * bounds.diff()).long()
        return rows.to(plan.always.device)


def _relative(found: Tensor, wanted: Tensor) -> Tensor:
    """Relative L2 error of each head [N]; [1, R, N, d] both."""
    off, wide = found.float() - wanted.float(), wanted.float()
    return (off.square().sum((0, 1, 3)) / wide.square().sum((0, 1, 3)).clamp_min(1e-30)).sqrt()


def sparse_changes(model: AnimateTransformer, run: SparseRun, dense: Attend) -> list[Change]:
    """Changes (`runtime.patches`) that give every block's self-attention to a run."""
    blocks: list[Any] = list(model.blocks.children())
    attends: list[Change] = [
        (block.self_attn, "attend", SparseAttention(i, run, dense)) for i, block in enumerate(blocks)
    ]
    own = [method(model, "context", _context), method(model, "run_blocks", _run_blocks)]
    return [(model, "sparse", run), *own, *attends]


def _context(
    model: AnimateTransformer, text: Tensor, image_tokens: Tensor | None, face_tokens: Tensor, pose_latents: Tensor
) -> Context:
    """`AnimateTransformer.context`, whose blocks get their tokens in the order of the layout."""
    found = AnimateTransformer.context(model, text, image_tokens, face_tokens, pose_latents)
    run: SparseRun = model.__dict__["sparse"]
    return found.arranged(layout(found.grid, run.sizes, found.pose.device).places)


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
