"""Plain filters for sizes: Lanczos of four lobes to enlarge, means over areas to reduce. Both work on one side at a time.

Pixels are squares: pixel i covers [i, i + 1) of its own grid. Beyond the edge, the edge's pixel counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

_LOBES = 4
_BAND = 64


def resize(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """float [n, c, H, W] -> [n, c, h, w], size (w, h): each side by Lanczos where it grows, by area where it shrinks.

    Lanczos overshoots; nothing is clamped.
    """
    width, height = size
    if height < frames.shape[2]:
        return _columns(_rows(frames, height), width)
    return _rows(_columns(frames, width), height)


def _columns(frames: Tensor, out: int) -> Tensor:
    """[n, c, H, W] -> [n, c, H, out]."""
    if frames.shape[3] == out:
        return frames
    lines = frames.reshape(-1, frames.shape[3])
    result = lines.new_empty(len(lines), out)
    for band in _bands(frames.shape[3], out, frames.device):
        result[:, band.made] = lines[:, band.seen] @ band.weights.T
    return result.view(*frames.shape[:3], out)


def _rows(frames: Tensor, out: int) -> Tensor:
    """[n, c, H, W] -> [n, c, out, W]."""
    if frames.shape[2] == out:
        return frames
    planes = frames.reshape(-1, *frames.shape[2:])
    result = planes.new_empty(len(planes), out, frames.shape[3])
    for band in _bands(frames.shape[2], out, frames.device):
        result[:, band.made] = band.weights @ planes[:, band.seen]
    return result.view(*frames.shape[:2], out, frames.shape[3])


@dataclass(frozen=True)
class _Band:
    """Some pixels that are made, the pixels they are made of, and how much of each: float32 [made, seen]."""

    made: slice
    seen: slice
    weights: Tensor


@lru_cache(maxsize=32)
def _bands(length: int, out: int, device: torch.device) -> list[_Band]:
    """How a side of `length` becomes one of `out`. Small matrix products are quick everywhere."""
    indices, weights = _taps(length, out)
    bands = []
    for start in range(0, out, _BAND):
        made = slice(start, min(start + _BAND, out))
        index, weight = indices[:, made].T, weights[:, made].T
        first, last = int(index.min()), int(index.max())
        matrix = torch.zeros(len(index), last + 1 - first, dtype=torch.float64)
        matrix.scatter_add_(1, index - first, weight)
        bands.append(_Band(made, slice(first, last + 1), matrix.float().to(device)))
    return bands


def _taps(length: int, out: int) -> tuple[Tensor, Tensor]:
    """Which pixels of `length` make each of `out` pixels, and how much of each: [taps, out]."""
    scale = length / out
    places = torch.arange(out, dtype=torch.float64)
    if out > length:
        centre = (places + 0.5) * scale - 0.5
        first = centre.floor() - (_LOBES - 1)
        taps = first + torch.arange(2 * _LOBES, dtype=torch.float64)[:, None]
        weights = torch.sinc(taps - centre) * torch.sinc((taps - centre) / _LOBES)
    else:
        first = (places * scale).floor()
        taps = first + torch.arange(math.ceil(scale) + 1, dtype=torch.float64)[:, None]
        covered = torch.minimum(taps + 1, (places + 1) * scale) - torch.maximum(taps, places * scale)
        weights = covered.clamp_min(0)
    return taps.clamp(0, length - 1).long(), weights / weights.sum(0)
