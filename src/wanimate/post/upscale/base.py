"""What enlarges frames: the protocol behind which any network stands, and the way networks are run."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn


class Enlarger(Protocol):
    """Enlarges frames by a whole number.

    scale: how many times. reach: how many pixels around itself a pixel's result depends on, at most; tiles overlap by it.
    """

    scale: int
    reach: int

    def __call__(self, frames: Tensor) -> Tensor:
        """float32 [n, 3, H, W], 0 to 1 -> float32 [n, 3, scale H, scale W], 0 to 1, on the same device."""
        ...

    def close(self) -> None: ...


class NetworkEnlarger:
    """A network as an `Enlarger`.

    Args:
        network: float [n, 3, H, W] -> [n, 3, scale H, scale W]; it is moved to `device`.
        dtype: the type of its convolutions.
    """

    def __init__(
        self, network: nn.Module, scale: int, reach: int, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        self.scale, self.reach, self.dtype = scale, reach, dtype
        network = network.eval().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network: Callable[[Tensor], Tensor] | None = network

    @torch.inference_mode()
    def __call__(self, frames: Tensor) -> Tensor:
        assert self._network is not None, "it is closed"
        reduced = self.dtype != torch.float32
        with torch.autocast(frames.device.type, self.dtype) if reduced else contextlib.nullcontext():
            result: Tensor = self._network(frames.to(memory_format=torch.channels_last))
        return result.float().clamp_(0, 1)

    def close(self) -> None:
        self._network = None


def in_tiles(enlarger: Enlarger, frames: Tensor, side: int) -> Tensor:
    """What `enlarger` makes of frames, in tiles of at most about `side` pixels; the tiles' overlap leaves no seams."""
    height, width = frames.shape[2:]
    if height <= side and width <= side:
        return enlarger(frames)
    scale, reach = enlarger.scale, enlarger.reach
    result = frames.new_empty(len(frames), 3, scale * height, scale * width)
    for (top, bottom), (left, right) in itertools.product(_edges(height, side), _edges(width, side)):
        y, x = max(top - reach, 0), max(left - reach, 0)
        tile = enlarger(frames[:, :, y : bottom + reach, x : right + reach])
        result[:, :, scale * top : scale * bottom, scale * left : scale * right] = tile[
            :, :, scale * (top - y) : scale * (bottom - y), scale * (left - x) : scale * (right - x)
        ]
    return result


def _edges(length: int, side: int) -> list[tuple[int, int]]:
    """0..length in as few even parts as `side` allows."""
    count = -(-length // side)
    return list(itertools.pairwise(round(i * length / count) for i in range(count + 1)))
