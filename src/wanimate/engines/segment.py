"""One segment of the Wan2.2-Animate network: conditions, diffusion, decoding (model spec, section 10.1)."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from wanimate.conditions.build import ConditionBuilder
from wanimate.config import Defaults
from wanimate.engines.base import FramesReady, SegmentResult, SegmentTask
from wanimate.errors import NotFinite, setting
from wanimate.events import Event, Stage, StageStarted, StepDone
from wanimate.finish.anchor import Anchor
from wanimate.finish.decode import LatentDecoder, SegmentDecoder
from wanimate.finish.preview import ColourMap, LatentPreview
from wanimate.sampling.denoise import denoise
from wanimate.sampling.guidance import SegmentNetwork
from wanimate.types import AttentionStep, Conditions


@dataclass
class SegmentMaker:
    """What all segments of a job are made with. `chunk`: latent frames that the VAE takes at once. It is a
    `jobs.segments.SegmentSource` of its own, for whoever has these parts without an engine."""

    builder: ConditionBuilder
    make_network: Callable[[Conditions], SegmentNetwork]
    codec: LatentDecoder
    settings: Defaults
    chunk: int = 1
    started: Callable[[], None] = field(default=lambda: None)
    """Called as every stage begins."""
    shrink: Callable[[Stage], str | None] = field(default=lambda stage: None)
    """As `engines.base.Engine.shrink`."""
    attention_step: Callable[[], AttentionStep | None] = field(default=lambda: None)
    """What self-attention has left out since this was last called; None where nothing may be left out."""
    anchor: Anchor | None = None
    """Holds colours from segment to segment; None changes no frame."""

    @cached_property
    def _colours(self) -> ColourMap:
        return ColourMap(lambda: self.builder.colours)

    def segment(self, task: SegmentTask) -> Generator[Event | FramesReady, None, SegmentResult]:
        """As `engines.base.Engine.segment`; frames may go past the job's end."""
        latents, skipped = task.latents, 0
        attention: tuple[AttentionStep, ...] = ()
        if latents is None:
            latents, skipped, attention = yield from self._denoised(task)
        segment, anchored = task.segment, None
        if self.anchor is not None:
            anchored = self.anchor.begin(segment, task.known, self.builder.places(segment), task.anchor)
        self.builder.reader.wait()  # whoever finishes frames may look at the guides
        yield from self._start(Stage.DECODE, segment.length, segment.index)
        decoder = SegmentDecoder(self.codec, self.settings.overlap, self.chunk, task.known, anchored)
        start = segment.start + segment.overlap
        for frames in decoder.decode(latents.to(self.builder.device), segment.overlap):
            yield FramesReady(start, frames)
            start += frames.shape[1]
        assert decoder.tail is not None
        state = {} if anchored is None else anchored.state
        return SegmentResult(latents, decoder.tail, skipped, state, attention)

    def _denoised(self, task: SegmentTask) -> Generator[Event, None, tuple[Tensor, int, tuple[AttentionStep, ...]]]:
        """The segment's latents [16, T, h, w] without the reference frame, the steps that a cache has answered, and what
        attention has left out in each step."""
        segment, settings = task.segment, self.settings
        yield from self._start(Stage.CONDITIONS, 0, segment.index)
        conditions = self.builder.build(segment, task.known if segment.index else None)
        yield from self._start(Stage.DENOISE, settings.steps, segment.index)
        noise = torch.randn(16, *conditions.y.shape[1:], generator=task.generator).to(conditions.y.device)
        network = self.make_network(conditions)
        if task.following is not None:
            self.builder.reader.begin(task.following)
        latents, finite, left_out = noise, [], []
        self.attention_step()  # a segment that was broken off has left its own
        for state in denoise(network, noise, settings.solver, settings.steps, settings.shift):
            latents = state.latents
            finite.append(torch.isfinite(latents).all())
            if (attention := self.attention_step()) is not None:
                left_out.append(attention)
            preview = LatentPreview(self._colours, state.estimate[:, 1:])
            yield StepDone(
                segment=segment.index, segments=task.segments, step=state.step, steps=state.steps,
                skipped=network.skipped, preview=preview,
            )  # fmt: skip
        _check(torch.stack(finite), segment.index, task.segments)
        return latents[:, 1:], network.skipped, tuple(left_out)

    def _start(self, stage: Stage, total: int, index: int) -> Generator[Event, None, None]:
        self.started()
        yield StageStarted(stage, total, index)


def _check(finite: Tensor, index: int, segments: int) -> None:
    """`finite`: of each step, whether its state was. Raises NotFinite, naming the first step that was not."""
    bad = (~finite).nonzero()
    if len(bad):
        raise NotFinite(
            f"the latents of segment {index + 1} of {segments} are not finite from step {int(bad[0]) + 1} of {len(finite)} on. "
            f"Likely causes: a LoRA that is too strong ({setting('generate.lora')}), weights in fp16 that overflow "
            f"({setting('runtime.weights_dtype')} bf16 does not), a high {setting('generate.guidance')}, or a damaged file "
            "(`wanimate weights verify` finds it)."
        )
