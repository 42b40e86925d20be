"""Measures of light on a person made up of four plain regions, whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from wanimate.measure.light import (
    gain_error,
    light_colour,
    paint_error,
    pattern_error,
    region_colours,
    shading_error,
    tint_error,
)  # fmt: skip
from wanimate.types import Frames

SIGMA = 6.0
REGION = np.zeros((2, 48, 40), np.uint8)
REGION[:, 4:24, 4:20], REGION[:, 4:24, 20:36], REGION[:, 24:44, 4:20], REGION[:, 24:44, 20:36] = 1, 2, 3, 4
INSIDE = REGION > 0
PAINT = np.array([[0, 0, 0], [0.8, 0.6, 0.5], [0.2, 0.5, 0.7], [0.6, 0.6, 0.6], [0.7, 0.2, 0.3]])
STRIPES = np.where(np.arange(40) % 4 < 2, 1.0, 0.8)[None, None, :, None]


def lit(light: tuple[float, float, float], paint: np.ndarray = PAINT) -> Frames:
    return np.asarray(np.rint(255 * paint[REGION] * STRIPES * np.array(light)), np.uint8)


def test_light_colour_and_its_errors() -> None:
    albedo, truth = (region_colours(lit(light), REGION, INSIDE) for light in ((1, 1, 1), (0.9, 0.8, 0.6)))
    light = light_colour(truth, albedo)
    np.testing.assert_allclose(light, (0.9, 0.8, 0.6), atol=0.005)
    assert gain_error(light, light) == 0
    assert gain_error(light * 1.1, light) == pytest.approx(100 * np.log(1.1))
    assert gain_error(light * np.array([1.2, 1, 1 / 1.2]), light) == pytest.approx(200 / 3 * np.log(1.2))
    assert tint_error(light * 0.5, light) == pytest.approx(0, abs=1e-4)
    assert tint_error(np.array([1.0, 0, 0]), np.array([1.0, 1, 0])) == pytest.approx(45)


def test_light_colour_counts_common_regions_only() -> None:
    albedo, truth = (region_colours(lit(light), REGION, INSIDE) for light in ((1, 1, 1), (0.9, 0.8, 0.6)))
    del truth[2]
    np.testing.assert_allclose(light_colour(truth, albedo), (0.9, 0.8, 0.6), atol=0.005)
    few = INSIDE.copy()
    few[:, :, 22:] = False
    assert set(region_colours(lit((1, 1, 1)), REGION, few, least=200)) == {1, 3}


def test_shading_error_ignores_brightness_and_sees_another_direction() -> None:
    truth = lit((0.9, 0.8, 0.6))
    assert shading_error(truth // 2, truth, INSIDE, SIGMA) < 1
    ramp = np.exp(np.linspace(-0.2, 0.2, 40))[None, None, :, None]
    shaded = np.asarray(np.rint(lit((0.7, 0.6, 0.5)) * ramp), np.uint8)
    expected = 100 * np.linspace(-0.2, 0.2, 40)[4:36].std()
    assert shading_error(shaded, lit((0.7, 0.6, 0.5)), INSIDE, 2.0) == pytest.approx(expected, rel=0.1)


def test_identity_errors_ignore_light_and_see_paint_and_pattern() -> None:
    truth = lit((0.9, 0.8, 0.6))
    colours = region_colours(truth, REGION, INSIDE)
    relit = lit((0.6, 0.7, 0.9))
    assert paint_error(region_colours(relit, REGION, INSIDE), colours) < 1
    assert pattern_error(relit, truth, INSIDE, SIGMA) < 1
    repainted = PAINT.copy()
    repainted[4] = PAINT[4][::-1]
    assert paint_error(region_colours(lit((0.9, 0.8, 0.6), repainted), REGION, INSIDE), colours) > 5
    smooth = np.asarray(np.rint(255 * PAINT[REGION] * np.array([0.9, 0.8, 0.6]) * 0.9), np.uint8)
    assert pattern_error(smooth, truth, INSIDE, SIGMA) > 5
