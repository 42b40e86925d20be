"""Triton kernels for channels-last activations of few channels: RMS norm and SiLU in one, each way, and biases.

y = SiLU(x / max(||x||, 1e-12) * sqrt(C) * gamma), the norm over the C channels of each pixel (`model.vae.RmsNorm`).
Rows are pixels of all frames and clips, columns the channels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from wanimate.model import vae
from wanimate.runtime.kernels.jit import jit

ROWS = 64
BLOCK = 4096


@jit
def _normed(x, bias, gamma, place, column, mask, scale, C: tl.constexpr, BIASED: tl.constexpr):  # type: ignore[no-untyped-def]
    v = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
    if BIASED:
        v = v + tl.load(bias + column, mask=column < C, other=0.0).to(tl.float32)[None, :]
    g = tl.load(gamma + column, mask=column < C, other=0.0).to(tl.float32)
    length = tl.maximum(tl.sqrt(tl.sum(v * v, axis=1)), 1e-12)
    z = v / length[:, None] * (scale * g)[None, :]
    return z * tl.sigmoid(z)


@jit
def _forward(  # type: ignore[no-untyped-def]
    x, gamma, y, rows, clip, front, scale, C: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
    BEHIND: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    column = tl.arange(0, WIDTH)
    mask = (row < rows)[:, None] & (column < C)[None, :]
    place = row[:, None] * C + column[None, :]
    z = _normed(x, gamma, gamma, place, column, mask, scale, C, False)
    if BEHIND:
        row = row + (row // clip + 1) * front
        place = row[:, None] * C + column[None, :]
    tl.store(y + place, z.to(y.dtype.element_ty), mask=mask)


@jit
def _stacked(  # type: ignore[no-untyped-def]
    x, bias, gamma, out, rows, pixels, scale, C: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
    BIASED: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    column = tl.arange(0, WIDTH)
    mask = (row < rows)[:, None] & (column < C)[None, :]
    place = row[:, None] * C + column[None, :]
    z = _normed(x, bias, gamma, place, column, mask, scale, C, BIASED).to(out.dtype.element_ty)
    for ahead in tl.static_range(3):
        later = row + ahead * pixels
        place = later[:, None] * (3 * C) + (2 - ahead) * C + column[None, :]
        tl.store(out + place, z, mask=mask & (later < rows)[:, None])


@jit
def _backward(  # type: ignore[no-untyped-def]
    x, gamma, dy, dx, dgamma, rows, clip, front, scale, C: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
    BEHIND: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    column = tl.arange(0, WIDTH)
    mask = (row < rows)[:, None] & (column < C)[None, :]
    place = row[:, None] * C + column[None, :]
    v = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
    later = row
    if BEHIND:
        later = row + (row // clip + 1) * front
    d = tl.load(dy + later[:, None] * C + column[None, :], mask=mask, other=0.0).to(tl.float32)
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


@jit
def _copy(x, out, rows, wide, x_wide, out_wide, BLOCK: tl.constexpr, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    column = tl.arange(0, WIDTH)
    mask = (row < rows)[:, None] & (column < wide)[None, :]
    v = tl.load(x + row[:, None] * x_wide + column[None, :], mask=mask)
    tl.store(out + row[:, None] * out_wide + column[None, :], v, mask=mask)


@jit
def _double(x, out, count, W: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = place < count
    pixel, channel = place // C, place % C
    line, across = pixel // (2 * W), pixel % (2 * W)
    tl.store(out + place, tl.load(x + ((line // 2) * W + across // 2) * C + channel, mask=mask), mask=mask)


@jit
def _add(x, bias, other, count, C: tl.constexpr, BLOCK: tl.constexpr, ADDS: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = place < count
    v = tl.load(x + place, mask=mask).to(tl.float32) + tl.load(bias + place % C, mask=mask).to(tl.float32)
    if ADDS:
        v = v + tl.load(other + place, mask=mask).to(tl.float32)
    tl.store(x + place, v.to(x.dtype.element_ty), mask=mask)


class _NormSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, frames: int) -> Tensor:
        channels, clip, front = x.shape[1], 1, 0
        rows, width = x.numel() // channels, triton.next_power_of_2(channels)
        if frames == 0:
            y = torch.empty_like(x)
        else:
            clip, front = math.prod(x.shape[2:]), frames * math.prod(x.shape[3:])
            longer = (*x.shape[:2], frames + x.shape[2], *x.shape[3:])
            y = torch.empty(longer, dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d)
            y[:, :, :frames] = 0
        _forward[(triton.cdiv(rows, ROWS),)](
            x, gamma, y, rows, clip, front, channels**0.5, C=channels, WIDTH=width, BLOCK=ROWS, BEHIND=frames > 0
        )
        ctx.save_for_backward(x, gamma)
        ctx.clip, ctx.front = clip, front
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, gamma = ctx.saved_tensors
        channels = x.shape[1]
        rows = x.numel() // channels
        dy = _channels_last(grads[0].to(x.dtype))
        dx = torch.empty_like(x)
        programs, width = triton.cdiv(rows, ROWS), triton.next_power_of_2(channels)
        parts = torch.empty(programs, width, device=x.device)
        _backward[(programs,)](
            x, gamma, dy, dx, parts, rows, ctx.clip, ctx.front, channels**0.5, C=channels, WIDTH=width, BLOCK=ROWS,
            BEHIND=ctx.front > 0,
        )  # fmt: skip
        return dx, parts.sum(0)[:channels].view(gamma.shape).to(gamma.dtype), None


def norm_silu(x: Tensor, gamma: Tensor, frames: int = 0) -> Tensor:
    """x [B, C, ...] of any memory layout -> the same shape, channels last; behind so many frames of zeros, where x is a video
    [B, C, T, H, W]."""
    y: Tensor = _NormSilu.apply(_channels_last(x), gamma, frames)  # type: ignore[no-untyped-call]
    return y


def norm_silu_stacked(x: Tensor, bias: Tensor | None, gamma: Tensor, before: Tensor | None) -> Tensor:
    """Norm and SiLU of x [1, C, T, H, W] + bias, each frame with the two before it: [T, 3C, H, W], the oldest one's channels
    first. `before` [1, 2C, H, W]: the two frames before x, None for zeros. Without gradients."""
    x = _channels_last(x)
    channels, frames, height, width = x.shape[1:]
    out = torch.empty(
        frames, 3 * channels, height, width, dtype=x.dtype, device=x.device, memory_format=torch.channels_last
    )
    _stacked[(triton.cdiv(frames * height * width, ROWS),)](
        x, gamma if bias is None else bias, gamma, out, frames * height * width, height * width, channels**0.5, C=channels,
        WIDTH=triton.next_power_of_2(channels), BLOCK=ROWS, BIASED=bias is not None,
    )  # fmt: skip
    if before is None:
        out[:1, : 2 * channels] = 0
        out[1:2, :channels] = 0
    else:
        _copy_channels(before, out[:1, : 2 * channels])
        if frames > 1:
            _copy_channels(before[:, channels:], out[1:2, :channels])
    return out


def last_frames(stacked: Tensor) -> Tensor:
    """The last two frames, [1, 2C, H, W], of what `norm_silu_stacked` gives."""
    last = stacked[-1:, len(stacked[0]) // 3 :]
    return _copy_channels(
        last, torch.empty(last.shape, dtype=last.dtype, device=last.device, memory_format=torch.channels_last)
    )


def interleaved(x: Tensor) -> Tensor:
    """As `model.vae.interleaved`."""
    if len(x) > 1:
        return vae.interleaved(x)
    x = _channels_last(x)
    channels, frames, height, width = x.shape[1] // 2, *x.shape[2:]
    out = torch.empty(
        (1, channels, 2 * frames, height, width), dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d
    )
    for i in range(2 * frames):
        half = slice(channels, None) if i % 2 else slice(channels)
        _copy_channels(x[:, half, i // 2], out[:, :, i])
    return out


def _copy_channels(x: Tensor, out: Tensor) -> Tensor:
    """x to out, [1, C, H, W] both: some channels of pictures that lie channels last. PyTorch copies an element at a time."""
    _, channels, height, width = x.shape
    rows = height * width
    _copy[(triton.cdiv(rows, ROWS),)](
        x, out, rows, channels, x.stride(3), out.stride(3), BLOCK=ROWS, WIDTH=triton.next_power_of_2(channels)
    )
    return out


def doubled(x: Tensor) -> Tensor:
    """x [N, C, H, W] at twice the height and width, every pixel four times."""
    x = _channels_last(x)
    number, channels, height, width = x.shape
    out = torch.empty(
        number, channels, 2 * height, 2 * width, dtype=x.dtype, device=x.device, memory_format=torch.channels_last
    )
    _double[(triton.cdiv(out.numel(), BLOCK),)](x, out, out.numel(), W=width, C=channels, BLOCK=BLOCK)
    return out


def add_bias(x: Tensor, bias: Tensor, other: Tensor | None = None) -> Tensor:
    """x [B, C, ...] + bias [C] (+ other, like x), in place. PyTorch's own takes a quarter of a VAE's time: it does not
    vectorise this."""
    if not x.is_contiguous(memory_format=vae.order_of(x)):
        x.add_(bias.view(-1, *[1] * (x.ndim - 2)))
        return x if other is None else x.add_(other)
    other = None if other is None else _channels_last(other)
    _add[(triton.cdiv(x.numel(), BLOCK),)](
        x, bias, x if other is None else other, x.numel(), C=x.shape[1], BLOCK=BLOCK, ADDS=other is not None
    )
    return x


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=vae.order_of(x))
