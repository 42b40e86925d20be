"""An engine's life on GPUs: memory that comes back, ranks that stay warm, a rank that dies."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "weights"))
from tiny_checkpoints import own_checkpoint, write_guides

from wanimate.api import Animator
from wanimate.config import GenerateSettings, OutputSettings, ParallelSettings, RuntimeSettings
from wanimate.engines.base import State
from wanimate.errors import RankFailed
from wanimate.events import Stage, StageStarted, StepDone
from wanimate.media.video import VideoFrames

pytestmark = pytest.mark.gpu
SETTINGS = GenerateSettings(steps=2, seed=7)
LOSSLESS = OutputSettings(codec="ffv1")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine")
    own_checkpoint(folder / "checkpoint")
    write_guides(folder / "guides", 11)
    return folder


@pytest.fixture
def two(place: Path) -> Iterator[Animator]:
    if torch.cuda.device_count() < 2:
        pytest.skip("it needs two GPUs")
    with Animator(place / "checkpoint", parallel=ParallelSettings(gpus=2)) as animator:
        yield animator


def frames_of(animator: Animator, place: Path, out: Path) -> np.ndarray:
    list(animator.generate(place / "guides", out, SETTINGS, LOSSLESS))
    return VideoFrames(out).take(range(11)).astype(int)


@pytest.mark.parametrize("blocks", ["resident", "streamed"])
def test_closing_gives_the_memory_of_the_gpu_back(place: Path, tmp_path: Path, blocks: str) -> None:
    runtime = RuntimeSettings.model_validate({"blocks": blocks})
    with Animator(place / "checkpoint", runtime) as first:  # kernels and workspaces are there from now on
        frames_of(first, place, tmp_path / "warm.mkv")
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    animator = Animator(place / "checkpoint", runtime)
    wanted = frames_of(animator, place, tmp_path / "a.mkv")
    assert torch.cuda.memory_allocated() > before
    animator.close()
    assert animator.engine.state is State.CLOSED
    assert torch.cuda.memory_allocated() == before
    assert (frames_of(animator, place, tmp_path / "b.mkv") == wanted).all()
    animator.close()
    assert torch.cuda.memory_allocated() == before


def test_a_cap_of_memory_ends_with_its_engine(place: Path, tmp_path: Path) -> None:
    with Animator(place / "checkpoint", RuntimeSettings(gpu_memory=4)) as capped:
        frames_of(capped, place, tmp_path / "a.mkv")
        assert torch.cuda.get_per_process_memory_fraction() < 1
    with Animator(place / "checkpoint") as free:
        frames_of(free, place, tmp_path / "b.mkv")
        assert torch.cuda.get_per_process_memory_fraction() == 1


def test_ranks_stay_warm_on_two_gpus(two: Animator, place: Path, tmp_path: Path) -> None:
    with Animator(place / "checkpoint") as alone:
        wanted = frames_of(alone, place, tmp_path / "alone.mkv")
    first = frames_of(two, place, tmp_path / "first.mkv")
    began, until = time.perf_counter(), 0.0
    for event in two.generate(place / "guides", tmp_path / "second.mkv", SETTINGS, LOSSLESS):
        if isinstance(event, StageStarted) and event.stage is Stage.DENOISE and not until:
            until = time.perf_counter() - began
    assert 0 < until < 1
    assert abs(first - wanted).mean() < 1


def test_a_rank_that_dies_ends_the_job_and_the_next_one_starts_anew(two: Animator, place: Path, tmp_path: Path) -> None:
    wanted = frames_of(two, place, tmp_path / "wanted.mkv")
    endless = GenerateSettings(steps=100_000, seed=7)
    events = two.generate(place / "guides", tmp_path / "a.mkv", endless, LOSSLESS)
    next(event for event in events if isinstance(event, StepDone))
    (rank,) = [c.pid for c in psutil.Process().children() if "WANIMATE_RANKS" in c.environ()]
    os.kill(rank, signal.SIGKILL)
    began = time.perf_counter()
    with pytest.raises(RankFailed, match=r"rank 1 of 2 was killed by signal 9 \(SIGKILL\)"):
        list(events)
    assert time.perf_counter() - began < 30
    again = frames_of(two, place, tmp_path / "again.mkv")
    assert abs(again - wanted).max() <= 1
