"""Jobs that are broken off and go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wanimate.api import Animator
from wanimate.config import GenerateSettings, OutputSettings
from wanimate.events import Finished, Notice, StepDone
from wanimate.media.video import VideoFrames
from wanimate.types import Frames, Guides, Result

LOSSLESS = OutputSettings(codec="ffv1")
KEPT = OutputSettings(codec="ffv1", keep_segments=True)
SETTINGS = GenerateSettings(steps=2, seed=7, clip_length=9, overlap=1, solver="euler")
"""21 frames are three segments with them."""


class Job:
    """A job of three segments and what it says."""

    def __init__(self, animator: Animator, guides: Path | Guides, out: Path) -> None:
        self.animator, self.guides, self.out = animator, guides, out

    def events(self, settings: GenerateSettings = SETTINGS, output: OutputSettings = LOSSLESS) -> Any:
        return self.animator.generate(self.guides, self.out, settings, output)

    def broken_off(
        self, segments: int, settings: GenerateSettings = SETTINGS, output: OutputSettings = LOSSLESS
    ) -> None:
        """Run until the first step after so many segments."""
        events = self.events(settings, output)
        for event in events:
            if isinstance(event, StepDone) and event.segment == segments:
                break
        events.close()

    def done(
        self, settings: GenerateSettings = SETTINGS, output: OutputSettings = LOSSLESS
    ) -> tuple[Result, list[int], list[str]]:
        """Run to the end; the result, the segments whose steps were computed, and the notices."""
        events = list(self.events(settings, output))
        steps = sorted({event.segment for event in events if isinstance(event, StepDone)})
        last = events[-1]
        assert isinstance(last, Finished)
        return last.result, steps, [event.message for event in events if isinstance(event, Notice)]

    @property
    def frames(self) -> Frames:
        return VideoFrames(self.out).take(range(21))
