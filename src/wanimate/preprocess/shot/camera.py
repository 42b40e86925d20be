"""How the camera moves in a shot, told by what of the picture moves as one.

Corners are followed from one looked-at frame to the next and back. Those that come back where they were give a similarity by
RANSAC. The performer is left out of the search for corners: their movement is not the camera's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from wanimate.preprocess.shot.terms import Guess

Grey = npt.NDArray[np.uint8]
Hidden = npt.NDArray[np.uint8]
"""uint8 [h, w] of the size of a looked-at frame: not 0 where the performer is."""

LightChange = tuple[float, float, float]
"""How much brighter the same places are, in logarithms of red, green and blue."""

WIDTH = 640
"""Columns of a looked-at frame."""
_CORNERS, _QUALITY, _APART, _BLOCK = 400, 0.01, 7, 5
_LEAST = 2e-4
"""The smaller eigenvalue of a corner that is one; the steps of a smooth gradient reach a tenth of it."""
_BACK, _CLOSE = 0.7, 1.0
"""Pixels: how far a corner that is followed there and back may end beside its place, and one from the camera's movement."""
_FEW, _AGREE = 10, 0.35
"""Fewer corners, or a smaller share of them that move as one, tell nothing."""
_WINDOW = {"winSize": (21, 21), "maxLevel": 3}
_LIMITS = {"pan": 0.04, "tilt": 0.04, "zoom": 0.03, "roll": math.radians(2.0)}
"""What a second has to bring: shift in widths of the picture, logarithm of the scale, angle."""
_NAMES = {
    "pan": ("Pan Left", "Pan Right"), "tilt": ("Tilt Up", "Tilt Down"), "zoom": ("Zoom In", "Zoom Out"),
    "roll": ("Roll Left", "Roll Right"),
}  # fmt: skip
"""What a positive amount is called, and a negative one: a picture that moves to the right was panned to the left."""
_SHAKE = 0.0008
"""Position noise in widths from which on a camera that does not move is handheld."""
_AROUND = 5
_FAINT = 0.005
"""Added to light before it is compared: in the dark there is nothing but noise."""
_SEEN, _ALIKE = 0.2, 0.04
"""A picture tells of its light from this share outside of the performer on. It changes alike where its places differ by less
than this from its middle, in logarithms."""
_STEADY, _SLOW = 0.8, 2.0
"""A movement that is too slow for a second's limit counts where the whole shot brings so many times that, nearly all one
way."""


@dataclass(frozen=True)
class Step:
    """The camera's movement from one looked-at frame to the next: of the picture's middle in widths, right and down, the
    logarithm of the scale, the angle clockwise in radians."""

    seconds: float
    right: float
    down: float
    scale: float
    angle: float

    @property
    def amounts(self) -> dict[str, float]:
        return {"pan": self.right, "tilt": self.down, "zoom": self.scale, "roll": self.angle}


@dataclass(frozen=True)
class Look:
    """A frame as it is looked at: grey [h, w], where the performer is, and its light [h', w', 3]."""

    grey: Grey
    hidden: Hidden | None
    light: npt.NDArray[np.float32]


def corners_of(look: Look) -> npt.NDArray[np.float32]:
    """Corners [n, 2] in pixels, outside of the performer."""
    free = None if look.hidden is None else np.where(look.hidden > 0, 0, 255).astype(np.uint8)
    found = cv2.goodFeaturesToTrack(look.grey, _CORNERS, _QUALITY, _APART, mask=free, blockSize=_BLOCK)
    if found is None:
        return np.zeros((0, 2), np.float32)
    corners = np.asarray(found[:, 0], np.float32)
    x, y = corners.astype(int).T
    return corners[cv2.cornerMinEigenVal(look.grey, _BLOCK)[y, x] > _LEAST]


def followed(before: Look, after: Look) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The corners of the one frame and where they are in the other, [n, 2] each: those that are found there and back."""
    start = corners_of(before)
    if len(start) < _FEW:
        return start[:0], start[:0]
    there, good, _ = cv2.calcOpticalFlowPyrLK(before.grey, after.grey, start, None, **_WINDOW)  # type: ignore[call-overload]
    back, again, _ = cv2.calcOpticalFlowPyrLK(after.grey, before.grey, there, None, **_WINDOW)  # type: ignore[call-overload]
    kept = (good[:, 0] > 0) & (again[:, 0] > 0) & (np.hypot(*(back - start).T) < _BACK)
    height, width = after.grey.shape
    x, y = there.T
    kept &= (x >= 0) & (y >= 0) & (x < width) & (y < height)
    if after.hidden is not None:
        inside = np.clip(there.round().astype(int), 0, (width - 1, height - 1))
        kept &= after.hidden[inside[:, 1], inside[:, 0]] == 0
    return start[kept], there[kept]


def similarity(start: npt.NDArray[np.float32], there: npt.NDArray[np.float32]) -> npt.NDArray[np.float64] | None:
    """How the picture moves [2, 3], in pixels; None where too few corners agree."""
    if len(start) < _FEW:
        return None
    found, inliers = cv2.estimateAffinePartial2D(start, there, method=cv2.RANSAC, ransacReprojThreshold=_CLOSE)
    if found is None or inliers.sum() < _FEW or inliers.mean() < _AGREE:
        return None
    return np.asarray(found)


def step_between(before: Look, after: Look, seconds: float) -> tuple[Step | None, LightChange | None]:
    """The step from one looked-at frame to the next, and how the light has changed; None where nothing tells.

    Where no corners tell where places have gone, a picture that changes alike everywhere is taken to show the same places.
    """
    moved = similarity(*followed(before, after))
    if moved is None:
        return None, _light_change(before, after, np.eye(2, 3), _ALIKE)
    height, width = before.grey.shape
    middle = np.array([width / 2, height / 2])
    right, down = (moved @ [*middle, 1.0] - middle) / width
    scale, angle = math.hypot(moved[0, 0], moved[1, 0]), math.atan2(moved[1, 0], moved[0, 0])
    step = Step(seconds, float(right), float(down), math.log(max(scale, 1e-6)), angle)
    return step, _light_change(before, after, moved, math.inf)


def _light_change(before: Look, after: Look, moved: npt.NDArray[np.float64], alike: float) -> LightChange | None:
    """How much brighter the same places are, outside of the performer.

    Args:
        moved: where places have gone, in pixels of the looked-at frames.
        alike: None is the answer where places differ by more than this from their middle, on average.
    """
    height, width = before.light.shape[:2]
    small = moved.copy()
    small[:, 2] *= width / before.grey.shape[1]
    was_free = cv2.warpAffine(_free(before), small, (width, height), flags=cv2.INTER_NEAREST)
    free = (was_free > 0) & (_free(after) > 0)
    if free.mean() < _SEEN:
        return None
    old, new = cv2.warpAffine(before.light, small, (width, height))[free], after.light[free]
    logs = np.log(new + _FAINT) - np.log(old + _FAINT)
    if float(np.abs(logs - np.median(logs, axis=0)).mean()) > alike:
        return None
    red, green, blue = (_middle(one) for one in logs.T)
    return red, green, blue


def _middle(values: npt.NDArray[np.float32]) -> float:
    """The mean without a tenth at either end. A median would stay at 0 where a change is less than a code value."""
    low, high = np.percentile(values, (10, 90))
    return float(values[(values >= low) & (values <= high)].mean())


def _free(look: Look) -> npt.NDArray[np.uint8]:
    """1 outside of the performer, [h', w'] as the frame's light."""
    height, width = look.light.shape[:2]
    if look.hidden is None:
        return np.ones((height, width), np.uint8)
    hidden = cv2.resize(look.hidden, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(hidden == 0, np.uint8)


def named(steps: Sequence[Step | None], seconds: float) -> Guess:
    """What the camera does in a shot.

    Args:
        steps: from each looked-at frame to the next; None where nothing could be told.
        seconds: the length of the shot.
    """
    known = [step for step in steps if step is not None]
    if not known or len(known) < len(steps) / 2:
        return Guess(None, 0.0)
    share = len(known) / len(steps)
    windows = _windows(known)
    most: dict[str, float] = {}
    for kind, limit in _LIMITS.items():
        rates = [sum(s.amounts[kind] for s in part) / sum(s.seconds for s in part) for part in windows]
        moving = [rate for rate in rates if abs(rate) > limit]
        net = sum(s.amounts[kind] for s in known)
        if len(moving) >= max(1, len(rates) / 4):
            most[kind] = sum(moving) / len(moving) / limit
        elif abs(net) > _SLOW * limit and abs(net) > _STEADY * sum(abs(rate) for rate in rates) * seconds / len(rates):
            most[kind] = math.copysign(1.0 + 0.2 * abs(net) / (_SLOW * limit), net)
        else:
            most[kind] = float(np.mean(rates)) / limit
    kind = max(most, key=lambda one: abs(most[one]))
    amount = abs(most[kind])
    sure = share * amount**2 / (1 + amount**2)
    if amount >= 1:
        second = sorted(abs(value) for value in most.values())[-2]
        sure *= 1 - 0.5 * min(second / amount, 1.0) ** 2
        return Guess(_NAMES[kind][most[kind] < 0], sure)
    noise = shake(known)
    ratio = noise / _SHAKE
    certain = ratio**2 / (1 + ratio**2)
    still = share / (1 + amount**2)
    return Guess("Handheld", still * certain) if ratio > 1 else Guess("Static", still * (1 - certain))


def _windows(steps: Sequence[Step]) -> list[list[Step]]:
    """Steps by the second; a last one of less than half a second belongs to the one before."""
    parts: list[list[Step]] = [[]]
    length = 0.0
    for step in steps:
        if length >= 1 - 1e-6:
            parts.append([])
            length = 0.0
        parts[-1].append(step)
        length += step.seconds
    if len(parts) > 1 and length < 0.5:
        last = parts.pop()
        parts[-1] += last
    return parts


def shake(steps: Sequence[Step]) -> float:
    """Position noise in widths: how far the picture's middle is from its mean over five looked-at frames."""
    path = np.cumsum([(0.0, 0.0), *((s.right, s.down) for s in steps)], axis=0)
    if len(path) < _AROUND:
        return 0.0
    half = _AROUND // 2
    smooth = np.stack([np.convolve(axis, np.full(_AROUND, 1 / _AROUND), "valid") for axis in path.T], axis=1)
    return float(np.sqrt(((path[half:-half] - smooth) ** 2).sum(axis=1).mean()))


def stretches(steps: Sequence[Step | None], first: Sequence[int]) -> list[tuple[int, int, str]]:
    """(first frame, frame behind the last, what the camera does) for each second of a shot, equal neighbours joined.

    Args:
        first: the frame of each looked-at frame, one more than steps.
    """
    found: list[tuple[int, int, str]] = []
    begin, length = 0, 0.0
    for i, step in enumerate(steps):
        length += 0.0 if step is None else step.seconds
        if length >= 1 - 1e-6 or i == len(steps) - 1:
            name = named(steps[begin : i + 1], length).value
            span = first[begin], first[i + 1]
            if name is not None and found and found[-1][1:] == (span[0], name):
                found[-1] = (found[-1][0], span[1], name)
            elif name is not None:
                found.append((*span, name))
            begin, length = i + 1, 0.0
    return found
