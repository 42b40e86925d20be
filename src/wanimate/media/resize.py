"""The only resizing, padding and cropping maths, each with its inverse.

Points are in continuous pixel coordinates: (0, 0) is the outer corner of the first pixel, (w, h) that of the last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np
import numpy.typing as npt

from wanimate.errors import InputError
from wanimate.types import Frame

Points = npt.NDArray[np.floating]
LINEAR, AREA, NEAREST = cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_NEAREST
MAX_AREA = 4096 * 4096
"""Pixels of a frame; beyond, the lossless codec of the guides cannot hold one."""


@dataclass(frozen=True)
class Placement:
    """Where a picture's pixels went: out = in * scale + offset per axis, offset in output pixels (below 0: a crop)."""

    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float

    def apply(self, xy: Points) -> Points:
        """Points [..., 2] of the input, in output pixels."""
        return np.asarray(xy) * (self.scale_x, self.scale_y) + (self.offset_x, self.offset_y)

    def invert(self, xy: Points) -> Points:
        """Points [..., 2] of the output, in input pixels."""
        return (np.asarray(xy) - (self.offset_x, self.offset_y)) / (self.scale_x, self.scale_y)


def check_area(area: int, divisor: int = 16) -> None:
    """Refuse a pixel area that is smaller than one `divisor` x `divisor` cell or above `MAX_AREA`. Raises InputError."""
    if area < divisor * divisor:
        raise InputError("preprocess.area", area, f"smaller than {divisor}x{divisor} pixels", "Give a larger area.")
    if area > MAX_AREA:
        rule = f"above the limit of {MAX_AREA} pixels ({MAX_AREA / 10**6:.1f} megapixels)"
        raise InputError("preprocess.area", area, rule, "Give a smaller area.")


def published_size(width: int, height: int, area: int, divisor: int = 16) -> tuple[int, int]:
    """Output (width, height) by the published rule (preprocess spec, section 4.1), its float hazards included."""
    aspect = width / height
    ideal_height = math.sqrt(area / aspect)
    ideal_width = area / ideal_height
    return int(ideal_width // divisor) * divisor, int(ideal_height // divisor) * divisor


def exact_size(width: int, height: int, area: int, divisor: int = 16) -> tuple[int, int]:
    """Output (width, height) by our rule (preprocess spec, section 18.2), in integers only.

    Sides are multiples of `divisor` with W*H <= `area`. Among the sizes that use at least 88 % of the area, the one
    closest to the picture's aspect wins; then the larger. Where none of them is within 6 % of the aspect (tiny areas),
    less of the area may be used, in steps. The rest is cut off evenly by `cover`.

    Raises:
        InputError: see `check_area`.
    """
    check_area(area, divisor)
    cells = area // (divisor * divisor)
    candidates = []
    for columns in range(1, cells + 1):
        ideal = columns * height // width
        for rows in {max(ideal, 1), ideal + 1, min(ideal, cells // columns)}:
            if rows >= 1 and columns * rows <= cells:
                a, b = columns * height, rows * width
                candidates.append((Fraction(max(a, b), min(a, b)), columns, rows))
    for used_percent in (88, 75, 50, 0):
        good = [c for c in candidates if 100 * c[1] * c[2] * divisor * divisor >= used_percent * area]
        if good and (min(good)[0] <= Fraction(106, 100) or used_percent == 0):
            break
    _, columns, rows = min(good, key=lambda c: (c[0], -c[1] * c[2]))
    return columns * divisor, rows * divisor


def letterbox_placement(width: int, height: int, out_width: int, out_height: int) -> Placement:
    """What `letterbox` does to the points of a width x height picture."""
    new_width, new_height = _letterbox_content(width, height, out_width, out_height)
    x0, y0 = int((out_width - new_width) / 2), int((out_height - new_height) / 2)
    return Placement(new_width / width, new_height / height, x0, y0)


def _letterbox_content(width: int, height: int, out_width: int, out_height: int) -> tuple[int, int]:
    # Floats, in this order of evaluation, as published.
    if height / width > out_height / out_width:
        return max(int(out_height / height * width), 1), out_height
    return out_width, max(int(out_width / width * height), 1)


def letterbox(
    image: Frame, width: int, height: int, interpolation: int = LINEAR, colour: tuple[int, int, int] = (0, 0, 0)
) -> Frame:
    """`image` scaled to fit into width x height, bars in `colour` (preprocess spec, section 4.2; model spec, 3.7)."""
    h, w = image.shape[:2]
    new_width, new_height = _letterbox_content(w, h, width, height)
    x0, y0 = int((width - new_width) / 2), int((height - new_height) / 2)
    out = np.empty((height, width, 3), np.uint8)
    out[:] = colour
    out[y0 : y0 + new_height, x0 : x0 + new_width] = cv2.resize(
        image, (new_width, new_height), interpolation=interpolation
    )
    return out


def published_resize(image: Frame, area: int, divisor: int = 16) -> Frame:
    """`image` at `published_size`, letterboxed, with the published choice of interpolation (section 4.1)."""
    h, w = image.shape[:2]
    width, height = published_size(w, h, area, divisor)
    if width < 1 or height < 1:
        raise InputError(
            "preprocess.area", area, f"leaves no {divisor}-pixel cell for a {w}x{h} picture", "Give a larger area."
        )
    return letterbox(image, width, height, AREA if width * height < w * h else LINEAR)


def _cover_content(width: int, height: int, out_width: int, out_height: int) -> tuple[int, int]:
    """Size of the whole picture when scaled so that it just covers the output; rounding never leaves a gap."""
    if out_width * height >= out_height * width:
        return out_width, max((2 * height * out_width + width) // (2 * width), out_height)
    return max((2 * width * out_height + height) // (2 * height), out_width), out_height


def cover_placement(width: int, height: int, out_width: int, out_height: int) -> Placement:
    """What `cover` does to the points of a width x height picture."""
    new_width, new_height = _cover_content(width, height, out_width, out_height)
    x0, y0 = (new_width - out_width) // 2, (new_height - out_height) // 2
    return Placement(new_width / width, new_height / height, -x0, -y0)


def cover(image: Frame, width: int, height: int) -> Frame:
    """`image` scaled to fill width x height, the excess cut off evenly on both sides; no bars."""
    h, w = image.shape[:2]
    new_width, new_height = _cover_content(w, h, width, height)
    if (new_width, new_height) != (w, h):
        image = cv2.resize(image, (new_width, new_height), interpolation=AREA if new_width < w else LINEAR)
    x0, y0 = (new_width - width) // 2, (new_height - height) // 2
    return np.ascontiguousarray(image[y0 : y0 + height, x0 : x0 + width])
