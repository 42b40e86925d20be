"""The eight ways in which a picture can lie in a file, told by EXIF or by the display matrix of a clip.

They are numbered as in EXIF: 1 upright, 2 mirrored left to right, 3 half a turn, 4 mirrored top to bottom, 5 transposed,
6 to be turned a quarter clockwise, 7 transposed over the other diagonal, 8 to be turned a quarter counter-clockwise.
"""

from __future__ import annotations

import struct
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

UPRIGHT = 1
SIDEWAYS = frozenset({5, 6, 7, 8})
"""Orientations in which rows of the file are columns of what is shown."""
_BY_SIGNS = {
    (False, 1, 1): 1, (False, -1, 1): 2, (False, -1, -1): 3, (False, 1, -1): 4,
    (True, 1, 1): 5, (True, -1, 1): 6, (True, -1, -1): 7, (True, 1, -1): 8,
}  # fmt: skip
"""(whether sideways, sign of what gives x, sign of what gives y) -> orientation."""
T = TypeVar("T", bound=np.generic)


def of_matrix(a: float, b: float, c: float, d: float) -> int:
    """The orientation that comes closest to a display matrix: (x, y) is shown at (a x + c y, b x + d y)."""
    sideways = abs(b) + abs(c) > abs(a) + abs(d)
    for_x, for_y = (c, b) if sideways else (a, d)
    return _BY_SIGNS[sideways, -1 if for_x < 0 else 1, -1 if for_y < 0 else 1]


def of_frame(frame: Any) -> int:
    """The orientation of a decoded PyAV frame. PyAV's own angle cannot tell a mirror from a turn."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = struct.unpack("<5i", bytes(data)[:20])
            return of_matrix(a, b, c, d)
    return UPRIGHT


def shown_size(width: int, height: int, orientation: int) -> tuple[int, int]:
    """Stored (width, height) as it is shown, or the other way round."""
    return (height, width) if orientation in SIDEWAYS else (width, height)


def as_stored(upright: npt.NDArray[T], orientation: int) -> npt.NDArray[T]:
    """A view of the upright picture [H, W, C] in which rows and columns lie as in the file; unknown numbers are upright."""
    if orientation in (3, 4, 7, 8):
        upright = upright[::-1]
    if orientation in (2, 3, 6, 7):
        upright = upright[:, ::-1]
    return upright.transpose(1, 0, 2) if orientation in SIDEWAYS else upright


def as_shown(stored: npt.NDArray[T], orientation: int) -> npt.NDArray[T]:
    """A view of the picture [H, W, C] as the file has it, upright."""
    if orientation in SIDEWAYS:
        stored = stored.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        stored = stored[:, ::-1]
    return stored[::-1] if orientation in (3, 4, 7, 8) else stored
