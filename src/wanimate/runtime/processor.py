"""The VAE on a processor, made fast from outside: its convolutions by oneDNN, in bfloat16 where that pays."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wanimate.config import Speed
from wanimate.model.vae import VideoVae
from wanimate.runtime.fused_vae import in_bfloat16
from wanimate.runtime.patches import install, method


def has_bf16(device: torch.device) -> bool:
    """Whether this is a processor that multiplies bfloat16 itself; emulated, it is slower than float32."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # PyTorch has it since 2.10
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def optimize_vae_here(vae: VideoVae, speed: Speed) -> None:
    """`fused_vae.optimize_vae` for a VAE on the processor; bfloat16 only where it is multiplied."""
    if speed != "exact" and has_bf16(vae.mean.device):
        in_bfloat16(vae)
    if _has_convolutions(vae.dtype):
        convolutions = [part for part in vae.modules() if isinstance(part, nn.Conv3d)]
        install(vae, "oneDNN convolutions", [method(part, "_conv_forward", _convolved) for part in convolutions])


def _has_convolutions(dtype: torch.dtype) -> bool:
    """Whether oneDNN convolves tensors of this type on this processor."""
    if not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def _convolved(conv: nn.Conv3d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """By oneDNN whatever the size: PyTorch leaves small float32 convolutions to a loop of its own, four times slower."""
    padding: Any = conv.padding
    out: Tensor = torch.mkldnn_convolution(x, weight, bias, padding, conv.stride, conv.dilation, conv.groups)
    return out
