"""On CUDA: attention that leaves out blocks gives what masked attention gives, and stays within its error."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
from test_speed_gpu import CUDA, distance, flow, in_float8, plain  # noqa: F401 - a fixture
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
from arranged import in_order

from wanimate.model.transformer import AnimateTransformer
from wanimate.runtime.backends import backends
from wanimate.runtime.optimize import has_fp8, optimize_at
from wanimate.runtime.patches import installed
from wanimate.runtime.sparse.control import SparseAttention, SparseRun, meter_of
from wanimate.runtime.sparse.layout import BlockSizes, Grid, Layout, Lists, layout
from wanimate.runtime.sparse.reference import attend_blocks

pytestmark = pytest.mark.gpu
GRIDS: tuple[Grid, ...] = ((3, 9, 11), (2, 16, 24), (5, 15, 26))
HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)


def some_blocks(plan: Layout, heads: int, share: float) -> Tensor:
    """Random blocks, of which every block of queries visits one at least; one visits the last one alone."""
    generator = torch.Generator(CUDA).manual_seed(1)
    blocks = torch.rand(heads, *plan.shape, generator=generator, device=CUDA) < share
    blocks[..., 0] |= ~blocks.any(-1)
    blocks[0, 0] = False
    blocks[0, 0, -1] = True
    return blocks


def numbers(plan: Layout, heads: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator(CUDA).manual_seed(0)
    q, k, v = (torch.randn(plan.tokens, heads, width, generator=generator, device=CUDA).to(dtype) for _ in range(3))
    return q, k, v


def masked(q: Tensor, k: Tensor, v: Tensor, blocks: Tensor, plan: Layout) -> Tensor:
    q, k, v = (x.float().transpose(0, 1) for x in (q, k, v))
    return attend_blocks(q, k, v, blocks, plan).transpose(0, 1)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("dtype", "width"), [(torch.bfloat16, 128), (torch.float16, 128), (torch.bfloat16, 64)])
def test_the_listed_kernel_is_masked_attention(grid: Grid, dtype: torch.dtype, width: int) -> None:
    from wanimate.runtime.kernels.listed import ListedAttention, attend_listed

    plan = layout(grid, ListedAttention.sizes, torch.device(CUDA, 0))
    q, k, v = numbers(plan, 3, width, dtype)
    for share in (0.3, 1.1):
        blocks = some_blocks(plan, 3, share)
        assert distance(attend_listed(q, k, v, Lists.of(blocks)), masked(q, k, v, blocks, plan)) < 5e-3


@pytest.mark.skipif(not HOPPER, reason="the float8 kernel is for Hopper")
@pytest.mark.parametrize("grid", GRIDS)
def test_the_float8_kernel_with_all_tiles_is_the_dense_one_bit_for_bit(grid: Grid) -> None:
    from wanimate.runtime.kernels.attention8 import attend
    from wanimate.runtime.kernels.rows import fp8_heads, fp8_values
    from wanimate.runtime.sparse.eight import FP8_SIZES

    plan = layout(grid, FP8_SIZES, torch.device(CUDA, 0))
    q, k, v = (x[None] for x in numbers(plan, 3, 128, torch.bfloat16))
    eight = fp8_heads(q), fp8_heads(k, smooth=True), fp8_values(v)
    every = torch.ones(3, *plan.shape, dtype=torch.bool, device=CUDA)
    assert torch.equal(attend(*eight, Lists.of(every)), attend(*eight))
    blocks = some_blocks(plan, 3, 0.3)
    found = attend(*eight, Lists.of(blocks))
    assert distance(found[0], masked(q[0], k[0], v[0], blocks, plan)) < 0.1  # of which 0.055 is rounding


@pytest.mark.parametrize(
    "kind", [pytest.param("float8", marks=pytest.mark.skipif(not HOPPER, reason="Hopper")), "int8"]
)
def test_choices_see_the_scores_that_attention_has(kind: str) -> None:
    from wanimate.runtime.kernels.rows import fp8_heads, int8_heads
    from wanimate.runtime.sparse.eight import Eight

    plan = layout(GRIDS[0], BlockSizes(), torch.device(CUDA, 0))
    q, k, v = (x[None] for x in numbers(plan, 3, 128, torch.bfloat16))
    heads = fp8_heads if kind == "float8" else int8_heads
    of_q, of_k, of_v, scale = Eight.of(heads(q), heads(k), v).floats()
    found = (of_q.float() @ of_k.float().mT) * scale[:, None, None]
    wanted = q[0].float().transpose(0, 1) @ k[0].float().transpose(0, 1).mT / 128**0.5
    assert distance(found, wanted) < 0.06
    assert torch.equal(of_v, v[0].transpose(0, 1))


def near(grid: Grid, heads: int, strength: float = 12.0) -> tuple[Tensor, Tensor, Tensor]:
    """Heads that are local in space and time, [1, L, N, 128], in the order of the grid; the last one is random."""
    generator = torch.Generator(CUDA).manual_seed(0)
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32, device=CUDA) for n in grid), indexing="ij")
    at = torch.stack(axes, dim=-1).flatten(0, 2)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=CUDA)

    features = []
    for _ in range(heads - 1):
        angle = (at / torch.tensor([2.0, 4.0, 4.0], device=CUDA)) @ randn(3, 64)
        features.append((strength * 2 / 128**0.5) ** 0.5 * torch.cat((angle.cos(), angle.sin()), dim=-1))
    q = torch.stack([*(f + 0.3 * randn(*f.shape) for f in features), randn(len(at), 128)], dim=1)
    k = torch.stack([*(f + 0.3 * randn(*f.shape) for f in features), randn(len(at), 128)], dim=1)
    return q[None].bfloat16(), k[None].bfloat16(), randn(1, len(at), heads, 128).bfloat16()


@pytest.mark.parametrize(
    "name", ["torch", pytest.param("float8", marks=pytest.mark.skipif(not HOPPER, reason="Hopper"))]
)
def test_the_error_stays_below_what_is_asked_for(name: str) -> None:
    run = stays_below(name, 0.8 if name == "float8" else 0.95)
    choice = run.layers[0, 0].choice
    assert choice is not None
    assert choice.density[-1] == 1.0  # nothing is left out of what is random
    assert choice.density[0] < 0.6


def stays_below(name: str, density: float) -> SparseRun:
    """Six calls of a backend are off by less than 5 % and visit fewer blocks than `density`."""
    from wanimate.runtime.optimize import run_on_gpu

    grid, error = (21, 15, 26), 0.05
    run = run_on_gpu(name, error)
    attend = SparseAttention(0, run, backends()[name].attend)
    order = layout(grid, run.sizes, torch.device(CUDA, 0)).places.order
    q, k, v = (x[:, order] for x in near(grid, 4))
    wanted = attend.dense(q, k, v)
    run.grid = grid
    for _ in range(6):
        found = attend(q, k, v)
        off = (found - wanted).float().square().sum((0, 1, 3)).sqrt() / wanted.float().square().sum((0, 1, 3)).sqrt()
        assert (off < error).all()
        step = run.meter.take()
        assert step.error <= error
        assert step.density < density
    return run


def test_a_network_that_may_leave_nothing_out_is_the_dense_one(plain: AnimateTransformer) -> None:  # noqa: F811
    device = torch.device(CUDA, 0)
    eight = has_fp8(device)
    other = in_float8(plain) if eight else copy.deepcopy(plain)
    name = optimize_at(other, device, "fast", 480)
    optimize_at(other, device, "fast", 480, name, 1e-9)  # type: ignore[arg-type]
    assert f"attention ({name}, error 1e-09)" in installed(other)
    model = in_order(in_float8(plain) if eight else plain, other.__dict__["sparse"].sizes)
    optimize_at(model, device, "fast", 480, name)  # type: ignore[arg-type]
    wanted = flow(model)
    assert torch.equal(flow(other), wanted)
    meter = meter_of(other)
    assert meter is not None
    assert meter.take().density == 1.0
    optimize_at(other, device, "fast", 480, name, 0.2)  # type: ignore[arg-type]
    assert distance(flow(other), wanted) < 0.2
