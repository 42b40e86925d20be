"""What `jobs/` sees of a network: the protocol of an engine, and the values that go in and out.

closed   no weights in memory
open     weights in memory, no job
running  a job's own tensors, too (prompt, character, LoRAs)

`check` and `plan` read headers only. `open` goes to `running`; where it fails or is broken off, nothing of it stays in
memory. `release` goes back to `open`, `close` to `closed`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from wanimate.conditions.read import GuidesReader
from wanimate.config import GenerateSettings
from wanimate.engines.resolved import ResolvedJob
from wanimate.events import Event, Expected, Stage
from wanimate.finish.anchor import State as AnchorState
from wanimate.types import AttentionStep, Mode, Segment


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    RUNNING = "running"


@dataclass(frozen=True)
class FramesReady:
    """Finished frames from job frame `start` on: float32 [3, k, H, W] in [-1, 1], on the engine's device."""

    start: int
    frames: Tensor


@dataclass(frozen=True)
class SegmentTask:
    """One segment of a job. `known`: the last `segment.overlap` frames before it, float32 [3, r, H, W] in [-1, 1], on any
    device; None for the first one. `generator` gives its noise, and nobody else draws from it meanwhile. `following`: the
    segment whose guides may be read ahead. `latents`: of a finished segment [16, T, h, w], which is only decoded. `anchor`:
    what the segment before has left."""

    segment: Segment
    segments: int
    known: Tensor | None
    generator: torch.Generator
    following: Segment | None = None
    latents: Tensor | None = None
    anchor: AnchorState = field(default_factory=dict)


@dataclass(frozen=True)
class SegmentResult:
    """A segment's latents [16, T, h, w] without the reference frame, its last `overlap` frames [3, r, H, W], how many of its
    steps a step cache has answered, what holds the next segment's colours (`finish.anchor`; empty: nothing does), and what
    self-attention has left out in each step (empty: nothing)."""

    latents: Tensor
    tail: Tensor
    skipped: int
    anchor: AnchorState = field(default_factory=dict)
    attention: tuple[AttentionStep, ...] = ()


class Engine(Protocol):
    """A network that makes frames from guides, segment by segment."""

    @property
    def state(self) -> State: ...

    @property
    def area(self) -> int:
        """Pixel area of results, where the job names none."""
        ...

    @property
    def device(self) -> torch.device:
        """Where frames are made."""
        ...

    @property
    def files(self) -> list[Path]:
        """The checkpoint's files, for the record."""
        ...

    def resolve(self, generate: GenerateSettings, mode: Mode) -> ResolvedJob:
        """The settings with nothing left open. Raises InputError as `ResolvedJob.of`."""
        ...

    def check(self, job: ResolvedJob) -> None:
        """Refuse what the headers of files tell already: files that are missing or of another network, LoRAs that do not fit.

        Raises:
            CheckpointError, InputError.
        """
        ...

    def read_ahead(self, job: ResolvedJob) -> None:
        """Begin to bring the files of weights that the job needs into the host's page cache, where it has room for them."""
        ...

    def plan(self, job: ResolvedJob, size: tuple[int, int], count: int, beside: int = 0) -> Iterator[Event]:
        """Find where the weights go for `count` frames of `size`, and say so. `beside`: bytes that finishing takes while frames
        are decoded.

        Raises:
            OutOfMemory: the job does not fit; the message names the nearest setting that does.
        """
        ...

    def expected(self, job: ResolvedJob, count: int, finished: int = 0) -> list[Expected]:
        """The work that the job has before it; so many segments are finished but for decoding."""
        ...

    def open(self, job: ResolvedJob, reader: GuidesReader) -> Iterator[Event]:
        """Bring in weights that are not there, and what the job's segments share.

        Raises:
            CheckpointError: the files do not hold the network. InputError: a LoRA does not fit it. torch.OutOfMemoryError.
        """
        ...

    def segment(self, task: SegmentTask) -> Generator[Event | FramesReady, None, SegmentResult]:
        """Make a segment; frames that it shares with the one before do not come again. It can be begun again with the same task
        if the generator's state is set back.

        Raises:
            torch.OutOfMemoryError: `shrink`, and begin again. NotFinite: the latents are no numbers.
        """
        ...

    def shrink(self, stage: Stage) -> str | None:
        """Take less memory in `stage`, which has found too little, and say what changed; None where nothing is left to give."""
        ...

    def release(self) -> None:
        """Give the job's own tensors back; the weights stay."""
        ...

    def close(self) -> None:
        """Give all memory back. Nothing happens the second time."""
        ...

    def facts(self) -> dict[str, Any]:
        """For the record: checkpoint, hashes of its files, device, placement, attention, patches, memory."""
        ...
