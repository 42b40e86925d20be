"""On CUDA: products and attention in int8 give what PyTorch gives of the same levels, and networks that use them stay close.

With TRITON_OVERRIDE_ARCH=sm86 in the environment, a Hopper GPU runs the instructions that an Ampere GPU would run.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from test_sparse_gpu import masked, numbers, some_blocks, stays_below
from test_speed_gpu import CUDA, distance, flow, in_float8, plain  # noqa: F401 - a fixture
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from wanimate.model.attention import attention
from wanimate.model.face import RMSNorm
from wanimate.model.fp8 import hadamard
from wanimate.model.int8 import INT8, int8_product, to_int8
from wanimate.model.rope import apply_rope, rope_table
from wanimate.model.transformer import AnimateTransformer
from wanimate.runtime.offload import chunk_tokens
from wanimate.runtime.optimize import has_fp8, optimize_at
from wanimate.runtime.patches import installed
from wanimate.runtime.sparse.layout import Grid, Lists, layout
from wanimate.weights.lora import LoraFile, match_lora
from wanimate.weights.lora_view import with_loras
from wanimate.weights.quantize import QuantizedLinear, is_quantizable, to_levels

pytestmark = pytest.mark.gpu
HERE = torch.device(CUDA, 0)


def given_back(levels: Tensor, scale: Tensor) -> Tensor:
    """Queries or keys of int8, float32."""
    return levels.float() * scale.transpose(1, 2)[..., None]


def random(*shape: int) -> Tensor:
    return torch.randn(shape, device=CUDA, generator=torch.Generator(CUDA).manual_seed(sum(shape)))


@pytest.mark.parametrize(
    ("rows", "ins", "outs"), [(9, 1024, 2816), (700, 1024, 1024), (1000, 2816, 1024), (300, 96, 48)]
)
def test_the_product_is_that_of_pytorch(rows: int, ins: int, outs: int) -> None:
    from wanimate.runtime.kernels import product_int8

    x, w, bias = to_int8(random(rows, ins), (1,)), to_int8(random(outs, ins), (1,)), random(outs).bfloat16()
    for scale in (w[1], w[1][:1]):
        found, wanted = product_int8.multiply(*x, w[0], scale, bias), int8_product(*x, w[0], scale, bias)
        assert (found != wanted).float().mean() < 1e-3  # a sum of float32 in another order
        assert distance(found, wanted) < 1e-4
        assert distance(found, (x[0].double() * x[1]) @ (w[0].double() * scale).T + bias.double()) < 3e-3


@pytest.mark.parametrize("width", [128, 320, 5120])
def test_rows(width: int) -> None:
    from wanimate.runtime.kernels import rows

    x = random(1, 48, width) * 3
    weight, bias = random(width), random(width + 1)[1:]
    normed = F.layer_norm(x, (width,), eps=1e-6) * weight + bias
    _, found = rows.residual_norm(x, None, None, weight, bias, 1e-6, INT8)
    y = x.bfloat16()
    gelu = F.gelu(y.float(), approximate="tanh")
    for (levels, scale), exact in (  # type: ignore[misc]
        (found, normed), (rows.rounded(y, INT8), y.float()), (rows.rounded(y, INT8, gelu=True), gelu),
    ):  # fmt: skip
        wanted, wanted_scale = to_int8(exact[0], (1,))
        assert levels.dtype == INT8
        torch.testing.assert_close(scale, wanted_scale, rtol=1e-5, atol=0)
        assert ((levels.float() * scale - exact[0]).abs() <= 0.501 * scale).all()
        assert (levels != wanted).float().mean() < 1e-2  # what lies halfway


@pytest.mark.parametrize("width", [128, 320, 5120])
def test_queries_and_keys_at_once(width: int) -> None:
    from wanimate.runtime.kernels.rows import common_part, int8_heads, rms_int8

    heads = width // 64
    norm = RMSNorm(width, 1e-6).cuda().bfloat16().requires_grad_(False)
    norm.weight.copy_(random(width))
    x = (random(1, 48, width) + 3 * random(width)).bfloat16()
    rope = rope_table((4, 3, 4), 64, CUDA)
    turned = apply_rope(norm(x).unflatten(-1, (heads, 64)), rope)
    for smooth in (False, True):
        wanted = turned - turned.mean(1, keepdim=True) if smooth else turned
        given = x, norm.weight, norm.eps, rope, heads
        for found, of in (
            (rms_int8(*given, common_part(*given) if smooth else None), wanted @ hadamard(64, x.device).float() / 8),
            (int8_heads(turned, smooth), wanted),
        ):
            assert (found[0].dtype, found[0].shape, found[1].shape) == (INT8, turned.shape, (1, heads, 48))
            assert found[0].abs().amax(-1).min() == 127
            assert distance(given_back(*found), of) < 0.02


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (128, 64), (129, 65), (700, 700), (300, 1000)])
@pytest.mark.parametrize("width", [32, 64, 128])
def test_the_kernel_is_attention_of_the_same_levels(queries: int, keys: int, width: int) -> None:
    from wanimate.runtime.kernels.attention_int8 import attend
    from wanimate.runtime.kernels.rows import half_values, int8_heads

    q, k, v = (random(1, n, 3, width + i)[..., i:].bfloat16() for i, n in enumerate((queries, keys, keys)))
    k[:, 0] *= 4
    q8, k8, half = int8_heads(q), int8_heads(k, smooth=True), half_values(v)
    assert distance(half[0].float() * half[1][:, None, :, None], v) < 1e-3
    assert distance(attend(q8, k8, half), attention(given_back(*q8), given_back(*k8), v.float())) < 5e-3


@pytest.mark.parametrize("grid", [(3, 9, 11), (2, 16, 24), (5, 15, 26)])
def test_the_listed_kernel_is_masked_attention(grid: Grid) -> None:
    from wanimate.runtime.kernels.attention_int8 import attend
    from wanimate.runtime.kernels.rows import half_values, int8_heads
    from wanimate.runtime.sparse.eight import INT8_SIZES

    plan = layout(grid, INT8_SIZES, HERE)
    q, k, v = (x[None] for x in numbers(plan, 3, 128, torch.bfloat16))
    eight = int8_heads(q), int8_heads(k, smooth=True), half_values(v)
    every = torch.ones(3, *plan.shape, dtype=torch.bool, device=CUDA)
    assert distance(attend(*eight, Lists.of(every)), attend(*eight)) < 1e-3
    blocks = some_blocks(plan, 3, 0.3)
    wanted = masked(given_back(*eight[0])[0], given_back(*eight[1])[0], v[0], blocks, plan)
    assert distance(attend(*eight, Lists.of(blocks))[0], wanted) < 5e-3


def test_what_all_keys_share_does_not_count() -> None:
    """A large common part would take all levels."""
    from wanimate.runtime.kernels.attention_int8 import Int8Attention

    q, k, v = (random(1, 700 + i, 2, 128)[:, i:].float() for i in range(3))
    wanted = attention(q, k, v)
    assert distance(Int8Attention()(q, k, v), wanted) < 2e-2
    assert distance(Int8Attention()(q, k + 50 * random(128), v), wanted) < 2e-2


def test_attention_of_equal_scores() -> None:
    """Queries of zeros: every key that is there counts the same, and none of those that fill up a tile."""
    from wanimate.runtime.kernels.attention_int8 import Int8Attention

    k, v = random(1, 300, 2, 128).bfloat16(), random(1, 300, 2, 129)[..., 1:].bfloat16() + 1
    found = Int8Attention()(torch.zeros_like(k), k, v)
    assert distance(found, v.float().mean(1, keepdim=True).expand_as(v)) < 5e-3


def test_attention_over_a_long_sequence() -> None:
    """Sums of float16 are of one tile alone."""
    from wanimate.runtime.kernels.attention_int8 import Int8Attention

    q, k, v = (random(1, n, 1, 128).bfloat16() for n in (192, 75_600, 75_601))
    v = v[:, 1:] + 0.5
    assert distance(Int8Attention()(q, k, v), attention(q.float(), k.float(), v.float())) < 1e-2


def test_attention_refuses_other_heads() -> None:
    from wanimate.runtime.kernels.attention_int8 import Int8Attention

    with pytest.raises(RuntimeError, match="heads of 16 numbers"):
        Int8Attention()(*(random(1, 50, 2, 16).bfloat16() for _ in range(3)))


def in_int8(model: AnimateTransformer) -> AnimateTransformer:
    twin = copy.deepcopy(model)
    for name in [name for name, _ in twin.named_parameters() if is_quantizable(name)]:
        parent, _, leaf = name.removesuffix(".weight").rpartition(".")
        old = getattr(twin.get_submodule(parent), leaf)
        setattr(twin.get_submodule(parent), leaf, QuantizedLinear.of(old, *to_levels(old.weight, INT8)))
    return twin


@pytest.mark.parametrize("attend", ["torch", "int8"])
def test_the_network_is_close(plain: AnimateTransformer, attend: str) -> None:  # noqa: F811
    wanted, twin = flow(plain), in_int8(plain)
    expanded = flow(twin)
    optimize_at(twin, HERE, "fast", 480, attend)  # type: ignore[arg-type]
    assert "products (int8)" in installed(twin)
    assert f"attention ({attend})" in installed(twin)
    found = flow(twin)
    assert torch.equal(flow(twin), found)
    assert distance(found, wanted) < 0.02  # of which expanding the same weights makes half; float8 comes to 0.037
    assert distance(found, wanted) < 2 * distance(expanded, wanted)
    chunk_tokens(twin, 96)
    assert distance(flow(twin), found) < 0.03


@pytest.mark.skipif(not torch.cuda.is_available() or not has_fp8(HERE), reason="no float8")
def test_float8_products_with_int8_attention(plain: AnimateTransformer) -> None:  # noqa: F811
    """As on Ada: the int8 attention adds next to nothing to the error."""
    wanted, found = flow(plain), []
    for attend in ("torch", "int8"):
        twin = in_float8(plain)
        optimize_at(twin, HERE, "fast", 480, attend)  # type: ignore[arg-type]
        assert "products (float8)" in installed(twin)
        found.append(distance(flow(twin), wanted))
    assert found[1] < 1.2 * found[0]


@pytest.mark.parametrize("fuse", [False, True])
def test_loras(plain: AnimateTransformer, fuse: bool) -> None:  # noqa: F811
    torch.manual_seed(1)
    down = {f"blocks.{i}.ffn.0.lora_A.weight": 0.05 * torch.randn(8, plain.params.dim) for i in (0, 3)}
    up = {f"blocks.{i}.ffn.0.lora_B.weight": torch.randn(plain.params.ffn_dim, 8) for i in (0, 3)}
    lora = match_lora(LoraFile(Path("a.safetensors"), down | up), plain)
    wanted, without = flow(with_loras(plain, [(lora, 1.0)])), flow(plain)
    quick = in_int8(plain)
    optimize_at(quick, HERE, "fast", 480, "int8")
    view = with_loras(quick, [(lora, 1.0)], fuse)
    assert all(m.weight.dtype == INT8 for m in view.modules() if isinstance(m, QuantizedLinear))
    assert distance(flow(view), wanted) < min(0.5 * distance(wanted, without), 5e-2)


def test_the_error_stays_below_what_is_asked_for() -> None:
    stays_below("int8", 0.8)


@pytest.mark.parametrize("target", [80, 86, 89, 120])
def test_kernels_for_other_gpus_spill_nothing(target: int) -> None:
    from triton_targets import TARGETS, int8_kernels

    for name, found in int8_kernels(target).items():
        assert (found.stack, found.local) == (0, 0), name
        assert found.shared <= TARGETS[target] * 1024, name
