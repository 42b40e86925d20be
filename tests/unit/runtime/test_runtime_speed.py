"""Compiled blocks compute what plain ones do, are compiled once for all sizes, and fall back where nothing can be compiled."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch._dynamo.utils import counters

from golden import fill
from wanimate.config import GenerateSettings, RuntimeSettings
from wanimate.model.attention import attention
from wanimate.model.params import MotionParams, TransformerParams
from wanimate.model.transformer import AnimateTransformer
from wanimate.pipeline import Animator
from wanimate.runtime import speed
from wanimate.runtime.offload import slice_tokens, stream_blocks
from wanimate.runtime.plan import wanted_weights

PARAMS = TransformerParams(
    dim=64, ffn_dim=128, num_heads=2, num_layers=10, text_width=32, text_length=16, image_width=32, face_width=32,
    motion=MotionParams(channels=(8, 8), width=16, directions=4, layers=2),
)  # fmt: skip
SHAPES = ((8, 8, 5), (8, 12, 5), (12, 8, 9))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> AnimateTransformer:
    return fill(AnimateTransformer(PARAMS)).eval().requires_grad_(False)


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything the compiler does but for making machine code, which takes a compiler and its time."""
    real: Callable[..., Any] = torch.compile
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(torch, "compile", lambda function, **options: real(function, backend="aot_eager"))
    yield
    torch._dynamo.reset()


@torch.inference_mode()
def flow(model: AnimateTransformer, rows: int, columns: int, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)

    def noise(*shape: int) -> Tensor:
        return torch.randn(1, *shape, generator=generator)

    frames, side = (length + 3) // 4, PARAMS.motion.size
    context = model.prepare(
        noise(16, 32), noise(257, 32), noise(3, length, side, side), noise(16, frames, rows, columns)
    )
    x, y = noise(16, frames + 1, rows, columns), noise(20, frames + 1, rows, columns)
    return model(x, torch.tensor([500]), y, context)


@pytest.mark.usefixtures("traced_only")
def test_one_compilation_for_all_blocks_and_sizes(model: AnimateTransformer) -> None:
    wanted = [flow(model, *shape) for shape in SHAPES]
    compiled = copy.deepcopy(model)
    speed.compile_blocks(compiled, exact=True)
    for shape, v in zip(SHAPES, wanted, strict=True):
        torch.testing.assert_close(flow(compiled, *shape), v, rtol=0, atol=1e-6)
        assert counters["stats"]["unique_graphs"] == 3  # before attention, after it, the fuser
    assert not counters["graph_break"]
    twin = copy.deepcopy(compiled)
    stream_blocks(twin, "cpu")
    slice_tokens(twin, 64)
    for shape, v in zip(SHAPES, wanted, strict=True):
        torch.testing.assert_close(flow(twin, *shape), v, rtol=0, atol=1e-5)


def test_a_machine_without_a_compiler_computes_uncompiled(
    model: AnimateTransformer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            raise TorchDynamoException("no C compiler was found")

        return call

    monkeypatch.setattr(torch, "compile", refuse)
    wanted, other = flow(model, *SHAPES[0]), copy.deepcopy(model)
    speed.compile_blocks(other, exact=True)
    with caplog.at_level(logging.WARNING, "wanimate"):
        assert torch.equal(flow(other, *SHAPES[0]), wanted)
    assert "before_attention runs uncompiled" in caplog.text


def test_the_quickest_attention_that_is_allowed_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    found = speed.attention_trials(CPU, torch.float32, 64, 32, True)
    assert list(found) == sorted(found, key=lambda trial: trial.seconds)
    failed = [trial for trial in found if trial.seconds == float("inf")]
    assert all(trial.why for trial in failed)
    assert "torch" in [trial.name for trial in found if trial not in failed]

    trials = (speed.Trial("torch flash", 0.1), speed.Trial("torch", 0.2))
    monkeypatch.setattr(speed, "attention_trials", lambda *_: trials)
    model = fill(AnimateTransformer(PARAMS))
    speed.quicken_transformer(model, CPU, "exact", 64, compiled=False)
    assert all(block.self_attn.attend is not attention for block in model.blocks)
    assert not any("before_attention" in block.__dict__ for block in model.blocks)


def test_what_a_speed_comes_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Float8 weights only where the device multiplies them; a cache only for turbo, and never over the user's own choice."""
    fast = RuntimeSettings(speed="fast")
    assert wanted_weights(fast, CPU) == "auto"
    monkeypatch.setattr("wanimate.runtime.plan.has_fp8", lambda device: True)
    assert wanted_weights(fast, CPU) == "fp8"
    assert wanted_weights(RuntimeSettings(), CPU) == "auto"
    assert wanted_weights(RuntimeSettings(speed="fast", weights_dtype="bf16"), CPU) == "bf16"

    turbo = Animator.from_checkpoint(runtime=RuntimeSettings(speed="turbo"))
    assert turbo._settled(GenerateSettings()).cache not in (None, "none")
    assert turbo._settled(GenerateSettings(cache="none")).cache == "none"
    assert Animator.from_checkpoint(runtime=fast)._settled(GenerateSettings()).cache is None
