"""Where the face is cut out: in the published box, or in a steady square (preprocess spec, sections 10 and 18.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import cv2
import numpy as np
import numpy.typing as npt

from wanimate.preprocess.pose.keypoints import FACE, Points, runs, uncut
from wanimate.preprocess.pose.smooth import held, stretches
from wanimate.types import Frame, Keypoints

Squares = npt.NDArray[np.float64]
"""[n, 3]: centre x, centre y and side in pixels; NaN where there is no face."""

_AREA = 1.3
_MIN_CONFIDENCE, _MIN_POINTS = 0.45, 15
_SEEN, _BESIDE = 0.5, 0.6
"""Confidence of a point that is seen. A face whose middle is so many sides off the nose is another's, or none."""
_BELOW_HEAD, _OF_BODY, _OF_TRUNK = -0.09, 0.48, 0.7
"""Where the square usually lies: so many sides above the middle of nose, eyes and ears; its side is a share of the longest of
shoulders, neck to head and 0.7 trunks (medians of the rendered people of benchmarks/pose.py)."""
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


def steady_squares(
    keypoints: Keypoints, valid: npt.NDArray[np.bool_], fps: Fraction, cuts: Sequence[int] = ()
) -> Squares:
    """One square a frame around the face of a person [n, 133, 3] in pixels, for crops that do not tremble.

    As in the published box, the area grows by 1.3, with three quarters of the added height above the brows. Unlike it, the
    crop is square; its side comes from the longer of width and height. At least 15 points of confidence 0.45 or more around
    the body's nose make a face. Where there is none, the square follows the head: it keeps its place on it. It does so as
    long as nose and an eye are seen, and over losses of up to 3 frames (a tenth of a second). Other frames have no square,
    nor have frames without a person. Every shot, as `cuts` begin them, is on its own.
    """
    raw = np.array([_on_nose(person) for person in keypoints]).reshape(-1, 3)
    out = np.full_like(raw, np.nan)
    for start, stop in uncut(runs(valid), cuts):
        out[start:stop] = _on_head(keypoints[start:stop], raw[start:stop], held(fps))
    factor = float(fps) / 30
    for start, stop in stretches(keypoints, valid, cuts):
        for first, last in runs(np.isfinite(out[start:stop, 0])):
            line = _median(out[start + first : start + last], 2 * int(_MEDIAN // 2 * factor) + 1)
            out[start + first : start + last, :2] = _gaussian(line[:, :2], _CENTRE_SIGMA * factor)
            out[start + first : start + last, 2:] = _gaussian(line[:, 2:], _SIDE_SIGMA * factor)
    return out


def shows_face(keypoints: Keypoints) -> npt.NDArray[np.bool_]:
    """Whether the heads [n] of people [n, 133, 3] are turned to the camera: the nose and an eye are seen."""
    nose, eyes = keypoints[:, 0, 2], keypoints[:, 1:3, 2].max(axis=1)
    return np.asarray(np.minimum(nose, eyes) >= _SEEN)


def made_out(keypoints: Keypoints) -> npt.NDArray[np.bool_]:
    """Whether the faces [n] of people [n, 133, 3] themselves were found, where their heads are."""
    return np.array([math.isfinite(_on_nose(person)[0]) for person in keypoints], dtype=bool)


def sizes(keypoints: Keypoints) -> npt.NDArray[np.float64]:
    """How large people [n, 133, 3] are in the picture [n], in pixels, however much of them shows: the longest of the width of
    the shoulders, neck to head and 0.7 trunks."""
    return _heads(keypoints)[2]


def _on_nose(person: Points) -> tuple[float, float, float]:
    """The square of the face points of a person [133, 3]; NaN where they lie beside a nose that is seen."""
    x, y, side = _square(person[FACE])
    nose = person[0]
    beside = nose[2] >= _SEEN and math.hypot(nose[0] - x, nose[1] - y) > _BESIDE * side
    return (math.nan,) * 3 if beside else (x, y, side)


def _on_head(keypoints: Keypoints, raw: Squares, hold: int) -> Squares:
    """The squares [n, 3] of one shot with the gaps filled from the heads of its people [n, 133, 3]."""
    known, frames = np.flatnonzero(np.isfinite(raw[:, 0])), np.arange(len(raw))
    head, up, scale = _heads(keypoints)
    across = np.stack([-up[:, 1], up[:, 0]], axis=1)
    if len(known):
        away = (raw[known, :2] - head[known]) / raw[known, 2:]
        own = np.stack(
            [(away * up[known]).sum(axis=1), (away * across[known]).sum(axis=1), raw[known, 2] / scale[known]]
        )
        along, aside, share = (np.interp(frames, known, line) for line in own)
    else:
        along, aside, share = (np.full(len(raw), usual) for usual in (_BELOW_HEAD, 0.0, _OF_BODY))
    side = (share * scale)[:, None]
    filled = np.concatenate([head + side * (along[:, None] * up + aside[:, None] * across), side], axis=1)
    shown = shows_face(keypoints)
    shown[known] = True
    for start, stop in runs(~shown):
        shown[start:stop] = start > 0 and stop < len(shown) and stop - start <= hold
    filled[known] = raw[known]
    filled[~shown] = np.nan
    return filled


def _heads(keypoints: Keypoints) -> tuple[Squares, Squares, npt.NDArray[np.float64]]:
    """Of people [n, 133, 3]: the middle of the head [n, 2], the way up from the neck [n, 2] of length 1, a scale [n]."""
    head = keypoints[:, :5, :2].mean(axis=1)
    shoulders, hips = keypoints[:, [5, 6], :2], keypoints[:, [11, 12], :2].mean(axis=1)
    neck = shoulders.mean(axis=1)
    tall = np.hypot(*(head - neck).T)
    trunk = np.where(keypoints[:, [11, 12], 2].min(axis=1) >= _SEEN, np.hypot(*(neck - hips).T), 0.0)
    scale = np.maximum.reduce([np.hypot(*(shoulders[:, 0] - shoulders[:, 1]).T), tall, _OF_TRUNK * trunk])
    return head, (head - neck) / np.maximum(tall, 1e-6)[:, None], np.maximum(scale, 1e-6)


def _square(points: Points) -> tuple[float, float, float]:
    sure = points[points[:, 2] >= _MIN_CONFIDENCE, :2]
    if len(sure) < _MIN_POINTS:
        return (math.nan,) * 3
    low, high = sure.min(axis=0), sure.max(axis=0)
    w, h = high - low
    x, y = (low + high) / 2
    growth = math.sqrt(_AREA)
    return float(x), float(y - h * (growth - 1) / 4), float(growth * max(w, h))


def _median(line: Squares, width: int) -> Squares:
    half = width // 2
    padded = np.pad(line, ((half, half), (0, 0)), mode="edge")
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, width, axis=0), axis=-1))


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
