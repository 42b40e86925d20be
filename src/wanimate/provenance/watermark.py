"""The invisible watermark: 32 bits spread over every frame, read back after the video was encoded anew or made smaller.

Each of 48 bits, the payload and its CRC, decides the sign of several hundred cells of a grid over the frame. Which cells, and
with what sign, a key decides. The grid is enlarged to the frame and added where the picture hides it. The reader takes the
picture back to the grid, removes what is smooth, and adds up the cells of each bit over all frames.

It withstands encoding and scaling. It does not withstand cropping, turning, or filming from a screen.
"""

from __future__ import annotations

import binascii
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
from torch import Tensor

from wanimate.types import Frame

PUBLIC_KEY = b"wanimate watermark 1"
"""The key where a house has none of its own: with it anybody can read the mark, and anybody who wants to can remove it."""
STRENGTH = 1.25
"""Levels of 255 (`benchmarks/watermark.py`)."""
QUIETEST = 42.5
"""Decibels between a frame and the marked one, at least: a busy frame gets less of the mark than `STRENGTH` says."""
BITS, CHECK = 32, 16
_CODE = BITS + CHECK
READ, THERE = 1.25, 1.45
"""Mean of |z| from which a payload with a right CRC counts, and from which a mark is said to be there without one."""
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)

Plane = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Found:
    """What a reader made of the frames.

    payload: the 32 bits; None where no CRC fits. there: whether a mark of this key is in the frames. score: mean of |z| over
    the bits, 0.8 without a mark. chance: how probable such a finding is without a mark, at most. frames: how many were looked at.
    """

    payload: int | None
    there: bool
    score: float
    chance: float
    frames: int


NOTHING = Found(None, False, 0.0, 1.0, 0)


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
        code = np.where(_bits(payload), 1, -1).astype(np.float32)
        cells = (signs * code[owners]).reshape(grid[1], grid[0])
        self._pattern: Plane = cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC) * (strength / 255)

    def on(self, frames: Tensor) -> Tensor:
        """Frames float32 [n, 3, H, W] in [0, 1] with the mark; those given stay as they are."""
        return torch.stack([self._one(frame) for frame in frames]) if len(frames) else frames

    def on_bytes(self, frame: Frame) -> Frame:
        """One frame, uint8 RGB [H, W, 3], with the mark."""
        whole = frame.astype(np.float32)
        luma: Plane = whole @ _LUMA / 255
        marked: npt.NDArray[Any] = whole + 255 * self._added(luma)[..., None]
        return np.clip(np.rint(marked), 0, 255).astype(np.uint8)

    def _one(self, frame: Tensor) -> Tensor:
        luma = torch.tensordot(torch.from_numpy(_LUMA), frame.detach().cpu().float(), 1).numpy()
        return (frame + torch.from_numpy(self._added(luma)).to(frame)).clamp(0, 1)

    def _added(self, luma: Plane) -> Plane:
        """What is added to a frame of this luma [H, W] in [0, 1]: more where it is busy."""
        mean, square = (cv2.blur(plane, (17, 17)) for plane in (luma, luma * luma))
        deviation = np.sqrt(np.maximum(square - mean * mean, 0))
        added = self._pattern * np.clip(0.7 + deviation * (255 / 12), 0.7, 2.2)
        most, level = 10 ** (-QUIETEST / 20), float(np.sqrt(np.mean(added * added)))
        return added * (most / level) if level > most else added


class Detector:
    """Reads marks of one key out of frames of one size. It is given frames one after the other.

    Args:
        width, height: of the frames, which may be those of the marked ones made smaller or larger.
    """

    def __init__(self, width: int, height: int, key: bytes = PUBLIC_KEY) -> None:
        self._key, self._count = key, 0
        self._sum = np.zeros(_grid(width, height)[::-1], np.float32)

    def add(self, frame: Frame) -> None:
        """Look at a frame, uint8 RGB [H, W, 3]."""
        luma = frame.astype(np.float32) @ _LUMA
        self._sum += _residual(cv2.resize(luma, self._sum.shape[::-1], interpolation=cv2.INTER_AREA))
        self._count += 1

    def found(self) -> Found:
        """What is in the frames given so far."""
        return read(self._sum, self._key, self._count)


def detect(frames: Iterable[Frame], key: bytes = PUBLIC_KEY) -> Found:
    """Read the mark out of frames of one size, uint8 RGB [H, W, 3] each."""
    detector: Detector | None = None
    for frame in frames:
        detector = detector or Detector(frame.shape[1], frame.shape[0], key)
        detector.add(frame)
    return NOTHING if detector is None else detector.found()


def read(residual: Plane, key: bytes, frames: int) -> Found:
    """The mark in a sum of residuals of frames on one grid, [rows, columns]."""
    scores = correlations(residual, key)
    payload, score = _payload(scores > 0), float(np.abs(scores).mean())
    told = payload is not None and score >= READ
    chance = chance_of(score) * (2.0**-CHECK if told else 1.0)
    return Found(payload if told else None, told or score >= THERE, score, chance, frames)


def correlations(residual: Plane, key: bytes) -> npt.NDArray[np.float64]:
    """z of each bit: the sum of its cells by their signs, over what it deviates by without a mark."""
    flat = residual.ravel().astype(np.float64)
    signs, owners = _cells(key, residual.shape[::-1])
    sums = np.bincount(owners, flat * signs, _CODE)
    spread = np.sqrt(np.bincount(owners, flat * flat, _CODE))
    return np.divide(sums, spread, out=np.zeros(_CODE), where=spread > 0)


def chance_of(score: float) -> float:
    """A bound of the probability that the mean of |z| is at least `score` without a mark.

    Then z is a sum of terms with random signs over the root of their squares. So E exp(t |z|) is at most
    2 exp(t^2 / 2), whatever the frames show (Hoeffding), and Chernoff's bound follows with t = `score`.
    """
    return math.exp(min(0.0, _CODE * (math.log(2) - score * score / 2)))


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
    """The sign of each cell, and the bit it belongs to. From SHAKE-256, so that every version of every library agrees."""
    count = grid[0] * grid[1]
    stream = hashlib.shake_256(key + b"\0%dx%d" % grid).digest(9 * count)
    signs = np.frombuffer(stream, np.uint8, count).astype(np.float32) % 2 * 2 - 1
    order = np.argsort(np.frombuffer(stream, "<u8", count, count), kind="stable")
    owners = np.empty(count, np.intp)
    owners[order] = np.arange(count) % _CODE
    return signs, owners


def _bits(payload: int) -> npt.NDArray[np.bool_]:
    data = payload.to_bytes(BITS // 8, "big")
    whole = data + binascii.crc_hqx(data, 0xFFFF).to_bytes(CHECK // 8, "big")
    return np.unpackbits(np.frombuffer(whole, np.uint8)).astype(bool)


def _payload(bits: npt.NDArray[np.bool_]) -> int | None:
    """The payload where the CRC is right."""
    whole = np.packbits(bits).tobytes()
    data, check = whole[: BITS // 8], whole[BITS // 8 :]
    return int.from_bytes(data, "big") if binascii.crc_hqx(data, 0xFFFF).to_bytes(2, "big") == check else None
