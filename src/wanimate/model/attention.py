"""Attention behind one function: every backend takes and gives the same shapes.

Letters: B batch, Lq queries, Lk keys, N heads, d width of a head.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from wanimate.model.fp8 import to_fp8

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""softmax(q k^T / sqrt(d)) v without a mask: q [B, Lq, N, d], k and v [B, Lk, N, d] -> [B, Lq, N, d]."""


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's choice among its own kernels; runs everywhere."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


@dataclass(frozen=True)
class Backend:
    """`exact`: its products are those of the inputs' own type."""

    name: str
    attend: Attend
    exact: bool


def backends() -> dict[str, Backend]:
    """Those that can be imported here; whether they run for a shape is found by running them."""
    found = [
        Backend("torch", attention, True),
        Backend("torch flash", _Sdpa(SDPBackend.FLASH_ATTENTION), True),
        Backend("cudnn", _Sdpa(SDPBackend.CUDNN_ATTENTION), True),
    ]
    if flash3_module() is not None:
        found += [Backend("flash-attention 3", _flash3, True), Backend("flash-attention 3 fp8", Fp8Attention(), False)]
    if importlib.util.find_spec("sageattention") is not None:
        found.append(Backend("sage", _sage, False))
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


def _flash3(q: Tensor, k: Tensor, v: Tensor, **scales: Tensor) -> Tensor:
    module = flash3_module()
    assert module is not None, "the backend is only offered where it is installed"
    out = module.flash_attn_func(q, k, v, **scales)
    result: Tensor = out[0] if isinstance(out, tuple) else out
    return result


def _sage(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out: Tensor = importlib.import_module("sageattention").sageattn(q, k, v, tensor_layout="NHD", is_causal=False)
    return out


Fp8 = tuple[Tensor, Tensor]
"""Float8 levels [B, L, N, d], and a scale for each head, [B, N]."""


def to_fp8_heads(x: Tensor, smooth: bool = False) -> Fp8:
    """x [B, L, N, d] in float8; `smooth`, for keys, takes the mean over tokens away.

    What is the same in all keys shifts every score of a query alike, which softmax does not see; without it the keys need
    fewer levels (smoothing of K: SageAttention, arXiv 2410.02367, section 4.2).
    """
    levels, scale = to_fp8(x.float() - x.float().mean(1, keepdim=True) if smooth else x, (1, 3))
    return levels, scale[:, 0, :, 0]


def _flash3_fp8(q: Fp8, k: Fp8, v: Fp8) -> Tensor:
    return _flash3(q[0], k[0], v[0], q_descale=q[1], k_descale=k[1], v_descale=v[1])


@dataclass(frozen=True)
class Fp8Attention:
    """Attention on float8 queries and keys, which `heads` makes, and on what `values` makes of the values."""

    heads: Callable[..., Fp8] = to_fp8_heads
    values: Callable[[Tensor], Any] = to_fp8_heads
    kernel: Callable[[Fp8, Fp8, Any], Tensor] = _flash3_fp8

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.rounded(self.heads(q), self.heads(k, smooth=True), v)

    def rounded(self, q: Fp8, k: Fp8, v: Tensor) -> Tensor:
        """The same of queries and keys that are float8 already."""
        return self.kernel(q, k, self.values(v)).to(v.dtype)
