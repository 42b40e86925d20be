"""Same seed, same frames: what is equal bit for bit, and what is within rounding (docs/performance.md)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "weights"))
from tiny_checkpoints import Shape, own_checkpoint, write_guides

from wanimate.api import Animator
from wanimate.config import GenerateSettings, Job, OutputSettings, PreprocessSettings, RuntimeSettings
from wanimate.jobs.run import preprocess
from wanimate.media.video import VideoFrames
from wanimate.types import Frames

SHIPPED = Path(str(files("wanimate.weights") / "embedded" / "demo"))
SETTINGS = GenerateSettings(seed=3)
"""With the tiny checkpoint's own clip length, 14 frames are three segments."""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="module")
def guides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_guides(tmp_path_factory.mktemp("guides") / "guides", 14)


def every(path: Path) -> Frames:
    video = VideoFrames(path)
    return video.take(range(video.count))


def made(checkpoint: Path, guides: Path, out: Path, runtime: Mapping[str, Any] = {}) -> Frames:
    with Animator(checkpoint, RuntimeSettings(device="cpu", **runtime)) as animator:
        for _ in animator.generate(guides, out, SETTINGS, OutputSettings(codec="ffv1")):
            pass
    return every(out)


@pytest.fixture(scope="module")
def here(checkpoint: Path, guides: Path, tmp_path_factory: pytest.TempPathFactory) -> Frames:
    """The frames as this process makes them, with one thread."""
    return made(checkpoint, guides, tmp_path_factory.mktemp("here") / "a.mkv")


def in_a_process(checkpoint: Path, guides: Path, out: Path, threads: int) -> Frames:
    line = [sys.executable, "-m", "wanimate", "generate", guides, "--checkpoint", checkpoint, "--out", out]
    line += ["--seed", SETTINGS.seed, "--codec", "ffv1", "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    subprocess.run([str(word) for word in line], env=environment, check=True, capture_output=True)
    return every(out)


@pytest.mark.slow
def test_another_process_makes_the_same_frames(checkpoint: Path, guides: Path, here: Frames, tmp_path: Path) -> None:
    assert (in_a_process(checkpoint, guides, tmp_path / "a.mkv", 1) == here).all()


@pytest.mark.slow
def test_more_threads_change_rounding_alone(checkpoint: Path, guides: Path, here: Frames, tmp_path: Path) -> None:
    frames = [in_a_process(checkpoint, guides, tmp_path / f"{i}.mkv", 2) for i in range(2)]
    assert (frames[0] == frames[1]).all(), "with one number of threads frames are equal"
    assert np.abs(frames[0].astype(int) - here).max() <= 1


def test_tiles_change_rounding_alone(checkpoint: Path, tmp_path: Path) -> None:
    guides = write_guides(tmp_path / "guides", 10, Shape(width=272, height=16))  # two segments
    whole = made(checkpoint, guides, tmp_path / "whole.mkv")
    tiled = made(checkpoint, guides, tmp_path / "tiled.mkv", {"vae_tile": 128})
    assert np.abs(tiled.astype(int) - whole).max() <= 1


@pytest.mark.parametrize("mode", ["animation", pytest.param("replacement", marks=pytest.mark.slow)])
def test_two_commands_make_the_frames_of_one(checkpoint: Path, tmp_path: Path, mode: Any) -> None:
    image, video = SHIPPED / "character-2.png", SHIPPED / "performer.mp4"
    job = Job.of(
        image, video, tmp_path / "one.mkv", mode=mode, fps=3, area=128 * 128, face_size=64, codec="ffv1", seed=3
    )
    assert isinstance(job.preprocess, PreprocessSettings)
    with Animator(checkpoint, RuntimeSettings(device="cpu")) as animator:
        for _ in animator.run(job):
            pass
        for _ in preprocess(mode, image, video, tmp_path / "guides", job.preprocess, animator.engine.area):
            pass
        for _ in animator.generate(tmp_path / "guides", tmp_path / "two.mkv", job.generate, job.output):
            pass
    assert (every(tmp_path / "one.mkv") == every(tmp_path / "two.mkv")).all()
