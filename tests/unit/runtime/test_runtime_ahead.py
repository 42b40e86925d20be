"""Kernels that are compiled ahead are those that a job launches. Needs Triton and no GPU: nothing is compiled or launched."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from wanimate.model.fp8 import FP8
from wanimate.model.int8 import INT8
from wanimate.model.params import MotionParams, TransformerParams, VaeParams
from wanimate.model.transformer import AnimateTransformer
from wanimate.runtime import ahead, optimize
from wanimate.runtime.ahead import Shapes, run_without_values
from wanimate.runtime.backends import HAS_TRITON
from wanimate.runtime.planning.simulate import hollow_transformer
from wanimate.weights.quantize import Product

GPU = torch.device("cuda", 0)
PARAMS = TransformerParams(
    dim=256, ffn_dim=512, num_heads=2, num_layers=2, face_every=2, text_width=32, text_length=24, image_width=32,
    face_width=32,
    motion=MotionParams(channels=(8, 16, 16), width=32, directions=8),
)  # fmt: skip
VAE = VaeParams(base=8)
Keys = set[tuple[str, str]]


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Keys]:
    """Names of kernels and the keys that Triton finds their code by, of those that are called; for a Hopper GPU."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.runtime.jit import JITFunction

    class Driver:
        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, device: int) -> int:
            return 0

        def get_current_target(self) -> Any:
            return GPUTarget("cuda", 90, 32)

    found: Keys = set()

    def called(kernel: Any, key: str, *args: Any, **options: Any) -> None:
        found.add((kernel._fn_name, key))

    monkeypatch.setattr(JITFunction, "_do_compile", called)
    monkeypatch.setattr("wanimate.runtime.fused_vae.HAS_TRITON", True)
    monkeypatch.setattr(optimize, "has_fp8", lambda device: True)
    monkeypatch.setattr(optimize, "has_int8", lambda device: True)
    before = triton.runtime.driver._active
    triton.runtime.driver.set_active(Driver())
    yield found
    triton.runtime.driver._active = before


def _product(x: torch.Tensor, row_scale: torch.Tensor, levels: torch.Tensor, *rest: Any) -> torch.Tensor:
    """Of a GPU, float8: what is made of it here has its shape."""
    return torch.zeros(len(x), len(levels), dtype=torch.bfloat16, device=x.device)


@pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed")
@pytest.mark.parametrize("size", [(64, 48), (128, 64)])
@pytest.mark.parametrize(("kind", "attention"), [(INT8, "int8"), (FP8, "torch"), (None, "torch")])
@pytest.mark.parametrize("chunk", [None, 16])
def test_without_values_the_kernels_of_a_job_are_called(
    size: tuple[int, int], kind: torch.dtype | None, attention: str, chunk: int | None, launched: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The same code, by Triton's own keys, as with values: types, sizes, alignments, layouts of memory."""

    def product_for(dtype: torch.dtype, device: torch.device) -> Product | None:
        from wanimate.runtime.kernels.product_int8 import multiply

        return multiply if dtype == INT8 else _product

    monkeypatch.setattr(optimize, "product_for", product_for)
    speed = "exact" if kind is None else "fast"
    shapes = Shapes(PARAMS, VAE, torch.bfloat16, kind, speed, attention, size, 13, (5, 23), 2, None, chunk)
    run_without_values(shapes, GPU)
    ahead_of_it = set(launched)
    launched.clear()

    def with_values(params: TransformerParams, dtype: torch.dtype, kind: torch.dtype | None) -> AnimateTransformer:
        return hollow_transformer(params, dtype, kind).to_empty(device="cpu")

    monkeypatch.setattr(ahead, "hollow_transformer", with_values)
    monkeypatch.setattr(torch, "equal", lambda a, b: False)  # nothing is spared
    with torch.inference_mode():
        ahead._run_vae(shapes)
        for text in shapes.texts:
            ahead._run_transformer(shapes, text, GPU)
    used = {name.rpartition(".")[2] for name, _ in launched}
    assert used >= {"_stacked", "_add", "_copy", "_double", "_residual_norm", "_rms", "_look"}
    assert launched <= ahead_of_it
    assert {name.rpartition(".")[2] for name, _ in ahead_of_it - launched} <= {
        "_add"
    }  # oneDNN's float32 is laid otherwise


def test_what_fails_is_logged_and_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A job goes on without it."""
    calls = []

    def fails(shapes: Shapes, device: torch.device) -> None:
        calls.append(shapes)
        raise RuntimeError("no room")

    monkeypatch.setenv("WANIMATE_CACHE", str(tmp_path))
    monkeypatch.setattr(ahead, "measured_key", lambda device: ["a GPU"])
    monkeypatch.setattr(ahead, "compile_for", fails)
    shapes = Shapes(PARAMS, VAE, torch.bfloat16, None, "exact", "torch", (64, 48), 13, (5,), 2)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            ahead.compile_ahead(shapes, GPU).join()
    assert "kernels are not compiled ahead (no room)" in caplog.text
    assert calls == [shapes, shapes]
    monkeypatch.setattr(ahead, "compile_for", lambda shapes, device: calls.append(shapes))
    for _ in range(2):
        ahead.compile_ahead(shapes, GPU).join()
    assert len(calls) == 3, "what is compiled is compiled once a machine"
