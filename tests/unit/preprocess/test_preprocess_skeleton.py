from __future__ import annotations

import cv2
import numpy as np
import pytest

from wanimate.media.resize import letterbox
from wanimate.preprocess.pose.keypoints import split
from wanimate.preprocess.pose.skeleton import draw, stick_widths

EXACT = cv2.__version__.startswith("5.")


def _draw(points, width, height):
    parts = split(points)
    return draw(parts.body, parts.left_hand, parts.right_hand, width, height)


def _agree(got, want):
    if EXACT:
        np.testing.assert_array_equal(got, want)
    else:
        assert (got != want).any(axis=2).sum() <= 0.02 * want.any(axis=2).sum()


def test_golden_drawings(golden_json, golden_npz, golden_png):
    points, index = golden_npz("keypoints133.npz"), golden_json("skeleton/index.json")
    assert len(index) == 36
    for key, entry in index.items():
        got = _draw(points[key], entry["width"], entry["height"])
        _agree(got, golden_png(entry["file"]))
        facts = got.any(axis=2).sum(), got.sum(axis=(0, 1)).tolist()
        want = entry["nonzero"], entry["sum_rgb"]
        assert facts == want or not EXACT


def test_golden_drawn_on_the_source_canvas_then_letterboxed(golden_json, golden_npz, golden_png):
    points, index = golden_npz("keypoints133.npz"), golden_json("skeleton/index_resized.json")
    assert len(index) == 3
    for key, entry in index.items():
        drawn = _draw(points[key], entry["canvas_w"], entry["canvas_h"])
        _agree(letterbox(drawn, entry["out_w"], entry["out_h"]), golden_png(entry["file"]))


def test_golden_without_hands_and_head_and_with_older_widths(golden_json, golden_npz, monkeypatch):
    points, index = golden_npz("keypoints133.npz"), golden_json("skeleton/index.json")
    checked = 0
    for key, entry in index.items():
        if "sum_rgb_nohand" not in entry:
            continue
        size = entry["width"], entry["height"]
        parts = split(points[key])
        none = np.zeros((21, 3))
        pictures = [draw(parts.body, none, none, *size)]
        with monkeypatch.context() as patch:
            stick = max(min(size) // 200, 1)
            patch.setattr("wanimate.preprocess.pose.skeleton.stick_widths", lambda *_, stick=stick: (stick, stick))
            pictures.append(draw(parts.body, parts.left_hand, parts.right_hand, *size))
        parts.body[[0, 14, 15, 16, 17], 2] = 0
        pictures.append(draw(parts.body, parts.left_hand, parts.right_hand, *size))
        sums = [picture.sum(axis=(0, 1)).tolist() for picture in pictures]
        want = [entry[f"sum_rgb_{name}"] for name in ("nohand", "v1", "nohead")]
        assert sums == want or not EXACT, key
        checked += 1
    assert checked == 8


@pytest.mark.parametrize(
    ("side", "widths"),
    [(256, (1, 1)), (400, (1, 1)), (720, (2, 1)), (800, (3, 1)), (1080, (4, 2)), (1440, (6, 3)), (2160, (9, 4))],
)
def test_stick_widths(side, widths):
    assert stick_widths(side * 2, side) == widths
    assert stick_widths(side, side * 2) == widths


def test_points_that_are_not_finite_are_left_out():
    body, hand = np.full((20, 3), np.nan), np.full((21, 3), np.inf)
    assert not draw(body, hand, hand, 64, 48).any()
    body[:, 2] = 1.0  # confident but nowhere, as a division by zero leaves it
    assert not draw(body, hand, hand, 64, 48).any()
