"""The mark: in the lower right corner, read on light and dark, the same in every frame, nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from wanimate.finish.decode import to_pixels
from wanimate.finish.watermark import Watermark
from wanimate.media.levels import from_levels
from wanimate.types import Frames


def marked_by(mark: Watermark, frames: Frames) -> Frames:
    return to_pixels(mark.on(from_levels(frames))[0])


def grey(level: int, width: int, height: int, count: int = 1) -> Frames:
    return np.full((count, height, width, 3), level, np.uint8)


@pytest.mark.parametrize("size", [(1280, 720), (720, 1280), (320, 240)])
@pytest.mark.parametrize("level", [0, 120, 255])
def test_the_mark_is_plain_small_and_in_its_corner(size: tuple[int, int], level: int) -> None:
    before = grey(level, *size)
    (marked,) = marked_by(Watermark(*size), before).astype(int)
    rows, columns = np.nonzero(np.abs(marked[..., 0] - level) > 60)
    assert len(rows) > 100
    assert rows.min() > 0.9 * size[1]
    assert columns.min() > 0.6 * size[0]
    assert columns.max() - columns.min() > 0.08 * size[0]
    assert (before == level).all()


def test_every_frame_has_the_same_mark_and_the_rest_is_untouched() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 240, 320, 3), np.uint8)
    mark = Watermark(320, 240)
    marked = marked_by(mark, frames)
    np.testing.assert_array_equal(marked[:, :210], frames[:, :210])
    np.testing.assert_array_equal(marked[:, :, :200], frames[:, :, :200])
    np.testing.assert_array_equal(marked[1:], marked_by(mark, frames[1:]))
    still = marked_by(mark, grey(90, 320, 240, 3))
    np.testing.assert_array_equal(still[0], still[2])


def test_frames_smaller_than_the_mark_keep_their_size() -> None:
    assert marked_by(Watermark(16, 16), grey(0, 16, 16, 2)).shape == (2, 16, 16, 3)
