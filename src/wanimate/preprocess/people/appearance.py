"""The appearance of a person: the colours of the torso, which tell one person of a clip from another.

Keypoints are [133, 3] in pixels of the picture.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from wanimate.preprocess.pose.keypoints import VALID_CONFIDENCE
from wanimate.types import Frame, Keypoints

Appearance = npt.NDArray[np.float32]
"""A colour histogram in CIE L*a*b*, [6 lightnesses, 12, 12 hues], sum 1."""

_BINS = (6, 12, 12)
_HUES = (64, 191)
_SHOULDERS, _HIPS = [5, 6], [12, 11]
_SIDE = 48
"""Torsos are sampled as squares of this side, so that all sizes count alike. One takes well under a millisecond."""
_INSIDE = 0.3
"""A close-up that shows less than this share of the torso does not tell what somebody wears."""
_SHRUNK = 0.8
"""Arms and scene lie along the edges of a torso; the outer part is left out."""
_HIPS_BELOW = 1.3
"""Hips that are not seen are taken to lie so many shoulder widths below the shoulders."""


def appearance_of(frame: Frame, person: Keypoints) -> Appearance | None:
    """The colours between shoulders and hips; None where the shoulders are not seen, or hardly anything below them."""
    if person[_SHOULDERS, 2].min() < VALID_CONFIDENCE:
        return None
    shoulders = person[_SHOULDERS, :2]
    wide = float(np.hypot(*(shoulders[0] - shoulders[1])))
    hips = person[_HIPS, :2]
    if person[_HIPS, 2].min() < VALID_CONFIDENCE:
        hips = shoulders[::-1] + (0, _HIPS_BELOW * wide)
    corners = np.concatenate([shoulders, hips]).astype(np.float32)
    middle = corners.mean(axis=0)
    corners = middle + _SHRUNK * (corners - middle)
    square = np.array([(_SIDE, 0), (0, 0), (0, _SIDE), (_SIDE, _SIDE)], np.float32)
    place = cv2.getPerspectiveTransform(corners, square)
    torso = cv2.warpPerspective(frame, place, (_SIDE, _SIDE))
    inside = _inside(np.linalg.inv(place), frame.shape[1], frame.shape[0])
    if inside.mean() < _INSIDE:
        return None
    return histogram(cv2.cvtColor(torso, cv2.COLOR_RGB2LAB), inside)


def _inside(place: npt.NDArray[np.float64], width: int, height: int) -> npt.NDArray[np.uint8]:
    """Which pixels of a sampled torso [S, S] lie in the picture, as 1 and 0; `place` takes them there."""
    columns, rows = np.meshgrid(np.arange(_SIDE), np.arange(_SIDE))
    x, y, w = np.einsum("ij,jkl->ikl", place, np.stack([columns, rows, np.ones_like(rows)]))
    return ((x / w >= 0) & (y / w >= 0) & (x / w < width) & (y / w < height)).astype(np.uint8)


def histogram(lab: Frame, counted: npt.NDArray[np.uint8] | None = None) -> Appearance:
    """The colours of a picture [H, W, 3] in CIE L*a*b* of 8 bits, of its pixels [H, W] that are counted (not 0)."""
    lab = lab.copy()
    lab[..., 1:] = np.clip(lab[..., 1:], *_HUES)  # few colours lie beyond
    counts = cv2.calcHist([lab], [0, 1, 2], counted, list(_BINS), [0, 256, 64, 192, 64, 192]).astype(np.float32)
    for axis in range(3):  # a colour near the border of a bin counts for both
        counts = _blurred(counts, axis)
    return np.asarray(counts / max(float(counts.sum()), 1e-6), dtype=np.float32)


def _blurred(counts: npt.NDArray[np.float32], axis: int) -> npt.NDArray[np.float32]:
    padded = np.pad(counts, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
    before, here, after = (np.take(padded, range(i, i + counts.shape[axis]), axis) for i in range(3))
    return np.asarray((before + 2 * here + after) / 4)


def distance(a: Appearance, b: Appearance) -> float:
    """Hellinger distance of two appearances: 0 for the same colours, 1 for none in common."""
    return float(np.sqrt(max(1.0 - float(np.sqrt(a * b).sum()), 0.0)))
