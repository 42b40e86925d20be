"""The two networks of the offline mask backend, and the part of a picture that they see.

U2-Net (Qin et al., arXiv 2005.09007) finds what stands out, hats and coats included. MediaPipe's selfie segmentation finds
people. Both take the box around the person stretched to a square: the narrower the surroundings, the fewer other things
stand out, and the networks were trained on stretched pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from wanimate.config.preprocess import MaskQuality
from wanimate.preprocess.detect.litert import Array, Network
from wanimate.preprocess.detect.models import SELFIE, U2NET, U2NETP, read_model
from wanimate.preprocess.masks.skeleton import face_points
from wanimate.preprocess.pose.keypoints import VALID_CONFIDENCE
from wanimate.types import Frame, Keypoints

_SIDE = 320
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)
_MARGIN = 0.12
"""Room around a person's points, as a share of the box's longer side."""
_HAT, _HAIR = 1.0, 0.5
"""Room above and beside a face, in its own size: for hats and hair."""
_LEGS = [11, 12, 13, 14, 15, 16]


class Segmenter(Protocol):
    """Finds the foreground: float32 RGB [side, side, 3] in 0..1 to its probability [side, side]."""

    side: int

    def __call__(self, picture: Array) -> Array: ...


class Salient:
    """U2-Net or its small form U2-Net-p, through OpenCV."""

    side = _SIDE

    def __init__(self, folder: Path, quality: MaskQuality) -> None:
        """Raises:
        InputError: the file is missing or is not the published one.
        """
        content = read_model(folder / (U2NET if quality == "high" else U2NETP))
        self._network: Any = cv2.dnn.readNetFromONNX(np.frombuffer(content, np.uint8))

    def __call__(self, picture: Array) -> Array:
        normal = (picture / max(float(picture.max()), 1e-6) - _MEAN) / _STD
        self._network.setInput(np.ascontiguousarray(normal.transpose(2, 0, 1)[None], dtype=np.float32))
        return np.array(self._network.forward()[0, 0], dtype=np.float32)


class Selfie:
    """MediaPipe's selfie segmentation, through LiteRT."""

    def __init__(self, folder: Path) -> None:
        """Raises:
        InputError: the file is missing or is not the published one.
        """
        self._network = Network(folder / SELFIE)
        self.side = self._network.size

    def __call__(self, picture: Array) -> Array:
        return self._network(picture)[0][..., 0]


@dataclass(frozen=True)
class Box:
    """A part of a picture, in its pixels: left and top inclusive, right and bottom exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    def grown(self, sides: tuple[bool, bool, bool, bool], width: int, height: int) -> Box:
        """Larger by a quarter on each of the sides left, top, right, bottom that is marked, inside of the picture."""
        dx, dy = (self.right - self.left + 3) // 4, (self.bottom - self.top + 3) // 4
        left, top, right, bottom = sides
        return Box(
            max(self.left - dx * left, 0), max(self.top - dy * top, 0),
            min(self.right + dx * right, width), min(self.bottom + dy * bottom, height),
        )  # fmt: skip

    def answered(self, network: Segmenter, frame: Frame, size: tuple[int, int]) -> Array:
        """The network's answer for this part of a frame, in a picture of (width, height) `size`; 0 outside of it."""
        side = network.side
        part = frame[self.top : self.bottom, self.left : self.right]
        way = cv2.INTER_AREA if max(part.shape[:2]) > side else cv2.INTER_LINEAR
        answer = network(np.asarray(cv2.resize(part, (side, side), interpolation=way) / np.float32(255), np.float32))
        fx, fy = size[0] / frame.shape[1], size[1] / frame.shape[0]
        sx, sy = (self.right - self.left) * fx / side, (self.bottom - self.top) * fy / side
        # Answer pixel (u, v) has its centre at the box's corner + (u + 0.5, v + 0.5) steps.
        matrix = np.array([[sx, 0, self.left * fx + sx / 2 - 0.5], [0, sy, self.top * fy + sy / 2 - 0.5]])
        return np.asarray(cv2.warpAffine(answer, matrix, size, flags=cv2.INTER_LINEAR), dtype=np.float32)

    def touched(self, soft: Array, width: int, height: int) -> tuple[bool, bool, bool, bool]:
        """Whether the foreground of `soft` [h, w], a picture of width x height pixels made small, runs out of this box.

        The answer is for left, top, right and bottom. A side on the picture's own border never counts.
        """
        rows, columns = soft.shape
        fx, fy = columns / width, rows / height
        left, right = round(self.left * fx), round(self.right * fx) - 1
        top, bottom = round(self.top * fy), round(self.bottom * fy) - 1
        edges = (
            soft[:, left : left + 2],
            soft[top : top + 2],
            soft[:, right - 1 : right + 1],
            soft[bottom - 1 : bottom + 1],
        )
        inside = (self.left > 0, self.top > 0, self.right < width, self.bottom < height)
        reached = [
            open_ and edge.size > 0 and bool((edge > 0.5).any()) for open_, edge in zip(inside, edges, strict=True)
        ]
        return reached[0], reached[1], reached[2], reached[3]


def person_box(person: Keypoints, width: int, height: int) -> Box:
    """The box around one person [133, 3] in a picture of width x height pixels, with room for hair, hats and clothes.

    A limb that leaves the picture takes the box to the border there; so do legs that are not seen at all.
    """
    seen = person[person[:, 2] >= VALID_CONFIDENCE, :2]
    if not len(seen):
        return Box(0, 0, width, height)
    points = np.clip(seen, 0, (width, height))
    low, high = points.min(axis=0), points.max(axis=0)
    shown = np.clip(face_points(person), 0, (width, height))
    if len(shown):
        size = float(np.ptp(shown, axis=0).max())
        low = np.minimum(low, shown.min(axis=0) - (_HAIR * size, _HAT * size))
        high = np.maximum(high, shown.max(axis=0) + (_HAIR * size, 0))
    if not (person[_LEGS, 2] >= VALID_CONFIDENCE).any():
        high[1] = height
    room = _MARGIN * float((high - low).max()) + 1
    left, top = np.floor(np.maximum(low - room, 0)).astype(int)
    right, bottom = np.ceil(np.minimum(high + room, (width, height))).astype(int)
    return Box(int(left), int(top), max(int(right), int(left) + 1), max(int(bottom), int(top) + 1))
