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


def _head(centres, side=100.0, noise=0.0, seed=0):
    """68 points on a circle of `side` diameter around each centre."""
    random = np.random.default_rng(seed)
    angles = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1) * side / 2
    points = np.asarray(centres, dtype=float)[:, None] + circle + random.normal(0, noise, (len(centres), 68, 2))
    return np.concatenate([points, np.ones((len(centres), 68, 1))], axis=2)


def test_square_agrees_with_the_published_box_on_a_square_face():
    points = _head([(300, 200)] * 9)
    square = face.steady_squares(points, np.ones(9, bool), Fraction(30))[4]
    x1, x2, y1, y2 = face.published_box(points[0], 1000, 1000)
    assert square[2] == pytest.approx(x2 - x1, abs=1.5)
    assert square[:2] == pytest.approx(((x1 + x2) / 2, (y1 + y2) / 2), abs=1.0)


def test_squares_are_steadier_than_the_points():
    points = _head([(300 + 2 * i, 200) for i in range(60)], noise=2.0)
    squares = face.steady_squares(points, np.ones(60, bool), Fraction(30))
    raw = np.array([face._square(p) for p in points])

    def jitter(line):
        return np.abs(np.diff(line, 2)).mean()

    assert jitter(squares[:, 2]) < 0.1 * jitter(raw[:, 2])
    assert jitter(squares[:, 0]) < 0.5 * jitter(raw[:, 0])
    np.testing.assert_allclose(squares[5:-5, 0], 300 + 2 * np.arange(5, 55), atol=1.5)


def test_lost_faces_are_bridged_and_people_gone_leave_black():
    points = _head([(100 + i, 100) for i in range(30)])
    points[10:15, :, 2] = 0  # turned away
    valid = np.ones(30, bool)
    valid[20:25] = False
    squares = face.steady_squares(points, valid, Fraction(30))
    assert squares[12, 0] == pytest.approx(112, abs=0.5)
    assert np.isnan(squares[20:25]).all()
    assert np.isfinite(squares[25:]).all()
    assert not face.square_crop(np.full((50, 50, 3), 255, np.uint8), squares[22], 16).any()


def test_square_crop_is_exact_where_no_resampling_is_needed():
    frame = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    crop = face.square_crop(frame, np.array([20.0, 18.0, 16.0]), 16)
    np.testing.assert_array_equal(crop, frame[10:26, 12:28])
    half = face.square_crop(frame, np.array([20.0, 18.0, 32.0]), 16)
    want = frame[2:34, 4:36].reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
    assert np.abs(half - want).max() <= 0.5
