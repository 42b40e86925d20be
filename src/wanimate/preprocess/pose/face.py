"""Where the face is cut out: in the published box, or in a steady square (preprocess spec, sections 10 and 18.4)."""

from __future__ import annotations

import math
from fractions import Fraction

import cv2
import numpy as np
import numpy.typing as npt

from wanimate.preprocess.pose.keypoints import Points, runs
from wanimate.types import Frame

Squares = npt.NDArray[np.float64]
"""[n, 3]: centre x, centre y and side in pixels; NaN where there is no face."""

_AREA = 1.3
_MIN_CONFIDENCE, _MIN_POINTS = 0.45, 15
# Widths of the smoothing in frames at 30 a second.
_CENTRE_SIGMA, _SIDE_SIGMA, _MEDIAN = 1.5, 5.0, 5


def published_box(face: Points, width: int, height: int) -> tuple[int, int, int, int] | None:
    """The published box (x1, x2, y1, y2) around face points [68, 3] in pixels; confidence does not count.

    None where the points have no extent. The box may be empty or inverted where the face is out of the frame.
    """
    (x1, y1), (x2, y2) = face[:, :2].min(axis=0), face[:, :2].max(axis=0)
    w, h = x2 - x1, y2 - y1
    if w == 0 or h == 0:
        return None
    new_w = math.sqrt(_AREA * w * h * (w / h))
    new_h = math.sqrt(_AREA * w * h / (w / h))
    dx, dy = (new_w - w) / 2, (new_h - h) / 4
    return int(max(x1 - dx, 0)), int(min(x2 + dx, width)), int(max(y1 - 3 * dy, 0)), int(min(y2 + dy, height))


def published_crop(frame: Frame, box: tuple[int, int, int, int], size: int) -> Frame:
    """The box stretched to size x size, aspect not kept (section 10). The box must not be empty."""
    x1, x2, y1, y2 = box
    crop = cv2.resize(frame[y1:y2, x1:x2], (size, size), interpolation=cv2.INTER_LINEAR)
    return np.asarray(crop, dtype=np.uint8)


def is_usable(box: tuple[int, int, int, int] | None) -> bool:
    """Whether there are pixels in a published box."""
    return box is not None and 0 <= box[0] < box[1] and 0 <= box[2] < box[3]


def steady_squares(face: Points, valid: npt.NDArray[np.bool_], fps: Fraction) -> Squares:
    """One square a frame around face points [n, 68, 3] in pixels, for crops that do not tremble.

    As in the published box, the area grows by 1.3, with three quarters of the added height above the brows. Unlike it, the
    crop is square; its side comes from the longer of width and height. At least 15 points of confidence 0.45 or more make a
    face. Where a face is lost while the person is seen, its square is interpolated, or held at the ends. Frames without a
    person have no square.
    """
    raw = np.array([_square(points) for points in face]).reshape(-1, 3)
    out = np.full_like(raw, np.nan)
    factor = float(fps) / 30
    for start, stop in runs(valid):
        known = start + np.flatnonzero(np.isfinite(raw[start:stop, 0]))
        if len(known):
            frames = np.arange(start, stop)
            line = np.stack([np.interp(frames, known, raw[known, axis]) for axis in range(3)], axis=1)
            line = _median(line)
            out[start:stop, :2] = _gaussian(line[:, :2], _CENTRE_SIGMA * factor)
            out[start:stop, 2:] = _gaussian(line[:, 2:], _SIDE_SIGMA * factor)
    return out


def _square(points: Points) -> tuple[float, float, float]:
    sure = points[points[:, 2] >= _MIN_CONFIDENCE, :2]
    if len(sure) < _MIN_POINTS:
        return (math.nan,) * 3
    low, high = sure.min(axis=0), sure.max(axis=0)
    w, h = high - low
    x, y = (low + high) / 2
    growth = math.sqrt(_AREA)
    return float(x), float(y - h * (growth - 1) / 4), float(growth * max(w, h))


def _median(line: Squares) -> Squares:
    half = _MEDIAN // 2
    padded = np.pad(line, ((half, half), (0, 0)), mode="edge")
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, _MEDIAN, axis=0), axis=-1))


def _gaussian(line: Squares, sigma: float) -> Squares:
    radius = max(math.ceil(3 * sigma), 1)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weight = np.convolve(np.ones(len(line)), kernel)[radius:-radius]
    columns = [np.convolve(column, kernel)[radius:-radius] / weight for column in line.T]
    return np.stack(columns, axis=1)


def square_crop(frame: Frame, square: npt.NDArray[np.float64], size: int) -> Frame:
    """A square [3] of a frame as uint8 [size, size, 3], placed to a fraction of a pixel; black where it is NaN.

    Beyond the edge of the frame its last pixels repeat. Large squares are averaged down, so that nothing flickers.
    """
    if not np.isfinite(square).all():
        return np.zeros((size, size, 3), dtype=np.uint8)
    x, y, side = square
    times = max(math.ceil(side / size), 1)
    scale = side / (size * times)
    offset = np.array([x, y]) - side / 2 + 0.5 * scale - 0.5
    matrix = np.array([[scale, 0, offset[0]], [0, scale, offset[1]]])
    crop = cv2.warpAffine(
        frame,
        matrix,
        (size * times,) * 2,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if times > 1:
        crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(crop, dtype=np.uint8)
