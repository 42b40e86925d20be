"""On CUDA: the kernels give what PyTorch's operations give, and networks that use them what plain ones give."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
from golden import fill
from wanimate.model.attention import attention
from wanimate.model.face import RMSNorm
from wanimate.model.fp8 import FP8, hadamard, to_fp8
from wanimate.model.params import MotionParams, TransformerParams, VaeParams
from wanimate.model.rope import apply_rope, rope_table
from wanimate.model.transformer import AnimateTransformer, CrossAttention, CrossKV
from wanimate.model.vae import VideoVae
from wanimate.runtime.backends import backends
from wanimate.runtime.fused_vae import optimize_vae
from wanimate.runtime.offload import chunk_tokens, stream_blocks
from wanimate.runtime.optimize import has_fp8, optimize_at
from wanimate.weights.lora import LoraFile, match_lora
from wanimate.weights.lora_view import with_loras
from wanimate.weights.quantize import QuantizedLinear, is_quantizable, quantize_fp8

pytestmark = pytest.mark.gpu
PARAMS = TransformerParams(
    dim=1024, ffn_dim=2816, num_heads=8, num_layers=10, text_width=64, image_width=64, face_width=64,
    motion=MotionParams(channels=(8, 16, 16), width=32, directions=8),
)  # fmt: skip
CUDA = "cuda"


def distance(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


@torch.inference_mode()
def flow(model: AnimateTransformer, size: tuple[int, int] = (96, 64), length: int = 9) -> Tensor:
    generator = torch.Generator(CUDA).manual_seed(1)
    frames, width, height = (length + 3) // 4, size[0] // 8, size[1] // 8

    def noise(*shape: int) -> Tensor:
        return torch.randn(1, *shape, generator=generator, device=CUDA)

    side = PARAMS.motion.size
    context = model.prepare(
        noise(9, 64), noise(257, 64), noise(3, length, side, side), noise(16, frames, height, width)
    )
    x, y = noise(16, frames + 1, height, width), noise(20, frames + 1, height, width)
    return model(x, torch.tensor([500], device=CUDA), y, context)


@pytest.fixture(scope="module")
def plain() -> AnimateTransformer:
    return fill(AnimateTransformer(PARAMS)).eval().requires_grad_(False).bfloat16().cuda()


def in_float8(model: AnimateTransformer) -> AnimateTransformer:
    twin = copy.deepcopy(model)
    for name in [name for name, _ in twin.named_parameters() if is_quantizable(name)]:
        parent, _, leaf = name.removesuffix(".weight").rpartition(".")
        old = getattr(twin.get_submodule(parent), leaf)
        setattr(twin.get_submodule(parent), leaf, QuantizedLinear.of(old, *quantize_fp8(old.weight)))
    return twin


@pytest.mark.parametrize("width", [128, 320, 5120])
def test_rows(width: int) -> None:
    from wanimate.runtime.kernels import rows

    torch.manual_seed(0)
    x, y = torch.randn(1, 48, width, device=CUDA) * 3, torch.randn(1, 48, width, device=CUDA).bfloat16()
    gate, weight, bias = (torch.randn(width, device=CUDA) for _ in range(3))
    wanted = x + y.float() * gate
    normed = F.layer_norm(wanted, (width,), eps=1e-6) * weight + bias
    given = x.clone()
    out, found = rows.residual_norm(given, y, gate, weight, bias, 1e-6, torch.bfloat16)
    assert out.data_ptr() == given.data_ptr()
    torch.testing.assert_close(out, wanted)
    assert isinstance(found, Tensor)
    assert distance(found, normed) < 3e-3
    _, eight = rows.residual_norm(wanted, None, None, weight, bias, 1e-6, FP8)
    levels, scale = to_fp8(normed[0], (1,))
    torch.testing.assert_close(eight[1], scale, rtol=1e-5, atol=0)
    assert (eight[0].float() != levels.float()).float().mean() < 1e-3
    torch.testing.assert_close(rows.residual(x.clone(), y, gate), wanted)

    for gelu, exact in ((False, y.float()), (True, F.gelu(y.float(), approximate="tanh"))):
        found8 = rows.rounded(y, gelu=gelu)
        assert distance(found8[0].float() * found8[1], exact[0]) < 0.03

    heads = width // 64
    norm = RMSNorm(width, 1e-6).cuda().bfloat16().requires_grad_(False)
    norm.weight.normal_()
    rope = rope_table((4, 3, 4), 64, CUDA)
    turned = apply_rope(norm(y).unflatten(-1, (heads, 64)), rope).to(y.dtype)
    assert distance(rows.rms(y, norm.weight, norm.eps, rope, heads), turned) < 1e-3
    assert distance(rows.rms(y, norm.weight, norm.eps, None, 1)[:, :, 0], norm(y)) < 1e-3


@pytest.mark.parametrize("width", [128, 320, 5120])
def test_queries_and_keys_in_float8_at_once(width: int) -> None:
    """Scales hold what is largest of all: a row of one number, where the weight is largest. Keys lose the mean of some."""
    from wanimate.runtime.kernels.rows import common_part, rms_fp8

    heads = width // 64
    norm = RMSNorm(width, 1e-6).cuda().bfloat16().requires_grad_(False)
    norm.weight.normal_()
    x = (torch.randn(1, 48, width, device=CUDA) + 3 * torch.randn(width, device=CUDA)).bfloat16()
    x[0, 5] = 0
    x[0, 5, norm.weight.abs().argmax()] = 2
    rope = rope_table((4, 3, 4), 64, CUDA)
    turned = apply_rope(norm(x).unflatten(-1, (heads, 64)), rope)
    for smooth in (False, True):
        given = x, norm.weight, norm.eps, rope, heads
        levels, scale = rms_fp8(*given, common_part(*given) if smooth else None)
        assert (levels.dtype, levels.shape, scale.shape) == (FP8, turned.shape, (1, heads))
        found = levels.float() * scale[:, None, :, None]
        wanted = turned - turned.mean(1, keepdim=True) if smooth else turned
        wanted = wanted @ hadamard(64, x.device).float() / 8
        assert distance(found, wanted) < 0.04
        assert distance(found[:, 5], wanted[:, 5]) < 0.07


def test_gelu_within_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only of a plain layer whose output nothing else wants to see; rounded once, it is no further off than rounded twice."""
    from wanimate.runtime.fused import _gelu_product

    calls: list[int] = []
    at_once = torch._addmm_activation
    monkeypatch.setattr(torch, "_addmm_activation", lambda *a, **k: (calls.append(1), at_once(*a, **k))[1])
    layer = torch.nn.Linear(512, 1408, device=CUDA, dtype=torch.bfloat16).requires_grad_(False)
    x = 3 * torch.randn(1, 300, 512, device=CUDA).bfloat16()
    wanted = F.gelu(F.linear(x.double(), layer.weight.double(), layer.bias.double()), approximate="tanh")
    found, twice = _gelu_product(layer, x), F.gelu(layer(x), approximate="tanh")
    assert found.shape == twice.shape
    assert calls == [1]
    assert distance(found, wanted) < 1.2 * distance(twice, wanted)
    layer.register_forward_hook(lambda module, inputs, out: out + 1)
    assert distance(_gelu_product(layer, x), F.gelu(layer(x), approximate="tanh")) == 0
    assert calls == [1]


def test_a_stream_of_tokens_in_any_layout() -> None:
    """The first block gets tokens whose rows lie apart in memory."""
    from wanimate.runtime.kernels.rows import residual_norm

    x = torch.randn(1, 256, 40, device=CUDA).transpose(1, 2)
    one, zero = torch.ones(256, device=CUDA), torch.zeros(256, device=CUDA)
    _, found = residual_norm(x, None, None, one, zero, 1e-6, torch.bfloat16)
    assert isinstance(found, Tensor)
    assert distance(found, F.layer_norm(x, (256,), eps=1e-6)) < 3e-3


def test_every_attention_is_attention() -> None:
    q, k, v = (torch.randn(1, 700, 4, 128, device=CUDA, dtype=torch.bfloat16) for _ in range(3))
    wanted = attention(q.double(), k.double(), v.double())
    for name, backend in backends().items():
        try:
            found = backend.attend(q, k, v)
        except RuntimeError:
            continue
        assert distance(found, wanted) < (5e-3 if backend.exact else 8e-2), name


@pytest.mark.parametrize(
    ("text", "alike", "image", "width"),
    [
        (8, 505, 257, 128),
        (1, 512, 257, 128),
        (512, 1, 257, 128),
        (64, 449, 64, 128),
        (65, 448, None, 64),
        (3, 2, 16, 32),
    ],
)
def test_text_and_picture_at_once(text: int, alike: int, image: int | None, width: int) -> None:
    """As two attentions, of which one looks at equal keys again and again."""
    from wanimate.runtime.kernels.cross import can_cross_attend, cross_attend

    layer = CrossAttention(TransformerParams(dim=4 * width, num_heads=4, image_width=None))
    q, k, v, k_image, v_image = (
        torch.randn(1, n or 1, 4, width, device=CUDA, dtype=torch.bfloat16) for n in (700, text, text, image, image)
    )
    picture = (None, None) if image is None else (k_image, v_image)
    exact = [None if x is None else x.double() for x in (k, v, *picture)]
    wanted = layer.attend(q.double(), CrossKV(exact[0], exact[1], alike, *exact[2:]))
    assert can_cross_attend(q)
    found = cross_attend(q, CrossKV(k, v, alike, *picture))
    assert distance(found, wanted) < 5e-3
    assert not can_cross_attend(q.float())
    assert not can_cross_attend(q[..., 1:])


def test_exact_is_the_plain_arithmetic(plain: AnimateTransformer) -> None:
    wanted, twin = flow(plain), copy.deepcopy(plain)
    optimize_at(twin, torch.device(CUDA, 0), "exact", 480)
    assert "before_attention" in twin.blocks[0].__dict__
    found = flow(twin)
    reference = flow(copy.deepcopy(plain).float())
    assert distance(found, wanted) < 1e-2
    assert distance(found, reference) < 1.2 * distance(wanted, reference)
    assert torch.equal(flow(twin), found)

    stream_blocks(twin, CUDA)
    assert torch.equal(flow(twin), found)
    chunk_tokens(twin, 96)
    assert distance(flow(twin), found) < 5e-3


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("speed", ["exact", "fast"])
def test_loras_on_fused_blocks(plain: AnimateTransformer, fuse: bool, speed: str) -> None:
    torch.manual_seed(1)
    down = {f"blocks.{i}.ffn.0.lora_A.weight": 0.05 * torch.randn(8, plain.params.dim) for i in (0, 3)}
    up = {f"blocks.{i}.ffn.0.lora_B.weight": torch.randn(plain.params.ffn_dim, 8) for i in (0, 3)}
    lora = match_lora(LoraFile(Path("a.safetensors"), down | up), plain)
    wanted, without = flow(with_loras(plain, [(lora, 1.0)])), flow(plain)
    quick = copy.deepcopy(plain) if speed == "exact" else in_float8(plain)
    optimize_at(quick, torch.device(CUDA, 0), speed, 480)  # type: ignore[arg-type]
    found = flow(with_loras(quick, [(lora, 1.0)], fuse))
    assert distance(found, wanted) < min(0.5 * distance(wanted, without), 2e-2 if speed == "exact" else 1e-1)


def test_fast_is_close(plain: AnimateTransformer) -> None:
    eight = has_fp8(torch.device(CUDA))
    wanted, twin = flow(plain), in_float8(plain)
    expanded = flow(twin)
    optimize_at(twin, torch.device(CUDA, 0), "fast", 480)
    assert all((m.product is not None) == eight for m in twin.modules() if isinstance(m, QuantizedLinear))
    found = flow(twin)
    assert distance(found, wanted) < 3 * distance(expanded, wanted) + 1e-2


hopper = pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() != (9, 0), reason="the kernel is for Hopper"
)


def in_order(values: Tensor) -> Tensor:
    """What `fp8_values` made of values, [1, N, d, tokens] -> [1, tokens, N, d]."""
    order = torch.tensor([0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15])
    groups = values.float().unflatten(-1, (-1, 16))
    return groups[..., order.argsort()].flatten(-2).permute(0, 3, 1, 2)


def test_values_in_float8() -> None:
    from wanimate.runtime.kernels.rows import fp8_values

    x = torch.randn(1, 1000, 3, 128, device=CUDA, dtype=torch.bfloat16)
    levels, scale = fp8_values(x)
    assert levels.shape == (1, 3, 128, 1024)
    back = in_order(levels) * scale[:, None, :, None]
    assert distance(back[:, :1000], x) < 4e-2
    assert back[:, 1000:].abs().max() == 0


@hopper
@pytest.mark.parametrize(("queries", "keys"), [(700, 700), (1, 1), (192, 128), (193, 129), (65, 4097), (1000, 300)])
def test_float8_attention_of_any_length(queries: int, keys: int) -> None:
    from wanimate.runtime.kernels.attention8 import attend
    from wanimate.runtime.kernels.rows import fp8_heads, fp8_values

    torch.manual_seed(queries)
    q, k, v = (torch.randn(1, n, 3, 128, device=CUDA, dtype=torch.bfloat16) for n in (queries, keys, keys))
    k[:, 0] *= 4  # looked at last: largest scores move
    q8, k8, v8 = fp8_heads(q), fp8_heads(k, smooth=True), fp8_values(v)
    given = [x.float() * s[:, None, :, None] for x, s in (q8, k8, (in_order(v8[0])[:, :keys], v8[1]))]
    assert distance(attend(q8, k8, v8), attention(*given)) < 3.5e-2


@hopper
def test_float8_attention_of_equal_scores() -> None:
    """Queries of zeros: every key that is there counts the same, and none of those that fill up a tile."""
    from wanimate.runtime.kernels.attention8 import Fp8Attention

    q, k, v = (torch.randn(1, 300, 2, 128, device=CUDA, dtype=torch.bfloat16) for _ in range(3))
    v += 1
    found = Fp8Attention()(torch.zeros_like(q), k, v)
    assert distance(found, v.float().mean(1, keepdim=True).expand_as(v)) < 1e-2


@hopper
def test_float8_attention_over_a_long_sequence() -> None:
    """Sums on the tensor cores alone would lose a third of it (benchmarks/attention.py)."""
    from wanimate.runtime.kernels.attention8 import Fp8Attention

    q, k, v = (torch.randn(1, n, 1, 128, device=CUDA, dtype=torch.bfloat16) for n in (192, 75_600, 75_600))
    v += 0.5
    assert distance(Fp8Attention()(q, k, v), attention(q.float(), k.float(), v.float())) < 1e-2


@hopper
def test_float8_attention_refuses_other_heads() -> None:
    from wanimate.runtime.kernels.attention8 import Fp8Attention

    with pytest.raises(RuntimeError, match="heads of 64 numbers"):
        Fp8Attention()(*(torch.randn(1, 50, 2, 64, device=CUDA, dtype=torch.bfloat16) for _ in range(3)))


@hopper
def test_float8_attention_in_the_network(plain: AnimateTransformer) -> None:
    """Queries and keys that are float8 at once do as well as those that are rounded later, in slices for instance."""
    from wanimate.runtime.kernels.attention8 import Fp8Attention

    wanted, twin = flow(plain), copy.deepcopy(plain)
    optimize_at(twin, torch.device(CUDA, 0), "exact", 480)
    for block in twin.blocks:
        block.self_attn.attend = Fp8Attention()
    found = flow(twin)
    chunk_tokens(twin, 96)
    later = flow(twin)
    assert not torch.equal(found, later)
    assert distance(found, wanted) < 1.3 * distance(later, wanted)
    assert distance(later, wanted) < 5e-2


@pytest.mark.parametrize("speed", ["exact", "fast"])
def test_the_vae(speed: str) -> None:
    vae = fill(VideoVae(VaeParams(base=32))).eval().requires_grad_(False).cuda().channels_last()
    video = torch.randn(1, 3, 9, 64, 96, device=CUDA).clamp(-1, 1)
    quick = copy.deepcopy(vae)
    optimize_vae(quick, speed)  # type: ignore[arg-type]
    with torch.inference_mode():
        latents = vae.encode(video)
        frames = vae.decode(latents)
        bound = 3e-3 if speed == "exact" else 5e-2
        assert distance(quick.encode(video), latents) < bound
        assert distance(quick.decode(latents), frames) < bound
        assert distance(quick.decode(latents, chunk=2), frames) < bound
        assert distance(quick.decode(torch.cat((latents, latents)))[1:], frames) < bound


@pytest.mark.parametrize("speed", ["exact", "fast"])
def test_a_video_that_stands_still(speed: str) -> None:
    vae = fill(VideoVae(VaeParams(base=32))).eval().requires_grad_(False).cuda().channels_last()
    optimize_vae(vae, speed)  # type: ignore[arg-type]
    video = torch.zeros(1, 3, 41, 64, 96, device=CUDA)
    video[:, :, :5] = torch.rand(1, 3, 5, 64, 96, device=CUDA)
    with torch.inference_mode():
        assert torch.equal(vae.encode(video), vae.encode(video, skip_static=False))
