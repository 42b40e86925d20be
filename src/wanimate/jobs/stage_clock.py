"""Seconds of a job's stages, measured where its events pass by."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from wanimate.types import Event, StageFinished, StageStarted

_Value = TypeVar("_Value")


@dataclass
class StageClock:
    """Closes a stage where the next one opens, and keeps the seconds of each."""

    seconds: dict[str, float] = field(default_factory=dict)
    stage: str | None = None
    since: float = 0.0

    def start(self, stage: str, total: int = 0) -> Iterator[Event]:
        yield from self.stop()
        self.stage, self.since = stage, time.perf_counter()
        yield StageStarted(stage, total)

    def stop(self) -> Iterator[Event]:
        if self.stage is not None:
            stage, spent = self.stage, time.perf_counter() - self.since
            self.stage = None
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent
            yield StageFinished(stage, spent)

    def note(self, event: Event) -> Iterator[Event]:
        """Pass an event on; starts and ends of stages are timed."""
        if isinstance(event, StageStarted):
            yield from self.start(event.stage, event.total)
        elif isinstance(event, StageFinished):
            yield from self.stop()
        else:
            yield event

    def watch(self, events: Generator[Event, None, _Value]) -> Generator[Event, None, _Value]:
        """`note` every event; returns what the generator returns."""
        while True:
            try:
                event = next(events)
            except StopIteration as stop:
                result: _Value = stop.value
                return result
            yield from self.note(event)
