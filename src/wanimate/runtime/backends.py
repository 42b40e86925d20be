"""Attention backends: every one takes and gives the same shapes (`model.attention`)."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from wanimate.model.attention import Attend, attention
from wanimate.runtime.compilers import keep_caches_private

HAS_TRITON = importlib.util.find_spec("triton") is not None
keep_caches_private()  # before anything is compiled


@dataclass(frozen=True)
class Backend:
    """`exact`: its products are those of the inputs' own type. `unless`: a compute capability on which another one is always
    quicker, so that `auto` does not try it there."""

    name: str
    attend: Attend
    exact: bool
    unless: tuple[int, int] | None = None


def backends() -> dict[str, Backend]:
    """Those that can be imported here; whether they run for a shape is found by running them."""
    found = [
        Backend("torch", attention, True),
        Backend("torch-flash", _Sdpa(SDPBackend.FLASH_ATTENTION), True),
        Backend("cudnn", _Sdpa(SDPBackend.CUDNN_ATTENTION), True),
    ]
    if flash3_module() is not None:
        found.append(Backend("flash-attention-3", _flash3, True))
    if importlib.util.find_spec("sageattention") is not None:
        found.append(Backend("sage", _sage, False))
    if HAS_TRITON:
        from wanimate.runtime.kernels.attention8 import CAPABILITY, Fp8Attention
        from wanimate.runtime.kernels.attention_int8 import Int8Attention

        found.append(Backend("float8", Fp8Attention(), False))
        found.append(Backend("int8", Int8Attention(), False, unless=CAPABILITY))
    return {backend.name: backend for backend in found}


@cache
def flash3_module() -> Any | None:
    """FlashAttention-3 (arXiv 2407.08608) under one of the names it is packaged by; None where it is not installed."""
    for name in ("flash_attn_interface", "fa3_fwd_interface"):
        try:
            return importlib.import_module(name)
        except (ImportError, OSError):  # not installed, or built for another PyTorch
            continue
    return None


@dataclass(frozen=True)
class _Sdpa:
    kernel: SDPBackend

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(self.kernel):
            return attention(q, k, v)


def _flash3(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    module = flash3_module()
    assert module is not None, "the backend is only offered where it is installed"
    out = module.flash_attn_func(q, k, v)
    result: Tensor = out[0] if isinstance(out, tuple) else out
    return result


def _sage(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out: Tensor = importlib.import_module("sageattention").sageattn(q, k, v, tensor_layout="NHD", is_causal=False)
    return out
