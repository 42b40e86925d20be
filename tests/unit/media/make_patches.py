"""Clips of eight flat patches of known sRGB, in the colours that cameras, phones and editors write."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from wanimate.types import Frame

PATCHES = np.array(
    [
        *[(190, 50, 45), (50, 150, 70), (45, 70, 190), (215, 175, 150)],
        *[(120, 120, 120), (230, 230, 230), (25, 25, 25), (225, 195, 60)],
    ]
)
"""Four in the upper row, four in the lower one."""
Array = npt.NDArray[np.float64]
_LUMA = {1: (0.2126, 0.7152, 0.0722), 5: (0.299, 0.587, 0.114), 6: (0.299, 0.587, 0.114), 9: (0.2627, 0.678, 0.0593)}
_709_TO_2020 = np.array(
    [[0.627404, 0.329283, 0.043313], [0.069097, 0.919540, 0.011362], [0.016391, 0.088013, 0.895595]]
)
_709_TO_P3 = np.array([[0.822462, 0.177538, 0.0], [0.033194, 0.966806, 0.0], [0.017083, 0.072397, 0.910520]])
WHITE = 203


@dataclass(frozen=True)
class Said:
    """Numbers of ITU-T H.273 that a file tells; where `matrix` is none that is made here, `stored` is the true one."""

    matrix: int = 1
    transfer: int = 1
    primaries: int = 1
    full: bool = False
    stored: int = 1


def light(patches: Array = PATCHES) -> Array:
    """sRGB -> light, 1 at white."""
    codes = np.asarray(patches) / 255
    return np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)


def codes_of(said: Said) -> Array:
    """R'G'B' in [0, 1] of the patches, by the definitions of ITU-R BT.2020 and BT.2100."""
    wide = {9: _709_TO_2020, 12: _709_TO_P3}.get(said.primaries)
    if said.transfer == 16:
        power = (light() @ _709_TO_2020.T * WHITE / 10000).clip(0) ** 0.1593017578125
        return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    if said.transfer == 18:
        display = light() @ _709_TO_2020.T * WHITE / 1000
        scene = (display * (display @ _LUMA[9])[:, None] ** (1 / 1.2 - 1)).clip(0)
        high = 0.17883277 * np.log((12 * scene - 0.28466892).clip(1e-9)) + 0.55991073
        return np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)
    if said.transfer == 8:
        return light()
    if wide is not None:
        return ((PATCHES / 255) ** 2.4 @ wide.T).clip(0) ** (1 / 2.4)
    return PATCHES / 255


def planes(
    codes: Array, said: Said, bits: int, size: tuple[int, int]
) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """The patches as yuv420p of that many bits, in the layout of PyAV."""
    luma = np.array(_LUMA.get(said.matrix, _LUMA[said.stored]))
    y = codes @ luma
    blue, red = (codes[:, 2] - y) / (2 - 2 * luma[2]), (codes[:, 0] - y) / (2 - 2 * luma[0])
    unit = 2 ** (bits - 8)
    least, span, swing = (0, 2**bits - 1, 2**bits - 1) if said.full else (16 * unit, 219 * unit, 224 * unit)
    values = [(y * span + least, 1), (blue * swing + 128 * unit, 2), (red * swing + 128 * unit, 2)]
    width, height = size
    parts = [spread(v.round(), height // part, width // part).ravel() for v, part in values]
    return np.concatenate(parts).reshape(height * 3 // 2, width).astype(np.uint8 if bits == 8 else np.uint16)


def spread(values: Array, height: int, width: int) -> Array:
    """Eight values over a picture, [8, ...] -> [height, width, ...]."""
    rows, columns = np.arange(height) * 2 // height, np.arange(width) * 4 // width
    return values[rows[:, None] * 4 + columns]


def read_patches(frame: Frame) -> npt.NDArray[np.int_]:
    """[8, 3]: what a frame shows in the middles of the patches."""
    height, width = frame.shape[:2]
    return np.array([frame[(2 * (i // 4) + 1) * height // 4, (2 * (i % 4) + 1) * width // 8] for i in range(8)]).astype(
        int
    )


def make_patches(path: Path, said: Said, bits: int = 8, size: tuple[int, int] = (320, 240), frames: int = 4) -> Path:
    """A lossless clip (FFV1) of the patches."""
    pixels = "yuv420p" if bits == 8 else "yuv420p10le"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        context = stream.codec_context
        context.colorspace, context.color_trc, context.color_primaries = said.matrix, said.transfer, said.primaries
        context.color_range = 2 if said.full else 1
        picture = av.VideoFrame.from_ndarray(planes(codes_of(said), said, bits, size), format=pixels)
        for i in range(frames):
            picture.pts, picture.time_base = i, Fraction(1, 25)
            out.mux(stream.encode(picture))
        out.mux(stream.encode())
    return path
