"""What each speed comes to on a machine; the kernels themselves are tested on a GPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from golden import fill
from wanimate.config import Attention, GenerateSettings, RuntimeSettings, Speed
from wanimate.engines.resolved import ResolvedJob
from wanimate.errors import InputError
from wanimate.measure.random_weights import quantize_network
from wanimate.model.fp8 import FP8, fp8_product
from wanimate.model.int8 import INT8, int8_product
from wanimate.model.params import MotionParams, TransformerParams
from wanimate.model.transformer import AnimateTransformer
from wanimate.runtime import optimize as speed
from wanimate.runtime.backends import backends
from wanimate.runtime.patches import installed
from wanimate.runtime.planning.sizes import wanted_weights
from wanimate.weights.locate import read_checkpoint_config
from wanimate.weights.quantize import QuantizedLinear, to_levels

PARAMS = TransformerParams(
    dim=64, ffn_dim=128, num_heads=2, num_layers=10, text_width=32, text_length=16, image_width=32, face_width=32,
    motion=MotionParams(channels=(8, 8), width=16, directions=4, layers=2),
)  # fmt: skip
CPU = torch.device("cpu")


def test_the_quickest_attention_that_is_allowed_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    found = speed.attention_trials(CPU, torch.float32, 64, 32, True)
    assert list(found) == sorted(found, key=lambda trial: trial.seconds)
    failed = [trial for trial in found if trial.seconds == float("inf")]
    assert all(trial.why for trial in failed)
    assert "torch" in [trial.name for trial in found if trial not in failed]

    close = (speed.Trial("torch", 0.100), speed.Trial("cudnn", 0.103), speed.Trial("torch-flash", 0.2))
    assert speed.best_trial(close).name == speed.best_trial((close[0], close[1])).name == "cudnn"

    def trials(device: torch.device, dtype: torch.dtype, tokens: int, width: int, exact: bool) -> object:
        asked.append((tokens, exact))
        return speed.Trial("torch-flash", 0.1), speed.Trial("torch", 0.2)

    asked: list[tuple[int, bool]] = []
    monkeypatch.setattr(speed, "attention_trials", trials)
    model = fill(AnimateTransformer(PARAMS))
    cuda = torch.device("cuda", 0)
    assert speed.choose_attention(cuda, torch.bfloat16, 32, "fast", 64) == "torch-flash"
    assert asked == [(64, False)]
    speed.optimize_transformer(model, CPU, "fast", "torch-flash")
    assert installed(model) == ["attention (torch-flash)"]
    for block in model.blocks:
        assert block.self_attn.attend == backends()["torch-flash"].attend
        assert "attend" not in block.cross_attn.__dict__
    assert not any("before_attention" in block.__dict__ for block in model.blocks)  # no kernels on a processor


def test_attention_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken whatever a stopwatch says, and refused by name where it cannot be had."""
    known = {name: backends()["torch"] for name in ("torch", "cudnn")}
    known["float8"] = replace(known["torch"], name="float8", exact=False)
    found = (speed.Trial("torch", 0.1), speed.Trial("float8", 0.2), speed.Trial("cudnn", float("inf"), "no kernel"))
    monkeypatch.setattr(speed, "backends", lambda: known)
    monkeypatch.setattr(speed, "attention_trials", lambda *_: found)
    cuda = torch.device("cuda", 0)

    def choose(asked: Attention, kind: Speed = "fast", device: torch.device = cuda) -> str:
        return speed.choose_attention(device, torch.bfloat16, 128, kind, 64, asked)

    assert choose("float8") == "float8"
    assert choose("torch", "exact") == "torch"
    with pytest.raises(InputError, match=r"attention = cudnn: no kernel\. Use one of auto, torch, float8"):
        choose("cudnn")
    with pytest.raises(InputError, match=r"attention = sage: it is not installed"):
        choose("sage")
    with pytest.raises(InputError, match=r"attention = float8: it rounds to 8 bits, which speed exact does not allow"):
        choose("float8", "exact")
    with pytest.raises(InputError, match=r"attention = float8: it needs a CUDA GPU"):
        choose("float8", device=CPU)
    assert choose("auto", device=CPU) == "torch"


@pytest.mark.parametrize(
    ("capability", "float8", "kind", "weights"),
    [
        ((7, 5), False, None, "auto"),
        ((8, 0), False, INT8, "int8"),
        ((8, 6), False, INT8, "int8"),
        ((8, 9), True, FP8, "fp8"),
        ((8, 9), False, INT8, "int8"),  # this PyTorch has no product with a scale a row there
        ((9, 0), True, FP8, "fp8"),
        ((12, 0), True, FP8, "fp8"),
    ],
)
def test_what_a_gpu_multiplies(
    capability: tuple[int, int], float8: bool, kind: torch.dtype | None, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its compute capability, and by what PyTorch has for it."""
    cuda = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(speed, "_multiplies_float8", lambda device: float8)
    monkeypatch.setattr(speed, "HAS_TRITON", False)
    assert speed.multiplied_type(cuda) == kind
    assert wanted_weights(RuntimeSettings(speed="fast"), cuda) == weights
    assert wanted_weights(RuntimeSettings(), cuda) == "auto"
    assert speed.product_for(FP8, cuda) == (fp8_product if float8 else None)
    assert speed.product_for(INT8, cuda) == (int8_product if capability >= (8, 0) else None)
    assert speed.product_for(torch.float8_e5m2, cuda) is None
    assert speed.multiplied_type(CPU) is None
    assert speed.product_for(INT8, CPU) is None


def test_float8_is_tried_before_it_is_relied_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on GPUs of capability 12.0 with some versions of cuBLAS."""

    def refuses(*given: object) -> torch.Tensor:
        raise RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED when calling cublasLtMatmulAlgoGetHeuristic\nmore")

    monkeypatch.setattr(speed, "PRODUCT_TRIAL", 16)
    try:
        for product, runs in ((refuses, False), (lambda *given: given[0], True)):
            monkeypatch.setattr(speed, "fp8_product", product)
            speed._multiplies_float8.cache_clear()
            with caplog.at_level("INFO"):
                assert speed._multiplies_float8(CPU) == runs
        assert [r.message for r in caplog.records if "CUBLAS_STATUS_NOT_SUPPORTED" in r.getMessage()]
    finally:
        speed._multiplies_float8.cache_clear()


def test_layers_multiply_what_they_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """An int8 file on a GPU that has float8 too; nothing is multiplied in eight bits where `speed` is exact."""
    monkeypatch.setattr(speed, "product_for", lambda kind, device: {INT8: int8_product, FP8: fp8_product}[kind])
    model = fill(AnimateTransformer(PARAMS))
    quantize_network(model, INT8)
    layers = [part for part in model.modules() if isinstance(part, QuantizedLinear)]
    speed.optimize_transformer(model, CPU, "exact", "torch")
    assert installed(model) == ["attention (torch)"]
    assert all(layer.product is None for layer in layers)
    speed.optimize_transformer(model, CPU, "fast", "torch")
    assert installed(model) == ["attention (torch)", "products (int8)"]
    assert all(layer.product is int8_product for layer in layers)
    first = model.blocks[0].ffn[0]
    first.__dict__.pop("product")
    layer = QuantizedLinear.of(first, *to_levels(first.value_on(CPU), FP8))
    model.blocks[0].ffn[0] = layer
    speed.optimize_transformer(model, CPU, "fast", "torch")
    assert layer.product is fp8_product
    assert "products (float8, int8)" in installed(model)


def test_a_network_of_int8_products_is_close() -> None:
    generator = torch.Generator().manual_seed(1)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(1, *shape, generator=generator).bfloat16()

    side = PARAMS.motion.size
    given = noise(9, 32), noise(257, 32), noise(3, 5, side, side), noise(16, 2, 4, 6)
    x, y = noise(16, 3, 4, 6), noise(20, 3, 4, 6)

    @torch.inference_mode()
    def flow(model: AnimateTransformer) -> torch.Tensor:
        return model(x, torch.tensor([500]), y, model.prepare(*given)).float()

    model = fill(AnimateTransformer(PARAMS)).eval().requires_grad_(False).bfloat16()
    wanted = flow(model)
    quantize_network(model, INT8)
    for part in model.modules():
        if isinstance(part, QuantizedLinear):
            part.product = int8_product
    assert 0 < (flow(model) - wanted).norm() < 0.03 * wanted.norm()


def test_auto_does_not_try_what_is_never_the_quickest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trying takes seconds of compiling; whoever asks for it gets it."""
    torch_s = backends()["torch"]
    known = {"torch": torch_s, "int8": replace(torch_s, name="int8", exact=False, unless=(9, 0))}
    monkeypatch.setattr(speed, "backends", lambda: known)
    monkeypatch.setattr(speed, "seconds_of", lambda call, device: 0.1)
    monkeypatch.setattr(torch, "randn", lambda *shape, device, dtype: torch.zeros(1))

    def names(capability: tuple[int, int], asked: Attention = "auto") -> set[str]:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        cuda = torch.device("cuda", 0)
        return {trial.name for trial in speed.fresh_trials(cuda, torch.bfloat16, 64, 128, False, asked)}

    assert names((8, 6)) == names((12, 0)) == names((9, 0), "int8") == {"torch", "int8"}
    assert names((9, 0)) == {"torch"}


def test_what_a_speed_comes_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Smaller weights only where the device multiplies them; a cache only for turbo, and never over the user's own choice."""
    fast = RuntimeSettings(speed="fast")
    monkeypatch.setattr("wanimate.runtime.planning.sizes.has_bf16", lambda device: False)
    assert wanted_weights(fast, CPU) == "auto"
    monkeypatch.setattr("wanimate.runtime.planning.sizes.has_bf16", lambda device: True)
    assert wanted_weights(fast, CPU) == "bf16"
    for kind, name in ((FP8, "fp8"), (INT8, "int8")):
        monkeypatch.setattr("wanimate.runtime.planning.sizes.multiplied_type", lambda device, kind=kind: kind)
        assert wanted_weights(fast, CPU) == name
        assert wanted_weights(RuntimeSettings(speed="fast", weights_dtype="int8"), CPU) == "int8"
    assert wanted_weights(RuntimeSettings(), CPU) == "auto"
    assert wanted_weights(RuntimeSettings(speed="fast", weights_dtype="bf16"), CPU) == "bf16"

    def cache(given: GenerateSettings, speed: Speed) -> str | None:
        return ResolvedJob.of(given, "animation", *read_checkpoint_config(None), speed).generate.cache

    assert cache(GenerateSettings(), "turbo") not in (None, "none")
    assert cache(GenerateSettings(cache="none"), "turbo") == "none"
    assert cache(GenerateSettings(), "fast") is None
