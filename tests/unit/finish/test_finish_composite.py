from __future__ import annotations

import numpy as np
import pytest

from wanimate.finish.composite import composite, seam
from wanimate.finish.decode import to_pixels
from wanimate.media.levels import from_levels


def _frames() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    made, scene = random.integers(0, 256, (2, 3, 48, 64, 3), dtype=np.uint8)
    mask = np.zeros_like(scene)
    mask[0, 20:30, 25:40] = 255
    mask[1] = 255
    scene[mask > 0] = 0
    return made, scene, mask


@pytest.mark.parametrize("feather", [0, 3, 8])
def test_pixels_beyond_the_seam_are_the_scenes_own(feather: int) -> None:
    made, scene, mask = _frames()
    out = to_pixels(composite(from_levels(made), scene, seam(mask, feather)))
    near = np.zeros((48, 64), bool)
    near[20 - feather : 30 + feather, 25 - feather : 40 + feather] = True
    np.testing.assert_array_equal(out[0][~near], scene[0][~near])
    np.testing.assert_array_equal(out[0, 20:30, 25:40], made[0, 20:30, 25:40])
    np.testing.assert_array_equal(out[1], made[1])
    np.testing.assert_array_equal(out[2], scene[2])  # a frame without the person


def test_the_seam_fades_from_one_to_the_other() -> None:
    _, scene, mask = _frames()
    made, scene = np.full_like(scene, 200), np.where(mask > 0, 0, np.full_like(scene, 100))
    row = to_pixels(composite(from_levels(made), scene, seam(mask, 8)))[0, 25, 40:60, 0].astype(int)
    assert (np.diff(row) <= 0).all()
    assert row[0] > 180
    assert 130 < row[3] < 170
    assert (row[8:] == 100).all()
