"""Attention backends give what a plain softmax gives; what the kernel of our own is told is what its source says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

import wanimate
from wanimate.runtime.backends import backends
from wanimate.runtime.kernels.cuda import TensorMap, compiled

RUNTIME = Path(wanimate.__file__).parent / "runtime"


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.double().transpose(1, 2) for x in (q, k, v))
    return ((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v).transpose(1, 2)


def test_every_backend_that_runs_here_is_attention() -> None:
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, 50, 3, 16, generator=generator) for _ in range(3))
    wanted, ran = plain(q, k, v), []
    for name, backend in backends().items():
        try:
            found = backend.attend(q, k, v)
        except RuntimeError:
            continue  # none of its kernels is for a processor
        ran.append(name)
        assert found.shape == q.shape
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    assert "torch" in ran


def test_the_kernel_and_what_calls_it_agree() -> None:
    """Sizes stand in the CUDA source and, for grids and shared memory, in Python."""
    source = (RUNTIME / "kernels" / "attention8.cu").read_text()
    sizes = {name: int(value) for name, value in re.findall(r"\b([A-Z]+) = (\d+)\b", source)}
    told: dict[str, int] = {}
    for node in ast.parse((RUNTIME / "kernels" / "attention8.py").read_text()).body:
        if isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
            pairs = zip(target.elts, value.elts, strict=True) if isinstance(target, ast.Tuple) else [(target, value)]
            told |= {n.id: v.value for n, v in pairs if isinstance(n, ast.Name) and isinstance(v, ast.Constant)}
    tile = re.search(r"^KEYS = (\d+)", (RUNTIME / "kernels" / "rows.py").read_text(), re.MULTILINE)
    assert tile is not None
    told["KEYS"] = int(tile[1])
    names = ("GROUPS", "ROWS", "KEYS", "STAGES", "WIDTH")
    assert {name: told[name] for name in names} == {name: sizes[name] for name in names}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_a_kernel_says_what_is_missing() -> None:
    with pytest.raises(RuntimeError, match=r"there is no CUDA driver|cuTensorMapEncodeTiled"):
        TensorMap(torch.zeros(64, 128, dtype=torch.uint8), 64, 128)
    with pytest.raises((RuntimeError, AssertionError)):
        compiled(RUNTIME / "kernels" / "attention8.cu", torch.device("cuda", 0))
