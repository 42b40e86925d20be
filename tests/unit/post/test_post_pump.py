"""Frames that are pushed come out as those that are drawn; errors reach the caller, and nothing runs between two calls."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from wanimate.errors import InputError
from wanimate.post.base import Chunks, PostStage, VideoSpec, run_stages, single_frames
from wanimate.post.pump import Pump

SPEC = VideoSpec((4, 2), Fraction(10), 7)


class Twice:
    """Shows every frame twice, and looks one frame ahead."""

    def __init__(self) -> None:
        self.closed = 0

    def result(self, spec: VideoSpec) -> VideoSpec:
        return replace(spec, count=2 * spec.count, fps=2 * spec.fps)

    def run(self, spec: VideoSpec, chunks: Iterable[Tensor]) -> Chunks:
        held: Tensor | None = None
        for frame in single_frames(spec, chunks):
            if held is not None:
                yield torch.cat((held, held))
            held = frame
        assert held is not None
        yield torch.cat((held, held))

    def close(self) -> None:
        self.closed += 1


class Broken(Twice):
    def run(self, spec: VideoSpec, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        for number, chunk in enumerate(chunks):
            if number:
                raise torch.OutOfMemoryError("no room")
            yield chunk


def frames(count: int = 7) -> Tensor:
    return torch.rand(count, 3, 2, 4, generator=torch.Generator().manual_seed(1))


def pushed(stages: list[PostStage], pieces: Iterable[Tensor]) -> Tensor:
    with Pump(stages, SPEC) as pump:
        made = [chunk for piece in pieces for chunk in pump.push(piece)]
        return torch.cat([*made, *pump.end()])


@pytest.mark.parametrize("sizes", [(7,), (1, 2, 4), (1,) * 7])
def test_pushed_frames_come_out_as_drawn_ones(sizes: tuple[int, ...]) -> None:
    drawn = torch.cat(
        list(
            run_stages(
                [
                    Twice(),
                ],
                SPEC,
                [frames()],
            )
        )
    )
    assert torch.equal(pushed([Twice()], frames().split(list(sizes))), drawn)


def test_frames_come_as_soon_as_they_can() -> None:
    with Pump([Twice()], SPEC) as pump:
        assert pump.result.count == 14
        assert pump.push(frames(1)) == []
        assert len(pump.push(frames(3))) == 3
        pump.push(frames(3))
        assert len(pump.end()) == 1


def test_a_stage_that_fails_fails_its_caller() -> None:
    with Pump([Broken()], SPEC) as pump:
        assert len(pump.push(frames(1))) == 1
        with pytest.raises(torch.OutOfMemoryError, match="no room"):
            pump.push(frames(1))
        assert pump.end() == []


def test_too_few_frames_are_told() -> None:
    with Pump([Twice()], SPEC) as pump:
        pump.push(frames(5))
        with pytest.raises(InputError, match="5 frames, and 7"):
            pump.end()


def test_closing_early_ends_the_thread_and_closes_the_stages() -> None:
    stage, before = Twice(), threading.active_count()
    pump = Pump([stage], SPEC)
    pump.push(frames(2))
    pump.close()
    pump.close()
    assert threading.active_count() == before
    assert stage.closed == 2


def test_without_stages_frames_pass() -> None:
    assert torch.equal(pushed([], frames().split(3)), frames())
