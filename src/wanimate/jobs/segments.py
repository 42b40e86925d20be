"""The loop over segments: what one hands to the next, and what happens when memory runs out (model spec, section 10.1)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch

from wanimate.engines.base import FramesReady, SegmentResult, SegmentTask
from wanimate.events import Event, Notice, Stage, StageProgress, StageStarted
from wanimate.finish.anchor import State as AnchorState
from wanimate.finish.decode import to_unit
from wanimate.jobs.store import Archive, Redraw, StoredSegment
from wanimate.types import Segment


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
class FramesDone:
    """Finished frames from job frame `start` on: float32 RGB [k, 3, H, W] in [0, 1], on the engine's device."""

    start: int
    frames: torch.Tensor


LoopEvent = Event | FramesDone | SegmentDone
FADE = 8
"""Frames over which a redrawn segment fades back into the frames it replaces."""
NEAR = 4.0
"""Levels (of 255) by which the last frames of a redrawn segment may differ, on average, so that the segments after it stay."""


def run_segments(
    source: SegmentSource, segments: Sequence[Segment], count: int, seed: int, archive: Archive | None = None
) -> Iterator[LoopEvent]:
    """Yields the job's `count` frames in order, each once, and everything that happens on the way.

    Noise comes from one CPU generator, seeded once a job; segments draw from it in turn and nothing else does. A segment
    that runs out of memory is begun again after the stage that failed takes less, with the same noise and the same frames
    before it. A segment that `archive` holds is only decoded, and every other one is on disk before the next begins.
    """
    loop = _Loop(source, segments, count, archive)
    generator = torch.Generator("cpu").manual_seed(seed)
    for segment in segments:
        redraw = None if archive is None else archive.redraws.get(segment.index)
        if redraw is None:
            finished = yield from loop.finished(segment, "", generator, loop.show)
            loop.go_on("", finished)
        else:
            finished = yield from loop.redrawn(segment, redraw, generator)
        yield SegmentDone(segment.index, finished, loop.done)
    assert loop.done == count


class _Loop:
    """Where the loop is: `done` frames of the job have been shown, `known` are the last ones, `anchor` is what the last segment
    has left, and `path` is the noise of the segments so far (`store.Archive`)."""

    def __init__(self, source: SegmentSource, segments: Sequence[Segment], count: int, archive: Archive | None) -> None:
        self.source, self.segments, self.count, self.archive = source, segments, count, archive
        self.done = 0
        self.known: torch.Tensor | None = None
        self.anchor: AnchorState = {}
        self.path: tuple[str, ...] = ()

    def go_on(self, noise: str, finished: SegmentResult) -> None:
        """The next segment continues from this one."""
        self.path, self.known, self.anchor = (*self.path, noise), finished.tail, finished.anchor

    def finished(
        self, segment: Segment, noise: str, generator: torch.Generator, show: Callable[[FramesReady], Iterator[LoopEvent]]
    ) -> Generator[LoopEvent, None, SegmentResult]:  # fmt: skip
        """A segment, from the archive or made anew. `show`: what becomes of its frames."""
        path = (*self.path, noise)
        stored = None if self.archive is None else self.archive.get(segment, path)
        if stored is None:
            result = yield from self._made(self._task(segment, generator), show)
            if self.archive is not None:
                state = generator.get_state()
                kept = StoredSegment(
                    result.latents, result.tail, state, result.skipped, result.anchor, result.attention
                )
                failure = self.archive.add(segment, path, kept)
                if failure is not None:
                    text = f"segment {segment.index + 1} could not be stored ({failure}); the job goes on without"
                    yield Notice(text, "warning")
            return result
        decoded = yield from self._made(self._task(segment, generator, stored.latents), show)
        generator.set_state(stored.generator)
        off = float((decoded.tail.cpu() - stored.tail).abs().max()) * 127.5
        if off:
            where = f"segment {segment.index + 1} was made on another machine or setting"
            yield Notice(f"{where}: its frames differ by up to {off:.2g} levels", "warning")
        return SegmentResult(stored.latents, stored.tail, stored.skipped, stored.anchor, stored.attention)

    def redrawn(
        self, segment: Segment, redraw: Redraw, generator: torch.Generator
    ) -> Generator[LoopEvent, None, SegmentResult]:
        """A segment with noise of its own. Where its last frames are near those it replaces, it fades back into them, and the
        segments after it stay; elsewhere they are made anew."""
        assert self.archive is not None
        noise, last = str(redraw.seed), _LastFrames(FADE)
        old = yield from self.finished(segment, "", generator, last.take)
        own = torch.Generator("cpu").manual_seed(redraw.seed)
        new = yield from self.finished(segment, noise, own, _hidden)
        off = float((new.tail.cpu() - old.tail.cpu()).abs().mean()) * 127.5
        following = len(self.segments) - segment.index - 1
        blended = redraw.blended
        if blended is None:
            blended = off <= NEAR and following > 0
            self.archive.decide(segment.index, blended)
        yield Notice(_told(segment.index, redraw.seed, off, blended, following))
        fade = partial(self.show, fade=last.frames) if blended else self.show
        yield from self._made(self._task(segment, own, new.latents), fade)
        self.go_on("" if blended else noise, old if blended else new)
        return new

    def show(self, event: FramesReady, fade: torch.Tensor | None = None) -> Iterator[LoopEvent]:
        """Frames that have not been shown yet; `fade`: the last ones of the segment [3, n, H, W] to go over into."""
        fresh = event.frames[:, max(0, self.done - event.start) : max(0, self.count - event.start)]
        if fresh.shape[1]:
            if fade is not None:
                fresh = _faded(fresh, self.done, fade, self._stop)
            yield FramesDone(self.done, to_unit(fresh))
            self.done += fresh.shape[1]
        yield StageProgress(Stage.DECODE, self.done, self.count, len(self.path))

    @property
    def _stop(self) -> int:
        """The first job frame after the segment at hand."""
        return min(self.segments[len(self.path)].stop, self.count)

    def _task(self, segment: Segment, generator: torch.Generator, latents: torch.Tensor | None = None) -> SegmentTask:
        after = self.segments[segment.index + 1 : segment.index + 2]
        following = after[0] if after else None
        return SegmentTask(segment, len(self.segments), self.known, generator, following, latents, self.anchor)

    def _made(
        self, task: SegmentTask, show: Callable[[FramesReady], Iterator[LoopEvent]]
    ) -> Generator[LoopEvent, None, SegmentResult]:
        drawn = task.generator.get_state()
        while True:
            stage, reason = Stage.CONDITIONS, ""
            work = self.source.segment(task)
            try:
                while True:
                    event = next(work)
                    stage = event.stage if isinstance(event, StageStarted) else stage
                    if isinstance(event, FramesReady):
                        yield from show(event)
                    else:
                        yield event
            except StopIteration as end:
                result: SegmentResult = end.value
                return result
            except torch.OutOfMemoryError as caught:
                reason = str(caught)
            finally:
                work.close()
            event = None  # type: ignore[assignment]  # here the error is gone, and with it what its frames held
            how = self.source.shrink(stage)
            if how is None:
                raise torch.OutOfMemoryError(reason)
            text = f"too little memory in segment {task.segment.index + 1} ({stage.words}): {how}; the segment begins again"
            yield Notice(text, "warning")
            task.generator.set_state(drawn)


class _LastFrames:
    """Keeps the last frames of a segment that is not shown."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._start = 0
        self._frames: torch.Tensor | None = None

    @property
    def frames(self) -> torch.Tensor:
        """float32 [3, up to count, H, W]."""
        assert self._frames is not None
        return self._frames

    def take(self, event: FramesReady) -> Iterator[LoopEvent]:
        frames = event.frames.cpu()
        if self._frames is not None and event.start > self._start:
            frames = torch.cat((self._frames, frames), dim=1)
        self._frames, self._start = frames[:, -self.count :], event.start
        yield from ()


def _hidden(event: FramesReady) -> Iterator[LoopEvent]:
    """Frames that nobody is shown."""
    yield from ()


def _faded(frames: torch.Tensor, start: int, into: torch.Tensor, stop: int) -> torch.Tensor:
    """frames [3, k, H, W] from job frame `start` on, going over into the frames [3, n, H, W] that end at job frame `stop`."""
    count = into.shape[1]
    frames = frames.clone()
    for i in range(frames.shape[1]):
        place = start + i - (stop - count)
        if 0 <= place < count:
            share = (place + 1) / count
            frames[:, i] = frames[:, i] * (1 - share) + into[:, place].to(frames.device) * share
    return frames


def _told(index: int, seed: int, off: float, blended: bool, following: int) -> str:
    text = (
        f"segment {index + 1} is redrawn with seed {seed}; its last frames differ by {off:.1f} levels from those before"
    )
    if not following:
        return f"{text}; no segment follows"
    if blended:
        return f"{text}: it fades into them over {FADE} frames, and the segments after it stay"
    return f"{text}: the {following} after it {'are' if following > 1 else 'is'} made anew from it"
