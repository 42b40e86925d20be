"""What is a cut, and what only looks like one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from wanimate.preprocess.people.cuts import with_cuts


def _room(seed, size=(360, 640)):
    """A room with things in it, in colours of its own."""
    random = np.random.default_rng(seed)
    picture = np.full((*size, 3), random.integers(60, 200, 3), np.uint8)
    for _ in range(14):
        x, y, w, h = random.integers(0, [size[1], size[0], size[1] // 3, size[0] // 3])
        colour = tuple(int(c) for c in np.clip(picture[0, 0].astype(int) + random.integers(-90, 90, 3), 0, 255))
        cv2.rectangle(picture, (int(x), int(y)), (int(x + w + 20), int(y + h + 20)), colour, -1)
    return picture


def _dancer(picture, x, angle):
    """A big figure over a third of the picture, limbs anywhere."""
    out = picture.copy()
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    for dx, dy, w, h, colour in ((0, 0, 60, 130, (30, 40, 90)), (0, -130, 40, 40, (220, 180, 150)),
                                 (70, -40, 70, 16, (220, 180, 150)), (-30, 120, 20, 70, (40, 40, 40))):  # fmt: skip
        corners = np.array([[dx - w, dy - h], [dx + w, dy - h], [dx + w, dy + h], [dx - w, dy + h]])
        cv2.fillPoly(out, [(corners @ turn.T + (x, 190)).astype(np.int32)], colour)
    return out


def _cuts(frames):
    flagged = list(with_cuts(iter(frames)))
    assert len(flagged) == len(frames)
    assert all(a is b for (_, a), b in zip(flagged, frames, strict=True))
    return [i for i, (cut, _) in enumerate(flagged) if cut]


def _shot(seed, count=12, speed=0.0):
    return [_dancer(_room(seed), 200 + 10 * i, speed * i) for i in range(count)]


def test_cuts_between_shots():
    assert _cuts(_shot(1) + _shot(2) + _shot(3, 5) + _shot(1)) == [12, 24, 29]


def test_from_close_to_wide_before_a_plain_wall():
    wall = np.full((360, 640, 3), (150, 165, 175), np.uint8)
    wide = [_dancer(wall, 300 + 3 * i, 0.02 * i) for i in range(8)]
    close = [cv2.resize(f[20:140, 230:443], (640, 360), interpolation=cv2.INTER_LINEAR) for f in wide]
    assert _cuts(close + wide) == [8]
    assert _cuts(wide + close) == [8]


@pytest.mark.parametrize("lasts", [1, 2, 3])
@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0)])
def test_a_flash_is_none(lasts, colour):
    frames = _shot(1, 20)
    for i in range(8, 8 + lasts):
        frames[i] = np.full_like(frames[i], colour)
    assert _cuts(frames) == []


def test_light_that_goes_on_is_none():
    dark = [(f * 0.45).astype(np.uint8) for f in _shot(1, 8)]
    assert _cuts(dark + _shot(1, 16)[8:]) == []


def test_a_quick_dancer_is_none():
    assert _cuts([_dancer(_room(4), 320 + 200 * np.sin(2 * i), 0.9 * i) for i in range(24)]) == []


@pytest.mark.parametrize("step", [12, 60, 150])
def test_a_camera_that_moves_is_none(step):
    wide = np.hstack([_room(seed) for seed in range(5, 12)])
    frames = [wide[:, x : x + 640] for x in range(0, wide.shape[1] - 640, step)][:40]
    still = [wide[:, :640]] * 5
    assert _cuts(still + [np.ascontiguousarray(f) for f in frames]) == []


def test_a_dissolve_and_noise_are_none():
    one, other = _room(1).astype(float), _room(2).astype(float)
    dissolve = [(one * (1 - t) + other * t).astype(np.uint8) for t in np.clip(np.linspace(-0.5, 1.5, 40), 0, 1)]
    assert _cuts(dissolve) == []
    random = np.random.default_rng(0)
    assert _cuts([random.integers(0, 255, (240, 320, 3), dtype=np.uint8) for _ in range(12)]) == []


def test_short_clips():
    assert _cuts([]) == []
    assert _cuts(_shot(1, 1)) == []
    assert _cuts(_shot(1, 2) + _shot(2, 2)) == [2]
