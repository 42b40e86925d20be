"""The invisible watermark: 32 bits spread over every frame, read back after the video was encoded anew or made smaller.

Each of 162 symbols of a code (`code`) decides the sign of some ninety cells of a grid over the frame. Which cells, and with
what sign, a key decides. The grid is enlarged to the frame and added where the picture hides it. The reader takes the picture
back to the grid, removes what is smooth, adds up over all frames, and finds the payload that fits best.

It withstands encoding and scaling. It does not withstand cropping, turning, or filming from a screen.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from wanimate.provenance.code import BITS, SYMBOLS, decode, encode
from wanimate.types import Frame

PUBLIC_KEY = b"wanimate watermark 1"
"""The key where a house has none of its own: with it anybody can read the mark, and anybody who wants to can remove it."""
STRENGTH = 1.25
"""Levels of 255 (`benchmarks/watermark.py`)."""
QUIETEST = 42.5
"""Decibels between a frame and the marked one, at least: a busy frame gets less of the mark than `STRENGTH` says."""
_MOST = 10 ** (-QUIETEST / 20)
_AROUND = 17
"""Side in pixels of the square whose deviation tells how busy the picture is."""
FITS = 8.6
"""How well a payload has to fit (`code.decode`) to count: by chance one does in 4 of 10 million unmarked videos, at most."""
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)

Plane = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Found:
    """What a reader made of the frames.

    payload: the 32 bits; None where there is no mark of this key, or too little is left of it. score: how well the best payload
    fits, about 8 without a mark. chance: how probable a payload that fits so well is without a mark, at most. frames: how many
    were looked at.
    """

    payload: int | None
    score: float
    chance: float
    frames: int


NOTHING = Found(None, 0.0, 1.0, 0)


class Watermark:
    """Marks frames of one size with one payload.

    Args:
        width, height: of the frames in pixels.
        payload: 0 to 2^32 - 1.
        key: who has it can read the mark.
        strength: levels of 255.
    """

    def __init__(
        self, width: int, height: int, payload: int, key: bytes = PUBLIC_KEY, strength: float = STRENGTH
    ) -> None:
        grid = _grid(width, height)
        signs, owners = _cells(key, grid)
        cells = (signs * encode(payload)[owners]).reshape(grid[1], grid[0]).astype(np.float32)
        self._tensor: Tensor | None = None
        self._pattern: Plane = cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC) * (strength / 255)

    def on(self, frames: Tensor) -> Tensor:
        """Frames float32 [n, 3, H, W] in [0, 1] with the mark; those given stay as they are, and on their device."""
        if frames.device.type != "cpu":
            return self.on_device(frames)
        return torch.stack([self._one(frame) for frame in frames]) if len(frames) else frames

    def on_device(self, frames: Tensor) -> Tensor:
        """The same by PyTorch alone, which frames on a GPU need not leave it for. On a processor OpenCV is six times as fast.
        The two differ by less than a thousandth of a level."""
        if self._tensor is None or self._tensor.device != frames.device:
            self._tensor = torch.from_numpy(self._pattern).to(frames)
        luma = torch.einsum("nchw,c->nhw", frames, torch.from_numpy(_LUMA).to(frames))[:, None]
        mean = _mean(luma)
        deviation = (_mean(luma * luma) - mean * mean).clamp_min(0).sqrt()
        added = self._tensor * (0.7 + deviation * (255 / 12)).clamp(0.7, 2.2)
        level = added.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return (frames + added * (_MOST / level).clamp(max=1)).clamp(0, 1)

    def on_bytes(self, frame: Frame) -> Frame:
        """One frame, uint8 RGB [H, W, 3], with the mark."""
        whole = frame.astype(np.float32)
        luma: npt.NDArray[Any] = whole @ _LUMA / 255
        marked: npt.NDArray[Any] = whole + 255 * self._added(luma)[..., None]
        return np.clip(np.rint(marked), 0, 255).astype(np.uint8)

    def _one(self, frame: Tensor) -> Tensor:
        luma = torch.tensordot(torch.from_numpy(_LUMA), frame.detach().cpu().float(), 1).numpy()
        return (frame + torch.from_numpy(self._added(luma)).to(frame)).clamp(0, 1)

    def _added(self, luma: Plane) -> Plane:
        """What is added to a frame of this luma [H, W] in [0, 1]: more where it is busy."""
        mean, square = (cv2.blur(plane, (_AROUND, _AROUND)) for plane in (luma, luma * luma))
        deviation = np.sqrt(np.maximum(square - mean * mean, 0))
        added = self._pattern * np.clip(0.7 + deviation * (255 / 12), 0.7, 2.2)
        level = float(np.sqrt(np.mean(added * added)))
        return added * (_MOST / level) if level > _MOST else added


class Detector:
    """Reads marks of one key out of frames of one size. It is given frames one after the other.

    Args:
        width, height: of the frames, which may be those of the marked ones made smaller or larger.
    """

    def __init__(self, width: int, height: int, key: bytes = PUBLIC_KEY) -> None:
        self._key, self._count = key, 0
        self.residual = np.zeros(_grid(width, height)[::-1], np.float32)

    def add(self, frame: Frame) -> None:
        """Look at a frame, uint8 RGB [H, W, 3]."""
        luma = frame.astype(np.float32) @ _LUMA
        self.residual += _residual(cv2.resize(luma, self.residual.shape[::-1], interpolation=cv2.INTER_AREA))
        self._count += 1

    def found(self) -> Found:
        """What is in the frames given so far."""
        return read(self.residual, self._key, self._count)


def detect(frames: Iterable[Frame], key: bytes = PUBLIC_KEY) -> Found:
    """Read the mark out of frames of one size, uint8 RGB [H, W, 3] each."""
    detector: Detector | None = None
    for frame in frames:
        detector = detector or Detector(frame.shape[1], frame.shape[0], key)
        detector.add(frame)
    return NOTHING if detector is None else detector.found()


def read(residual: Plane, key: bytes, frames: int) -> Found:
    """The mark in a sum of residuals of frames on one grid, [rows, columns]."""
    payload, score = decode(correlations(residual, key))
    chance = chance_of(score)
    return Found(payload if score >= FITS else None, score, chance, frames)


def correlations(residual: Plane, key: bytes) -> npt.NDArray[np.float64]:
    """z of each symbol: the sum of its cells by their signs, over what it deviates by without a mark."""
    flat = residual.ravel().astype(np.float64)
    signs, owners = _cells(key, residual.shape[::-1])
    sums = np.bincount(owners, flat * signs, SYMBOLS)
    spread = np.sqrt(np.bincount(owners, flat * flat, SYMBOLS))
    return np.divide(sums, spread, out=np.zeros(SYMBOLS), where=spread > 0)


def chance_of(score: float) -> float:
    """A bound of the probability that any of the 2^32 payloads fits with `score` or better without a mark.

    Without one, z is a sum of terms with random signs over the root of their squares. So E exp(t z) is at most exp(t^2 / 2),
    whatever the frames show (Hoeffding). The same holds for the fit of one payload, a mean of such z times the root of their
    number. Chernoff's bound for one is exp(-score^2 / 2), and there are 2^32.
    """
    return min(1.0, math.exp(min(0.0, BITS * math.log(2) - score * score / 2)))


def _mean(planes: Tensor) -> Tensor:
    """Mean over the square around each pixel of planes [n, 1, H, W], the edges mirrored as by `cv2.blur`."""
    half = _AROUND // 2
    wide = F.pad(planes, (half, half, half, half), mode="reflect")
    return F.avg_pool2d(F.avg_pool2d(wide, (_AROUND, 1), stride=1), (1, _AROUND), stride=1)


def _residual(luma: Plane) -> Plane:
    """Luma on the grid without what is smooth, at the same level everywhere, without outliers."""
    rest = luma - (cv2.medianBlur(luma, 3) + cv2.blur(luma, (3, 3))) / 2
    level = np.sqrt(cv2.blur(rest * rest, (7, 7)))
    return np.clip(rest / (level + 1e-3), -2, 2)


def _grid(width: int, height: int) -> tuple[int, int]:
    """Columns and rows of the grid, by the shape of the frame."""
    shape = width / height
    return (160, 90) if shape >= 4 / 3 else (90, 160) if shape <= 3 / 4 else (120, 120)


@lru_cache(maxsize=8)
def _cells(key: bytes, grid: tuple[int, int]) -> tuple[Plane, npt.NDArray[np.intp]]:
    """The sign of each cell, and the symbol it belongs to. From SHAKE-256, so that every version of every library agrees."""
    count = grid[0] * grid[1]
    stream = hashlib.shake_256(key + b"\0%dx%d" % grid).digest(9 * count)
    signs = np.frombuffer(stream, np.uint8, count).astype(np.float32) % 2 * 2 - 1
    order = np.argsort(np.frombuffer(stream, "<u8", count, count), kind="stable")
    owners = np.empty(count, np.intp)
    owners[order] = np.arange(count) % SYMBOLS
    return signs, owners
