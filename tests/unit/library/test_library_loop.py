"""Loop points: made motions with a known period close within one step; what does not come back is no loop."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import write_clip

from wanimate.library.loop import Loop, find_loop, loop_of
from wanimate.media.probe import probe
from wanimate.media.video import LosslessWriter

FPS = 25.0


def circle(count: int, period: float, start: float = 0.0) -> Any:
    """A point that goes round: two numbers a frame."""
    angle = 2 * np.pi * (np.arange(count) / period + start)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def step_over(poses: Any, loop: Loop) -> tuple[float, float]:
    """The step from the loop's last frame to its first, and the largest step within the clip."""
    steps = np.linalg.norm(np.diff(poses, axis=0), axis=1)
    return float(np.linalg.norm(poses[loop.start] - poses[loop.stop - 1])), float(steps.max())


@pytest.mark.parametrize("period", [20, 31, 50])
def test_a_round_motion_is_closed_after_whole_periods(period: int) -> None:
    poses = circle(2 * period + 7, period)
    loop = find_loop(poses, FPS)
    assert loop is not None
    assert loop.length % period == 0
    over, largest = step_over(poses, loop)
    assert over == pytest.approx(largest, rel=1e-6)
    assert loop.seam < 1e-6


@pytest.mark.parametrize("period", [20.5, 17.3])
def test_a_period_between_frames_closes_within_one_step(period: float) -> None:
    poses = circle(90, period)
    loop = find_loop(poses, FPS)
    assert loop is not None
    off = loop.length % period
    assert min(off, period - off) <= 1
    assert loop.seam <= 1


def test_a_clip_that_is_one_period_is_a_loop_as_a_whole() -> None:
    loop = find_loop(circle(40, 40), FPS)
    assert loop is not None
    assert (loop.start, loop.stop) == (0, 40)


def test_a_swing_is_not_closed_where_it_turns_round() -> None:
    """A pendulum is at each place twice, once in each direction."""
    period = 40
    angle = 2 * np.pi * np.arange(100) / period
    poses = np.stack([np.sin(angle), np.zeros(100)], axis=1)
    loop = find_loop(poses, FPS)
    assert loop is not None
    assert loop.length % period == 0


def test_a_way_in_is_left_out() -> None:
    """The performer comes in, and then dances."""
    way = np.stack([np.linspace(-9, -1.2, 30), np.linspace(4, 0.3, 30)], axis=1)
    poses = np.concatenate([way, circle(75, 25, 0.5)])
    loop = find_loop(poses, FPS)
    assert loop is not None
    assert loop.start >= 29
    assert loop.length % 25 == 0


@pytest.mark.parametrize(
    "poses",
    [
        np.stack([np.arange(80.0), np.zeros(80)], axis=1),
        np.zeros((80, 4)),
        np.random.default_rng(1).normal(size=(80, 300)),
        circle(10, 10),
    ],
    ids=["straight on", "still", "noise", "shorter than half a second"],
)
def test_what_does_not_come_back_is_no_loop(poses: Any) -> None:
    assert find_loop(poses, FPS) is None


def test_noise_does_not_hide_a_loop() -> None:
    noise = np.random.default_rng(2).normal(scale=0.01, size=(110, 2))
    loop = find_loop(circle(110, 36) + noise, FPS)
    assert loop is not None
    assert min(loop.length % 36, -loop.length % 36) <= 1


def frames(count: int, period: int, size: tuple[int, int] = (160, 120)) -> Any:
    """A light disc that goes round before a scene with a pattern."""
    width, height = size
    rows, columns = np.mgrid[:height, :width]
    scene = (60 + 30 * np.sin(columns / 9) + 20 * np.cos(rows / 7))[..., None].repeat(3, axis=2)
    for i in range(count):
        angle = 2 * np.pi * i / period
        x, y = width / 2 + 40 * np.cos(angle), height / 2 + 30 * np.sin(angle)
        disc = np.exp(-(((columns - x) ** 2 + (rows - y) ** 2) / 200))[..., None]
        yield (scene + (235 - scene) * disc).astype(np.uint8)


def test_the_loop_of_a_clip_is_found_by_its_pictures(tmp_path: Path) -> None:
    path, period = tmp_path / "dance.mkv", 30
    with LosslessWriter(path, Fraction(25), 160, 120) as writer:
        for frame in frames(75, period):
            writer.write(frame)
    loop = loop_of(probe(path, None))
    assert loop is not None
    assert loop.length % period == 0
    shown = np.stack([*frames(75, period)]).astype(float)
    over = np.sqrt(((shown[loop.start] - shown[loop.stop - 1]) ** 2).mean())
    steps = np.sqrt((np.diff(shown, axis=0) ** 2).mean(axis=(1, 2, 3)))
    assert over <= 1.1 * steps.max()


@pytest.mark.parametrize("period", [12, 25, 40])
def test_quick_motion_whose_pictures_hardly_overlap_is_closed(tmp_path: Path, period: int) -> None:
    loop = loop_of(probe(write_clip(tmp_path / "dance.mp4", 2 * period + 9, period), None))
    assert loop is not None
    assert loop.length % period == 0


def test_a_still_picture_with_grain_is_no_loop(tmp_path: Path) -> None:
    random, path = np.random.default_rng(3), tmp_path / "still.mkv"
    scene = next(frames(1, 30)).astype(float)
    with LosslessWriter(path, Fraction(25), 160, 120) as writer:
        for _ in range(50):
            writer.write(np.clip(scene + random.normal(scale=6, size=scene.shape), 0, 255).astype(np.uint8))
    assert loop_of(probe(path, None)) is None
