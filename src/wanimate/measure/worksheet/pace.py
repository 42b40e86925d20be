"""A short real run of both modes: seconds and memory, for the adoption sheet."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from wanimate.api import Animator
from wanimate.config import GenerateSettings, Job, Mode, OutputSettings, PreprocessSettings, RuntimeSettings
from wanimate.events import Event, Finished, Stage
from wanimate.media.probe import probe

MODES: tuple[Mode, ...] = ("animation", "replacement")
_BY_FRAME = (Stage.DETECT, Stage.DRAW, Stage.CONDITIONS, Stage.DENOISE, Stage.DECODE, Stage.FINISH, Stage.WRITE)
"""Stages that take longer the longer a clip is. Loading and the character's encoding come once a job."""
_FOUND = (Stage.DETECT, Stage.DRAW)


@dataclass(frozen=True)
class Pace:
    """What a run of one mode took.

    frames, size: of the result. seconds: of the stages that grow with the clip; preprocessing: those of them before the
    network; once: those that come once a job. gpu, host: peaks in bytes; gpu is None on a processor. on: the day.
    """

    mode: Mode
    checkpoint: str
    device: str
    speed: str
    steps: int
    frames: int
    size: tuple[int, int]
    seconds: float
    preprocessing: float
    once: float
    host: int
    gpu: int | None
    on: str

    def a_second(self, fps: float) -> float:
        """Seconds of work for one second of video at a rate."""
        return self.seconds / self.frames * fps

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


Runner = Callable[[Path | None, int | None, RuntimeSettings], Generator[Event, None, list[Pace]]]


def measure(checkpoint: Path | None, area: int | None, runtime: RuntimeSettings) -> Generator[Event, None, list[Pace]]:
    """Run the packaged clip and character once in each mode: one segment of the checkpoint, or the whole clip where that is
    shorter. `area`: pixels of a frame; None is the checkpoint's own.

    Raises:
        As a job does.
    """
    shipped = Path(str(files("wanimate.weights") / "embedded" / "demo"))
    found: list[Pace] = []
    with tempfile.TemporaryDirectory(prefix="wanimate-worksheet-") as folder, Animator(checkpoint, runtime) as animator:
        video = shipped / "performer.mp4"
        clip = probe(video, None)
        for mode in MODES:
            resolved = animator.engine.resolve(GenerateSettings(), mode)
            seconds = float(min(clip.count, resolved.settings.clip_length) / clip.fps)
            limits = PreprocessSettings().limits.model_copy(update={"min_seconds": 0.0})
            job = Job(
                image=shipped / "character-2.png", video=video, out=Path(folder) / f"{mode}.mp4", mode=mode,
                preprocess=PreprocessSettings(area=area, end=min(seconds, float(clip.duration)), limits=limits),
                generate=GenerateSettings(seed=1), output=OutputSettings(),
            )  # fmt: skip
            for event in animator.run(job):
                if isinstance(event, Finished):
                    found.append(_pace(mode, event.result.manifest))
                yield event
    return found


def _pace(mode: Mode, record: dict[str, Any]) -> Pace:
    took: dict[str, float] = record["seconds"]
    grows = sum(took.get(stage, 0.0) for stage in _BY_FRAME)
    width, height = record["size"]
    return Pace(
        mode=mode, checkpoint=record["checkpoint"]["name"], device=record["device"], speed=record["runtime"]["speed"],
        steps=record["settings"]["steps"], frames=record["frames"], size=(width, height), seconds=round(grows, 3),
        preprocessing=round(sum(took.get(stage, 0.0) for stage in _FOUND), 3), once=round(sum(took.values()) - grows, 3),
        host=record["memory"]["host"], gpu=record["memory"].get("gpu"), on=datetime.now(UTC).strftime("%Y-%m-%d"),
    )  # fmt: skip
