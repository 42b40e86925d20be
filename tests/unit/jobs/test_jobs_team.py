"""Several ranks of one engine, with gloo on the processor: warm over jobs, planned, tuned and shrunk as one device is."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from wanimate.api import Animator
from wanimate.config import GenerateSettings, OutputSettings, ParallelSettings, RuntimeSettings
from wanimate.engines.base import State
from wanimate.errors import InputError
from wanimate.events import Event, Notice, Stage, StageStarted, StepDone
from wanimate.media.video import VideoFrames
from wanimate.runtime.parallel.team import RankWorker
from wanimate.runtime.planning.plan import TOKEN_CHUNK

LOSSLESS = OutputSettings(codec="ffv1")
MakeGuides = Callable[..., Path]
SETTINGS = GenerateSettings(steps=2, seed=7)


@pytest.fixture
def two(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Animator]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with Animator(checkpoint, parallel=ParallelSettings(gpus=2)) as animator:
        yield animator
    assert others() == []


def others() -> list[int]:
    children = psutil.Process().children(recursive=True)
    return [child.pid for child in children if "WANIMATE_RANKS" in child.environ()]


def events_of(animator: Animator, guides: Path, out: Path, settings: GenerateSettings = SETTINGS) -> list[Event]:
    return list(animator.generate(guides, out, settings, LOSSLESS))


def frames_of(out: Path) -> Any:
    video = VideoFrames(out)
    return video.take(range(video.count)).astype(int)


def test_ranks_stay_warm_over_jobs(two: Animator, guides: MakeGuides, tmp_path: Path, animator: Animator) -> None:
    """The second job starts within a second, with the same processes and without reading weights again."""
    events_of(animator, guides(11), tmp_path / "alone.mkv")
    events_of(two, guides(11), tmp_path / "first.mkv")
    assert two.engine.state is State.OPEN
    ranks = others()
    assert len(ranks) == 1
    began = time.perf_counter()
    until = 0.0
    for event in two.generate(guides(11), tmp_path / "second.mkv", SETTINGS, LOSSLESS):
        if isinstance(event, StageStarted) and event.stage is Stage.DENOISE and not until:
            until = time.perf_counter() - began
    assert 0 < until < 1
    assert others() == ranks
    alone, first, second = (frames_of(tmp_path / f"{name}.mkv") for name in ("alone", "first", "second"))
    assert (first == second).all()
    assert abs(first - alone).max() <= 1
    record = json.loads((tmp_path / "second.json").read_text())
    assert (record["gpus"], record["parallel"]["gpus"], record["attention"]) == (2, 2, "torch")
    two.close()
    assert two.engine.state is State.CLOSED
    assert others() == []


@pytest.mark.slow
def test_every_job_is_planned_and_tuned_for_its_tokens(
    two: Animator, guides: MakeGuides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wanimate.runtime.planning.sizes.BIG", 0)
    tuned: list[int] = []

    def choose(device: torch.device, dtype: torch.dtype, width: int, speed: str, tokens: int, asked: str) -> str:
        tuned.append(tokens)
        return "torch"

    monkeypatch.setattr("wanimate.runtime.parallel.networks.choose_attention", choose)
    for number, length in enumerate((9, 13)):
        settings = GenerateSettings(steps=1, seed=7, clip_length=length)
        events = events_of(two, guides(13), tmp_path / f"{number}.mkv", settings)
        (plan,) = [e.message for e in events if isinstance(e, Notice) and e.message.startswith("plan: ")]
        assert plan.startswith("plan: 2 x CPU")
    assert [tokens // 2 for tokens in tuned] == [4, 5], "of 2 tokens a latent frame, the reference's included"


@pytest.mark.parametrize("wrong", [{"gpus": 3}, {"gpus": 2, "split_guidance": True, "shard_weights": True}])
def test_what_cannot_be_spread_is_refused_before_a_process_starts(checkpoint: Path, wrong: dict[str, Any]) -> None:
    runtime = RuntimeSettings(vae_tile=128) if wrong["gpus"] == 2 else RuntimeSettings()
    with pytest.raises(InputError, match=r"gpus = [23]: "):
        Animator(checkpoint, runtime, ParallelSettings(**wrong))
    assert others() == []


@pytest.mark.slow
def test_a_rank_without_memory_makes_all_of_them_take_less(
    two: Animator, guides: MakeGuides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, animator: Animator
) -> None:
    """The ranks start anew with a smaller placement, and the segment begins again."""
    events_of(animator, guides(11), tmp_path / "alone.mkv")
    calls: list[int] = []
    flow = RankWorker.flow

    def starved(worker: RankWorker, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return flow(worker, x, t)

    monkeypatch.setattr(RankWorker, "flow", starved)
    events = events_of(two, guides(11), tmp_path / "two.mkv")
    assert two.engine.networks.placement.token_chunk == TOKEN_CHUNK
    steps = [(e.segment, e.step) for e in events if isinstance(e, StepDone)]
    assert steps == [(0, 1), (0, 1), (0, 2), (1, 1), (1, 2)]
    assert any(isinstance(e, Notice) and "too little memory in segment 1" in e.message for e in events)
    assert abs(frames_of(tmp_path / "two.mkv") - frames_of(tmp_path / "alone.mkv")).max() <= 1


@pytest.mark.slow
def test_a_cancelled_job_leaves_the_ranks_for_the_next_one(two: Animator, guides: MakeGuides, tmp_path: Path) -> None:
    events_of(two, guides(5), tmp_path / "wanted.mkv")
    ranks = others()
    for after in (StepDone, StageStarted):
        events = two.generate(guides(11), tmp_path / "a.mkv", SETTINGS, LOSSLESS)
        for event in events:
            if isinstance(event, after) and event.stage in (Stage.DENOISE, Stage.DECODE):
                break
        events.close()
    events_of(two, guides(5), tmp_path / "again.mkv")
    assert others() == ranks
    assert (frames_of(tmp_path / "again.mkv") == frames_of(tmp_path / "wanted.mkv")).all()
    assert sorted(os.listdir(tmp_path)) == ["again.json", "again.mkv", "wanted.json", "wanted.mkv"]


@pytest.mark.slow
def test_a_rank_that_ends_between_two_jobs_is_replaced(two: Animator, guides: MakeGuides, tmp_path: Path) -> None:
    events_of(two, guides(5), tmp_path / "wanted.mkv")
    (rank,) = others()
    psutil.Process(rank).kill()
    while two.engine.state is State.OPEN:
        time.sleep(0.01)
    events_of(two, guides(5), tmp_path / "again.mkv")
    assert others() not in ([], [rank])
    assert (frames_of(tmp_path / "again.mkv") == frames_of(tmp_path / "wanted.mkv")).all()


@pytest.mark.slow
def test_one_group_of_ranks_a_process(two: Animator, guides: MakeGuides, tmp_path: Path, checkpoint: Path) -> None:
    events_of(two, guides(5), tmp_path / "a.mkv")
    with (
        Animator(checkpoint, parallel=ParallelSettings(gpus=2)) as other,
        pytest.raises(InputError, match="another engine of this process"),
    ):
        events_of(other, guides(5), tmp_path / "b.mkv")
    events_of(two, guides(5), tmp_path / "b.mkv")
