"""Attention that leaves out blocks: within its error whatever queries and keys look like, and part of all that a job does."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from arranged import in_order
from safetensors.torch import save_file
from test_runtime_offload import flow
from tiny_checkpoints import PUBLISHED
from torch import Tensor

from golden import fill
from wanimate.config import LoraUse
from wanimate.errors import InputError
from wanimate.model.attention import attention
from wanimate.model.transformer import AnimateTransformer
from wanimate.runtime import optimize as speed
from wanimate.runtime.offload import stream_blocks
from wanimate.runtime.patches import installed
from wanimate.runtime.sparse import control
from wanimate.runtime.sparse.choice import DENSE, LEFT_OUT, block_mass, level_errors, ranked, visited
from wanimate.runtime.sparse.control import SparseAttention, SparseRun, meter_of, step_of
from wanimate.runtime.sparse.layout import BlockSizes, Grid, Lists, layout, list_bytes, taken
from wanimate.runtime.sparse.reference import attend_blocks
from wanimate.sampling.cache import Caching
from wanimate.sampling.guidance import guided
from wanimate.types import Conditions
from wanimate.weights.lora import match_lora, read_lora
from wanimate.weights.lora_view import with_loras

CPU = torch.device("cpu")
GRID: Grid = (5, 16, 20)
WIDTH = 32
KINDS = ("local", "near in time", "flat", "random", "reference", "few keys")


def positions(grid: Grid) -> Tensor:
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in grid), indexing="ij")
    return torch.stack(axes, dim=-1).flatten(0, 2)


def structured(grid: Grid = GRID, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A head of each kind: q, k and v [1, L, N, d], in the order of the layout."""
    generator = torch.Generator().manual_seed(seed)
    at = positions(grid)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def near(reach: tuple[float, float, float], strength: float) -> Tensor:
        """Features whose products fall off with the distance, as a Gaussian."""
        angle = (at / torch.tensor(reach)) @ randn(3, WIDTH // 2)
        return (strength * WIDTH**0.5 * 2 / WIDTH) ** 0.5 * torch.cat((angle.cos(), angle.sin()), dim=-1)

    local, timely = near((1.5, 2.5, 2.5), 12.0), near((0.7, 30, 30), 10.0)
    direction = torch.zeros(WIDTH)
    direction[0] = 1.0
    first = (at[:, :1] == 0) * direction
    few = (torch.rand(len(at), 1, generator=generator) < 0.01) * direction
    noise = [0.3 * randn(2, len(at), WIDTH) for _ in range(4)]
    pairs = [
        (local + noise[0][0], local + noise[0][1]), (timely + noise[1][0], timely + noise[1][1]),
        (0.1 * randn(len(at), WIDTH), 0.1 * randn(len(at), WIDTH)), (2 * randn(len(at), WIDTH), 2 * randn(len(at), WIDTH)),
        (8 * direction + noise[2][0], 8 * first + noise[2][1]), (8 * direction + noise[3][0], 8 * few + noise[3][1]),
    ]  # fmt: skip
    q, k = (torch.stack([pair[i] for pair in pairs], dim=1)[None] for i in (0, 1))
    order = layout(grid, BlockSizes(), CPU).places.order
    return q[:, order], k[:, order], randn(1, len(at), len(pairs), WIDTH)[:, order]


def head_errors(found: Tensor, wanted: Tensor) -> Tensor:
    return (found - wanted).square().sum((0, 1, 3)).sqrt() / wanted.square().sum((0, 1, 3)).sqrt()


@pytest.mark.parametrize("grid", [(5, 16, 20), (3, 5, 7), (1, 4, 4), (2, 9, 33)])
def test_blocks_hold_every_token_once_and_lie_together(grid: Grid) -> None:
    found = layout(grid, BlockSizes(), CPU)
    tokens = grid[0] * grid[1] * grid[2]
    assert found.places.order.sort().values.tolist() == list(range(tokens))
    assert found.places.order[found.places.place].tolist() == list(range(tokens))
    assert int(found.keys.sum()) == tokens
    at = positions(grid)[found.places.order]
    steps = (at[1:] - at[:-1]).abs()
    assert (steps[:, 0] <= 1).all()  # frame by frame
    within = steps[steps[:, 0] == 0]
    assert within[:, 1:].max() < 2 * 8  # at most from one tile to the next
    spread = torch.stack([run.amax(0) - run.amin(0) for run in at.split(64)])[:, 1:].float().mean()
    rows = torch.stack([run.amax(0) - run.amin(0) for run in positions(grid).split(64)])[:, 1:].float().mean()
    assert spread <= rows


def test_the_reference_frame_and_neighbours_are_always_visited() -> None:
    found = layout(GRID, BlockSizes(), CPU)
    at = positions(GRID)[found.places.order]
    for i, queries in enumerate(at.split(64)):
        for j, keys in enumerate(at.split(32)):
            near = ((queries[:, None] - keys[None]).abs() <= 1).all(-1).any()
            if near or (keys[:, 0] == 0).any():
                assert found.always[i, j]
    assert not found.always.all()


def test_the_reference_is_softmax_over_the_blocks_that_are_visited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against float64 with the mask written out; in pieces, too."""
    plan = layout((2, 9, 11), BlockSizes(64, 32, (4, 4)), CPU)
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, plan.tokens, 16, generator=generator) for _ in range(3))
    blocks = (torch.rand(2, *plan.shape, generator=generator) < 0.5) | plan.always
    mask = torch.zeros(2, plan.tokens, plan.tokens, dtype=torch.bool)
    for n, i, j in blocks.nonzero().tolist():
        mask[n, 64 * i : 64 * i + 64, 32 * j : 32 * j + 32] = True
    score = (q.double() @ k.double().mT / 4).masked_fill(~mask, float("-inf"))
    wanted = score.softmax(-1) @ v.double()
    for at_once in (1 << 24, 1):
        monkeypatch.setattr("wanimate.runtime.sparse.reference.AT_ONCE", at_once)
        torch.testing.assert_close(attend_blocks(q, k, v, blocks, plan).double(), wanted, rtol=1e-4, atol=1e-5)


def test_the_mass_of_blocks_is_about_what_it_is() -> None:
    plan = layout(GRID, BlockSizes(), CPU)
    q, k, v = (x[0].transpose(0, 1) for x in structured())
    true = ((q @ k.mT) / WIDTH**0.5).softmax(-1)
    true = torch.stack([part.mean(1) for part in true.split(64, 1)], 1)
    true = torch.stack([part.sum(-1) for part in true.split(32, -1)], -1)
    scale = torch.full((len(q),), WIDTH**-0.5)
    mass = block_mass(q, k, scale, plan)
    torch.testing.assert_close(block_mass(3 * q, 2 * k, scale / 6, plan), mass)
    assert mass.sum(-1) == pytest.approx(torch.ones(len(KINDS), plan.shape[0]).numpy(), abs=1e-4)
    overlap = torch.minimum(mass, true).sum(-1).mean(1)
    assert dict(zip(KINDS, (overlap > 0.5).tolist(), strict=True)) == dict.fromkeys(KINDS, True)
    assert overlap[KINDS.index("few keys")] > 0.6  # mean keys alone find 0.38 of it
    rank, counts = ranked(mass, plan.always)
    level = torch.full((len(q),), LEFT_OUT.index(0.05))
    blocks = visited(rank, counts, level)
    assert (blocks | ~plan.always).all()
    assert ((blocks * mass).sum(-1) > 0.95 - 1e-4).all()
    assert (counts.diff(dim=-1) >= 0).all()
    rows = torch.arange(0, plan.tokens, 7)
    errors = level_errors(q[:, rows], k, v, scale, rank[:, rows // 64], counts[:, rows // 64], plan)
    assert (errors[:, DENSE] < 1e-6).all()
    dense = (attend_blocks(q, k, v, torch.ones_like(blocks), plan))[:, rows]
    wanted = (attend_blocks(q, k, v, blocks, plan)[:, rows] - dense).square().sum((1, 2)).sqrt()
    wanted = wanted / dense.square().sum((1, 2)).sqrt()
    assert errors.gather(1, level[:, None])[:, 0].tolist() == pytest.approx(wanted.tolist(), rel=2e-3, abs=1e-6)


def run_of(error: float, grid: Grid = GRID, **more: Any) -> tuple[SparseRun, SparseAttention]:
    run = SparseRun(error, **more)
    run.grid = grid
    return run, SparseAttention(0, run, attention)


@pytest.mark.parametrize("error", [0.02, 0.1])
def test_the_error_stays_below_what_is_asked_for(error: float) -> None:
    """Over all queries, of which it saw one in 25; heads change from call to call as they do from step to step."""
    run, attend = run_of(error)
    for seed in range(4):
        q, k, v = structured(seed=seed)
        true = head_errors(attend(q, k, v), attention(q, k, v))
        assert (true < error).all(), dict(zip(KINDS, true.tolist(), strict=True))
        step = run.meter.take()
        assert step.error <= error


def test_heads_that_are_not_sparse_become_dense() -> None:
    run, attend = run_of(0.1)
    q, k, v = structured()
    attend(q, k, v)
    choice = run.layers[0, 0].choice
    assert choice is not None
    density = dict(zip(KINDS, choice.density.tolist(), strict=True))
    assert density["flat"] == density["random"] == 1.0
    assert density["local"] < 0.75
    assert density["reference"] < 0.75
    step = run.meter.take()
    assert step.density == pytest.approx(float(choice.density.mean()), abs=1e-6)
    random = KINDS.index("random")
    run, attend = run_of(0.05)
    q, k, v = (x[:, :, [random]] for x in (q, k, v))
    assert torch.equal(attend(q, k, v), attention(q, k, v))  # nothing but the dense backend
    assert run.meter.take().density == 1.0


def test_a_head_that_is_off_is_computed_again_and_chosen_again() -> None:
    """Queries and keys turn into others while the choice holds."""
    run, attend = run_of(0.05)
    run.worth = 1.0
    q, k, v = (x[:, :, :1] for x in structured())
    attend(q, k, v)
    first = run.layers[0, 0].choice
    assert first is not None
    assert not first.dense
    assert run.meter.take().density < 1
    other = k.flip(1)  # what is near is at the other end now
    out = attend(q, other, v)
    assert run.layers[0, 0].choice is first
    torch.testing.assert_close(out, attention(q, other, v))
    step = run.meter.take()
    assert step.error == 0.0
    assert step.density > 1.0  # both ways were computed
    attend(q, other, v)
    assert run.layers[0, 0].choice is not first
    assert float(run.layers[0, 0].margin or 0) < control.MARGIN


def test_a_choice_holds_for_some_calls_and_is_the_same_every_time() -> None:
    grid = (3, 9, 16)
    q, k, v = structured(grid)
    found = []
    for _ in range(2):
        run, attend = run_of(0.1, grid)
        made, outs = [], []
        for _ in range(control.RENEW + 1):
            outs.append(attend(q, k, v))
            choice = run.layers[0, 0].choice
            assert choice is not None
            made.append(choice.made)
        assert made[: control.RENEW] == [0] * control.RENEW
        assert made[-1] == control.RENEW
        found.append(torch.stack(outs))
    assert torch.equal(*found)


def test_measured_queries_lie_in_all_parts_of_the_video() -> None:
    run, attend = run_of(0.05)
    plan, state = layout(GRID, run.sizes, CPU), control._Layer()
    rows = attend._sample(state, plan, 1, 64)
    assert (rows // (plan.tokens // 64)).tolist() == list(range(64))
    assert torch.equal(attend._sample(state, plan, 1, 64), rows)
    state.calls += 1
    assert not torch.equal(attend._sample(state, plan, 1, 64), rows)
    assert attend._sample(state, plan, 1, 10**6).tolist() == list(range(plan.tokens))


def test_what_is_slower_than_attention_with_all_keys_is_not_done() -> None:
    """Where the kernel that visits some blocks is slower, fewer heads are worth it."""
    q, k, v = structured()
    found = []
    for worth in (control.WORTH, 0.6, 0.0):
        run, attend = run_of(0.1)
        run.worth = worth
        attend(q, k, v)
        choice = run.layers[0, 0].choice
        assert choice is not None
        sparse = choice.density[choice.density < 1]
        assert (sparse <= worth).all()
        found.append(len(sparse))
    assert found[0] > found[1] > found[2] == 0


def test_a_layer_that_leaves_nothing_out_is_asked_less_often() -> None:
    grid, random = (3, 9, 16), [KINDS.index("random")]
    q, k, v = (x[:, :, random] for x in structured(grid))
    run, attend = run_of(0.05, grid)
    made = []
    for _ in range(control.RENEW_DENSE + 1):
        attend(q, k, v)
        choice = run.layers[0, 0].choice
        assert choice is not None
        assert choice.dense
        made.append(choice.made)
    assert made == [0] * control.RENEW_DENSE + [control.RENEW_DENSE]


def network() -> AnimateTransformer:
    return fill(AnimateTransformer(replace(PUBLISHED, num_heads=2))).eval().requires_grad_(False)


def thinned(
    model: AnimateTransformer, error: float, sizes: BlockSizes = BlockSizes(8, 4, (2, 2))
) -> AnimateTransformer:
    """A copy; blocks are small, as the networks of tests see few tokens."""
    copied = copy.deepcopy(model)
    speed.thin_attention(copied, error)
    if error:
        copied.__dict__["sparse"].sizes = sizes
    return copied


def test_no_error_leaves_nothing_out() -> None:
    model = network()
    plain = thinned(model, 0.0)
    assert installed(plain) == []
    assert meter_of(plain) is None
    assert torch.equal(flow(plain), flow(model))
    tight = thinned(model, 1e-9)
    assert installed(tight) == ["attention (torch, error 1e-09)"]
    assert torch.equal(flow(tight), flow(in_order(model, tight.__dict__["sparse"].sizes)))


@pytest.mark.parametrize("sizes", [BlockSizes(8, 4, (2, 2)), BlockSizes(6, 4, (3, 2))])
def test_a_network_does_not_mind_the_order_of_its_tokens(sizes: BlockSizes) -> None:
    model = network()
    other = in_order(model, sizes)
    given, x = conditions(model)
    wanted, found = (guided(net, given, 2.5)(x, torch.tensor(600)) for net in (model, other))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    order = guided(other, given, 1.0).positive.order
    assert order is not None
    assert order.order.tolist() != list(range(len(order.order)))


def test_a_context_made_before_is_not_used() -> None:
    """Its tokens would be taken for those of other places."""
    model = network()
    step = guided(model, conditions(model)[0], 1.0)
    speed.thin_attention(model, 0.4)
    with pytest.raises(AssertionError, match="made before"):
        step(conditions(model)[1], torch.tensor(600))


def conditions(model: AnimateTransformer) -> tuple[Conditions, Tensor]:
    p, generator = model.params, torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    face = randn(3, 9, p.motion.size, p.motion.size).clamp(-1, 1)
    image = randn(5, p.image_width or 0)
    given = Conditions(
        randn(20, 4, 8, 12), randn(16, 3, 8, 12), face, randn(3, p.text_width), randn(2, p.text_width), image
    )
    return given, randn(16, 4, 8, 12)


def test_it_works_with_guidance_and_step_caches() -> None:
    """Each branch has its own choices; a step that is forecast computes nothing, and its record says so."""
    model = network()
    sparse = thinned(model, 0.4)
    given, x = conditions(model)
    caching = Caching("early-taylor", 1e9, 8)
    wanted, found = (guided(net, given, 2.5, caching) for net in (model, sparse))
    run: SparseRun = sparse.__dict__["sparse"]
    steps = []
    for i in range(8):
        t = torch.tensor(900 - 100 * i)
        one, other = wanted(x, t), found(x, t)
        assert (one - other).norm() < 0.2 * one.norm()
        meter = meter_of(sparse)
        assert meter is not None
        steps.append(meter.take())
    assert found.skipped == wanted.skipped == 4
    assert len(run._known) == 2
    full = [step for i, step in enumerate(steps) if i in (0, 1, 2, 7)]
    assert all(0 < step.density < 1 and step.error <= 0.4 for step in full)
    del found
    run.enter(guided(sparse, given, 1.0).positive)
    assert len(run._known) == 1  # choices go with their segment


def test_it_works_with_loras_and_streamed_blocks(tmp_path: Path) -> None:
    model = network()
    torch.manual_seed(5)
    pair = {"blocks.1.ffn.0.lora_A.weight": torch.randn(2, 128), "blocks.1.ffn.0.lora_B.weight": torch.randn(64, 2)}
    save_file(pair, tmp_path / "lora.safetensors")
    lora = match_lora(read_lora(tmp_path / "lora.safetensors"), model, False)
    assert LoraUse(path=tmp_path / "lora.safetensors").strength == 1.0
    sparse = thinned(model, 0.4)
    view = with_loras(sparse, [(lora, 1.0)])
    assert view.__dict__["sparse"] is not sparse.__dict__["sparse"]
    assert view.blocks[0].self_attn.attend.run is view.__dict__["sparse"]
    assert meter_of(view) is meter_of(sparse)
    view.__dict__["sparse"].sizes = sparse.__dict__["sparse"].sizes
    wanted = flow(view)
    assert (wanted - flow(sparse)).norm() > 1e-3 * wanted.norm()  # the LoRA does something
    meter = meter_of(view)
    assert meter is not None
    assert 0 < meter.take().density <= 1
    expected = flow(thinned(model, 0.4))
    stream_blocks(sparse, "cpu")
    assert torch.equal(flow(sparse), expected)


def test_sums_of_ranks_come_together() -> None:
    step = step_of([[2.0, 4.0, 0.01], [4.0, 4.0, 0.03]])
    assert (step.density, step.error) == (0.75, 0.03)
    assert step_of([[0.0, 0.0, 0.0]]).density == 0.0


@pytest.mark.parametrize(
    ("device", "mode", "said"), [("cpu", "exact", "exact does not allow"), ("cuda", "fast", "need Triton")]
)
def test_it_is_refused_where_it_cannot_be_had(
    device: str, mode: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "HAS_TRITON", False)
    with pytest.raises(InputError, match=said) as caught:
        speed.check_attention_error(torch.device(device), mode, 0.05)
    assert caught.value.field == "runtime.attention_error"
    speed.check_attention_error(torch.device(device), mode, 0.0)


def test_a_batch_of_videos_is_dense() -> None:
    run, attend = run_of(0.1)
    two = [torch.cat((x, x)) for x in structured()]
    q, k, v = two
    assert torch.equal(attend(q, k, v), attention(q, k, v))
    assert run.meter.take().density == 0.0


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(1, 9, 4, 16), (1, 9, 3, 1), (1, 9)])
def test_tokens_are_taken_whatever_they_are_made_of(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    which = torch.tensor([4, 0, 8, 8, 3])
    x = torch.randn(shape).to(dtype)
    parts = [x, *((x[..., 1:], x.transpose(-1, -2).contiguous().transpose(-1, -2)) if len(shape) > 2 else ())]
    for part in parts:
        found = taken(part, 1, which)
        assert found.dtype == dtype
        assert torch.equal(found.float(), part.float()[:, which])
    later = torch.randn(2, 9, 4, 16).to(dtype).flatten()[1 : 1 + 9 * 64].view(1, 9, 4, 16)
    assert torch.equal(taken(later, 1, which).float(), later.float()[:, which])
    assert torch.equal(taken(x.new_empty(0, *shape), 0, which[:0]), x.new_empty(0, *shape))


def test_lists_name_the_blocks_that_are_visited_in_order() -> None:
    generator = torch.Generator().manual_seed(0)
    blocks = torch.rand(2, 5, 9, generator=generator) < 0.4
    blocks[..., 0] |= ~blocks.any(-1)
    found = Lists.of(blocks)
    assert found.blocks.shape[2] == int(blocks.sum(-1).max())
    for n in range(2):
        for i in range(5):
            assert found.blocks[n, i, : found.counts[n, i]].tolist() == blocks[n, i].nonzero()[:, 0].tolist()
    assert list_bytes(75_600, 40, 40, BlockSizes(192, 128)) == 2 * 40 * 40 * 394 * 591
