"""Triton kernels for channels-last activations of few channels: RMS norm and SiLU in one, each way, and a convolution's bias.

y = SiLU(x / max(||x||, 1e-12) * sqrt(C) * gamma), the norm over the C channels of each pixel (`model.vae.RmsNorm`).
Rows are pixels of all frames and clips, columns the channels.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 64
BLOCK = 4096


@triton.jit  # type: ignore[untyped-decorator]
def _forward(x, gamma, y, rows, scale, C: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    column = tl.arange(0, WIDTH)
    mask = (row < rows)[:, None] & (column < C)[None, :]
    place = row[:, None] * C + column[None, :]
    v = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
    g = tl.load(gamma + column, mask=column < C, other=0.0).to(tl.float32)
    length = tl.maximum(tl.sqrt(tl.sum(v * v, axis=1)), 1e-12)
    z = v / length[:, None] * (scale * g)[None, :]
    tl.store(y + place, (z * tl.sigmoid(z)).to(y.dtype.element_ty), mask=mask)


@triton.jit  # type: ignore[untyped-decorator]
def _backward(x, gamma, dy, dx, dgamma, rows, scale, C: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    column = tl.arange(0, WIDTH)
    mask = (row < rows)[:, None] & (column < C)[None, :]
    place = row[:, None] * C + column[None, :]
    v = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
    d = tl.load(dy + place, mask=mask, other=0.0).to(tl.float32)
    g = tl.load(gamma + column, mask=column < C, other=0.0).to(tl.float32)
    length = tl.maximum(tl.sqrt(tl.sum(v * v, axis=1)), 1e-12)
    u = v / length[:, None]
    z = u * (scale * g)[None, :]
    s = tl.sigmoid(z)
    dz = d * s * (1 + z * (1 - s))
    tl.store(dgamma + tl.program_id(0).to(tl.int64) * WIDTH + column, tl.sum(dz * u, axis=0) * scale)
    du = dz * (scale * g)[None, :]
    along = tl.sum(du * u, axis=1)
    tl.store(dx + place, ((du - u * along[:, None]) / length[:, None]).to(dx.dtype.element_ty), mask=mask)


@triton.jit  # type: ignore[untyped-decorator]
def _bias(x, bias, count, C: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = place < count
    v = tl.load(x + place, mask=mask) + tl.load(bias + place % C, mask=mask)
    tl.store(x + place, v, mask=mask)


class _NormSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor) -> Tensor:
        channels = x.shape[1]
        rows = x.numel() // channels
        y = torch.empty_like(x)
        grid = (triton.cdiv(rows, ROWS),)
        width = triton.next_power_of_2(channels)
        _forward[grid](x, gamma, y, rows, channels**0.5, C=channels, WIDTH=width, BLOCK=ROWS)
        ctx.save_for_backward(x, gamma)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, gamma = ctx.saved_tensors
        channels = x.shape[1]
        rows = x.numel() // channels
        dy = _channels_last(grads[0].to(x.dtype))
        dx = torch.empty_like(x)
        programs, width = triton.cdiv(rows, ROWS), triton.next_power_of_2(channels)
        parts = torch.empty(programs, width, device=x.device)
        _backward[(programs,)](x, gamma, dy, dx, parts, rows, channels**0.5, C=channels, WIDTH=width, BLOCK=ROWS)
        return dx, parts.sum(0)[:channels].view(gamma.shape).to(gamma.dtype)


def norm_silu(x: Tensor, gamma: Tensor) -> Tensor:
    """x [B, C, ...] of any memory layout -> the same shape, channels last."""
    y: Tensor = _NormSilu.apply(_channels_last(x), gamma)  # type: ignore[no-untyped-call]
    return y


def add_bias(x: Tensor, bias: Tensor) -> Tensor:
    """x [B, C, ...] + bias [C], in place. PyTorch's own takes a quarter of a VAE's time: it does not vectorise this."""
    if not x.is_contiguous(memory_format=_order(x)):
        return x.add_(bias.view(-1, *[1] * (x.ndim - 2)))
    _bias[(triton.cdiv(x.numel(), BLOCK),)](x, bias, x.numel(), C=x.shape[1], BLOCK=BLOCK)
    return x


def _order(x: Tensor) -> torch.memory_format:
    return torch.channels_last_3d if x.ndim == 5 else torch.channels_last


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=_order(x))
