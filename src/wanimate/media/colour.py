"""What the colours of a clip are, and how its frames become BT.709 RGB of 8 bits, which is what every network here has seen.

Numbers of matrix, transfer and primaries are those of ITU-T H.273, which files and FFmpeg use.

- A clip without a matrix is BT.709 from 1280 columns or 577 rows on and BT.601 below, as players take it.
- The primaries of BT.601 (SMPTE-C, EBU) count as those of BT.709: files say them of either. Wider ones are converted.
- PQ and HLG become light relative to reference white (203 cd/m2, ITU-R BT.2408). Light up to 3/4 of it stays as it is;
  beyond, every channel runs along tanh to white: reference white comes out at 248 of 255.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation

from wanimate.errors import Fault, InputError
from wanimate.types import Frame

Table = npt.NDArray[np.floating]
RGB, BT709, UNSPECIFIED, BT601, BT2020 = 0, 1, 2, 6, 9
PQ, HLG = 16, 18
REFERENCE_WHITE = 203.0
"""cd/m2 of a white sheet in HDR (ITU-R BT.2408)."""
_HLG_PEAK = 1000.0
"""cd/m2 of the display for which HLG's system gamma is 1.2 (ITU-R BT.2100)."""
_KNEE = 0.75
_HD_COLUMNS, _HD_ROWS = 1280, 577
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
"""Matrix -> its number in swscale."""
_UNREAD = {
    8: "YCgCo", 10: "BT.2020 with constant luminance", 11: "Y'D'zD'x", 12: "chromaticity-derived luminance",
    13: "chromaticity-derived constant luminance", 14: "ICtCp", 15: "IPT-C2", 16: "YCgCo-Re", 17: "YCgCo-Ro",
}  # fmt: skip
_TRANSFERS = {
    8: "linear light",
    9: "logarithmic light",
    10: "logarithmic light",
    PQ: "PQ",
    17: "SMPTE ST 428",
    HLG: "HLG",
}
"""Transfers that no display shows as they are. The others differ by less than displays do."""
_D65, _DCI = (0.3127, 0.3290), (0.314, 0.351)
_C = (0.310, 0.316)
_WIDE: dict[int, tuple[str, tuple[float, ...], tuple[float, float]]] = {
    4: ("BT.470 M", (0.67, 0.33, 0.21, 0.71, 0.14, 0.08), _C),
    8: ("film", (0.681, 0.319, 0.243, 0.692, 0.145, 0.049), _C),
    BT2020: ("BT.2020", (0.708, 0.292, 0.170, 0.797, 0.131, 0.046), _D65),
    11: ("DCI-P3", (0.680, 0.320, 0.265, 0.690, 0.150, 0.060), _DCI),
    12: ("Display P3", (0.680, 0.320, 0.265, 0.690, 0.150, 0.060), _D65),
}
"""Primaries -> name, x and y of red, green and blue, x and y of white."""
_OF_709 = (0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_LUMA_2020 = np.array([[0.2627, 0.6780, 0.0593]], np.float32)
_GAMMA = 2.4
_CODES = 65536
EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
"""swscale's usual way is quicker and makes every frame a level darker."""
_DEEP = Interpolation.BILINEAR | Interpolation.ACCURATE_RND
"""For 16 bits; the full interpolation of chroma gives wrong colours there."""
_ROWS = 32
"""Rows that are converted at once: what lies between stays in the processor's caches."""


@dataclass(frozen=True)
class Colours:
    """Matrix, transfer and primaries of frames, as far as they matter here: `UNSPECIFIED` where displays' own will do."""

    matrix: int
    transfer: int = UNSPECIFIED
    primaries: int = UNSPECIFIED

    @property
    def is_hdr(self) -> bool:
        return self.transfer in (PQ, HLG)

    @property
    def converted(self) -> bool:
        """Whether frames need more than their matrix."""
        return self.transfer != UNSPECIFIED or self.primaries != UNSPECIFIED

    @property
    def told(self) -> str | None:
        """What the user should know about the conversion."""
        names = [_TRANSFERS[self.transfer]] if self.transfer in _TRANSFERS else []
        names += [_WIDE[self.primaries][0]] if self.primaries in _WIDE else []
        if not names:
            return None
        how = "tone mapped" if self.is_hdr else "converted"
        return f"the clip's colours are {' in '.join(names)}; they are {how} to BT.709"

    def check(self, path: Path, field: str) -> None:
        """Raises InputError for colours that cannot be read."""
        if self.matrix in _UNREAD:
            rule = f"its colours are stored as {_UNREAD[self.matrix]}, which cannot be read"
            raise InputError(field, path, rule, "Export it again with BT.709 or BT.2020 colours.", Fault.UNREADABLE)


def colours_of(frame: Any, sd: bool = False) -> Colours:
    """What a decoded PyAV frame says of its colours. `sd`: without a matrix it is BT.601, whatever its size."""
    matrix = frame.colorspace
    found = known(RGB if frame.format.is_rgb else matrix, frame.color_trc, frame.color_primaries)
    if frame.format.is_rgb or matrix in _MATRICES or matrix in _UNREAD:
        return found
    hd = frame.width >= _HD_COLUMNS or frame.height >= _HD_ROWS
    matrix = BT2020 if found.primaries == BT2020 else BT709 if hd and not sd else BT601
    return replace(found, matrix=matrix)


def known(matrix: int, transfer: int, primaries: int) -> Colours:
    """Colours of these numbers; HDR without primaries is BT.2020."""
    transfer = transfer if transfer in _TRANSFERS else UNSPECIFIED
    if transfer in (PQ, HLG) and primaries == UNSPECIFIED:
        primaries = BT2020
    return Colours(matrix, transfer, primaries if primaries in _WIDE else UNSPECIFIED)


def has_alpha(frame: Any) -> bool:
    """Whether the format of a PyAV frame has transparency."""
    return frame.format.has_palette or any(part.is_alpha for part in frame.format.components)


def to_rgb(frame: Any, colours: Colours, width: int, height: int, background: int = 255) -> Frame:
    """A decoded PyAV frame as uint8 BT.709 RGB [height, width, 3]; transparency is flattened on a grey."""
    depth, alpha = (16 if colours.converted else 8), has_alpha(frame)
    form = {(8, False): "rgb24", (8, True): "rgba", (16, False): "rgb48le", (16, True): "rgba64le"}[depth, alpha]
    said = frame.colorspace in (_MATRICES | {RGB: 0}) or colours.matrix == RGB
    matrix = None if said else _MATRICES[colours.matrix]
    how = EXACT if depth == 8 else _DEEP
    pixels: npt.NDArray[Any] = frame.reformat(width, height, form, matrix, interpolation=how).to_ndarray()
    colour = conversion_of(colours)(pixels[..., :3]) if colours.converted else pixels[..., :3]
    return flattened(colour, pixels[..., 3], background) if alpha else colour


def flattened(colour: Frame, alpha: npt.NDArray[Any], background: int | tuple[int, int, int]) -> Frame:
    """Colours [H, W, 3] with an opacity [H, W] of 8 or 16 bits, over a grey or a colour."""
    most = np.iinfo(alpha.dtype).max
    if alpha.min() == most:
        return np.ascontiguousarray(colour)
    opacity = (alpha / np.float32(most))[..., None]
    return np.rint(colour * opacity + np.asarray(background, np.float32) * (1 - opacity)).astype(np.uint8)


def tone_mapped(light: Table) -> Table:
    """Light of one channel, 1 at reference white, as a display of that white shows it: in [0, 1]."""
    over = np.maximum(light - _KNEE, 0) / (1 - _KNEE)
    return np.where(light <= _KNEE, light, _KNEE + (1 - _KNEE) * np.tanh(over))


class Conversion:
    """Codes of 16 bits to BT.709 of 8 bits, by tables for what concerns one channel and a matrix for what concerns three.

    light: 65536 codes -> light. matrix: of light, 3x3. shown: 65536 square roots of light up to `peak` -> codes of 8 bits.
    """

    def __init__(self, light: Table, matrix: Table, shown: Frame, peak: float, hlg: bool) -> None:
        self._light, self._matrix = light.astype(np.float32), matrix.astype(np.float32)
        self._shown, self._scale, self._hlg = shown, np.float32((_CODES - 1) / peak**0.5), hlg

    def __call__(self, codes: npt.NDArray[np.uint16]) -> Frame:
        """[H, W, 3] -> [H, W, 3]."""
        out = np.empty(codes.shape, np.uint8)
        for first in range(0, len(codes), _ROWS):
            out[first : first + _ROWS] = self._strip(codes[first : first + _ROWS])
        return out

    def _strip(self, codes: npt.NDArray[np.uint16]) -> Frame:
        light = self._light[codes]
        if self._hlg:  # the system gamma makes light of the display out of light of the scene
            luma = cv2.transform(light, _LUMA_2020)
            light *= (np.float32(_HLG_PEAK / REFERENCE_WHITE) * cv2.pow(luma, 0.2)).reshape(*light.shape[:2], 1)
        light = cv2.transform(light, self._matrix)
        roots = np.sqrt(np.maximum(light, 0)) * self._scale
        shown: Frame = self._shown[np.minimum(roots, _CODES - 1).astype(np.uint16)]
        return shown


@lru_cache(maxsize=4)
def conversion_of(colours: Colours) -> Conversion:
    """What makes BT.709 out of RGB of these colours."""
    code = np.arange(_CODES) / (_CODES - 1)
    peak = 4.0 if colours.is_hdr else 1.0
    light: Table = np.linspace(0, 1, _CODES) ** 2 * peak
    shown: Table
    if colours.transfer == UNSPECIFIED:
        shown = light ** (1 / _GAMMA)
    else:
        shown = _srgb(tone_mapped(light) if colours.is_hdr else light)
    table = np.clip(np.rint(shown * 255), 0, 255).astype(np.uint8)
    return Conversion(_light(colours.transfer, code), _to_709(colours.primaries), table, peak, colours.transfer == HLG)


def _light(transfer: int, code: Table) -> Table:
    """Light of codes in [0, 1]: 1 is (reference) white, for HLG the most that a scene has."""
    if transfer == PQ:
        root = code ** (1 / 78.84375)
        nits: Table = 10000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
        return nits / REFERENCE_WHITE
    if transfer == HLG:
        high = (np.exp((code - 0.55991073) / 0.17883277) + 0.28466892) / 12
        return np.where(code <= 0.5, code**2 / 3, high)
    if transfer == 8:
        return code
    if transfer in (9, 10):
        return np.where(code <= 0, 0, 10 ** ((code - 1) * (2.0 if transfer == 9 else 2.5)))
    if transfer == 17:
        return code**2.6 * (52.37 / 48)
    return code**_GAMMA


def _srgb(light: Table) -> Table:
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


def _to_709(primaries: int) -> Table:
    """The matrix that makes light of BT.709 out of light of these primaries; white stays white (Bradford)."""
    if primaries == UNSPECIFIED:
        return np.eye(3)
    _, chromaticities, white = _WIDE[primaries]
    seen, wanted = _BRADFORD @ _xyz(white), _BRADFORD @ _xyz(_D65)
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(wanted / seen) @ _BRADFORD
    return np.linalg.inv(_to_xyz(_OF_709, _D65)) @ adapted @ _to_xyz(chromaticities, white)


def _xyz(xy: tuple[float, float]) -> Table:
    x, y = xy
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _to_xyz(chromaticities: tuple[float, ...], white: tuple[float, float]) -> Table:
    pairs = zip(chromaticities[::2], chromaticities[1::2], strict=True)
    columns = np.stack([_xyz(pair) for pair in pairs], axis=1)
    return columns * np.linalg.solve(columns, _xyz(white))
