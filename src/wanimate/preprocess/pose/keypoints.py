"""The 133-point whole-body layout, its split into what is drawn and cropped, and which frames show a person.

Layout (preprocess spec, section 8.1), subject's own left and right:
    0-16 body: nose, eyes L R, ears L R, shoulders L R, elbows L R, wrists L R, hips L R, knees L R, ankles L R
    17-22 feet: big toe, small toe, heel of the left foot, then of the right
    23-90 face: 68 points in iBUG order        91-111 left hand        112-132 right hand (21 points each)
Every point is x, y, confidence. Joints not seen are (0, 0, 0).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from wanimate.types import Keypoints

Points = npt.NDArray[np.float64]
"""[..., n, 3]: x, y, confidence."""

COUNT = 133
BODY, FEET, FACE = slice(0, 17), slice(17, 23), slice(23, 91)
FACIAL = slice(0, 3)
"""Nose and eyes of the body, which only a face that is turned to the camera shows."""
LEFT_HAND, RIGHT_HAND = slice(91, 112), slice(112, 133)
LEFT_WRIST, RIGHT_WRIST = 9, 10

JOINTS = (
    "nose", "neck", "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow", "left wrist",
    "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle", "right eye", "left eye",
    "right ear", "left ear", "left toe", "right toe",
)  # fmt: skip
_ROW_A = np.array([0, 5, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3, 17, 20])
_ROW_B = np.array([0, 6, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3, 18, 21])

LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17), (13, 18), (10, 19),
)  # fmt: skip
"""The 19 limbs over the 20 joints, as (parent, child) in chain order from the neck (section 13)."""

_MESH_TO_68 = (
    127, 234, 93, 132, 58, 136, 149, 148, 152, 377, 378, 365, 288, 361, 323, 454, 356,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300, 168, 197, 5, 4, 98, 97, 2, 326, 327,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 81, 13, 311, 308, 402, 14, 178,
)  # fmt: skip
_BLAZE_TO_23 = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28, 31, 31, 29, 32, 32, 30)

VALID_CONFIDENCE, VALID_JOINTS = 0.3, 4


@dataclass(frozen=True)
class Parts:
    """What the pipeline uses of 133 points, in the units of the points given.

    body [..., 20, 3], left_hand and right_hand [..., 21, 3], face [..., 68, 3]; leading dimensions are kept.
    """

    body: Points
    left_hand: Points
    right_hand: Points
    face: Points

    def at(self, index: int) -> Parts:
        """One frame of several."""
        return Parts(self.body[index], self.left_hand[index], self.right_hand[index], self.face[index])


def split(keypoints: Keypoints) -> Parts:
    """133 points [..., 133, 3] to the 20 drawn joints, both hands and the face (spec section 8.2).

    Each of the 20 joints is the mean of two rows, confidence included: the neck is the middle of the shoulders and a
    toe the middle of big and small toe.
    """
    body = (keypoints[..., _ROW_A, :] + keypoints[..., _ROW_B, :]) / 2
    return Parts(body, keypoints[..., LEFT_HAND, :], keypoints[..., RIGHT_HAND, :], keypoints[..., FACE, :])


def joined(body: Points, left_hand: Points, right_hand: Points) -> Keypoints:
    """Drawn points back in their rows, [n, 20, 3] and [n, 21, 3] each to [n, 133, 3]; what was not drawn has confidence 0."""
    out = np.zeros((len(body), COUNT, 3))
    for rows in (_ROW_A, _ROW_B):
        single = np.arange(len(JOINTS)) != JOINTS.index("neck")
        out[:, rows[single]] = body[:, single]
    out[:, LEFT_HAND], out[:, RIGHT_HAND] = left_hand, right_hand
    return out


def reuse_body_when_outside(body: Points) -> Points:
    """The published all-negative rule over a clip, body [n, 20, 3] (spec section 8.2).

    A frame in which every joint has a negative coordinate takes the body of the frame before it (as already replaced);
    hands and face stay. The published code fails when that is the first frame; here the frame is kept as it is.
    """
    out = body.copy()
    outside = (body[..., :2].min(axis=-1) < 0).all(axis=-1)
    for i in range(1, len(out)):
        if outside[i]:
            out[i] = out[i - 1]
    return out


def from_mediapipe(pose: Points, mesh: Points | None, left: Points | None, right: Points | None) -> Keypoints:
    """MediaPipe landmarks to 133 points, all in pixels (spec section 17).

    Args:
        pose: BlazePose landmarks [33, 3] with visibility as confidence.
        mesh: face mesh [468, 3] or None when there is no face; likewise left and right hand [21, 3].
    """
    out = np.zeros((COUNT, 3))
    out[:23] = pose[list(_BLAZE_TO_23)]
    if mesh is not None:
        out[FACE] = mesh[list(_MESH_TO_68)]
    if left is not None:
        out[LEFT_HAND] = left
    if right is not None:
        out[RIGHT_HAND] = right
    return out


def has_person(keypoints: Keypoints, width: int, height: int) -> bool:
    """Whether a frame shows somebody: at least 4 of the 20 joints are confident (0.3) and inside (section 16.2)."""
    body = split(keypoints).body
    x, y, confidence = body[:, 0], body[:, 1], body[:, 2]
    inside = (x >= 0) & (x <= width) & (y >= 0) & (y <= height)
    return int(np.sum(inside & (confidence >= VALID_CONFIDENCE))) >= VALID_JOINTS


def move(points: Points, scale: float | tuple[float, float], offset: tuple[float, float]) -> Points:
    """points * scale + offset on x and y; the confidence is kept."""
    out = points.copy()
    out[..., :2] = out[..., :2] * np.asarray(scale) + np.asarray(offset)
    return out


def runs(flags: Sequence[bool] | npt.NDArray[Any]) -> list[tuple[int, int]]:
    """Stretches of true flags as (start, stop) pairs, stop exclusive."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(flags, dtype=np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def uncut(spans: Iterable[tuple[int, int]], cuts: Iterable[int]) -> list[tuple[int, int]]:
    """Stretches (start, stop), split where a cut begins a shot."""
    return [
        part
        for start, stop in spans
        for part in pairwise([start, *(cut for cut in sorted(cuts) if start < cut < stop), stop])
    ]
