"""How a frame between two frames is made: by a network (`rife`), by flow (`dis`), by mixing, by holding."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from wanimate.post.flow import Flow
from wanimate.post.interpolate.network import MULTIPLE, Rife
from wanimate.post.warp import luma, warp


class Between(Protocol):
    """Makes frames between two that follow each other."""

    def __call__(self, a: Tensor, b: Tensor, shares: Sequence[float]) -> Tensor:
        """float32 [1, 3, H, W] each, shares between 0 (a) and 1 (b), n of them -> [n, 3, H, W] on their device."""
        ...

    def close(self) -> None: ...


class Hold:
    """The earlier frame."""

    def __call__(self, a: Tensor, b: Tensor, shares: Sequence[float]) -> Tensor:
        return a.expand(len(shares), -1, -1, -1)

    def close(self) -> None:
        """Nothing is held."""


class Blend:
    """Both frames, each by how near it is."""

    def __call__(self, a: Tensor, b: Tensor, shares: Sequence[float]) -> Tensor:
        return torch.cat([torch.lerp(a, b, share) for share in shares])

    def close(self) -> None:
        """Nothing is held."""


class FlowBetween:
    """Both frames moved along the flow between them, then mixed."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow

    def __call__(self, a: Tensor, b: Tensor, shares: Sequence[float]) -> Tensor:
        seen = luma(torch.cat((a, b)))
        there, back = self.flow(seen, seen.flip(0)).split(1)
        made = [self._one(a, b, there, back, share) for share in shares]
        return torch.cat(made)

    def _one(self, a: Tensor, b: Tensor, there: Tensor, back: Tensor, share: float) -> Tensor:
        return torch.lerp(warp(a, share * back), warp(b, (1 - share) * there), share)

    def close(self) -> None:
        self.flow.close()


class RifeBetween:
    """RIFE on a device; the features of a frame are found once for both of its sides.

    Args:
        scale: below 1, movement is looked for in smaller pictures.
        dtype: of convolutions; flow, grids and sampling are float32 always.
    """

    def __init__(
        self, network: Rife, device: torch.device, dtype: torch.dtype = torch.float32, scale: float = 1.0
    ) -> None:
        self.device, self.dtype, self.scale = device, dtype, scale
        self._network: Rife | None = network.eval().to(device)
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    @torch.inference_mode()
    def __call__(self, a: Tensor, b: Tensor, shares: Sequence[float]) -> Tensor:
        assert self._network is not None, "it is closed"
        reduced = self.dtype != torch.float32
        with torch.autocast(self.device.type, self.dtype) if reduced else contextlib.nullcontext():
            last = self._last
            left, of_left = last[1:] if last is not None and last[0] is a else self._prepared(self._network, a)
            right, of_right = self._prepared(self._network, b)
            self._last = b, right, of_right
            made = [self._network.between(left, right, of_left, of_right, share, self.scale) for share in shares]
        return torch.cat(made)[:, :, : a.shape[2], : a.shape[3]].clamp(0, 1).to(a.device)

    def _prepared(self, network: Rife, frame: Tensor) -> tuple[Tensor, Tensor]:
        """A frame with sides that the network takes, and its features."""
        multiple = round(MULTIPLE / self.scale)
        down, right = (-side % multiple for side in frame.shape[2:])
        frame = F.pad(frame.to(self.device, torch.float32), (0, right, 0, down))
        return frame, network.features(frame)

    def close(self) -> None:
        self._network = self._last = None
