"""What makes jobs begin sooner, on a GPU: tensors that several threads bring, machine code from the disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from wanimate.config import Speed
from wanimate.measure.random_weights import quantize_network, random_network
from wanimate.model.fp8 import FP8
from wanimate.model.int8 import INT8
from wanimate.model.params import MotionParams, TransformerParams, VaeParams
from wanimate.model.vae import VideoVae
from wanimate.runtime.ahead import Shapes, compile_ahead
from wanimate.runtime.fused_vae import optimize_vae
from wanimate.runtime.kernels import cuda
from wanimate.runtime.optimize import optimize_transformer
from wanimate.runtime.parallel.ranks import Group
from wanimate.runtime.parallel.sequence import SplitTransformer
from wanimate.sampling.guidance import guided
from wanimate.types import Conditions
from wanimate.weights import staging
from wanimate.weights.formats import open_tensors
from wanimate.weights.staging import Wanted, arriving
from wanimate.weights.stored import Scaled, scaled, value

pytestmark = pytest.mark.gpu
GPU = torch.device("cuda", 0)
HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)


def test_tensors_arrive_whole_while_the_gpu_is_busy(tmp_path: Path) -> None:
    """Memory that the stream of the main thread still writes into is given to the next tensor: copies have to wait for it."""
    generator = torch.Generator().manual_seed(5)
    tensors = {f"t{i}": torch.randn(2000 + 17 * i, 1777, generator=generator).bfloat16() for i in range(24)}
    tensors |= {"bytes": torch.arange(251, dtype=torch.uint8), "one": torch.tensor(3.0)}
    save_file(tensors, tmp_path / "a.safetensors")
    levels, scale = torch.randint(-9, 9, (64, 4096)).to(torch.int8), torch.rand(64, 1)
    wanted = open_tensors(tmp_path / "a.safetensors") | {"scaled": scaled(levels, scale)}
    tensors["scaled"] = levels.float() * scale
    heavy = torch.randn(6000, 6000, device=GPU)
    for one, there in arriving(Wanted(key, v, GPU) for key, v in wanted.items()):
        found: Tensor = value(there)
        assert found.device == GPU
        assert isinstance(there, Scaled) == (one.key == "scaled")
        assert torch.equal(found.cpu(), tensors[one.key])
        del there, found
        torch.empty(60_000_000, dtype=torch.uint8, device=GPU).copy_(
            (heavy @ heavy).view(torch.uint8).view(-1)[:60_000_000]
        )


def test_page_locked_memory_is_bounded() -> None:
    assert staging.THREADS * staging.PIECE <= 2**27


@pytest.mark.skipif(not HOPPER, reason="not Hopper")
def test_the_next_process_takes_machine_code_from_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wanimate.runtime.kernels import attention8

    monkeypatch.setenv("WANIMATE_CACHE", str(tmp_path))
    cuda.compiled.cache_clear()
    made = cuda.compiled(attention8.SOURCE, GPU)
    code = (
        "import torch; from wanimate.runtime.kernels import attention8, cuda\n"
        "def never(*a): raise AssertionError('it is compiled again')\n"
        "cuda.compile_source = never\n"
        "q = torch.randn(1, 300, 2, 128, device='cuda', dtype=torch.bfloat16)\n"
        "wanted = torch.nn.functional.scaled_dot_product_attention(*(q.transpose(1, 2),) * 3).transpose(1, 2)\n"
        "out = attention8.Fp8Attention()(q, q, q)\n"
        "print(float((out - wanted).norm() / wanted.norm()))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(said.stdout) < 0.1
    cuda.compiled.cache_clear()
    assert cuda.compiled(attention8.SOURCE, GPU) == made


@pytest.mark.parametrize("speed", ["exact", "fast"])
def test_values_that_are_sent_first_change_nothing(speed: Speed) -> None:
    """A group of one exchanges nothing; blocks compute as they do over several GPUs, in another order, and give the same."""
    if speed == "fast" and not HOPPER:
        pytest.skip("float8 attention is for Hopper")
    params = TransformerParams(
        dim=256, ffn_dim=512, num_heads=2, num_layers=5, text_width=32, text_length=8, image_width=32, face_width=32,
        motion=MotionParams(channels=(8, 16, 16), width=32, directions=8),
    )  # fmt: skip
    model = random_network(params, GPU, torch.bfloat16)
    if speed == "fast":
        quantize_network(model)
    optimize_transformer(model, GPU, speed, "float8" if speed == "fast" else "torch")
    generator = torch.Generator().manual_seed(2)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(GPU)

    side = params.motion.size
    given = Conditions(
        randn(20, 4, 16, 24),
        randn(16, 3, 16, 24),
        randn(3, 9, side, side).clamp(-1, 1),
        randn(5, 32),
        None,
        randn(257, 32),
    )
    x, t = randn(16, 4, 16, 24), torch.tensor(700, device=GPU)
    with torch.inference_mode():
        wanted = guided(model, given, 1.0)(x, t)
        found = guided(SplitTransformer(model, Group()), given, 1.0)(x, t)
    assert torch.isfinite(wanted).all()
    assert torch.equal(found, wanted)


def test_a_job_launches_what_was_compiled_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of sizes that nothing else here has; weights and latents have values, and no kernel is compiled for them."""
    from triton.runtime.jit import JITFunction

    monkeypatch.setenv("WANIMATE_CACHE", str(tmp_path))
    compiled: list[str] = []
    compiles = JITFunction._do_compile

    def counted(kernel: Any, key: str, *args: Any, **options: Any) -> Any:
        compiled.append(f"{kernel._fn_name} {key}")
        return compiles(kernel, key, *args, **options)

    monkeypatch.setattr(JITFunction, "_do_compile", counted)
    kind, attention = (FP8, "float8") if HOPPER else (INT8, "int8")
    params = TransformerParams(
        dim=384, ffn_dim=640, num_heads=3, num_layers=5, text_width=32, text_length=24, image_width=32, face_width=32,
        motion=MotionParams(channels=(8, 16, 16), width=32, directions=8),
    )  # fmt: skip
    width, height, length, chunk = 208, 112, 13, 2
    size, frames = (width, height), (length + 3) // 4
    shapes = Shapes(
        params, VaeParams(base=24), torch.bfloat16, kind, "fast", attention, size, length, (6,), chunk, None, None
    )
    compile_ahead(shapes, GPU).join()
    assert len(compiled) > 20
    compiled.clear()
    model = random_network(params, GPU, torch.bfloat16)
    quantize_network(model, kind)
    optimize_transformer(model, GPU, "fast", attention)
    vae = VideoVae(shapes.vae).eval().requires_grad_(False).to(GPU).channels_last()
    optimize_vae(vae, "fast")
    side = params.motion.size
    with torch.inference_mode():
        video = torch.rand(1, 3, length, height, width, device=GPU) * 2 - 1
        latents = vae.encode(video, chunk)
        assert torch.isfinite(vae.decode(latents, chunk)).all()
        given = Conditions(
            torch.randn(20, frames + 1, height // 8, width // 8, device=GPU), latents[0].float(),
            torch.rand(3, length, side, side, device=GPU), torch.randn(6, 32, device=GPU), None,
            torch.randn(257, 32, device=GPU),
        )  # fmt: skip
        x = torch.randn(16, frames + 1, height // 8, width // 8, device=GPU)
        assert torch.isfinite(guided(model, given, 1.0)(x, torch.tensor(700, device=GPU))).all()
    assert compiled == []
