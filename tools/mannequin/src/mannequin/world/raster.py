"""Which triangle is seen at each pixel, for batches of views: a z-buffer whose key packs depth and triangle number.

Two forms with one result: plain torch (any device), and Triton kernels for CUDA in `raster_triton`.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools

import torch
from torch import Tensor

INSIDE = -1e-5
"""A pixel belongs to a triangle if all three barycentric coordinates reach this: edges are shared, so no cracks."""
EMPTY = 2**63 - 1
_FAR_BITS = 0x7F800000
"""Bits of +infinity: inverse depths, read as integers, are below it and keep their order."""
_NEAR = 0.05
"""Triangles with a corner nearer than this (metres) are dropped instead of clipped."""


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def rasterize(
    screen: Tensor, triangles: Tensor, two_sided: Tensor, shown: Tensor, height: int, width: int, plain: bool = False
) -> Tensor:
    """The frontmost triangle at each pixel centre.

    Args:
        screen: [N, V, 3] x right and y down in pixels (pixel i covers i..i+1), and 1/depth (<= 0 behind the camera).
        triangles: [T, 3], seen from outside counter-clockwise; two_sided: [T] bool, others are culled from behind.
        shown: [N, T] bool. plain: the torch form even on CUDA.

    Returns:
        Triangle numbers [N, height, width], int32, -1 where there is none.
    """
    if screen.is_cuda and not plain and _has_triton():
        from mannequin.world.raster_triton import rasterize_triton

        keys = rasterize_triton(screen, triangles, two_sided, shown, height, width)
    else:
        keys = _plain(screen, triangles, two_sided, shown, height, width)
    found = (keys & 0xFFFFFFFF).to(torch.int32)
    return torch.where(keys == EMPTY, found.new_tensor(-1), found).unflatten(1, (height, width))


def _plain(screen: Tensor, triangles: Tensor, two_sided: Tensor, shown: Tensor, height: int, width: int) -> Tensor:
    """Packed keys [N, H * W]: every pixel of every triangle's box is a candidate, in chunks of limited size."""
    count = len(screen)
    keys = torch.full((count, height * width), EMPTY, dtype=torch.int64, device=screen.device)
    step = max(1, (64_000_000 if screen.is_cuda else 1_500_000) // max(len(triangles), 1))
    for start in range(0, count, step):
        part = slice(start, start + step)
        _plain_part(screen[part], triangles, two_sided, shown[part], height, width, keys[part])
    return keys


def _plain_part(
    screen: Tensor, triangles: Tensor, two_sided: Tensor, shown: Tensor, height: int, width: int, keys: Tensor
) -> None:
    corner = screen[:, triangles]  # [n, T, 3, 3]
    x, y, q = corner.unbind(-1)
    area = (x[..., 1] - x[..., 0]) * (y[..., 2] - y[..., 0]) - (x[..., 2] - x[..., 0]) * (y[..., 1] - y[..., 0])
    left = (x.amin(-1) - 0.5).ceil().clamp(0, width).to(torch.int64)
    right = (x.amax(-1) - 0.5).floor().clamp(-1, width - 1).to(torch.int64)
    top = (y.amin(-1) - 0.5).ceil().clamp(0, height).to(torch.int64)
    bottom = (y.amax(-1) - 0.5).floor().clamp(-1, height - 1).to(torch.int64)
    facing = (area < -1e-9) | (two_sided & (area > 1e-9))
    in_front = (q.amin(-1) > 0) & (q.amax(-1) < 1 / _NEAR)
    keep = shown & facing & in_front & (left <= right) & (top <= bottom)
    view, triangle = keep.nonzero(as_tuple=True)
    if len(view) == 0:
        return
    x, y, q, area = x[keep], y[keep], q[keep], area[keep]
    left, top = left[keep], top[keep]
    wide = right[keep] - left + 1
    candidates = wide * (bottom[keep] - top + 1)
    ends = candidates.cumsum(0)
    limit = 100_000_000 if screen.is_cuda else 4_000_000
    marks = torch.arange(0, int(ends[-1]), limit, device=ends.device)
    cuts = [*torch.searchsorted(ends, marks).tolist(), len(ends)]
    for a, b in itertools.pairwise(cuts):
        if a == b:
            continue
        i = torch.repeat_interleave(torch.arange(a, b, device=ends.device), candidates[a:b])
        first = ends[a:b] - candidates[a:b]
        local = torch.arange(len(i), device=ends.device) + first[0] - first[i - a]
        column, row = left[i] + local % wide[i], top[i] + local // wide[i]
        px, py = column + 0.5, row + 0.5
        xs, ys, qs, inverse = x[i], y[i], q[i], 1 / area[i]
        b0 = ((xs[:, 1] - px) * (ys[:, 2] - py) - (xs[:, 2] - px) * (ys[:, 1] - py)) * inverse
        b1 = ((xs[:, 2] - px) * (ys[:, 0] - py) - (xs[:, 0] - px) * (ys[:, 2] - py)) * inverse
        b2 = 1 - b0 - b1
        depth = b0 * qs[:, 0] + b1 * qs[:, 1] + b2 * qs[:, 2]
        inside = (b0 >= INSIDE) & (b1 >= INSIDE) & (b2 >= INSIDE) & (depth > 0)
        near = _FAR_BITS - depth.view(torch.int32).to(torch.int64)
        key = (near << 32) | triangle[i]
        place = view[i] * (height * width) + row * width + column
        keys.view(-1).scatter_reduce_(0, place[inside], key[inside], "amin")


def barycentric(screen: Tensor, triangles: Tensor, view: Tensor, triangle: Tensor, px: Tensor, py: Tensor) -> Tensor:
    """Perspective-correct weights of the three corners at pixel positions, [P, 3].

    Args:
        screen: [N, V, 3] as in `rasterize`; view, triangle: [P]; px, py: [P] pixel centres.
    """
    xs, ys, qs = screen[view.unsqueeze(1), triangles[triangle]].unbind(-1)
    area = (xs[:, 1] - xs[:, 0]) * (ys[:, 2] - ys[:, 0]) - (xs[:, 2] - xs[:, 0]) * (ys[:, 1] - ys[:, 0])
    b0 = ((xs[:, 1] - px) * (ys[:, 2] - py) - (xs[:, 2] - px) * (ys[:, 1] - py)) / area
    b1 = ((xs[:, 2] - px) * (ys[:, 0] - py) - (xs[:, 0] - px) * (ys[:, 2] - py)) / area
    weights = torch.stack([b0, b1, 1 - b0 - b1], dim=-1) * qs
    return weights / weights.sum(-1, keepdim=True)
