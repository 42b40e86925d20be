"""When memory runs out, the stage that failed gives way; an engine that could not be opened has nothing open."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from wanimate.api import Animator
from wanimate.config import GenerateSettings, OutputSettings, RuntimeSettings
from wanimate.engines.base import State
from wanimate.errors import NotFinite, OutOfMemory
from wanimate.events import Event, Notice, Stage, StageProgress, StageStarted
from wanimate.finish.lock import work_path
from wanimate.jobs import segments as loop
from wanimate.media.video import VideoFrames
from wanimate.model.transformer import AnimateTransformer
from wanimate.model.vae import VideoVae
from wanimate.runtime import placement
from wanimate.runtime.planning import fit
from wanimate.runtime.planning.plan import TOKEN_CHUNK, Placement

LOSSLESS = OutputSettings(codec="ffv1")
MakeGuides = Callable[..., Path]
FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def events_of(animator: Animator, guides: Path, out: Path) -> list[Event]:
    return list(animator.generate(guides, out, GenerateSettings(steps=2, seed=3), LOSSLESS))


def once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: BaseException = FULL) -> list[int]:
    """Let the first call of a function fail; the calls are counted."""
    calls: list[int] = []
    real = getattr(owner, name)

    def failing(*args: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise error
        return real(*args, **more)

    monkeypatch.setattr(owner, name, failing)
    return calls


@pytest.mark.parametrize(
    ("owner", "name", "stage", "wanted"),
    [
        (AnimateTransformer, "context", Stage.DENOISE, Placement(token_chunk=TOKEN_CHUNK)),
        (loop, "to_unit", Stage.DECODE, Placement(tile=64)),
    ],
)
def test_the_stage_that_failed_gives_way(
    owner: Any, name: str, stage: Stage, wanted: Placement, checkpoint: Path, guides: MakeGuides, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Preparing the network is no matter of the VAE; frames that become pixels are within the retry."""
    animator = Animator.from_checkpoint(checkpoint, "cpu")
    events_of(animator, guides(11), tmp_path / "wanted.mkv")
    with monkeypatch.context() as patched:
        calls = once(patched, owner, name)
        events = events_of(animator, guides(11), tmp_path / "got.mkv")
    assert len(calls) > 1
    assert animator.engine.networks.placement == wanted
    (told,) = [e.message for e in events if isinstance(e, Notice) and "too little memory" in e.message]
    assert told.startswith(f"too little memory in segment 1 ({stage.words}): ")
    frames = [VideoFrames(tmp_path / f"{which}.mkv").take(range(11)).astype(int) for which in ("wanted", "got")]
    assert abs(frames[0] - frames[1]).max() <= 1


def test_weights_that_do_not_fit_are_read_again_into_less(
    checkpoint: Path, guides: MakeGuides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = once(monkeypatch, placement, "opening")
    animator = Animator.from_checkpoint(checkpoint, "cpu")
    events = events_of(animator, guides(5), tmp_path / "a.mkv")
    assert len(calls) == 2
    assert animator.engine.networks.placement.blocks == "streamed"
    assert any(isinstance(e, Notice) and e.message.startswith("too little memory for the weights") for e in events)


def test_detectors_without_room_make_the_weights_go(
    animator: Animator, guides: MakeGuides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wanimate.jobs import run as jobs

    assert animator.checkpoint
    assert animator.engine.state is State.OPEN
    states: list[State] = []

    def detecting(*_: Any) -> Iterator[Event]:
        states.append(animator.engine.state)
        yield StageStarted(stage=Stage.DETECT, total=1)
        if len(states) == 1:
            raise FULL
        return guides(5)

    monkeypatch.setattr(jobs.drive, "preprocess", detecting)
    task = jobs._Task(animator.engine, None, None, LOSSLESS, None, jobs.Clock(), {}, None, None, None, None)  # type: ignore[arg-type]
    job = type("Job", (), {"mode": "animation", "preprocess": None})
    task.place = type("Place", (), {"guides": tmp_path})  # type: ignore[assignment]
    drawn = list(jobs._made_guides(task, job, None, None, 1))  # type: ignore[arg-type]
    assert states == [State.OPEN, State.CLOSED]
    assert sum(isinstance(event, Notice) for event in drawn) == 1


def alive(kind: type, since: set[int]) -> int:
    gc.collect()
    return sum(isinstance(x, kind) and id(x) not in since for x in gc.get_objects())


@pytest.mark.parametrize("where", ["place", "optimize"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), pytest.param(RuntimeError("a defect"), marks=pytest.mark.slow)])
def test_an_open_that_fails_leaves_nothing_open(
    where: str, error: BaseException, checkpoint: Path, guides: MakeGuides, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The next job is the one that a fresh engine would do."""
    before = {id(x) for x in gc.get_objects() if isinstance(x, AnimateTransformer | VideoVae)}
    animator = Animator.from_checkpoint(checkpoint, "cpu")
    owner = animator.engine.networks if where == "place" else placement
    with monkeypatch.context() as patched:
        once(patched, owner, where, error)
        with pytest.raises(type(error)):
            events_of(animator, guides(5), tmp_path / "a.mkv")
        error.__traceback__ = None  # its frames hold the network
    assert animator.engine.state is State.CLOSED
    assert not animator.engine.networks.is_open
    assert animator.engine.networks.attention == ""
    assert alive(AnimateTransformer, before) == 0
    assert alive(VideoVae, before) == 0
    events_of(animator, guides(5), tmp_path / "a.mkv")
    events_of(Animator.from_checkpoint(checkpoint, "cpu"), guides(5), tmp_path / "b.mkv")
    frames = [VideoFrames(tmp_path / name).take(range(5)) for name in ("a.mkv", "b.mkv")]
    assert (frames[0] == frames[1]).all()
    assert animator.engine.patches() == {"transformer": [], "vae": animator.engine.patches()["vae"]}


def test_a_job_can_be_cancelled_while_weights_load(checkpoint: Path, guides: MakeGuides, tmp_path: Path) -> None:
    animator = Animator.from_checkpoint(checkpoint, "cpu")
    events = animator.generate(guides(5), tmp_path / "a.mkv", GenerateSettings(steps=2, seed=3), LOSSLESS)
    loading = 0
    for event in events:
        if isinstance(event, StageProgress) and event.stage is Stage.LOAD:
            loading += 1
            if loading == 3:
                break
    events.close()
    assert loading == 3
    assert animator.engine.state is State.CLOSED
    assert list(tmp_path.iterdir()) == []


def test_states_of_an_engine(checkpoint: Path, guides: MakeGuides, tmp_path: Path) -> None:
    with Animator(checkpoint, RuntimeSettings(device="cpu")) as animator:
        engine = animator.engine
        assert engine.state is State.CLOSED
        events = animator.generate(guides(5), tmp_path / "a.mkv", GenerateSettings(steps=2, seed=3), LOSSLESS)
        seen = [engine.state for event in events if isinstance(event, StageStarted)]
        assert seen[0] is State.CLOSED
        assert seen[-1] is State.RUNNING
        assert engine.state is State.OPEN
        network = weakref.ref(animator.checkpoint.transformer)
    gc.collect()
    assert engine.state is State.CLOSED
    assert network() is None
    engine.close()


def test_numbers_that_are_none_are_named(
    animator: Animator, guides: MakeGuides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By segment and step; no black frames come out."""
    calls: list[int] = []
    head = animator.checkpoint.transformer.head
    real = type(head).forward

    def broken(module: Any, x: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return real(module, x, e) * (float("nan") if len(calls) == 4 else 1)

    monkeypatch.setattr(type(head), "forward", broken)
    with pytest.raises(NotFinite, match=r"segment 2 of 2 are not finite from step 2 of 2 on.*Likely causes") as caught:
        events_of(animator, guides(11), tmp_path / "a.mkv")
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == [work_path(tmp_path / "a.mkv")]


def test_memory_of_the_host_is_no_defect(
    animator: Animator, guides: MakeGuides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")
    once(monkeypatch, AnimateTransformer, "context", error)
    with pytest.raises(OutOfMemory, match="the memory of this machine is not enough"):
        events_of(animator, guides(5), tmp_path / "a.mkv")


def test_a_cap_of_the_gpu_is_lifted_for_whoever_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float] = []
    total = type("Properties", (), {"total_memory": 2**30 * 100})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: total)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, device: shares.append(share))
    device = torch.device("cuda", 0)
    fit.limit_gpu(RuntimeSettings(), device)
    assert shares == [], "a cap that the caller has set stays"
    fit.limit_gpu(RuntimeSettings(gpu_memory=25), device)
    fit.limit_gpu(RuntimeSettings(), device)
    fit.limit_gpu(RuntimeSettings(), device)
    assert shares == [0.25, 1.0]
