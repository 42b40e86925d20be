"""Triton kernels over rows of tokens: what stands between the matrix products of a block, each in one pass over memory.

A row is read once, kept in registers, and written once; where the next product is one of float8 or int8 matrices, it is written
as levels of that type with a scale a row. Statistics and sums are float32.

Letters: R rows (tokens), D width of a row, N heads, d = D/N.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from wanimate.model.fp8 import FP8, LARGEST, hadamard
from wanimate.model.int8 import INT8, MOST
from wanimate.model.rope import Rope
from wanimate.runtime.kernels.jit import jit

Rounded = tuple[Tensor, Tensor]
"""Levels [R, D], float8 or int8, and the scale of each row, [R, 1]."""
Fp8 = tuple[Tensor, Tensor]
"""Float8 levels of one video's heads, [1, R, N, d] unless said otherwise, and a scale for each head, [1, N]."""
Int8 = tuple[Tensor, Tensor]
"""Int8 levels of one video's heads, [1, R, N, d], and a scale for each token and head, [1, N, R]."""
LEVELS: dict[torch.dtype, float] = {FP8: LARGEST, INT8: MOST}
"""The largest level of each type."""
_MOST = tl.constexpr(LARGEST)
_WHOLE = tl.constexpr(MOST)
TILE = 64
KEYS = 128
"""Of a tile of `attention8.cu`."""
SAMPLE = 1024
"""So many tokens, about, tell what keys have in common."""


@jit
def _store(value, out, scales, row, place, mask, MOST: tl.constexpr):  # type: ignore[no-untyped-def]
    if MOST > 0:
        scale = tl.maximum(tl.max(tl.where(mask, tl.abs(value), 0.0), axis=0), 1e-12) / MOST
        tl.store(scales + row, scale)
        value = tl.minimum(tl.maximum(value / scale, -MOST), MOST)
        if MOST == _WHOLE:
            value = tl.floor(value + 0.5)
    tl.store(out + place, value.to(out.dtype.element_ty), mask=mask)


@jit
def _residual_norm(  # type: ignore[no-untyped-def]
    x, y, gate, weight, bias, new_x, out, scales, eps, D: tl.constexpr, BLOCK: tl.constexpr, ADDS: tl.constexpr,
    GATED: tl.constexpr, NORMS: tl.constexpr, MOST: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    mask = column < D
    place = row * D + column
    v = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
    if ADDS:
        u = tl.load(y + place, mask=mask, other=0.0).to(tl.float32)
        if GATED:
            u = u * tl.load(gate + column, mask=mask, other=0.0)
        v = v + u
        tl.store(new_x + place, v, mask=mask)
    if NORMS:
        centred = tl.where(mask, v - tl.sum(v, axis=0) / D, 0.0)
        spread = tl.sum(centred * centred, axis=0) / D
        w = tl.load(weight + column, mask=mask, other=0.0)
        b = tl.load(bias + column, mask=mask, other=0.0)
        _store(centred * tl.rsqrt(spread + eps) * w + b, out, scales, row, place, mask, MOST)


@jit
def _rms(x, weight, cosine, sine, out, eps, D: tl.constexpr, d: tl.constexpr, BLOCK: tl.constexpr, TURNS: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    mask = column < D
    v = tl.load(x + row * D + column, mask=mask, other=0.0).to(tl.float32)
    w = tl.load(weight + column, mask=mask, other=0.0).to(tl.float32)
    kind = out.dtype.element_ty
    n = (v * tl.rsqrt(tl.sum(v * v, axis=0) / D + eps)).to(kind).to(tl.float32)
    n = (n * w).to(kind).to(tl.float32)
    if TURNS:
        real, imaginary = tl.split(tl.reshape(n, (BLOCK // 2, 2)))
        pair = tl.arange(0, BLOCK // 2)
        angle = row * (d // 2) + pair % (d // 2)
        c = tl.load(cosine + angle, mask=pair < D // 2, other=0.0)
        s = tl.load(sine + angle, mask=pair < D // 2, other=0.0)
        n = tl.reshape(tl.join(real * c - imaginary * s, real * s + imaginary * c), (BLOCK,))
    tl.store(out + row * D + column, n.to(kind), mask=mask)


@jit
def _two(pairs, mask):  # type: ignore[no-untyped-def]
    """Two bfloat16 numbers of 32 bits each."""
    bits = tl.load(pairs, mask=mask, other=0)
    return (bits << 16).to(tl.float32, bitcast=True), (bits & -65536).to(tl.float32, bitcast=True)


@jit
def _rms_eight(  # type: ignore[no-untyped-def]
    x, weight, cosine, sine, shift, steps, signs, out, scales, eps, N: tl.constexpr, d: tl.constexpr, HEADS: tl.constexpr,
    SHIFTS: tl.constexpr, INT8: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head, i = tl.arange(0, HEADS)[:, None], tl.arange(0, d // 2)[None, :]
    pair, mask = head * (d // 2) + i, head < N
    v, v_next = _two(x + row * (N * d // 2) + pair, mask)
    w, w_next = _two(weight + pair, mask)
    size = tl.rsqrt(tl.sum(tl.sum(v * v + v_next * v_next, axis=1), axis=0) / (N * d) + eps)
    v = ((v * size).to(tl.bfloat16).to(tl.float32) * w).to(tl.bfloat16).to(tl.float32)
    v_next = ((v_next * size).to(tl.bfloat16).to(tl.float32) * w_next).to(tl.bfloat16).to(tl.float32)
    c, s = tl.load(cosine + row * (d // 2) + i), tl.load(sine + row * (d // 2) + i)
    real, imaginary = v * c - v_next * s, v * s + v_next * c
    if SHIFTS:
        h, h_next = _two(shift + pair, mask)
        real, imaginary = real - h, imaginary - h_next
    sign = tl.load(signs + tl.arange(0, d // 2)[:, None] * (d // 2) + i)
    step = tl.load(steps + head, mask=mask, other=0.0)
    even = tl.dot((real + imaginary).to(tl.bfloat16), sign) * step
    odd = tl.dot((real - imaginary).to(tl.bfloat16), sign) * step
    if INT8:
        scale = tl.maximum(tl.maximum(tl.max(tl.abs(even), axis=1), tl.max(tl.abs(odd), axis=1)), 1e-12) / _WHOLE
        tl.store(scales + tl.arange(0, HEADS) * tl.num_programs(0) + row, scale, mask=tl.arange(0, HEADS) < N)
        n = tl.floor(tl.interleave(even, odd) / scale[:, None] + 0.5)
    else:
        n = tl.minimum(tl.maximum(tl.interleave(even, odd), -_MOST), _MOST)
    column = tl.arange(0, d)[None, :]
    tl.store(out + row * (N * d) + head * d + column, n.to(out.dtype.element_ty), mask=mask)


@jit
def _round(x, out, scales, D: tl.constexpr, BLOCK: tl.constexpr, GELU: tl.constexpr, MOST: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    mask = column < D
    place = row * D + column
    v = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
    if GELU:
        v = v * tl.sigmoid(1.5957691216057308 * (v + 0.044715 * v * v * v))
    _store(v, out, scales, row, place, mask, MOST)


@jit
def _head_largest(x, mean, largest, rows, N: tl.constexpr, d: tl.constexpr, TILE: tl.constexpr, SHIFTS: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    head = tl.program_id(1)
    column = head * d + tl.arange(0, d)
    mask = (row < rows)[:, None] & (column < N * d)[None, :]
    v = tl.load(x + row[:, None] * (N * d) + column[None, :], mask=mask, other=0.0).to(tl.float32)
    if SHIFTS:
        v = tl.where(mask, v - tl.load(mean + column)[None, :], 0.0)
    tl.atomic_max(largest + head, tl.max(tl.max(tl.abs(v), axis=1), axis=0))


@jit
def _head_round(  # type: ignore[no-untyped-def]
    x, mean, scale, out, rows, N: tl.constexpr, d: tl.constexpr, TILE: tl.constexpr, SHIFTS: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    head = tl.program_id(1)
    column = head * d + tl.arange(0, d)
    mask = (row < rows)[:, None] & (column < N * d)[None, :]
    place = row[:, None] * (N * d) + column[None, :]
    v = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
    if SHIFTS:
        v = v - tl.load(mean + column)[None, :]
    v = tl.minimum(tl.maximum(v / tl.load(scale + head), -_MOST), _MOST)
    tl.store(out + place, v.to(out.dtype.element_ty), mask=mask)


@jit
def _tokens_round(  # type: ignore[no-untyped-def]
    x, mean, scales, out, rows, N: tl.constexpr, d: tl.constexpr, TILE: tl.constexpr, SHIFTS: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    head = tl.program_id(1)
    column = head * d + tl.arange(0, d)
    there = row < rows
    place = row[:, None] * (N * d) + column[None, :]
    v = tl.load(x + place, mask=there[:, None], other=0.0).to(tl.float32)
    if SHIFTS:
        v = v - tl.load(mean + column)[None, :]
    scale = tl.maximum(tl.max(tl.abs(v), axis=1), 1e-12) / _WHOLE
    tl.store(scales + head.to(tl.int64) * rows + row, scale, mask=there)
    v = tl.floor(v / scale[:, None] + 0.5)
    tl.store(out + place, v.to(out.dtype.element_ty), mask=there[:, None])


@jit
def _values_round(x, scale, out, rows, N: tl.constexpr, d: tl.constexpr, TILE: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    row = place // 16 * 16 + place // 2 % 2 * 8 + place % 16 // 4 * 2 + place % 2
    head = tl.program_id(1)
    column = tl.arange(0, d)
    v = tl.load(x + row[:, None] * (N * d) + head * d + column[None, :], mask=(row < rows)[:, None], other=0.0).to(
        tl.float32
    )
    v = tl.trans(tl.minimum(tl.maximum(v / tl.load(scale + head), -_MOST), _MOST))
    to = out + (head * d + column[:, None]) * (tl.num_programs(0).to(tl.int64) * TILE) + place[None, :]
    tl.store(to, v.to(out.dtype.element_ty))


def _shape(width: int) -> dict[str, Any]:
    block = triton.next_power_of_2(width)
    return {"BLOCK": block, "num_warps": max(1, min(8, block // 2048))}


def residual_norm(
    x: Tensor, y: Tensor | None, gate: Tensor | None, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor | Rounded]:
    """x + y * gate, in place, and its layer norm (without weights) * weight + bias in `dtype`; of float8 and int8,
    levels and scales.

    x float32 [1, R, D], y [1, R, D] or None (then x itself is normed and given back), gate, weight and bias float32 [D].
    """
    x = x.contiguous()
    rows, width = x.shape[1:]
    small = dtype in LEVELS
    out = torch.empty((rows, width) if small else x.shape, dtype=dtype, device=x.device)
    scales = torch.empty(rows if small else 0, 1, device=x.device)
    _residual_norm[(rows,)](
        x, x if y is None else y, weight if gate is None else gate, weight, bias, x, out, scales, eps, D=width,
        ADDS=y is not None, GATED=gate is not None, NORMS=True, MOST=LEVELS.get(dtype, 0.0), **_shape(width),
    )  # fmt: skip
    return x, (out, scales) if small else out


def residual(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """x + y * gate in place: x float32 [1, R, D], y [1, R, D], gate float32 [D]."""
    rows, width = x.shape[1:]
    _residual_norm[(rows,)](
        x, y, gate, gate, gate, x, x, x, 0.0, D=width, ADDS=True, GATED=True, NORMS=False, MOST=0.0, **_shape(width)
    )
    return x


def rms(x: Tensor, weight: Tensor, eps: float, rope: Rope | None, heads: int) -> Tensor:
    """`RMSNorm` of x [1, R, D] and, with `rope`, its rotation -> [1, R, N, d] in x's type."""
    x = x.contiguous()
    rows, width = x.shape[1:]
    out = torch.empty_like(x)
    cosine, sine = rope or (x, x)
    _rms[(rows,)](x, weight, cosine, sine, out, eps, D=width, d=width // heads, TURNS=rope is not None, **_shape(width))
    return out.unflatten(-1, (heads, -1))


def common_part(x: Tensor, weight: Tensor, eps: float, rope: Rope, heads: int) -> Tensor:
    """What keys have in common, float32 [N, d]: the mean of some of them, as `rms` gives them."""
    every = x.shape[1] // SAMPLE | 1  # odd, so that they are of many columns of a picture
    cosine, sine = (table[::every].contiguous() for table in rope)
    some = x[:, ::every].to(torch.bfloat16).contiguous()
    return rms(some, weight.to(torch.bfloat16), eps, (cosine, sine), heads)[0].mean(0, dtype=torch.float32)


def rms_fp8(x: Tensor, weight: Tensor, eps: float, rope: Rope, heads: int, common: Tensor | None = None) -> Fp8:
    """`rms` in float8, [1, R, N, d], every head rotated by `hadamard`, with scales [1, N] that are known before: what a norm
    gives is at most sqrt(D), and no rotation makes more of it than that times the largest weight of a head. `common`, for keys:
    taken away from all of them, as `fp8_heads` does it (`common_part`).

    x and weight count as bfloat16, as all shifts of the keys are as good.
    """
    x, weight = x.to(torch.bfloat16).contiguous(), weight.to(torch.bfloat16).contiguous()
    width = x.shape[-1]
    largest = math.sqrt(width) * weight.float().abs().view(heads, -1).amax(1)
    if common is not None:
        largest = largest + common.norm(dim=1)
    scale = largest.clamp_min(1e-12) / LARGEST
    steps = 1 / (math.sqrt(width // heads) * scale)
    return _rms_rounded(x, weight, eps, rope, heads, common, steps, None), scale[None]


def rms_int8(x: Tensor, weight: Tensor, eps: float, rope: Rope, heads: int, common: Tensor | None = None) -> Int8:
    """`rms_fp8` in int8, with a scale for each token and head, from the largest number that is there."""
    x, weight = x.to(torch.bfloat16).contiguous(), weight.to(torch.bfloat16).contiguous()
    scales = torch.empty(1, heads, x.shape[1], device=x.device)
    steps = torch.full((heads,), (x.shape[-1] // heads) ** -0.5, device=x.device)
    return _rms_rounded(x, weight, eps, rope, heads, common, steps, scales), scales


def _rms_rounded(
    x: Tensor, weight: Tensor, eps: float, rope: Rope, heads: int, common: Tensor | None, steps: Tensor,
    scales: Tensor | None,
) -> Tensor:  # fmt: skip
    """Levels [1, R, N, d] of x [1, R, D], without what is `common`, times `steps` [N]: float8, or int8 with new `scales`."""
    rows, width = x.shape[1:]
    d = width // heads
    shift = weight if common is None else common.flatten().to(torch.bfloat16)
    out = torch.empty(1, rows, heads, d, dtype=FP8 if scales is None else INT8, device=x.device)
    _rms_eight[(rows,)](
        x.view(torch.int32), weight.view(torch.int32), *rope, shift.view(torch.int32), steps, hadamard(d // 2, x.device),
        out, steps if scales is None else scales, eps, N=heads, d=d, HEADS=max(16, triton.next_power_of_2(heads)),
        SHIFTS=common is not None, INT8=scales is not None, num_warps=4,
    )  # fmt: skip
    return out


def rounded(x: Tensor, kind: torch.dtype = FP8, gelu: bool = False) -> Rounded:
    """Levels of the type `kind`, float8 or int8, of the rows of x [1, R, D] or of GELU(x)."""
    x = x.contiguous()
    rows, width = x.shape[1:]
    out = torch.empty(rows, width, dtype=kind, device=x.device)
    scales = torch.empty(rows, 1, device=x.device)
    _round[(rows,)](x, out, scales, D=width, GELU=gelu, MOST=LEVELS[kind], **_shape(width))
    return out, scales


def fp8_heads(x: Tensor, smooth: bool = False) -> Fp8:
    """x [1, R, N, d] in float8; `smooth`, for keys, takes the mean over tokens away.

    What is the same in all keys shifts every score of a query alike, which softmax does not see; without it the keys need
    fewer levels (smoothing of K: SageAttention, arXiv 2410.02367, section 4.2).
    """
    rows, heads, width = x.shape[1:]
    x = x.contiguous()
    mean = x.mean(1, dtype=torch.float32).flatten() if smooth else x
    scale = _head_scale(x, mean, smooth)
    out = torch.empty(x.shape, dtype=FP8, device=x.device)
    grid = triton.cdiv(rows, TILE), heads
    _head_round[grid](x, mean, scale, out, rows, N=heads, d=width, TILE=TILE, SHIFTS=smooth)
    return out, scale[None]


def int8_heads(x: Tensor, smooth: bool = False) -> Int8:
    """`fp8_heads` in int8, with a scale for each token and head."""
    rows, heads, width = x.shape[1:]
    x = x.contiguous()
    mean = x.mean(1, dtype=torch.float32).flatten() if smooth else x
    scales = torch.empty(1, heads, rows, device=x.device)
    out = torch.empty(x.shape, dtype=INT8, device=x.device)
    grid = triton.cdiv(rows, TILE), heads
    _tokens_round[grid](x, mean, scales, out, rows, N=heads, d=width, TILE=TILE, SHIFTS=smooth)
    return out, scales


def half_values(x: Tensor) -> Fp8:
    """Values x [1, R, N, d] in float16 with a scale for each head, [1, N]; at most 448, so that float16 holds sums of many."""
    rows, heads, width = x.shape[1:]
    x = x.contiguous()
    scale = _head_scale(x, x, False)
    out = torch.empty(x.shape, dtype=torch.float16, device=x.device)
    _head_round[(triton.cdiv(rows, TILE), heads)](x, x, scale, out, rows, N=heads, d=width, TILE=TILE, SHIFTS=False)
    return out, scale[None]


def fp8_values(x: Tensor) -> Fp8:
    """Values x [1, R, N, d] in float8, [1, N, d, tokens], as `attention8.cu` reads them: tokens filled up with zeros to whole
    tiles, and every 16 in the order 0 1 8 9 2 3 10 11 4 5 12 13 6 7 14 15."""
    rows, heads, width = x.shape[1:]
    x = x.contiguous()
    scale = _head_scale(x, x, False)
    tiles = triton.cdiv(rows, KEYS)
    out = torch.empty(1, heads, width, tiles * KEYS, dtype=FP8, device=x.device)
    _values_round[(tiles, heads)](x, scale, out, rows, N=heads, d=width, TILE=KEYS)
    return out, scale[None]


def _head_scale(x: Tensor, mean: Tensor, shifts: bool) -> Tensor:
    """[N], from the largest number of each head."""
    rows, heads, width = x.shape[1:]
    largest = torch.zeros(heads, device=x.device)
    _head_largest[(triton.cdiv(rows, TILE), heads)](x, mean, largest, rows, N=heads, d=width, TILE=TILE, SHIFTS=shifts)
    return largest.clamp_min(1e-12) / LARGEST
