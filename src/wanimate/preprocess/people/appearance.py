"""How somebody looks, as far as it tells one person of a clip from another: the colours of their trunk.

Keypoints are [133, 3] in pixels of the picture.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from wanimate.preprocess.pose.keypoints import VALID_CONFIDENCE
from wanimate.types import Frame, Keypoints

Look = npt.NDArray[np.float32]
"""Shares of colours, [6 lightnesses, 12, 12 hues], sum 1."""

_BINS = (6, 12, 12)
_HUES = (64, 191)
_SHOULDERS, _HIPS = [5, 6], [12, 11]
_SIDE = 48
"""Trunks are looked at in squares of so many pixels, so that all count alike and a look costs well under a millisecond."""
_HIPS_BELOW = 1.3
"""Hips that are not seen lie about so many shoulder widths below the shoulders."""


def look_of(frame: Frame, person: Keypoints) -> Look | None:
    """The colours between shoulders and hips; None where the shoulders are not seen."""
    if person[_SHOULDERS, 2].min() < VALID_CONFIDENCE:
        return None
    shoulders = person[_SHOULDERS, :2]
    wide = float(np.hypot(*(shoulders[0] - shoulders[1])))
    hips = person[_HIPS, :2]
    if person[_HIPS, 2].min() < VALID_CONFIDENCE:
        hips = shoulders[::-1] + (0, _HIPS_BELOW * wide)
    corners = np.concatenate([shoulders, hips]).astype(np.float32)
    middle = corners.mean(axis=0)
    corners = middle + 0.8 * (corners - middle)  # arms and scene lie along the edges
    square = np.array([(_SIDE, 0), (0, 0), (0, _SIDE), (_SIDE, _SIDE)], np.float32)
    trunk = cv2.warpPerspective(frame, cv2.getPerspectiveTransform(corners, square), (_SIDE, _SIDE))
    lab = cv2.cvtColor(trunk, cv2.COLOR_RGB2LAB)
    lab[..., 1:] = np.clip(lab[..., 1:], *_HUES)  # few colours lie beyond
    counts = cv2.calcHist([lab], [0, 1, 2], None, list(_BINS), [0, 256, 64, 192, 64, 192]).astype(np.float32)
    for axis in range(3):  # a colour near the border of a bin counts for both
        counts = _blurred(counts, axis)
    return np.asarray(counts / max(float(counts.sum()), 1e-6), dtype=np.float32)


def _blurred(counts: npt.NDArray[np.float32], axis: int) -> npt.NDArray[np.float32]:
    padded = np.pad(counts, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
    before, here, after = (np.take(padded, range(i, i + counts.shape[axis]), axis) for i in range(3))
    return np.asarray((before + 2 * here + after) / 4)


def unlike(a: Look, b: Look) -> float:
    """0 for the same colours, 1 for none in common (Hellinger distance)."""
    return float(np.sqrt(max(1.0 - float(np.sqrt(a * b).sum()), 0.0)))
