"""Running the TFLite detectors: networks, rotated square crops, anchor boxes. Nothing here knows about people.

Crops are squares in the picture, and answers of a network are in pixels of the picture. The tensor layouts come from the
model files (input size, output shapes) and from the constants of the published MediaPipe graphs.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter

from wanimate.preprocess.detect.models import read_model
from wanimate.types import Frame

Array = npt.NDArray[np.float32]
Vectors = npt.NDArray[np.float64]


_THREADS = min(os.cpu_count() or 1, 4)


class Network:
    """One TFLite model: float32 [S, S, 3] in, its outputs ordered by name out.

    Raises:
        InputError: the file is not the published one.
    """

    def __init__(self, path: Path) -> None:
        content = read_model(path)
        with _quiet():
            self._interpreter: Any = Interpreter(model_content=content, num_threads=_THREADS)
            self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._outputs = sorted(self._interpreter.get_output_details(), key=lambda d: d["name"])
        self.size = int(self._input["shape"][1])

    def __call__(self, crop: Array) -> list[Array]:
        self._interpreter.set_tensor(self._input["index"], crop[None])
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(d["index"])[0] for d in self._outputs]


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the line that LiteRT writes to the process's stderr when it starts."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@dataclass(frozen=True)
class Square:
    """A square in a picture: centre and side in pixels, `angle` radians by which it is rotated clockwise."""

    x: float
    y: float
    side: float
    angle: float = 0.0

    @classmethod
    def at(cls, centre: Vectors, side: float, angle: float = 0.0) -> Square:
        """A square around a point [2]."""
        return cls(float(centre[0]), float(centre[1]), float(side), angle)

    def scaled(self, factor: float) -> Square:
        return Square(self.x, self.y, self.side * factor, self.angle)

    def shifted(self, right: float, down: float) -> Square:
        """Moved along its own axes by parts of its side."""
        dx, dy = self.side * right, self.side * down
        c, s = math.cos(self.angle), math.sin(self.angle)
        return Square(self.x + c * dx - s * dy, self.y + s * dx + c * dy, self.side, self.angle)

    def to_picture(self, points: npt.NDArray[Any]) -> Vectors:
        """Points [..., 2] with 0..1 across the square to pixels of the picture."""
        local = (np.asarray(points, dtype=np.float64) - 0.5) * self.side
        c, s = math.cos(self.angle), math.sin(self.angle)
        x, y = local[..., 0], local[..., 1]
        return np.stack([self.x + c * x - s * y, self.y + s * x + c * y], axis=-1)

    def to_square(self, points: npt.NDArray[Any]) -> Vectors:
        """The inverse of `to_picture`."""
        moved = np.asarray(points, dtype=np.float64) - (self.x, self.y)
        c, s = math.cos(self.angle), math.sin(self.angle)
        x, y = moved[..., 0], moved[..., 1]
        return np.stack([c * x + s * y, c * y - s * x], axis=-1) / self.side + 0.5


class Picture:
    """A frame together with its halves, made when first needed, so that small crops of large frames do not alias."""

    def __init__(self, frame: Frame) -> None:
        self._levels = [frame]
        self.height, self.width = frame.shape[:2]

    def whole(self) -> Square:
        """The smallest square around the whole picture."""
        return Square(self.width / 2, self.height / 2, float(max(self.width, self.height)))

    def crop(self, square: Square, size: int, low: float, border: int = cv2.BORDER_CONSTANT) -> Array:
        """The square as float32 [size, size, 3] with values in [low, 1]; outside of the picture is black."""
        level = 0
        while square.side / 2 ** (level + 1) >= size and min(self._levels[level].shape[:2]) > 1:
            level += 1
            if level == len(self._levels):
                self._levels.append(_halved(self._levels[-1]))
        # Corners of the square in pixel coordinates: pixel centres lie at half positions.
        corners = square.to_picture(np.array([[0, 0], [1, 0], [0, 1]])) / 2**level - 0.5
        target = np.array([[0, 0], [size, 0], [0, size]], dtype=np.float32) - np.float32(0.5)
        matrix = cv2.getAffineTransform(corners.astype(np.float32), target)
        crop = cv2.warpAffine(self._levels[level], matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)
        return np.asarray(crop * np.float32((1 - low) / 255) + np.float32(low), dtype=np.float32)


def _halved(frame: Frame) -> Frame:
    height, width = frame.shape[:2]
    half = cv2.resize(
        frame[: height // 2 * 2, : width // 2 * 2], (width // 2, height // 2), interpolation=cv2.INTER_AREA
    )
    return np.asarray(half, dtype=np.uint8)


def anchor_centres(size: int, groups: Sequence[tuple[int, int]]) -> Vectors:
    """Centres [n, 2] in 0..1 of a detector's anchors, for (stride, anchors a cell) groups in output order."""
    out = []
    for stride, repeat in groups:
        cells = size // stride
        line = (np.arange(cells) + 0.5) / cells
        grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 1, 2)
        out.append(np.broadcast_to(grid, (cells * cells, repeat, 2)).reshape(-1, 2))
    return np.concatenate(out)


@dataclass(frozen=True)
class Detection:
    """One detection in picture pixels: score 0..1, centre and size of its box [4], key points [n, 2]."""

    score: float
    box: Vectors
    points: Vectors

    @property
    def area(self) -> float:
        return float(self.box[2] * self.box[3])


class Detector:
    """A single-shot detector with unit anchors. Overlapping answers are averaged by score."""

    def __init__(self, path: Path, groups: Sequence[tuple[int, int]], low: float, threshold: float) -> None:
        self._network = Network(path)
        self._anchors = anchor_centres(self._network.size, groups)
        self._low, self._threshold = low, threshold

    def __call__(self, picture: Picture, where: Square) -> list[Detection]:
        """What is found inside a square of the picture, best first."""
        size = self._network.size
        first, second = self._network(picture.crop(where, size, self._low))
        boxes, logits = (first, second) if first.shape[1] > second.shape[1] else (second, first)
        with np.errstate(over="ignore"):
            scores = 1 / (1 + np.exp(-logits[:, 0].astype(np.float64)))
        keep = np.flatnonzero(scores >= self._threshold)
        values = boxes[keep].astype(np.float64).reshape(len(keep), boxes.shape[1] // 2, 2) / size
        values[:, 0] += self._anchors[keep]
        values[:, 2:] += self._anchors[keep, None]
        found = []
        for score, merged in _merged(scores[keep], values):
            centre = where.to_picture(merged[0])
            box = np.concatenate([centre, merged[1] * where.side])
            found.append(Detection(score, box, where.to_picture(merged[2:])))
        return found


def _merged(scores: Vectors, values: Vectors, overlap: float = 0.3) -> list[tuple[float, Vectors]]:
    """Weighted suppression: each best box takes the score-weighted mean of all that overlap it. values [n, 2+k, 2]."""
    order = np.argsort(-scores, kind="stable")
    low, high = values[:, 0] - values[:, 1] / 2, values[:, 0] + values[:, 1] / 2
    area = np.prod(np.maximum(high - low, 0), axis=1)
    out = []
    while len(order):
        best = order[0]
        shared = np.prod(
            np.clip(np.minimum(high[order], high[best]) - np.maximum(low[order], low[best]), 0, None), axis=1
        )
        near = shared > overlap * (area[order] + area[best] - shared)
        near[0] = True
        group = order[near]
        out.append((float(scores[best]), np.average(values[group], axis=0, weights=scores[group])))
        order = order[~near]
    return out
