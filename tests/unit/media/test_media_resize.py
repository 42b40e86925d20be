"""Sizes and placements: the published rule bit for bit, ours by its promises."""

from __future__ import annotations

import numpy as np
import pytest

from golden import read_json, read_npz
from wanimate.errors import InputError
from wanimate.media.resize import (
    AREA,
    LINEAR,
    Placement,
    cover,
    cover_placement,
    exact_size,
    letterbox,
    letterbox_placement,
    published_resize,
    published_size,
)

SIZES = read_json("media/size_by_area.json")


def equal(ours: np.ndarray, golden: np.ndarray) -> bool:
    return bool((ours == golden).all())


@pytest.mark.parametrize("case", SIZES, ids=lambda c: f"{c['in_w']}x{c['in_h']}@{c['area']}")
def test_published_size_and_content_rectangle(case: dict) -> None:
    width, height = published_size(case["in_w"], case["in_h"], case["area"])
    assert (width, height) == (case["out_w"], case["out_h"])
    place = letterbox_placement(case["in_w"], case["in_h"], width, height)
    corners = place.apply(np.array([[0, 0], [case["in_w"], case["in_h"]]]))
    x0, y0 = case["content_x0"], case["content_y0"]
    assert corners == pytest.approx(np.array([[x0, y0], [x0 + case["content_w"], y0 + case["content_h"]]]))


def test_letterbox_equals_the_golden_pictures() -> None:
    stored = read_npz("media/padding_resize.npz")
    for case in read_json("media/padding_resize.json"):
        image = stored[f"in_{case['i']}"]
        assert image.shape[:2] == (case["in_h"], case["in_w"])
        for name, interpolation in (("linear", LINEAR), ("area", AREA)):
            ours = letterbox(image, case["out_w"], case["out_h"], interpolation)
            assert equal(ours, stored[f"out_{case['i']}_{name}"]), (case, name)


def test_published_resize_equals_the_golden_pictures() -> None:
    stored = read_npz("media/resize_by_area.npz")
    count = sum(name.startswith("in_") for name in stored)
    assert count > 2
    for i in range(count):
        assert equal(published_resize(stored[f"in_{i}"], int(stored[f"area_{i}"])), stored[f"out_{i}"]), i


@pytest.mark.parametrize("case", SIZES, ids=lambda c: f"{c['in_w']}x{c['in_h']}@{c['area']}")
def test_exact_size_keeps_its_promises(case: dict) -> None:
    w, h, area = case["in_w"], case["in_h"], case["area"]
    width, height = exact_size(w, h, area)
    assert width % 16 == height % 16 == 0
    assert width * height <= area
    if 1 / 4 <= w / h <= 4:
        assert width * height >= 0.88 * area
        assert 0.98 < (width * h) / (height * w) < 1.02


@pytest.mark.parametrize(
    ("size", "area", "expected"),
    [
        ((1920, 1080), 1280 * 720, (1280, 720)),
        ((1080, 1920), 1280 * 720, (720, 1280)),
        ((480, 832), 832 * 480, (480, 832)),  # the published rule loses 16 columns here
        ((832, 480), 832 * 480, (832, 480)),
        ((1000, 1000), 192 * 192, (192, 192)),
        ((1920, 1080), 192 * 192, (256, 144)),
        ((16, 16), 256, (16, 16)),
    ],
)
def test_exact_size_finds_exact_fits(size: tuple[int, int], area: int, expected: tuple[int, int]) -> None:
    assert exact_size(*size, area) == expected


def test_exact_size_of_small_areas_crops_little() -> None:
    for width in range(300, 2700, 7):
        w, h = exact_size(width, 900, 192 * 192)
        assert w * h >= 0.75 * 192 * 192
        assert max(w * 900, h * width) / min(w * 900, h * width) < 1.07


def test_exact_size_refuses_an_area_below_one_cell() -> None:
    with pytest.raises(InputError, match=r"^area = 255: smaller than 16x16 pixels"):
        exact_size(100, 100, 255)


@pytest.mark.parametrize("source", [(640, 360), (360, 640), (500, 500), (33, 71), (1000, 999)])
@pytest.mark.parametrize("target", [(64, 64), (128, 48), (48, 128), (700, 700), (33, 71)])
def test_cover_fills_without_bars_and_its_placement_is_true(source: tuple[int, int], target: tuple[int, int]) -> None:
    (w, h), (width, height) = source, target
    assert cover(np.full((h, w, 3), 200, np.uint8), width, height).min() == 200
    # A horizontal and a vertical ramp tell where each output pixel came from.
    ramp = np.zeros((h, w, 3), np.float32)
    ramp[..., 0] = (np.arange(w) + 0.5) / w * 255
    ramp[..., 1] = ((np.arange(h) + 0.5) / h * 255)[:, None]
    out = cover(ramp.astype(np.uint8), width, height)
    assert out.shape == (height, width, 3)
    place = cover_placement(w, h, width, height)
    centre = place.invert(np.array([width / 2, height / 2]))
    assert centre == pytest.approx([w / 2, h / 2], abs=0.5 / min(place.scale_x, place.scale_y) + 1e-6)
    y, x = height // 2, width // 2
    expected = place.invert(np.array([x + 0.5, y + 0.5])) / (w, h) * 255
    assert out[y, x, :2].astype(float) == pytest.approx(expected, abs=2 + 255 / min(w, h))


def test_cover_of_the_same_size_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    assert equal(cover(image, 64, 48), image)


def test_placement_inverts_itself() -> None:
    place = Placement(0.37, 0.41, -12.0, 5.0)
    points = np.random.default_rng(0).uniform(-100, 900, (3, 20, 2))
    assert place.invert(place.apply(points)) == pytest.approx(points)
