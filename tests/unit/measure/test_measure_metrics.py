"""Each measure against cases whose answer is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from wanimate.measure.metrics import (
    colour_error,
    correlation,
    eye_opening,
    flicker,
    mouth_opening,
    pck,
    place_cutout,
    psnr,
    seam,
    similarity,
    ssim,
    steps,
)  # fmt: skip

RANDOM = np.random.default_rng(3)
NOISE = RANDOM.integers(30, 220, (4, 32, 40, 3), dtype=np.uint8)


def test_psnr() -> None:
    assert psnr(NOISE + np.uint8(5), NOISE) == pytest.approx(20 * np.log10(255 / 5))
    half = np.zeros(NOISE.shape[:3])
    half[:, :, :20] = 1
    worse = NOISE.copy()
    worse[:, :, 20:] += 20
    worse[:, :, :20] += 2
    assert psnr(worse, NOISE, half) == pytest.approx(20 * np.log10(255 / 2))
    assert psnr(worse, NOISE, 1 - half) == pytest.approx(20 * np.log10(255 / 20))
    assert psnr(worse, NOISE) == pytest.approx(10 * np.log10(255**2 / 202))
    assert psnr(NOISE, NOISE) > 100


def test_ssim() -> None:
    assert ssim(NOISE, NOISE) == pytest.approx(1)
    flat = np.full_like(NOISE, 100)
    # Flat pictures: only the luminance term is left.
    c1 = (0.01 * 255) ** 2
    assert ssim(flat + np.uint8(20), flat) == pytest.approx((2 * 100 * 120 + c1) / (100**2 + 120**2 + c1))
    blurred = np.stack([cv2.GaussianBlur(f, (5, 5), 2) for f in NOISE])
    assert ssim(255 - NOISE, NOISE) < 0 < ssim(blurred, NOISE) < 0.7
    left = np.zeros(NOISE.shape[:3], dtype=bool)
    left[:, :, :8] = True
    damaged = NOISE.copy()
    damaged[:, :, 20:] = 255 - damaged[:, :, 20:]
    assert ssim(damaged, NOISE, left) == pytest.approx(1)


def test_pck() -> None:
    truth = np.zeros((2, 3, 2))
    found = truth.copy()
    found[0, 0] = (3, 4)  # 5 pixels off
    found[0, 1] = (0, 5.1)
    found[1, 2] = np.nan
    counted = np.ones((2, 3), dtype=bool)
    assert pck(found, truth, counted, size=50) == (4, 6)
    counted[0, 1] = counted[1, 0] = False
    assert pck(found, truth, counted, size=50) == (3, 4)
    assert pck(found, truth, counted, size=40) == (2, 4)


def test_correlation() -> None:
    curve = np.sin(np.arange(20.0))
    assert correlation(3 * curve + 2, curve) == pytest.approx(1)
    assert correlation(-curve, curve) == pytest.approx(-1)
    gaps = curve.copy()
    gaps[::3] = np.nan
    assert correlation(gaps, curve) == pytest.approx(1)
    assert correlation(np.ones(20), curve) == 0
    assert correlation([np.nan] * 18 + [1, 2], curve) == 0


def test_mouth_opening() -> None:
    mesh = np.zeros((468, 3))
    mesh[152, 1], mesh[13, 1], mesh[14, 1] = 100, 60, 75
    assert mouth_opening(mesh) == pytest.approx(0.15)
    assert mouth_opening(3 * mesh) == pytest.approx(0.15)


def test_eye_opening() -> None:
    mesh = np.zeros((468, 3))
    for outer, inner, *lids in ((33, 133, 159, 145, 158, 153), (263, 362, 386, 374, 385, 380)):
        mesh[inner, 0] = mesh[outer, 0] + 40
        mesh[lids[1], 1], mesh[lids[3], 1] = 12, 8
    assert eye_opening(mesh) == pytest.approx(0.25)
    mesh[[374, 380], 1] = 0  # one shut
    assert eye_opening(2 * mesh) == pytest.approx(0.125)


def test_colour_error() -> None:
    region = np.zeros((4, 32, 40), dtype=np.uint8)
    region[:, :16], region[:, 16:, :4] = 4, 5
    frames = np.zeros_like(NOISE)
    frames[region == 4], frames[region == 5] = (200, 30, 30), (10, 10, 200)
    reference = frames[0].copy()
    assert colour_error(frames, region, reference, region[0], (4, 5)) == 0
    assert colour_error(frames[::-1], region, reference, region[0], (4, 5), least=65) == 0
    assert np.isnan(colour_error(frames, region, reference, region[0], (7,)))
    frames[region == 4] = (255, 255, 255)
    reference[region[0] == 4] = 0
    assert colour_error(frames, region, reference, region[0], (4,)) == pytest.approx(100, abs=0.1)
    assert colour_error(frames, region, reference, region[0], (4, 5)) == pytest.approx(50, abs=0.1)


def test_flicker() -> None:
    ramp = np.stack([np.full((8, 8, 3), 10 * i, dtype=np.uint8) for i in range(6)])
    everywhere = np.ones((6, 8, 8), dtype=bool)
    assert flicker(ramp, everywhere) == 0
    blinking = ramp.copy()
    blinking[3, :4] += 6
    assert flicker(blinking, everywhere) == pytest.approx((6 + 12 + 6) / 4 / 2)
    lower = everywhere.copy()
    lower[:, :4] = False
    assert flicker(blinking, lower) == 0
    assert np.isnan(flicker(ramp, ~everywhere))


def test_seams() -> None:
    frames = np.stack([np.full((8, 8, 3), v, dtype=np.uint8) for v in (0, 2, 4, 6, 18, 20, 22, 24)])
    changes = steps(frames)
    assert changes.tolist() == [2, 2, 2, 12, 2, 2, 2]
    assert seam(changes, [4]) == pytest.approx(10)
    assert seam(changes, [2]) == pytest.approx(2 - (2 * 3 + 12) / 4)
    assert np.isnan(seam(changes, []))
    mask = np.ones((8, 8, 8), dtype=bool)
    mask[:, 4:] = False
    frames[5:, 4:] = 255
    assert steps(frames, mask).tolist() == [2, 2, 2, 12, 2, 2, 2]


def test_similarity() -> None:
    points = RANDOM.normal(size=(5, 2)) * 30
    angle, scale = 0.7, 1.8
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = similarity(points, points @ turn.T + (4, -9))
    np.testing.assert_allclose(matrix, np.column_stack([turn, (4, -9)]), atol=1e-9)
    mirrored = similarity(points, points * (-1, 1))
    assert np.linalg.det(mirrored[:, :2]) > 0, "a person is never mirrored"


def test_placing_a_cutout() -> None:
    picture = np.zeros((20, 20, 3), dtype=np.uint8)
    picture[5:10, 5:10] = 200
    cover = (picture[..., 0] > 0).astype(float)
    background = np.full((20, 30, 3), 50, dtype=np.uint8)
    (frame,) = place_cutout(picture, cover, background, [np.array([[1.0, 0, 12], [0, 1, 3]])])
    expected = background.copy()
    expected[8:13, 17:22] = 200
    np.testing.assert_array_equal(frame, expected)
