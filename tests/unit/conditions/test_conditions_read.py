"""Segments are read ahead in another thread, once, and what goes wrong there is said where the frames are asked for."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest

from wanimate.conditions.read import GuidesReader
from wanimate.media.video import ArrayFrames
from wanimate.types import Frames, Guides, Segment

FIRST, SECOND = Segment(0, 0, 9, 0), Segment(1, 8, 9, 1)


class Watched(ArrayFrames):
    """Remembers which thread asked for which frames; breaks off where it is told to."""

    def __init__(self, count: int, broken: bool = False) -> None:
        super().__init__(np.arange(count, dtype=np.uint8).repeat(16 * 16 * 3).reshape(count, 16, 16, 3))
        self.asked: list[tuple[str, list[int]]] = []
        self.broken = broken

    def take(self, indices: Sequence[int]) -> Frames:
        self.asked.append((threading.current_thread().name, list(indices)))
        if self.broken:
            raise OSError("the disk is gone")
        return super().take(indices)


def guides(pose: Watched, replacement: bool = False) -> Guides:
    others = {"background": Watched(pose.count), "mask": Watched(pose.count)} if replacement else {}
    mode = "replacement" if replacement else "animation"
    return Guides(mode, Fraction(24), pose, Watched(pose.count), np.zeros((16, 16, 3), np.uint8), **others)


@pytest.mark.parametrize("replacement", [False, True])
def test_what_was_read_ahead_is_not_read_again(replacement: bool) -> None:
    pose = Watched(14)
    reader = GuidesReader(guides(pose, replacement))
    reader.read(FIRST)
    reader.begin(SECOND)
    found = reader.read(SECOND)
    (_, first), (thread, second) = pose.asked
    assert first == list(range(9))
    assert second == [8, 9, 10, 11, 12, 13, 12, 11, 10]  # past the end it runs backwards
    assert thread.startswith("guides")
    for frames in (found.pose, found.face, *((found.background, found.mask) if replacement else ())):
        assert frames is not None
        assert frames[:, 0, 0, 0].tolist() == second
    assert (found.background is None) == (not replacement)


def test_another_segment_than_expected() -> None:
    pose = Watched(20)
    reader = GuidesReader(guides(pose))
    reader.begin(SECOND)
    assert reader.read(FIRST).pose[:, 0, 0, 0].tolist() == list(range(9))
    assert reader.read(SECOND).pose[:, 0, 0, 0].tolist() == list(range(8, 17))


def test_nothing_is_read_after_waiting() -> None:
    pose = Watched(20)
    reader = GuidesReader(guides(pose))
    reader.begin(SECOND)
    reader.wait()
    assert len(pose.asked) == 1
    pose.asked.clear()
    reader.read(SECOND)
    assert pose.asked == []


def test_an_error_waits_for_whoever_asks() -> None:
    reader = GuidesReader(guides(Watched(20, broken=True)))
    reader.begin(SECOND)
    reader.wait()
    with pytest.raises(OSError, match="the disk is gone"):
        reader.read(SECOND)


@pytest.mark.timeout(30)
def test_the_videos_of_a_segment_are_read_side_by_side() -> None:
    together = threading.Barrier(4)

    class Meeting(Watched):
        def take(self, indices: Sequence[int]) -> Frames:
            together.wait(10)
            return super().take(indices)

    found = GuidesReader(Guides("replacement", Fraction(24), *(Meeting(9) for _ in range(2)), np.zeros((16, 16, 3), np.uint8),
                                background=Meeting(9), mask=Meeting(9))).read(FIRST)  # fmt: skip
    assert found.mask is not None
    assert len(found.mask) == 9
