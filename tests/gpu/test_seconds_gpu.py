"""What makes jobs begin sooner, on a GPU: tensors that several threads bring, machine code from the disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from wanimate.runtime.kernels import attention8, cuda
from wanimate.weights import staging
from wanimate.weights.formats import open_tensors
from wanimate.weights.staging import Wanted, arriving
from wanimate.weights.stored import Scaled, scaled, value

pytestmark = pytest.mark.gpu
GPU = torch.device("cuda", 0)


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


@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() != attention8.CAPABILITY, reason="not Hopper"
)
def test_the_next_process_takes_machine_code_from_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
