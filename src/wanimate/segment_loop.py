"""The loop over segments: conditions, diffusion, decoding, and what one segment hands to the next (model spec, 10.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wanimate.conditions.build import ConditionBuilder
from wanimate.config import Defaults
from wanimate.finish.decode import LatentDecoder, SegmentDecoder
from wanimate.sampling.denoise import denoise
from wanimate.sampling.guidance import Network
from wanimate.types import Conditions, Segment, StageFinished, StageProgress, StageStarted, StepDone


@dataclass(frozen=True)
class FramesReady:
    """Finished frames from job frame `start` on: float32 [3, k, H, W] in [-1, 1]."""

    start: int
    frames: Tensor


LoopEvent = StageStarted | StageProgress | StageFinished | StepDone | FramesReady


def run_segments(
    segments: Sequence[Segment],
    count: int,
    builder: ConditionBuilder,
    make_network: Callable[[Conditions], Network],
    codec: LatentDecoder,
    settings: Defaults,
    seed: int,
    chunk: int = 1,
) -> Iterator[LoopEvent]:
    """Yields the job's `count` frames in order, each once, and every diffusion step on the way.

    Noise comes from one CPU generator, seeded once a job; segments draw from it in turn and nothing else does.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    decoder = SegmentDecoder(codec, settings.overlap, chunk)
    done = 0
    for segment in segments:
        yield StageStarted("conditions")
        conditions = builder.build(segment, decoder.tail if segment.index else None)
        noise = torch.randn(16, *conditions.y.shape[1:], generator=generator).to(conditions.y.device)
        network = make_network(conditions)
        yield StageStarted("denoise", settings.steps)
        latents = noise
        for state in denoise(network, noise, settings.solver, settings.steps, settings.shift):
            latents = state.latents
            yield StepDone(segment.index, len(segments), state.step, state.steps, state.estimate[:, 1:])
        yield StageStarted("decode", segment.length)
        for frames in decoder.decode(latents[:, 1:], segment.overlap):
            kept = frames[:, : count - done]
            if kept.shape[1]:
                yield FramesReady(done, kept)
                done += kept.shape[1]
            yield StageProgress("decode", done, count)
    assert done == count
