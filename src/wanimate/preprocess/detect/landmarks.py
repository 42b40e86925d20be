"""The MediaPipe landmark networks: body, face and hand points inside a square, and the square for the next frame.

All squares and points are in picture pixels; `angle` 0 means upright. Constants (crop scales, key points that carry the
orientation, tensor layouts) are those of the published MediaPipe graphs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from wanimate.preprocess.detect.litert import Array, Detection, Detector, Network, Picture, Square, Vectors
from wanimate.preprocess.pose.keypoints import Points

_BODY_MARKS = [0, *range(11, 17), *range(23, 29)]
"""Nose, arms and legs, of which the support of a body is taken."""
_COLD, _UNSEEN = 0.3, 0.4
"""A landmark whose heat map is below the first near it is given the second as visibility at most."""
_OF_TRUNK = 0.66
"""Shoulders seen from the side are taken to be so many trunks wide."""
_FACE_GROUPS = ((4, 1),)
_POSE_GROUPS = ((8, 2), (16, 2), (32, 6))
_PALM_GROUPS = ((8, 2), (16, 6))
# The points that bound a hand without its finger tips, from which the next crop is taken.
_HAND_CORE = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)


@dataclass(frozen=True)
class Pose:
    """33 BlazePose landmarks [33, 3] (x, y, visibility), the score of the crop, and the square to track with.

    support: how far the network's heat maps agree with its landmarks, 0..1. It is 0.55 and more on a body that is right, and
    below 0.5 on one of which other parts were taken for head and shoulders; the score tells the two apart in half of the
    cases only. face_towards: how far the nose is nearer to the camera than the ears, in widths of the shoulders.
    """

    points: Points
    score: float
    next: Square
    support: float = 1.0
    face_towards: float = 0.5


@dataclass(frozen=True)
class Mesh:
    """468 face mesh points [468, 3] (x, y, score) and the square to track with."""

    points: Points
    score: float
    next: Square

    @property
    def centre(self) -> Vectors:
        return np.asarray((self.points[10, :2] + self.points[152, :2]) / 2)

    @property
    def down(self) -> Vectors:
        """From the top of the forehead to the chin, in pixels."""
        return np.asarray(self.points[152, :2] - self.points[10, :2])

    @property
    def width(self) -> float:
        """Cheek to cheek as if seen from the front: a rotated head keeps its height, which is 1.25 widths."""
        across = float(np.hypot(*(self.points[454, :2] - self.points[234, :2])))
        return max(across, float(np.hypot(*self.down)) * 0.8)


@dataclass(frozen=True)
class Hand:
    """21 hand landmarks [21, 3] (x, y, score), the score of a right hand (0..1), and the square to track with."""

    points: Points
    score: float
    rightness: float
    next: Square

    @property
    def palm(self) -> float:
        """Wrist to the root of the middle finger, in pixels, or the width of the palm if that is seen longer."""
        p = self.points[:, :2]
        return max(float(np.hypot(*(p[9] - p[0]))), 1.2 * float(np.hypot(*(p[17] - p[5]))))


class Networks:
    """All six models, loaded once. A call costs about 8 ms (body), 4.5 ms (hand), 1 ms (face) on one core."""

    def __init__(self, folder: Path) -> None:
        self.find_faces = Detector(folder / "face_detection_full_range_sparse.tflite", _FACE_GROUPS, -1.0, 0.5)
        self.find_people = Detector(folder / "pose_detection.tflite", _POSE_GROUPS, -1.0, 0.5)
        self.find_palms = Detector(folder / "palm_detection_full.tflite", _PALM_GROUPS, 0.0, 0.4)
        self._body = Network(folder / "pose_landmark_full.tflite")
        self._face = Network(folder / "face_landmark.tflite")
        self._hand = Network(folder / "hand_landmark_full.tflite")

    def body(self, picture: Picture, where: Square) -> Pose:
        raw, score, _, heat, _ = self._body(picture.crop(where, self._body.size, 0.0))
        rows = raw.reshape(39, 5).astype(np.float64)
        local, heats = _refined(rows[:, :2] / self._body.size, heat)
        points = where.to_picture(local)
        visibility = _sigmoid(rows[:33, 3])
        seen = visibility[_BODY_MARKS]
        support = float(heats[_BODY_MARKS] @ seen / max(float(seen.sum()), 1e-6))
        visibility = np.where(heats[:33] < _COLD, np.minimum(visibility, _UNSEEN), visibility)
        neck, hips = rows[[11, 12], :2].mean(axis=0), rows[[23, 24], :2].mean(axis=0)
        wide = max(float(np.hypot(*(rows[11, :2] - rows[12, :2]))), _OF_TRUNK * float(np.hypot(*(neck - hips))), 1.0)
        towards = float(rows[[7, 8], 2].mean() - rows[0, 2]) / wide
        # Landmark 33 is the middle of the hips, 34 lies on a circle around it that holds the whole body.
        spoke = points[34] - points[33]
        follow = Square.at(points[33], 2.5 * math.hypot(*spoke), math.atan2(spoke[0], -spoke[1]))
        marks = np.concatenate([points[:33], visibility[:, None]], axis=1)
        return Pose(marks, float(score.item()), follow, support, towards)

    def face(self, picture: Picture, where: Square) -> Mesh:
        raw, logit = self._face(picture.crop(where, self._face.size, 0.0, cv2.BORDER_REPLICATE))
        points = where.to_picture(raw.reshape(468, 3)[:, :2] / self._face.size)
        score = float(_sigmoid(logit).item())
        eyes = points[263] - points[33]
        follow = _around(points, math.atan2(eyes[1], eyes[0]), 1.5)
        return Mesh(np.concatenate([points, np.full((468, 1), score)], axis=1), score, follow)

    def hand(self, picture: Picture, where: Square) -> Hand:
        raw, score, right, _ = self._hand(picture.crop(where, self._hand.size, 0.0, cv2.BORDER_REPLICATE))
        points = where.to_picture(raw.reshape(21, 3)[:, :2] / self._hand.size)
        value = float(score.item())
        tip = points[9] / 2 + (points[5] + points[13]) / 4 - points[0]
        follow = _around(points[list(_HAND_CORE)], math.atan2(tip[0], -tip[1]), 2.0).shifted(0, -0.05)
        return Hand(np.concatenate([points, np.full((21, 1), value)], axis=1), value, float(right.item()), follow)


def face_square(found: Detection) -> Square:
    """The crop for the mesh: rotated so that the eyes are level, 1.5 boxes wide."""
    eyes = found.points[1] - found.points[0]
    return Square.at(found.box[:2], 1.5 * float(found.box[2:].max()), math.atan2(eyes[1], eyes[0]))


def person_square(found: Detection) -> Square:
    """The crop for the body from the pose detector: around the hips, rotated so that the spine is upright."""
    spoke = found.points[1] - found.points[0]
    return Square.at(found.points[0], 2.5 * math.hypot(*spoke), math.atan2(spoke[0], -spoke[1]))


def palm_square(found: Detection) -> Square:
    """The crop for a hand from the palm detector: fingers up, palm in the lower half."""
    up = found.points[2] - found.points[0]
    square = Square.at(found.box[:2], float(found.box[2:].max()), math.atan2(up[0], -up[1]))
    return square.shifted(0, -0.5).scaled(2.6)


def hand_square(wrist: Vectors, index: Vectors, little: Vectors) -> Square:
    """The crop for a hand from the three hand points of the body landmarks [2] each."""
    knuckle = (2 * index + little) / 3
    up = knuckle - wrist
    return Square.at(knuckle, 2.0 * math.hypot(*up), math.atan2(up[0], -up[1])).scaled(1.35).shifted(0, -0.1)


def _around(points: Vectors, angle: float, scale: float) -> Square:
    """The square, rotated by `angle`, around points [n, 2], enlarged."""
    rotated = Square(0, 0, 1, angle)
    local = rotated.to_square(points)
    low, high = local.min(axis=0), local.max(axis=0)
    x, y = rotated.to_picture((low + high) / 2)
    return Square(float(x), float(y), float((high - low).max()) * scale, angle)


def _sigmoid(x: Array | Vectors) -> Vectors:
    return 1 / (1 + np.exp(-np.clip(x.astype(np.float64), -60, 60)))


def _refined(local: Vectors, heat: Array, window: int = 3, needed: float = 0.5) -> tuple[Vectors, Vectors]:
    """Landmarks [n, 2] in 0..1 moved to the centre of mass of their heat maps [S, S, n] where these are confident.

    Also returns the largest heat [n] near each landmark.
    """
    size = heat.shape[0]
    out, most = local.copy(), np.zeros(len(local))
    cells = np.floor(local * size).astype(int)
    for i, (column, row) in enumerate(cells):
        if not (0 <= column < size and 0 <= row < size):
            continue
        top, left = max(row - window, 0), max(column - window, 0)
        part = _sigmoid(heat[top : row + window + 1, left : column + window + 1, i])
        most[i] = part.max()
        if most[i] >= needed:
            total = part.sum()
            ys = np.arange(part.shape[0]) + top
            xs = np.arange(part.shape[1]) + left
            out[i] = ((part.sum(axis=0) @ xs) / total / size, (part.sum(axis=1) @ ys) / total / size)
    return out, most
