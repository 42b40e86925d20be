from __future__ import annotations

import numpy as np
import pytest

from wanimate.preprocess.masks.shape import MaskShape, as_picture, dilated, gridded, scene, shape_mask


def test_published_masks_and_backgrounds(golden_json, golden_npz):
    data = golden_npz("masks.npz")
    cases = golden_json("masks.json")["cases"]
    assert len(cases) > 20
    for case in cases:
        i, p, size = case["case"], case["param"], (case["h"], case["w"])

        def read(name, size=size):
            return np.unpackbits(data[name])[: size[0] * size[1]].reshape(size)

        outline, frame = read(f"mask_{i}"), data[f"frame_{i}"]
        if case["iterations"]:
            grown = dilated(outline, case["k"], case["iterations"])
            np.testing.assert_array_equal(grown, read(f"dil_{i}_{p}"), str(case))
        hole = shape_mask(outline, MaskShape(*(case[name] for name in ("iterations", "k", "w_len", "h_len"))))
        np.testing.assert_array_equal(hole, read(f"aug_{i}_{p}"), str(case))
        assert int(hole.sum()) == case["aug_sum"]
        background = scene(frame, hole)
        assert (str(background.dtype), int(background.sum())) == (case["bg_dtype"], case["bg_sum"])
        assert case["error"] is None


def test_where_the_published_grid_fails(golden_json):
    """The masks of these cases are not stored, so one of each name is made; where the published code fails, it is kept."""
    spots = {"empty": np.s_[:0], "one_pixel": np.s_[20:21, 30:31], "thin_row": np.s_[20:21, 10:50]}
    spots["narrower_than_w_len"] = np.s_[10:24, 20:25]
    cases = golden_json("masks.json")["edge_cases"]
    assert {case["name"] for case in cases} == set(spots)
    for case in cases:
        mask = np.zeros((40, 60), np.uint8)
        mask[spots[case["name"]]] = 1
        failed = case["error"] is not None
        height, width = (np.ptp(axis) if len(axis) else 0 for axis in np.nonzero(mask))
        assert failed == (width < case["w_len"] or height < case["h_len"]), case
        np.testing.assert_array_equal(gridded(mask, case["w_len"], case["h_len"]), mask)


@pytest.mark.parametrize("grid", [(1, 1), (10, 20)])
def test_an_empty_mask_stays_empty(grid):
    empty = np.zeros((40, 30), np.uint8)
    assert not shape_mask(empty, MaskShape(3, 7, *grid)).any()
    assert not gridded(empty, *grid).any()


@pytest.mark.parametrize("spot", [np.s_[5:6, 5:6], np.s_[5:6, 5:20], np.s_[5:30, 5:7]])
def test_a_mask_smaller_than_the_grid_is_kept(spot):
    mask = np.zeros((40, 30), np.uint8)
    mask[spot] = 1
    np.testing.assert_array_equal(gridded(mask, 10, 20), mask)


def test_the_outline_keeps_more_of_the_scene_than_the_box():
    mask = np.zeros((60, 60), np.uint8)
    mask[10:50, 28:32] = mask[20:24, 10:50] = 1
    outline, box = (shape_mask(mask, MaskShape(1, 5, n, n)) for n in (None, 1))
    assert mask.sum() < outline.sum() < 0.5 * box.sum()
    assert (outline >= mask).all()
    assert (box >= outline).all()


def test_a_hole_is_black_in_the_scene_and_white_in_the_mask():
    frame = np.full((4, 4, 3), 200, np.uint8)
    hole = np.zeros((4, 4), np.uint8)
    hole[1, 2] = 1
    assert scene(frame, hole)[1, 2].tolist() == [0, 0, 0]
    assert scene(frame, hole).sum() == frame.sum() - 600
    assert as_picture(hole)[1, 2].tolist() == [255] * 3
    assert as_picture(hole).sum() == 765
