"""The matte of what was made: soft on edges, and steadier than the outlines it is made of."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from wanimate.preprocess.masks.matte import SoftMatte
from wanimate.types import Frame


class Flickering:
    """Outlines of a disc whose border jumps by two pixels from frame to frame."""

    def begin(self, *_: Any) -> Flickering:
        self.count = 0
        return self

    def outline(self, index: int) -> np.ndarray:
        return cv2.circle(np.zeros((96, 128), np.float32), (64, 48), 30 + 2 * (index % 2), 1.0, -1)

    def add(self, frame: Frame) -> Iterator[tuple[Frame, np.ndarray]]:
        self.count += 1
        yield frame, self.outline(self.count - 1)


def scene(grey: int = 200) -> Frame:
    noise = np.random.default_rng(0).integers(0, 40, (96, 128, 1), np.uint8).repeat(3, 2)
    return np.asarray(cv2.circle(noise, (64, 48), 31, (grey,) * 3, -1))


def mattes(cuts: list[int]) -> list[np.ndarray]:
    matte = SoftMatte(Flickering(), np.zeros((8, 133, 3)), np.ones(8, bool), cuts)  # type: ignore[arg-type]
    return [found for _ in range(8) for found in matte.add(scene())]


def test_borders_jump_less_than_the_outlines() -> None:
    flicker = Flickering().begin()
    raw = np.abs(flicker.outline(0) - flicker.outline(1)).mean()
    found = mattes([])
    assert max(np.abs(a - b).mean() for a, b in pairwise(found[3:])) < 0.55 * raw
    assert all(one[40:56, 56:72].min() > 0.99 and one[:8].max() < 0.01 for one in found)


def test_nothing_is_carried_over_a_cut() -> None:
    whole, cut = mattes([]), mattes([5])
    assert (cut[5] == mattes([1, 2, 3, 4, 5])[5]).all()
    assert (cut[5] != whole[5]).any()
