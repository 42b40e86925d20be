"""Step caches: what they forecast, when they skip, and that they change nothing where they skip nothing."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import get_args

import pytest
import torch
from torch import Tensor

from wanimate.config import CacheKind, Solver
from wanimate.errors import InputError
from wanimate.model.transformer import AnimateTransformer
from wanimate.runtime.offload import chunk_tokens, stream_blocks
from wanimate.sampling.cache import Caching as Plan
from wanimate.sampling.cache import FirstBlockCache, Series, StepCache, TaylorCache
from wanimate.sampling.denoise import denoise
from wanimate.sampling.guidance import GuidedNetwork, PhasedNetwork, guided
from wanimate.types import Conditions

KINDS: tuple[CacheKind, ...] = tuple(kind for kind in get_args(CacheKind) if kind != "none")
ALWAYS, NEVER = 1e9, 1e-30
SKIPPED: dict[CacheKind, str] = {
    "taylor": "FFFFFFSSSSSF", "early-taylor": "FFFSSSSSSSSF", "first-block": "FFFSSSSSSSSF", "magnitude": "FFFSSSFSSSFF",
}  # fmt: skip
"""Twelve steps where every one that may be skipped is."""


def plan(kind: CacheKind, gate: float, steps: int = 12, start: int = 0) -> Plan:
    return Plan(kind, gate, steps, start)


def steps_of(network: GuidedNetwork | PhasedNetwork, noise: Tensor, count: int) -> list[Tensor]:
    """Flows of a fixed sequence of states, so that what one step gives is not felt by the next."""
    generator = torch.Generator().manual_seed(1)
    drift = torch.randn(noise.shape, generator=generator)
    return [network(noise * (1 - i / count) + drift * i / count, torch.tensor(1000 - 80 * i)) for i in range(count)]


@contextmanager
def counted(model: AnimateTransformer) -> Iterator[list[int]]:
    """Numbers of the blocks as they are called."""
    calls: list[int] = []

    def noted(i: int) -> Callable[..., None]:
        return lambda *args: calls.append(i)

    hooks = [block.register_forward_pre_hook(noted(i)) for i, block in enumerate(model.blocks)]
    yield calls
    for hook in hooks:
        hook.remove()


def fresh(
    kind: CacheKind, gate: float, steps: int = 12, start: int = 0, dtype: torch.dtype = torch.float32
) -> StepCache:
    cache = plan(kind, gate, steps, start).make(lambda parts: parts.sum(-1), dtype)
    assert cache is not None
    return cache


def drive(
    cache: StepCache, first: list[Tensor], last: list[Tensor], before: Tensor | None = None
) -> list[Tensor | None]:
    """The conditional branch's answers to a sequence of outputs of the first and of the last block; None for full steps."""
    answers: list[Tensor | None] = []
    branch = cache.branches[0]
    for a, b in zip(first, last, strict=True):
        cache.begin()
        known = branch.enter(torch.zeros_like(a) if before is None else before)
        known = branch.first(a) if known is None else known
        if known is None:
            branch.leave(b)
        answers.append(known)
    return answers


def full(answers: list[Tensor | None]) -> str:
    return "".join("F" if answer is None else "S" for answer in answers)


# --- the series


@pytest.mark.parametrize("order", [0, 1, 3])
def test_straight_lines_are_forecast_exactly_at_any_spacing(order: int) -> None:
    start, slope = torch.randn(2, 1, 7, 4, dtype=torch.float64).float()
    series = Series(order, torch.float32)
    for step in (0, 1, 3, 4, 8):
        series.record(step, start + slope * step)
    wanted = start + slope * (11 if order else 8)
    torch.testing.assert_close(series.at(11), wanted, atol=2e-5, rtol=1e-5)


def test_differences_of_powers() -> None:
    """Of n^2 with spacing 1: n^2, 2n - 1, 2; so the forecast x on is (n + x)^2 - x. Of n^3 likewise, by hand."""
    square, cube = Series(3, torch.float32), Series(3, torch.float32)
    for n in range(6):
        square.record(n, torch.full((1, 1, 1), float(n**2)))
        cube.record(n, torch.full((1, 1, 1), float(n**3)))
    assert [t.item() for t in square.terms] == [25, 9, 2, 0]
    assert square.at(8).item() == 64 - 3
    assert [t.item() for t in cube.terms] == [125, 61, 24, 6]
    assert cube.at(7).item() == 125 + 61 * 2 + 24 * 2 + 6 * 8 / 6


def test_differences_are_divided_by_their_own_spacing() -> None:
    series = Series(2, torch.float32)
    for step, value in ((0, 1.0), (1, 2.0), (4, 8.0)):
        series.record(step, torch.full((1, 1, 1), value))
    assert [t.item() for t in series.terms] == [8.0, 2.0, pytest.approx((2 - 1) / 3)]


def test_what_is_kept_is_a_copy() -> None:
    value = torch.ones(1, 2, 3)
    series = Series(1, torch.float32)
    series.record(0, value)
    value.zero_()
    assert series.terms[0].eq(1).all()


def test_many_tokens_are_handled_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(4, 1, 11, 3)
    whole, parts = Series(2, torch.float32), Series(2, torch.float32)
    for i, value in enumerate(values):
        whole.record(i, value)
    monkeypatch.setattr("wanimate.sampling.cache.ROWS", 4)
    for i, value in enumerate(values):
        parts.record(i, value)
    assert torch.equal(whole.at(6), parts.at(6))


# --- rules


def test_taylor_warms_up_and_ends_with_full_steps() -> None:
    line = [torch.full((1, 3, 2), 1.0 + i) for i in range(12)]
    curve = [torch.full((1, 3, 2), float(i * i)) for i in range(12)]
    answers = drive(fresh("taylor", 1e-3), line, curve)
    assert full(answers) == "FFFFFFSSSSSF"
    for i, answer in enumerate(answers[6:11], 6):  # from n = 5: 25 and a slope of 9
        assert answer is not None
        assert answer.unique().item() == 25 + 9 * (i - 5)


def test_the_gate_is_the_mean_error_over_the_mean_size() -> None:
    """Step 7 is off by 0.2 of its size, once where that is below the gate and once where it is not."""
    line = [torch.full((1, 3, 2), 1.0 + i) for i in range(12)]
    line[7] = line[7] / 0.8  # forecast 8, real 10
    curve = [torch.full((1, 3, 2), float(i * i)) for i in range(12)]
    assert full(drive(fresh("taylor", 0.2001), line, curve))[6:9] == "SSS"
    answers = drive(fresh("taylor", 0.1999), line, curve)
    assert full(answers)[6:8] == "SF"


def test_a_failed_gate_refreshes_both_histories() -> None:
    line = [torch.full((1, 3, 2), 1.0 + i) for i in range(12)]
    jumped = [x + 100 * (i >= 7) for i, x in enumerate(line)]
    cache = fresh("taylor", 1e-3)
    answers = drive(cache, jumped, jumped)
    branch = cache.branches[0]
    assert full(answers)[6:8] == "SF"
    assert branch.last.step >= 7  # type: ignore[attr-defined]
    assert branch.seen.step >= 7  # type: ignore[attr-defined]


def test_histories_are_refreshed_by_the_warm_up_and_by_a_failed_gate_only() -> None:
    line = [torch.full((1, 3, 2), 1.0 + i) for i in range(12)]
    cache = fresh("taylor", 1e-3)
    branch = cache.branches[0]
    steps = []
    for tokens in line:
        drive(cache, [tokens], [tokens])
        steps.append((branch.seen.step, branch.last.step))  # type: ignore[attr-defined]
    assert steps == [(min(i, 5), min(i, 5)) for i in range(12)]
    assert len(branch.seen.terms) == 4  # type: ignore[attr-defined]
    assert len(branch.last.terms) == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_that_are_not_finite_are_never_trusted(kind: CacheKind) -> None:
    bad = [torch.full((1, 3, 2), float("nan"))] * 12
    assert full(drive(fresh(kind, ALWAYS), bad, bad)) == "F" * 12


def test_first_block_compares_changes_with_the_last_full_step() -> None:
    """Changes grow by 4 % a step, gate 9 %: two are skipped, the third is 12 % off."""
    before = torch.full((1, 3, 2), 5.0)
    first = [before + 1.04**i for i in range(12)]
    last = [x + i for i, x in enumerate(first)]
    answers = drive(fresh("first-block", 0.09), first, last, before)
    assert full(answers) == "FFFSSFSSFSSF"
    for i, base in ((3, 2), (4, 2), (6, 5)):
        answer = answers[i]
        assert answer is not None
        torch.testing.assert_close(answer, first[i] + base)


def test_magnitude_sums_the_promised_errors() -> None:
    """Changes shrink by 5 % a step: one skipped step adds 0.05, the second 1 - 0.95^2, the third 1 - 0.95^3."""
    tokens = [torch.ones(1, 3, 2)] * 12
    last = [1 + 0.95**i * torch.ones(1, 3, 2) for i in range(12)]
    for gate, wanted in ((0.04, "F" * 12), (0.1, "FFFSFSFSFSFF"), (0.16, "FFFSSFSSFSSF"), (1.0, "FFFSSSFSSSFF")):
        cache = fresh("magnitude", gate)
        answers = drive(cache, tokens, last, tokens[0])
        assert full(answers) == wanted
        assert cache.skipped == wanted.count("S")


def test_few_steps_have_no_cache() -> None:
    few = {"taylor": 7, "early-taylor": 4, "first-block": 2, "magnitude": 3}
    for kind in KINDS:
        for steps in range(1, 12):
            made = plan(kind, ALWAYS, steps).make(lambda parts: parts.sum(-1), torch.float32)
            assert (made is None) == (steps <= few[kind])
            assert (plan(kind, ALWAYS, steps).kept(2) == 0) == (made is None)


def test_nothing_is_kept_for_steps_that_will_be_full() -> None:
    values = [torch.randn(1, 3, 2) for _ in range(8)]
    cache = fresh("taylor", NEVER, 8)
    drive(cache, values, values)
    assert cache.branches[0].last.step == 5  # type: ignore[attr-defined]
    cache = fresh("magnitude", NEVER, 8)
    drive(cache, values, values, torch.zeros(1, 3, 2))
    assert cache.branches[0].change is None  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", KINDS)
def test_histories_are_in_the_type_of_the_weights(kind: CacheKind) -> None:
    values = [torch.randn(1, 3, 2) for _ in range(6)]
    cache = fresh(kind, ALWAYS, 12, dtype=torch.bfloat16)
    drive(cache, values, values, torch.zeros(1, 3, 2))
    branch = cache.branches[0]
    held = [*branch.seen.terms, *branch.last.terms] if "taylor" in kind else [branch.change]  # type: ignore[attr-defined]
    assert {t.dtype for t in held} == {torch.bfloat16}


@pytest.mark.parametrize("kind", KINDS)
def test_histories_go_with_the_last_reference(kind: CacheKind) -> None:
    """Not when garbage is collected some time: a segment's would stay beside those of the next one."""
    values = [torch.randn(1, 3, 2) for _ in range(6)]
    cache = fresh(kind, ALWAYS, 12)
    drive(cache, values, values, torch.zeros(1, 3, 2))
    branch = weakref.ref(cache.branches[0])
    gc.disable()
    try:
        del cache
        assert branch() is None
    finally:
        gc.enable()


def test_what_is_refused() -> None:
    assert Plan.of("none", None, 20) is None
    with pytest.raises(InputError, match=r"cache_gate.*no cache.*Give cache too"):
        Plan.of("none", 0.1, 20)
    with pytest.raises(InputError, match=r"unknown cache.*taylor, first-block, magnitude"):
        Plan.of("some", 0.1, 20)  # type: ignore[arg-type]


# --- with a network


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_a_cache_that_skips_nothing_changes_no_bit(
    model: AnimateTransformer, conditions: Conditions, noise: Tensor, kind: CacheKind, scale: float
) -> None:
    without = steps_of(guided(model, conditions, scale), noise, 12)
    network = guided(model, conditions, scale, plan(kind, NEVER))
    assert all(torch.equal(a, b) for a, b in zip(steps_of(network, noise, 12), without, strict=True))
    assert network.skipped == 0
    none = guided(model, conditions, scale, None)
    assert none.cache is None
    assert guided(model, conditions, scale, plan(kind, ALWAYS, 2)).cache is None  # few steps


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_calls_of_blocks(
    model: AnimateTransformer, conditions: Conditions, noise: Tensor, kind: CacheKind, scale: float
) -> None:
    network = guided(model, conditions, scale, plan(kind, ALWAYS))
    every = list(range(len(model.blocks)))
    skipped = {
        "taylor": ([0], []), "early-taylor": ([0], []), "first-block": ([0], [0]), "magnitude": ([], []),
    }[kind]  # fmt: skip
    branches = 1 if scale == 1 else 2
    for i, what in enumerate(SKIPPED[kind]):
        with counted(model) as calls:
            network(noise, torch.tensor(900 - 50 * i))
        wanted = every * branches if what == "F" else [i for part in skipped[:branches] for i in part]
        assert calls == wanted, f"step {i}"
    assert network.skipped == SKIPPED[kind].count("S")


@pytest.mark.parametrize("kind", KINDS)
def test_each_branch_has_its_own_history(
    model: AnimateTransformer, conditions: Conditions, noise: Tensor, kind: CacheKind
) -> None:
    """Guidance is the sum of its two branches, each cached as if it were alone."""
    together = guided(model, conditions, 2.5, plan(kind, ALWAYS))
    assert together.negative is not None
    alone = []
    for context in (together.positive, together.negative):
        cache = plan(kind, ALWAYS).make(lambda parts: parts.sum(-1), torch.float32)
        alone.append(GuidedNetwork(model, conditions.y, context, None, 1.0, cache))
    found = steps_of(together, noise, 12)
    for v, c, u in zip(found, *(steps_of(network, noise, 12) for network in alone), strict=True):
        torch.testing.assert_close(v, u + 2.5 * (c - u))


@pytest.mark.parametrize("kind", KINDS)
def test_every_segment_begins_anew(
    model: AnimateTransformer, conditions: Conditions, noise: Tensor, kind: CacheKind
) -> None:
    first = steps_of(guided(model, conditions, 1.0, plan(kind, ALWAYS)), noise, 12)
    steps_of(guided(model, conditions, 1.0, plan(kind, ALWAYS)), noise + 1, 12)
    again = steps_of(guided(model, conditions, 1.0, plan(kind, ALWAYS)), noise, 12)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_another_network_begins_with_full_steps(
    model: AnimateTransformer, conditions: Conditions, noise: Tensor, kind: CacheKind
) -> None:
    """As where a LoRA acts from step 8 on: nothing of the network before is forecast."""
    whole = plan(kind, ALWAYS, 14)
    network = PhasedNetwork(
        lambda step: (int(step >= 8),), lambda key, start: guided(model, conditions, 1.0, whole.at(start))
    )
    done = ""
    for i in range(14):
        with counted(model) as calls:
            network(noise, torch.tensor(900 - 50 * i))
        done += "F" if len(calls) == 4 else "S"
    wanted = {
        "taylor": "FFFFFFSSFFSSSF", "early-taylor": "FFFSSSSSFFFSSF", "first-block": "FFFSSSSSFSSSSF",
        "magnitude": "FFFSSSFSFFSSSF",
    }[kind]  # fmt: skip
    assert done == wanted
    assert network.skipped == wanted.count("S")


def test_a_network_that_takes_over_late_has_no_cache(model: AnimateTransformer, conditions: Conditions) -> None:
    assert guided(model, conditions, 1.0, plan("taylor", ALWAYS, 12).at(10)).cache is None


@pytest.mark.parametrize("solver", get_args(Solver))
@pytest.mark.parametrize("kind", KINDS)
def test_solvers(
    model: AnimateTransformer, conditions: Conditions, noise: Tensor, kind: CacheKind, solver: Solver
) -> None:
    network = guided(model, conditions, 1.0, plan(kind, ALWAYS))
    states = list(denoise(network, noise, solver, 12, 3.0))
    exact = list(denoise(guided(model, conditions, 1.0), noise, solver, 12, 3.0))
    assert network.skipped == SKIPPED[kind].count("S")
    assert states[-1].latents.isfinite().all()
    warm = SKIPPED[kind].index("S")
    assert torch.equal(states[warm - 1].latents, exact[warm - 1].latents)
    assert not torch.equal(states[warm].latents, exact[warm].latents)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", [False, True])
def test_sliced_tokens_and_streamed_blocks(
    model: AnimateTransformer, conditions: Conditions, noise: Tensor, kind: CacheKind, stream: bool
) -> None:
    """Slices change the tokens in place; streamed blocks are left in the middle of a round."""
    wanted = steps_of(guided(model, conditions, 2.5, plan(kind, ALWAYS)), noise, 12)
    chunk_tokens(model, 7)
    if stream:
        stream_blocks(model, "cpu")
    found = steps_of(guided(model, conditions, 2.5, plan(kind, ALWAYS)), noise, 12)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=2e-5)


def test_the_first_blocks_output_has_the_face_in_it(
    model: AnimateTransformer, conditions: Conditions, noise: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = guided(model, conditions, 1.0, plan("taylor", ALWAYS))
    shown: list[Tensor] = []
    branch = network.cache.branches[0]  # type: ignore[union-attr]
    monkeypatch.setattr(branch, "first", lambda tokens: shown.append(tokens.clone()))
    network(noise, torch.tensor(900))
    context = network.positive
    _, e0 = model.embed_time(torch.tensor([900]))
    x = model.embed_video(noise[None], conditions.y[None], context.pose)
    block = model.blocks[0](x, e0, context.rope, context.cross[0])
    with_face = block + model.face_adapter.fuser_blocks[0](block, context.face[0])
    torch.testing.assert_close(shown[0], with_face)
    assert (with_face - block).norm() > 1e-3 * block.norm()


def test_the_last_tokens_are_what_the_head_gets(
    model: AnimateTransformer, conditions: Conditions, noise: Tensor
) -> None:
    """A skipped step of `taylor` is the head on the line through the last two full steps' tokens."""
    heads: list[Tensor] = []
    hook = model.head.register_forward_pre_hook(lambda m, args: heads.append(args[0].clone()))
    steps_of(guided(model, conditions, 1.0, plan("taylor", ALWAYS)), noise, 12)
    hook.remove()
    for i in range(6, 11):
        torch.testing.assert_close(heads[i], heads[5] + (heads[5] - heads[4]) * (i - 5), atol=1e-4, rtol=1e-4)


def test_kinds_have_their_classes() -> None:
    assert isinstance(fresh("taylor", 0.1), TaylorCache)
    assert isinstance(fresh("first-block", 0.1), FirstBlockCache)
