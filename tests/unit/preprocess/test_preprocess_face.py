from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from wanimate.preprocess.pose import face


def test_box_golden(golden_json):
    cases = golden_json("face_bbox.json")
    assert len(cases) == 40
    for case in cases:
        size = case["width"], case["height"]
        points = np.column_stack([np.array(case["face69"])[1:] * size, np.ones(68)])
        box = face.published_box(points, *size)
        if case["error"]:
            assert (box, case["box_x1x2y1y2"]) == (None, None)
            assert (case["crop_shape_hw_numpy_slicing"], case["reference_resize_raises"]) == (None, None)
        else:
            x1, x2, y1, y2 = box
            assert list(box) == case["box_x1x2y1y2"]
            crop = np.empty(size[::-1])[y1:y2, x1:x2]
            assert list(crop.shape) == case["crop_shape_hw_numpy_slicing"]
            assert (crop.size == 0) == case["reference_resize_raises"]
        assert face.is_usable(box) == (case["degenerate"] is False)


def test_crop_golden(golden_npz):
    data = golden_npz("face_crop.npz")
    x, y = data["sample_xy"].T
    for box, want in zip(data["boxes_x1x2y1y2"], data["values"], strict=True):
        got = face.published_crop(data["image"], tuple(int(v) for v in box), 512)
        np.testing.assert_array_equal(got[y, x], want)


def _heads(centres, side=100.0, noise=0.0, seed=0):
    """People whose 68 face points lie on a circle of `side` diameter around each centre, shoulders and hips below."""
    random, centres = np.random.default_rng(seed), np.asarray(centres, dtype=float)
    angles = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1) * side / 2
    points = np.zeros((len(centres), 133, 3))
    spots = {0: (0, 0.1), 1: (0.2, -0.1), 2: (-0.2, -0.1), 3: (0.5, 0), 4: (-0.5, 0), 5: (1, 1.5), 6: (-1, 1.5)}
    for i, spot in (spots | {11: (0.5, 4), 12: (-0.5, 4)}).items():
        points[:, i, :2] = centres + np.multiply(spot, side)
    points[:, 23:91, :2] = centres[:, None] + circle + random.normal(0, noise, (len(centres), 68, 2))
    points[..., 2] = 1
    return points


def test_square_agrees_with_the_published_box_on_a_square_face():
    points = _heads([(300, 200)] * 9)
    square = face.steady_squares(points, np.ones(9, bool), Fraction(30))[4]
    x1, x2, y1, y2 = face.published_box(points[0, 23:91], 1000, 1000)
    assert square[2] == pytest.approx(x2 - x1, abs=1.5)
    assert square[:2] == pytest.approx(((x1 + x2) / 2, (y1 + y2) / 2), abs=1.0)


def test_squares_are_steadier_than_the_points():
    points = _heads([(300 + 2 * i, 200) for i in range(60)], noise=2.0)
    squares = face.steady_squares(points, np.ones(60, bool), Fraction(30))
    raw = np.array([face._square(p) for p in points[:, 23:91]])

    def jitter(line):
        return np.abs(np.diff(line, 2)).mean()

    assert jitter(squares[:, 2]) < 0.1 * jitter(raw[:, 2])
    assert jitter(squares[:, 0]) < 0.5 * jitter(raw[:, 0])
    np.testing.assert_allclose(squares[5:-5, 0], 300 + 2 * np.arange(5, 55), atol=1.5)


ARC = [(500 + 300 * np.cos(a), 500 - 300 * np.sin(a)) for a in np.linspace(0, np.pi, 20)]
"""A head that swings over in a wide arc."""


def test_where_the_face_is_lost_the_square_follows_the_head():
    points = _heads(ARC)
    points[4:16, 23:91, 2] = 0
    squares = face.steady_squares(points, np.ones(20, bool), Fraction(10))
    assert np.hypot(*(squares[:, :2] - ARC).T).max() < 30  # a straight line from 4 to 16 is up to 250 pixels off
    np.testing.assert_allclose(squares[:, 2], squares[0, 2], rtol=0.05)


def test_a_face_never_seen_is_where_heads_have_theirs():
    points = _heads(ARC)
    want = face.steady_squares(points, np.ones(20, bool), Fraction(10))
    points[:, 23:91] = 0
    squares = face.steady_squares(points, np.ones(20, bool), Fraction(10))
    assert np.hypot(*(squares[:, :2] - want[:, :2]).T).max() < 0.4 * want[0, 2]
    assert 0.7 < np.median(squares[:, 2] / want[:, 2]) < 1.4


def test_a_face_beside_the_nose_is_not_believed():
    points = _heads(ARC)
    points[7:9, 23:91, :2] += (150, 0)
    assert face.made_out(points).tolist() == [i not in (7, 8) for i in range(20)]
    squares = face.steady_squares(points, np.ones(20, bool), Fraction(10))
    assert np.hypot(*(squares[:, :2] - ARC).T).max() < 30


@pytest.mark.parametrize(
    ("fps", "gone", "black"), [(30, 3, False), (30, 4, True), (30, 12, True), (10, 1, False), (10, 2, True)]
)
def test_heads_that_look_away_are_black_unless_it_is_for_a_moment(fps, gone, black):
    points = _heads(ARC)
    points[5 : 5 + gone, 23:91, 2] = points[5 : 5 + gone, :3, 2] = 0
    squares = face.steady_squares(points, np.ones(20, bool), Fraction(fps))
    assert np.isnan(squares[5 : 5 + gone]).all() == black
    assert np.isfinite(np.delete(squares, np.s_[5 : 5 + gone], axis=0)).all()
    assert face.square_crop(np.full((50, 50, 3), 255, np.uint8), squares[5], 16).any() != black


def test_people_gone_leave_black():
    valid = np.ones(30, bool)
    valid[20:25] = False
    squares = face.steady_squares(_heads([(100 + i, 100) for i in range(30)]), valid, Fraction(30))
    assert np.isnan(squares[20:25]).all()
    assert np.isfinite(squares[25:]).all()


def test_each_shot_has_squares_of_its_own():
    close, wide = _heads([(300 + i, 200) for i in range(12)], 150.0), _heads([(310 + i, 205) for i in range(12)], 50.0)
    close[9:, 23:91, 2] = 0  # lost just before the cut
    fps, valid = Fraction(30), np.ones(12, bool)
    alone = [face.steady_squares(shot, valid, fps) for shot in (close, wide)]
    both = face.steady_squares(np.concatenate([close, wide]), np.ones(24, bool), fps, cuts=(12,))
    np.testing.assert_allclose(both, np.concatenate(alone), rtol=0, atol=1e-9)
    assert both[11, 2] == pytest.approx(3 * both[12, 2], rel=0.05)


def test_square_crop_is_exact_where_no_resampling_is_needed():
    frame = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    crop = face.square_crop(frame, np.array([20.0, 18.0, 16.0]), 16)
    np.testing.assert_array_equal(crop, frame[10:26, 12:28])
    half = face.square_crop(frame, np.array([20.0, 18.0, 32.0]), 16)
    want = frame[2:34, 4:36].reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
    assert np.abs(half - want).max() <= 0.5
