"""Frames as a format stores them: which pixel format, how many bits, with opacity or without; on whatever device frames are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from wanimate.config.codecs import FORMATS, Alpha, Codec
from wanimate.media.levels import coded_chroma, coded_luma, noise, subsampled, to_levels, to_light, to_ycbcr

Parts = list[npt.NDArray[Any]]
"""One frame: [H, W, C] of R, G, B and opacity, or the planes of a pixel format [h, w]."""


class OnTheWay:
    """Coded frames on their way to host memory; their device goes on meanwhile."""

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self._parts = [part.contiguous().to("cpu", non_blocking=True) for part in parts]
        device = parts[0].device
        self._arrived = torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None

    def wait(self) -> list[Parts]:
        """Frame by frame."""
        if self._arrived is not None:
            self._arrived.synchronize()
        arrays = [part.numpy() for part in self._parts]
        return [list(parts) for parts in zip(*arrays, strict=True)]


@dataclass(frozen=True)
class Coding:
    """pixels: FFmpeg's pixel format, or "half". bits: of a channel. alpha: how opacity is stored. dither: whether noise of half
    a step stands in for what rounding loses."""

    pixels: str
    bits: int
    alpha: Alpha = "none"
    dither: bool = False

    @property
    def planar(self) -> bool:
        """Whether frames are coded to planes here. Whole levels of 8 bits become Y'CbCr by swscale, as they always have."""
        return (self.bits > 8 and self.pixels.startswith(("yuv", "gbr"))) or (
            self.dither and self.pixels.startswith("yuv")
        )

    def pack(self, frames: Tensor, opacity: Tensor | None = None, first: int = 0) -> OnTheWay:
        """Frames float32 [n, 3, H, W] and opacity [n, 1, H, W] in [0, 1], as they are stored; `first` numbers the first."""
        if self.alpha == "none":
            opacity = None
        else:
            assert opacity is not None, f"{self.alpha} alpha without opacity"
        frames = frames.clamp(0, 1)
        if self.pixels == "half":
            light = to_light(frames)
            light = light if opacity is None else torch.cat((light * opacity, opacity), dim=1)
            return OnTheWay([light.permute(0, 2, 3, 1).to(torch.float16)])
        if self.alpha == "premultiplied":
            assert opacity is not None
            frames = frames * opacity
        grain = noise(first, len(frames), frames.shape[2], frames.shape[3], frames.device) if self.dither else None
        if not self.planar:
            channels = frames if opacity is None else torch.cat((frames, opacity), dim=1)
            return OnTheWay([to_levels(channels, 2**self.bits - 1, grain).permute(0, 2, 3, 1)])
        return OnTheWay(self._planes(frames, opacity, grain))

    def _planes(self, frames: Tensor, opacity: Tensor | None, grain: Tensor | None) -> list[Tensor]:
        most = 2**self.bits - 1
        planes: list[Tensor]
        if self.pixels.startswith("yuv"):
            planes = [*self._ycbcr(frames, grain)]
        else:
            planes = list(to_levels(frames, most, grain)[:, [1, 2, 0]].unbind(1))
        return planes if opacity is None else [*planes, to_levels(opacity[:, 0], most)]

    def _ycbcr(self, frames: Tensor, grain: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        across, down = (2 if code in self.pixels else 1 for code in ("42", "420"))
        y, cb, cr = to_ycbcr(frames).unbind(1)
        cb, cr = subsampled(cb, across, down), subsampled(cr, across, down)
        grain = None if grain is None else grain[:, 0]
        fewer = None if grain is None else grain[:, : cb.shape[1], : cb.shape[2]]
        return coded_luma(y, self.bits, grain), coded_chroma(cb, self.bits, fewer), coded_chroma(cr, self.bits, fewer)


def coding_of(codec: Codec, bits: int, odd: bool, alpha: Alpha, dither: bool) -> Coding:
    """How a codec stores frames of so many bits. `odd`: of an odd width or height."""
    found = FORMATS[codec]
    pixels = (found.alpha if alpha != "none" else found.odd if odd and found.odd else found.pixels)[bits]
    return Coding(pixels, bits, alpha, dither)
