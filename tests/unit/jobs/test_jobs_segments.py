"""Frames become pixels one event late, so that a device need not wait for the processor, and none too late."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from wanimate.events import Stage, StageProgress, StageStarted
from wanimate.finish.decode import Pixels, to_pixels
from wanimate.jobs.segments import LoopEvent, PixelsOnTheWay, PixelsReady, with_pixels


def test_pixels_come_when_the_next_frames_are_begun() -> None:
    frames = torch.rand(3, 9, 2, 4) * 2 - 1
    pieces = {0: frames[:, :1], 1: frames[:, 1:5], 5: frames[:, 5:]}
    begun: list[int | str] = []

    def loop() -> Iterator[LoopEvent]:
        yield StageStarted(stage=Stage.DECODE)
        for start, piece in pieces.items():
            begun.append(start)
            yield PixelsOnTheWay(start, piece, Pixels(piece))
            yield StageProgress(stage=Stage.DECODE, done=start + piece.shape[1], total=9)
        begun.append("the next stage")
        yield StageStarted(stage=Stage.CONDITIONS)

    found = []
    for event in with_pixels(loop()):
        if isinstance(event, PixelsReady):
            found.append((event.start, begun[-1]))
            assert (event.pixels == to_pixels(pieces[event.start])).all()
        elif isinstance(event, StageStarted) and event.stage is Stage.CONDITIONS:
            assert len(found) == 3  # before the stage changes hands
    assert found == [(0, 1), (1, 5), (5, "the next stage")]
    *_, last = with_pixels(iter([PixelsOnTheWay(5, pieces[5], Pixels(pieces[5]))]))
    assert isinstance(last, PixelsReady)
