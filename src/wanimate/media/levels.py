"""Frames to the whole numbers that a format stores, and back. Everything between is float32 in [0, 1], [n, channels, H, W].

Numbers of R'G'B' and opacity are full range: round(v * (2^bits - 1)). Y'CbCr is that of ITU-R BT.709, limited range. Chroma of
4:2:0 and 4:2:2 lies on the left luma sample (H.264's usual place): [1 2 1] / 4 along a row, the mean of two rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wanimate.types import Frames

LUMA = {
    1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593),
}  # fmt: skip
"""Share of red and of blue in luma, by the number of the matrix in ITU-T H.273."""
BT709 = 1
_TILE = 128
"""Side of the noise of dithering, which is laid over a frame again and again."""
_SHIFT = 47
"""By how much it moves from frame to frame."""


def from_levels(levels: Frames | npt.NDArray[np.uint16]) -> Tensor:
    """uint8 or uint16 [n, H, W, C] -> float32 [n, C, H, W] in [0, 1]."""
    most = np.iinfo(levels.dtype).max
    return torch.from_numpy(np.asarray(levels, np.float32) / np.float32(most)).permute(0, 3, 1, 2)


def to_levels(values: Tensor, most: int, dither: Tensor | None = None) -> Tensor:
    """Values in [0, 1] to the nearest whole number of 0..most, as uint8 or uint16; `dither` is added before."""
    return _whole(values * most, most, dither)


def _whole(values: Tensor, most: int, dither: Tensor | None) -> Tensor:
    values = values if dither is None else values + dither
    whole = values.round().clamp(0, most)
    return whole.to(torch.uint8) if most < 256 else whole.to(torch.int32).to(torch.uint16)


def noise(first: int, count: int, height: int, width: int, device: torch.device) -> Tensor:
    """Dither [count, 1, H, W] for the frames from `first` on: even within half a step, so that whole levels stay as they
    are. The same frame has the same noise, whatever device it is on."""
    tile = _noise_tile().to(device)
    rows, columns = (-(-size // _TILE) for size in (height, width))
    laid = tile.repeat(rows, columns)[:height, :width]
    moved = [laid.roll((_SHIFT * (first + i), 2 * _SHIFT * (first + i)), (0, 1)) for i in range(count)]
    return torch.stack(moved)[:, None]


@lru_cache(maxsize=1)
def _noise_tile() -> Tensor:
    random = torch.rand(_TILE, _TILE, generator=torch.Generator().manual_seed(709))
    return (random - 0.5) * 0.9999


def to_ycbcr(rgb: Tensor) -> Tensor:
    """R'G'B' [n, 3, H, W] -> Y' in [0, 1], Cb and Cr in [-1/2, 1/2], of BT.709."""
    red, blue = LUMA[BT709]
    r, g, b = rgb.unbind(1)
    y = red * r + (1 - red - blue) * g + blue * b
    return torch.stack((y, (b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)), dim=1)


def to_rgb(y: Tensor, cb: Tensor, cr: Tensor, matrix: int = BT709) -> Tensor:
    """The way back, each [n, H, W] -> [n, 3, H, W]; not clamped."""
    red, blue = LUMA[matrix]
    r, b = y + (2 - 2 * red) * cr, y + (2 - 2 * blue) * cb
    return torch.stack((r, (y - red * r - blue * b) / (1 - red - blue), b), dim=1)


def coded_luma(y: Tensor, bits: int, dither: Tensor | None = None) -> Tensor:
    """Y' in [0, 1] as whole numbers of limited range."""
    return _whole((16 + 219 * y) * 2 ** (bits - 8), 2**bits - 1, dither)


def coded_chroma(chroma: Tensor, bits: int, dither: Tensor | None = None) -> Tensor:
    """Cb or Cr in [-1/2, 1/2] as whole numbers of limited range."""
    return _whole((128 + 224 * chroma) * 2 ** (bits - 8), 2**bits - 1, dither)


def subsampled(chroma: Tensor, across: int, down: int) -> Tensor:
    """A chroma plane [n, H, W] with every `across`-th column and `down`-th row (1 or 2). Sizes have to be even there."""
    if across == 2:
        before = torch.cat((chroma[..., :1], chroma[..., 1:-1:2]), dim=-1)
        chroma = chroma[..., ::2] / 2 + (before + chroma[..., 1::2]) / 4
    if down == 2:
        chroma = (chroma[:, ::2] + chroma[:, 1::2]) / 2
    return chroma


def upsampled(chroma: Tensor, height: int, width: int) -> Tensor:
    """A chroma plane [n, h, w] at the size of luma: linear, from where `subsampled` puts its samples."""
    if chroma.shape[-1] != width:
        after = torch.cat((chroma[..., 1:], chroma[..., -1:]), dim=-1)
        chroma = torch.stack((chroma, (chroma + after) / 2), dim=-1).flatten(-2)[..., :width]
    if chroma.shape[1] != height:
        above = torch.cat((chroma[:, :1], chroma[:, :-1]), dim=1)
        below = torch.cat((chroma[:, 1:], chroma[:, -1:]), dim=1)
        rows = (0.75 * chroma + 0.25 * above, 0.75 * chroma + 0.25 * below)
        chroma = torch.stack(rows, dim=2).flatten(1, 2)[:, :height]
    return chroma


def decoded(planes: Sequence[Tensor], bits: int, matrix: int, full: bool) -> Tensor:
    """Planes of Y'CbCr [n, h, w] of whole numbers -> R'G'B' [n, 3, H, W], not clamped."""
    unit, most = 2 ** (bits - 8), 2**bits - 1
    y, cb, cr = (plane.to(torch.float32) for plane in planes)
    height, width = y.shape[-2:]
    middle = 128 * unit
    y = y / most if full else (y / unit - 16) / 219
    span = most if full else 224 * unit
    cb, cr = (upsampled((plane - middle) / span, height, width) for plane in (cb, cr))
    return to_rgb(y, cb, cr, matrix)


_BREAK, _OVER = 0.018053968510807, 0.09929682680944
"""Where the curve of ITU-R BT.709 stops being straight, and what is added there: its 0.018 and 0.099 with the digits that make
both parts meet (as in ITU-R BT.2020)."""


def to_light(values: Tensor) -> Tensor:
    """BT.709-coded values as light: the camera curve of ITU-R BT.709 undone."""
    curved = ((values.clamp_min(4.5 * _BREAK) + _OVER) / (1 + _OVER)) ** (1 / 0.45)
    return torch.where(values < 4.5 * _BREAK, values / 4.5, curved)


def from_light(light: Tensor) -> Tensor:
    """Light, 1 at white, as BT.709-coded values; what is brighter than white goes on along the curve."""
    return torch.where(light < _BREAK, light * 4.5, (1 + _OVER) * light.clamp_min(_BREAK) ** 0.45 - _OVER)
