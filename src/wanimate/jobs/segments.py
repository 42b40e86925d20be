"""The loop over segments: what one hands to the next, and what happens when memory runs out (model spec, section 10.1)."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from wanimate.engines.base import FramesReady, SegmentResult, SegmentTask
from wanimate.events import Event, Notice, Stage, StageProgress, StageStarted
from wanimate.finish.decode import Pixels
from wanimate.types import Frames, Segment


class SegmentSource(Protocol):
    """What the loop needs of an engine."""

    def segment(self, task: SegmentTask) -> Generator[Event | FramesReady, None, SegmentResult]: ...

    def shrink(self, stage: Stage) -> str | None: ...


@dataclass(frozen=True)
class SegmentDone:
    """A segment is finished; `frames` of the job are done with it."""

    index: int
    result: SegmentResult
    frames: int


@dataclass(frozen=True)
class PixelsOnTheWay:
    """Finished frames from job frame `start` on, travelling to host memory. `frames`: the same as the engine gave them,
    float32 [3, k, H, W] in [-1, 1]."""

    start: int
    frames: torch.Tensor
    pixels: Pixels


@dataclass(frozen=True)
class PixelsReady:
    """Finished frames from job frame `start` on: uint8 [k, H, W, 3]."""

    start: int
    pixels: Frames


LoopEvent = Event | PixelsOnTheWay | SegmentDone


def run_segments(source: SegmentSource, segments: Sequence[Segment], count: int, seed: int) -> Iterator[LoopEvent]:
    """Yields the job's `count` frames in order, each once, and everything that happens on the way.

    Noise comes from one CPU generator, seeded once a job; segments draw from it in turn and nothing else does. A segment
    that runs out of memory is begun again after the stage that failed takes less, with the same noise and the same frames
    before it.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    known: torch.Tensor | None = None
    anchor: dict[str, torch.Tensor] = {}
    done = 0
    for segment, following in zip(segments, [*segments[1:], None], strict=True):
        task = SegmentTask(segment, len(segments), known, generator, following, anchor)
        drawn = generator.get_state()
        result: SegmentResult | None = None
        while result is None:
            stage, reason = Stage.CONDITIONS, ""
            work = source.segment(task)
            try:
                while True:
                    event = next(work)
                    stage = event.stage if isinstance(event, StageStarted) else stage
                    if not isinstance(event, FramesReady):
                        yield event
                        continue
                    fresh = event.frames[:, max(0, done - event.start) : max(0, count - event.start)]
                    if fresh.shape[1]:
                        pixels = Pixels(fresh)
                        yield PixelsOnTheWay(done, fresh, pixels)
                        done += fresh.shape[1]
                    yield StageProgress(Stage.DECODE, done, count, segment.index)
            except StopIteration as end:
                result = end.value
            except torch.OutOfMemoryError as caught:
                reason = str(caught)
            finally:
                work.close()
            if result is None:  # here the error is gone, and with it what its frames held
                event = None  # type: ignore[assignment]
                how = source.shrink(stage)
                if how is None:
                    raise torch.OutOfMemoryError(reason)
                text = (
                    f"too little memory in segment {segment.index + 1} ({stage.words}): {how}; the segment begins again"
                )
                yield Notice(text, "warning")
                generator.set_state(drawn)
        known, anchor = result.tail, result.anchor
        yield SegmentDone(segment.index, result, done)
    assert done == count


def with_pixels(events: Iterator[LoopEvent]) -> Iterator[Event | PixelsReady | SegmentDone]:
    """Frames as pixels, one event late: they travel to host memory while the device makes the next ones."""
    waiting: PixelsOnTheWay | None = None
    for event in events:
        if isinstance(event, StageProgress):  # it comes with the frames, before the next ones are begun
            yield event
            continue
        arrived, waiting = waiting, event if isinstance(event, PixelsOnTheWay) else None
        if arrived is not None:
            yield PixelsReady(arrived.start, arrived.pixels.wait())
        if not isinstance(event, PixelsOnTheWay):
            yield event
    if waiting is not None:
        yield PixelsReady(waiting.start, waiting.pixels.wait())
