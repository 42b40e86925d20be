"""The loop over segments: conditions, diffusion, decoding, and what one segment hands to the next (model spec, 10.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wanimate.conditions.build import ConditionBuilder
from wanimate.config import Defaults
from wanimate.events import Event, Notice, Stage, StageFinished, StageProgress, StageStarted, StepDone
from wanimate.finish.decode import LatentDecoder, Pixels, SegmentDecoder
from wanimate.sampling.denoise import denoise
from wanimate.sampling.guidance import SegmentNetwork
from wanimate.types import Conditions, Frames, Segment


@dataclass(frozen=True)
class FramesReady:
    """Finished frames from job frame `start` on: float32 [3, k, H, W] in [-1, 1]."""

    start: int
    frames: Tensor


@dataclass(frozen=True)
class PixelsReady:
    """Finished frames from job frame `start` on: uint8 [k, H, W, 3]."""

    start: int
    pixels: Frames


LoopEvent = StageStarted | StageProgress | StageFinished | StepDone | FramesReady | Notice
Ease = Callable[[str], str | None]
"""Asked, with a stage's name, after it found too little memory: makes room and says how, or None if there is none to make."""


def run_segments(
    segments: Sequence[Segment],
    count: int,
    builder: ConditionBuilder,
    make_network: Callable[[Conditions], SegmentNetwork],
    codec: LatentDecoder,
    settings: Defaults,
    seed: int,
    chunk: int = 1,
    ease: Ease = lambda stage: None,
) -> Iterator[LoopEvent]:
    """Yields the job's `count` frames in order, each once, and every diffusion step on the way.

    Noise comes from one CPU generator, seeded once a job; segments draw from it in turn and nothing else does. A segment
    that runs out of memory is begun again after `ease` has made room, with the same noise and the same frames before it.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    decoder = SegmentDecoder(codec, settings.overlap, chunk)
    done = 0
    for segment in segments:
        before, drawn = decoder.tail, generator.get_state()
        finished, reason = False, ""
        while not finished:
            stage = "conditions"
            try:
                for event in _run_segment(segment, segments, builder, make_network, decoder, settings, generator):
                    stage = event.stage if isinstance(event, StageStarted) else stage
                    if not isinstance(event, FramesReady):
                        yield event
                        continue
                    fresh = event.frames[:, max(0, done - event.start) : max(0, count - event.start)]
                    if fresh.shape[1]:
                        yield FramesReady(done, fresh)
                        done += fresh.shape[1]
                    yield StageProgress(Stage.DECODE, done, count)
                finished = True
            except torch.OutOfMemoryError as caught:
                reason = str(caught)
            if not finished:  # here the error is gone, and with it what its frames held
                how = ease(stage)
                if how is None:
                    raise torch.OutOfMemoryError(reason)
                yield Notice(
                    f"too little memory in segment {segment.index + 1} ({stage}): {how}; it is begun again", "warning"
                )
                decoder.tail = before
                generator.set_state(drawn)
    assert done == count


def with_pixels(events: Iterator[LoopEvent]) -> Iterator[Event | PixelsReady]:
    """Every `FramesReady` as pixels, one event late: they travel to host memory while the device makes the next frames."""
    waiting: tuple[int, Pixels] | None = None
    for event in events:
        if isinstance(event, StageProgress):  # it comes with the frames, before the next ones are begun
            yield event
            continue
        arrived, waiting = waiting, (event.start, Pixels(event.frames)) if isinstance(event, FramesReady) else None
        if arrived is not None:
            yield PixelsReady(arrived[0], arrived[1].wait())
        if not isinstance(event, FramesReady):
            yield event
    if waiting is not None:
        yield PixelsReady(waiting[0], waiting[1].wait())


def _run_segment(
    segment: Segment,
    segments: Sequence[Segment],
    builder: ConditionBuilder,
    make_network: Callable[[Conditions], SegmentNetwork],
    decoder: SegmentDecoder,
    settings: Defaults,
    generator: torch.Generator,
) -> Iterator[LoopEvent]:
    """One segment; its `FramesReady` count from its first new frame on and may go past the job's end."""
    yield StageStarted(Stage.CONDITIONS, segment=segment.index)
    conditions = builder.build(segment, decoder.tail if segment.index else None)
    noise = torch.randn(16, *conditions.y.shape[1:], generator=generator).to(conditions.y.device)
    network: SegmentNetwork | None = make_network(conditions)
    yield StageStarted(Stage.DENOISE, settings.steps, segment.index)
    assert network is not None
    if segment is not segments[-1]:
        builder.reader.begin(segments[segment.index + 1])
    latents = noise
    for state in denoise(network, noise, settings.solver, settings.steps, settings.shift):
        latents = state.latents
        yield StepDone(segment.index, len(segments), state.step, state.steps, network.skipped)
    network = None  # its context has no more use
    builder.reader.wait()  # whoever finishes frames may look at the guides
    yield StageStarted(Stage.DECODE, segment.length, segment.index)
    start = segment.start + segment.overlap
    for frames in decoder.decode(latents[:, 1:], segment.overlap):
        yield FramesReady(start, frames)
        start += frames.shape[1]
