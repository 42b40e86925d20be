"""What a skeleton says of a person's pixels: where it is for certain, and how far every other pixel is away."""

from __future__ import annotations

import cv2
import numpy as np

from wanimate.preprocess.detect.litert import Array
from wanimate.preprocess.masks.base import Mask
from wanimate.preprocess.pose.keypoints import (
    FACE,
    LEFT_HAND,
    LIMBS,
    RIGHT_HAND,
    VALID_CONFIDENCE,
    Points,
    split,
)  # fmt: skip
from wanimate.types import Keypoints

_CORE = 0.06
"""Thickness of a bone's sure pixels, in shoulder widths."""
_FACE_POINTS = 20
"""A face counts with more seen points than that."""
_HEAD, _HEAD_BY_SHOULDERS = 0.75, 0.45
"""Radius of a head: in sizes of its face, and in shoulder widths where no face is seen."""


def sure_pixels(person: Keypoints, size: tuple[int, int]) -> Mask:
    """Bones, trunk and hands of a person [133, 3], in a picture of (width, height) `size`."""
    body = split(person).body
    core = np.zeros(size[::-1], np.uint8)
    thick = max(round(2 * _CORE * unit(person)), 1)
    for a, b in LIMBS:
        if min(body[a, 2], body[b, 2]) >= VALID_CONFIDENCE:
            cv2.line(core, _pixel(body[a]), _pixel(body[b]), 1, thick)
    torso = body[[2, 5, 11, 8]]
    if torso[:, 2].min() >= VALID_CONFIDENCE:
        cv2.fillConvexPoly(core, np.array([_pixel(p) for p in torso], np.int32), 1)
    for hand in (person[LEFT_HAND], person[RIGHT_HAND]):
        if hand[:, 2].min() >= VALID_CONFIDENCE:
            hull = cv2.convexHull(np.array([_pixel(p) for p in hand], np.int32))
            cv2.fillConvexPoly(core, np.asarray(hull, dtype=np.int32), 1)
    return core


def distances(person: Keypoints, core: Mask) -> Array:
    """How far every pixel [h, w] is from bones and head, in shoulder widths; 0 everywhere for a person without bones.

    Args:
        core: its `sure_pixels`.
    """
    reached = core.copy()
    head = _head(person)
    if head is not None:
        cv2.circle(reached, _pixel(head[0]), max(round(head[1]), 1), 1, -1)
    if not reached.any():
        return np.zeros(core.shape, np.float32)
    return np.asarray(cv2.distanceTransform(1 - reached, cv2.DIST_L2, 3) / unit(person), dtype=np.float32)


def unit(person: Keypoints) -> float:
    """A person's shoulder width in pixels, from the front or the side; 2 where nothing tells."""
    body = split(person).body
    return max(_distance(body, 2, 5), _distance(body, 0, 1), _distance(body, 1, 8) / 2, 2.0)


def face_points(person: Keypoints) -> Points:
    """The seen points of a person's face [n, 2]; none where they are too few to be a face."""
    face = person[FACE]
    shown = face[face[:, 2] >= VALID_CONFIDENCE, :2]
    return shown if len(shown) > _FACE_POINTS else shown[:0]


def _head(person: Keypoints) -> tuple[Points, float] | None:
    """Middle and radius of the whole head, hair included: it reaches further up than down from the face."""
    body, shown = split(person).body, face_points(person)
    if len(shown):
        middle, radius = shown.mean(axis=0), _HEAD * float(np.ptp(shown, axis=0).max())
    else:
        points = body[[0, 14, 15, 16, 17]]
        shown = points[points[:, 2] >= VALID_CONFIDENCE, :2]
        if not len(shown):
            return None
        middle, radius = shown.mean(axis=0), _HEAD_BY_SHOULDERS * unit(person)
    up = middle - body[1, :2] if body[1, 2] >= VALID_CONFIDENCE else np.array([0.0, -1.0])
    return middle + up / max(float(np.hypot(*up)), 1e-6) * radius / 2, radius


def _distance(body: Points, a: int, b: int) -> float:
    sure = min(body[a, 2], body[b, 2]) >= VALID_CONFIDENCE
    return float(np.hypot(*(body[a, :2] - body[b, :2]))) if sure else 0.0


def _pixel(point: Points) -> tuple[int, int]:
    x, y = np.clip(point[:2], -(2.0**14), 2.0**14)  # beyond, OpenCV's drawing overflows
    return int(x), int(y)
