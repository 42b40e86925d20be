"""The default mask backend: MediaPipe's selfie segmentation, guided by the skeleton.

The network segments a crop around the person. Pixels far from the skeleton are dropped, and pixels on it are added. Each
frame is averaged with its two neighbours, which optical flow warps to it. In a narrow band around the contour, colours
decide. Nothing lags, and three frames are in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from wanimate.preprocess.detect.litert import Array, Network, Picture, Square
from wanimate.preprocess.masks.base import Mask
from wanimate.preprocess.pose.keypoints import LEFT_HAND, LIMBS, RIGHT_HAND, VALID_CONFIDENCE, Points, split
from wanimate.types import Frame, Keypoints

MODEL = "selfie_segmentation.tflite"
_LONGEST = 512
"""Masks are computed in pictures of at most this many pixels a side, and resized to the frame at the end."""
_MARGIN = 1.35
_THRESHOLD = 0.4
"""Below a half: what only the present frame shows with confidence (weight 0.5), such as a fast hand, is kept."""
_BAND, _CERTAIN = 0.03, 0.95
"""Width of the band in which colours decide, as a share of the longer side; and the probability that they never overrule."""
# In shoulder widths: how far from its bones a body with its clothes reaches, and how thick it is at least.
_REACH, _CORE = 0.75, 0.06


@dataclass(frozen=True)
class _Segmented:
    """One frame on the way: `small` is grey [h, w], `soft` [h, w] the probability of the person, `core` its skeleton."""

    frame: Frame
    small: npt.NDArray[np.uint8]
    soft: Array
    core: Mask
    valid: bool


class SelfieMasks:
    """A `MaskBackend`: selfie segmentation of a crop around the person, guided by the skeleton."""

    name = "selfie"

    def __init__(self, folder: Path) -> None:
        self._network = Network(folder / MODEL)

    def follow(
        self, frames: Iterable[Frame], people: Keypoints, valid: npt.NDArray[np.bool_]
    ) -> Iterator[tuple[Frame, Mask]]:
        before: _Segmented | None = None
        now: _Segmented | None = None
        for i, frame in enumerate(frames):
            after = self._segment(frame, people[i], bool(valid[i]))
            if now is not None:
                yield now.frame, _averaged(before, now, after)
            before, now = now, after
        if now is not None:
            yield now.frame, _averaged(before, now, None)

    def _segment(self, frame: Frame, person: Keypoints, valid: bool) -> _Segmented:
        height, width = frame.shape[:2]
        scale = min(1.0, _LONGEST / max(height, width))
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        small = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
        soft, core = np.zeros(size[::-1], np.float32), np.zeros(size[::-1], np.uint8)
        if valid:
            soft = self._probability(frame, person, size)
            points = person * (size[0] / width, size[1] / height, 1)
            near, core = skeleton_areas(points, size)
            soft = np.where(core > 0, np.float32(1), soft * near)
        return _Segmented(frame, np.asarray(small, dtype=np.uint8), soft, core, valid)

    def _probability(self, frame: Frame, person: Keypoints, size: tuple[int, int]) -> Array:
        """The network's answer in a picture of (width, height) `size`; 0 outside of the crop."""
        where = person_crop(person, frame.shape[1], frame.shape[0])
        side = self._network.size
        answer = self._network(Picture(frame).crop(where, side, 0.0))[0][..., 0]
        corner, step = where.to_picture(np.zeros(2)), where.side / side
        # Answer pixel (u, v) has its centre at corner + (u + 0.5) step in the frame; likewise in the small picture.
        fx, fy = size[0] / frame.shape[1], size[1] / frame.shape[0]
        matrix = np.array(
            [
                [step * fx, 0, (corner[0] + 0.5 * step) * fx - 0.5],
                [0, step * fy, (corner[1] + 0.5 * step) * fy - 0.5],
            ]
        )
        return np.asarray(cv2.warpAffine(answer, matrix, size, flags=cv2.INTER_LINEAR), dtype=np.float32)


def person_crop(person: Keypoints, width: int, height: int) -> Square:
    """The square around the points of one person [133, 3] that are seen and inside, with room for hair and clothes."""
    inside = (person[:, 0] >= 0) & (person[:, 0] < width) & (person[:, 1] >= 0) & (person[:, 1] < height)
    seen = person[inside & (person[:, 2] >= VALID_CONFIDENCE), :2]
    if not len(seen):
        return Square(width / 2, height / 2, float(max(width, height)))
    low, high = seen.min(axis=0), seen.max(axis=0)
    return Square.at((low + high) / 2, _MARGIN * float((high - low).max()) + 1)


def skeleton_areas(person: Keypoints, size: tuple[int, int]) -> tuple[Mask, Mask]:
    """Where a person [133, 3] can be, and where it is for certain, as masks of (width, height) `size`.

    The first reaches three quarters of a shoulder width from its bones, the second holds bones, torso and hands.
    """
    parts = split(person)
    body = parts.body
    unit = max(_distance(body, 2, 5), _distance(body, 0, 1), _distance(body, 1, 8) / 2, 2.0)
    core = np.zeros(size[::-1], np.uint8)
    thick = max(round(2 * _CORE * unit), 1)
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
    if not core.any():
        return np.ones_like(core), core
    away = cv2.distanceTransform(1 - core, cv2.DIST_L2, 3)
    return np.asarray(away <= _REACH * unit, dtype=np.uint8), core


def _distance(body: Points, a: int, b: int) -> float:
    sure = min(body[a, 2], body[b, 2]) >= VALID_CONFIDENCE
    return float(np.hypot(*(body[a, :2] - body[b, :2]))) if sure else 0.0


def _pixel(point: Points) -> tuple[int, int]:
    x, y = np.clip(point[:2], -(2.0**14), 2.0**14)  # beyond, OpenCV's drawing overflows
    return int(x), int(y)


def _averaged(before: _Segmented | None, now: _Segmented, after: _Segmented | None) -> Mask:
    """The mask of a frame at its own size: half of its own probability, and a quarter of each neighbour's."""
    height, width = now.frame.shape[:2]
    if not now.valid:
        return np.zeros((height, width), np.uint8)
    soft = np.asarray(now.soft / 2, dtype=np.float32)
    for other in (before, after):
        soft += (_warped(other, now) if other is not None and other.valid else now.soft) / 4
    soft[_detached(soft > _THRESHOLD, now.core)] = 0
    small = cv2.resize(now.frame, soft.shape[::-1], interpolation=cv2.INTER_AREA)
    mask = refined(np.asarray(small, dtype=np.uint8), soft, now.core)
    large = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(large > 0.5, dtype=np.uint8)


def refined(picture: Frame, soft: Array, core: Mask) -> Mask:
    """The mask of a picture [h, w, 3], its contour where colours change (GrabCut; Rother et al. 2004).

    Only a band around the contour of the probability `soft` [h, w] is decided anew. What is certain stays.
    """
    mask = np.asarray(soft > _THRESHOLD, dtype=np.uint8)
    if not mask.any():
        return mask
    band = max(round(_BAND * max(mask.shape)), 1)
    labels = np.where(mask > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    inner = cv2.distanceTransform(mask, cv2.DIST_L2, 3) > band
    labels[inner | (soft > _CERTAIN) | (core > 0)] = cv2.GC_FGD
    outer = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 3) > band
    labels[outer & (core == 0)] = cv2.GC_BGD
    x, y, wide, high = cv2.boundingRect((~outer).astype(np.uint8))
    here = np.s_[max(y - 2 * band, 0) : y + high + 2 * band, max(x - 2 * band, 0) : x + wide + 2 * band]
    cut = np.ascontiguousarray(labels[here])
    if not (cut == cv2.GC_BGD).any() or not (cut == cv2.GC_FGD).any():
        return mask  # nothing certain on one side: no colours to learn
    cv2.setRNGSeed(0)  # it groups colours from random starts
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(np.ascontiguousarray(picture[here]), cut, None, *models, 1, cv2.GC_INIT_WITH_MASK)
    out = np.zeros_like(mask)
    out[here] = cut & 1  # foreground, certain or probable, is odd
    return out


def _detached(mask: npt.NDArray[np.bool_], core: Mask) -> npt.NDArray[np.bool_]:
    """The pieces of a mask [h, w] that hold nothing of the skeleton."""
    _, pieces = cv2.connectedComponents(mask.astype(np.uint8))
    held = np.unique(pieces[core > 0])
    return np.asarray(mask & ~np.isin(pieces, held)) if core.any() else np.zeros_like(mask)


def _warped(other: _Segmented, now: _Segmented) -> Array:
    """A neighbour's probability, warped to the present frame by optical flow."""
    if min(now.small.shape) < 32:
        return other.soft  # too small for the flow
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST).calc(now.small, other.small, None)
    rows, columns = np.indices(now.small.shape, dtype=np.float32)
    return np.asarray(cv2.remap(other.soft, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR))
