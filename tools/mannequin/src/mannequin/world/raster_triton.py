"""The z-buffer of `raster` as Triton kernels: one for the many small triangles, one for the few large ones."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_SMALL = 256
"""Triangles whose box has at most so many pixels are drawn by one lane; larger ones by a whole program."""
_FAR = 0x7F800000
_EMPTY = 2**63 - 1


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _corner(screen, triangles, view, t, k, vertices, mask):  # type: ignore[no-untyped-def]
    v = tl.load(triangles + t * 3 + k, mask=mask, other=0)
    at = screen + (view.to(tl.int64) * vertices + v) * 3
    x = tl.load(at, mask=mask, other=0.0)
    y = tl.load(at + 1, mask=mask, other=0.0)
    q = tl.load(at + 2, mask=mask, other=0.0)
    return x, y, q


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _small_kernel(  # type: ignore[no-untyped-def]
    screen, triangles, two_sided, shown, keys, large, vertices, faces, height, width,
    BLOCK: tl.constexpr, SMALL: tl.constexpr, FAR: tl.constexpr,
):  # fmt: skip
    view = tl.program_id(1)
    t = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = t < faces
    x0, y0, q0 = _corner(screen, triangles, view, t, 0, vertices, mask)
    x1, y1, q1 = _corner(screen, triangles, view, t, 1, vertices, mask)
    x2, y2, q2 = _corner(screen, triangles, view, t, 2, vertices, mask)
    both = tl.load(two_sided + t, mask=mask, other=0) != 0
    alive = tl.load(shown + view.to(tl.int64) * faces + t, mask=mask, other=0) != 0
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    left = tl.ceil(tl.clamp(tl.minimum(tl.minimum(x0, x1), x2) - 0.5, -1.0, width * 1.0))
    right = tl.floor(tl.clamp(tl.maximum(tl.maximum(x0, x1), x2) - 0.5, -1.0, width - 1.0))
    top = tl.ceil(tl.clamp(tl.minimum(tl.minimum(y0, y1), y2) - 0.5, -1.0, height * 1.0))
    bottom = tl.floor(tl.clamp(tl.maximum(tl.maximum(y0, y1), y2) - 0.5, -1.0, height - 1.0))
    left = tl.maximum(left, 0.0).to(tl.int32)
    right = right.to(tl.int32)
    top = tl.maximum(top, 0.0).to(tl.int32)
    bottom = bottom.to(tl.int32)
    lowest = tl.minimum(tl.minimum(q0, q1), q2)
    highest = tl.maximum(tl.maximum(q0, q1), q2)
    alive = alive & mask & (lowest > 0) & (highest < 20.0) & (left <= right) & (top <= bottom)
    alive = alive & ((area < -1e-9) | (both & (area > 1e-9)))
    wide = tl.where(alive, right - left + 1, 1)
    pixels = tl.where(alive, wide * (bottom - top + 1), 0)
    is_large = pixels > SMALL
    tl.store(large + view.to(tl.int64) * faces + t, is_large.to(tl.int8), mask=mask)
    pixels = tl.where(is_large, 0, pixels)
    inverse = 1.0 / tl.where(alive, area, 1.0)
    base = keys + view.to(tl.int64) * height * width
    most = tl.max(pixels, axis=0)
    for i in range(most):
        row = top + i // wide
        column = left + i % wide
        px = column.to(tl.float32) + 0.5
        py = row.to(tl.float32) + 0.5
        b0 = ((x1 - px) * (y2 - py) - (x2 - px) * (y1 - py)) * inverse
        b1 = ((x2 - px) * (y0 - py) - (x0 - px) * (y2 - py)) * inverse
        b2 = 1.0 - b0 - b1
        depth = b0 * q0 + b1 * q1 + b2 * q2
        hit = (i < pixels) & (b0 >= -1e-5) & (b1 >= -1e-5) & (b2 >= -1e-5) & (depth > 0)
        near = FAR - depth.to(tl.int32, bitcast=True).to(tl.int64)
        key = (near << 32) | t.to(tl.int64)
        tl.atomic_min(base + row * width + column, key, mask=hit, sem="relaxed")


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _large_kernel(  # type: ignore[no-untyped-def]
    screen, triangles, views, chosen, keys, vertices, height, width, BLOCK: tl.constexpr, FAR: tl.constexpr
):
    n = tl.program_id(0)
    view = tl.load(views + n)
    t = tl.load(chosen + n)
    x0, y0, q0 = _corner(screen, triangles, view, t, 0, vertices, n >= 0)
    x1, y1, q1 = _corner(screen, triangles, view, t, 1, vertices, n >= 0)
    x2, y2, q2 = _corner(screen, triangles, view, t, 2, vertices, n >= 0)
    left = tl.maximum(tl.ceil(tl.minimum(tl.minimum(x0, x1), x2) - 0.5), 0.0).to(tl.int32)
    right = tl.minimum(tl.floor(tl.maximum(tl.maximum(x0, x1), x2) - 0.5), width - 1.0).to(tl.int32)
    top = tl.maximum(tl.ceil(tl.minimum(tl.minimum(y0, y1), y2) - 0.5), 0.0).to(tl.int32)
    bottom = tl.minimum(tl.floor(tl.maximum(tl.maximum(y0, y1), y2) - 0.5), height - 1.0).to(tl.int32)
    inverse = 1.0 / ((x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0))
    wide = right - left + 1
    pixels = wide * (bottom - top + 1)
    base = keys + view.to(tl.int64) * height * width
    for start in range(0, pixels, BLOCK):
        i = start + tl.arange(0, BLOCK)
        row = top + i // wide
        column = left + i % wide
        px = column.to(tl.float32) + 0.5
        py = row.to(tl.float32) + 0.5
        b0 = ((x1 - px) * (y2 - py) - (x2 - px) * (y1 - py)) * inverse
        b1 = ((x2 - px) * (y0 - py) - (x0 - px) * (y2 - py)) * inverse
        b2 = 1.0 - b0 - b1
        depth = b0 * q0 + b1 * q1 + b2 * q2
        hit = (i < pixels) & (b0 >= -1e-5) & (b1 >= -1e-5) & (b2 >= -1e-5) & (depth > 0)
        near = FAR - depth.to(tl.int32, bitcast=True).to(tl.int64)
        key = (near << 32) | t.to(tl.int64)
        tl.atomic_min(base + row * width + column, key, mask=hit, sem="relaxed")


def rasterize_triton(
    screen: Tensor, triangles: Tensor, two_sided: Tensor, shown: Tensor, height: int, width: int
) -> Tensor:
    """Packed keys [N, height * width]; arguments as in `raster.rasterize`, all on one CUDA device."""
    count, vertices, _ = screen.shape
    faces = len(triangles)
    screen, corners = screen.contiguous(), triangles.to(torch.int32).contiguous()
    keys = torch.full((count, height * width), _EMPTY, dtype=torch.int64, device=screen.device)
    large = torch.zeros((count, faces), dtype=torch.int8, device=screen.device)
    sides, visible = two_sided.to(torch.int8), shown.to(torch.int8).contiguous()
    block = 64
    _small_kernel[(triton.cdiv(faces, block), count)](
        screen, corners, sides, visible, keys, large, vertices, faces, height, width,
        BLOCK=block, SMALL=_SMALL, FAR=_FAR, num_warps=2,
    )  # fmt: skip
    views, chosen = large.nonzero(as_tuple=True)
    if len(views):
        _large_kernel[(len(views),)](
            screen, corners, views.to(torch.int32), chosen.to(torch.int32), keys, vertices, height, width,
            BLOCK=256, FAR=_FAR, num_warps=2,
        )  # fmt: skip
    return keys
