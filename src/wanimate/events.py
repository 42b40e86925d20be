"""What a running job tells its caller, and the seconds of its stages.

A job is a generator of these events, in order; the last one is `Finished`. Every event of a job carries how far the whole
job is (`Clock` fills that in) and can be sent to another process: `to_dict` and `from_dict`, schema `SCHEMA`.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from wanimate.errors import Spelling, spell
from wanimate.types import Frame, Result

SCHEMA = 1
"""Version of `to_dict`. A reader refuses a newer one."""

_Value = TypeVar("_Value")


class Stage(StrEnum):
    """The stages of a job, in the order of its work. `words` is what people are shown."""

    DETECT = "detect"
    DRAW = "draw"
    PROMPT = "prompt"
    LOAD = "load"
    LORA = "lora"
    REFERENCE = "reference"
    CONDITIONS = "conditions"
    DENOISE = "denoise"
    DECODE = "decode"
    CUTS = "cuts"
    FINISH = "finish"
    WRITE = "write"
    ENCODE_EXAMPLES = "encode_examples"
    TRAIN = "train"
    CONVERT = "convert"

    @property
    def words(self) -> str:
        return _WORDS[self]


_WORDS = {
    Stage.DETECT: "find the performer", Stage.DRAW: "draw the guides", Stage.PROMPT: "encode the prompt",
    Stage.LOAD: "load the checkpoint", Stage.LORA: "add the LoRAs", Stage.REFERENCE: "encode the character",
    Stage.CONDITIONS: "encode the conditions", Stage.DENOISE: "denoise", Stage.DECODE: "decode",
    Stage.CUTS: "find the cuts",
    Stage.FINISH: "finish the frames",
    Stage.WRITE: "write the file", Stage.ENCODE_EXAMPLES: "encode the examples", Stage.TRAIN: "train",
    Stage.CONVERT: "convert",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Event:
    """`fraction` of the whole job that is done, 0 to 1, never falling; `seconds_left` until its end, as far as they can be
    told. Both are None outside of a job, and until the job knows its length."""

    fraction: float | None = None
    seconds_left: float | None = None


@dataclass(frozen=True)
class StageStarted(_Event):
    """`total` counts the stage's own units (frames, steps, bytes); 0 where it is not known beforehand."""

    stage: Stage
    total: int = 0
    segment: int | None = None


@dataclass(frozen=True)
class StageProgress(_Event):
    """`done` of `total` units of the stage."""

    stage: Stage
    done: int
    total: int
    segment: int | None = None


@dataclass(frozen=True)
class StageFinished(_Event):
    stage: Stage
    seconds: float
    segment: int | None = None


class Preview(Protocol):
    """A small picture of what is being made, drawn when it is asked for."""

    def picture(self) -> Frame:
        """uint8 RGB [h, w, 3]."""
        ...


@dataclass(frozen=True)
class Picture:
    """A preview that has been drawn already."""

    pixels: Frame

    def picture(self) -> Frame:
        return self.pixels


@dataclass(frozen=True)
class StepDone(_Event):
    """Diffusion step `step` of `steps` in `segment` (from 0) of `segments`. `skipped` counts the segment's steps that a
    step cache has answered so far. `preview` shows the middle frame of the segment as it is estimated now."""

    segment: int
    segments: int
    step: int
    steps: int
    skipped: int = 0
    preview: Preview | None = field(default=None, repr=False, compare=False)

    stage = Stage.DENOISE


@dataclass(frozen=True)
class Notice(_Event):
    """Something the user should read: a seed that was drawn, frames without a person, a fallback that was taken.

    `text` may hold marks of settings (`errors.setting`); `message` is the text in Python's spelling.
    """

    text: str
    level: Literal["info", "warning"] = "info"

    @property
    def message(self) -> str:
        return spell(self.text)

    def spelled(self, spelling: Spelling) -> str:
        """The text in a front end's own names."""
        return spell(self.text, spelling)


@dataclass(frozen=True)
class Finished(_Event):
    result: Result


Event = StageStarted | StageProgress | StageFinished | StepDone | Notice | Finished
_KINDS: dict[str, type[Event]] = {
    "stage_started": StageStarted, "progress": StageProgress, "stage_finished": StageFinished, "step": StepDone,
    "notice": Notice, "finished": Finished,
}  # fmt: skip
_NAMES = {kind: name for name, kind in _KINDS.items()}


def to_dict(event: Event, previews: bool = False) -> dict[str, Any]:
    """An event as what JSON can hold. `previews`: steps carry their picture, a PNG in base64."""
    data: dict[str, Any] = {"schema": SCHEMA, "event": _NAMES[type(event)]}
    for name, value in vars(event).items():
        if name == "preview":
            if previews and value is not None:
                data["preview"] = base64.b64encode(_png(value.picture())).decode()
        elif isinstance(value, Result):
            result = asdict(value) | {
                "out": str(value.out),
                "fps": str(value.fps),
                "sheet": value.sheet and str(value.sheet),
            }
            data["result"] = result
        else:
            data[name] = value
    return data


def from_dict(data: Mapping[str, Any]) -> Event:
    """The opposite of `to_dict`.

    Raises:
        ValueError: it is no event, or one of a newer schema.
    """
    if data.get("schema", 0) > SCHEMA or data.get("event") not in _KINDS:
        raise ValueError(f"not an event of schema {SCHEMA}: {data.get('event')!r}, schema {data.get('schema')!r}")
    kind = _KINDS[data["event"]]
    values = {name: value for name, value in data.items() if name not in ("schema", "event")}
    if "stage" in values:
        values["stage"] = Stage(values["stage"])
    if "preview" in values:
        values["preview"] = Picture(_pixels(base64.b64decode(values["preview"])))
    if "result" in values:
        r = values["result"]
        places = {"out": Path(r["out"]), "sheet": r["sheet"] and Path(r["sheet"]), "size": tuple(r["size"])}
        values["result"] = Result(**(r | places | {"fps": Fraction(r["fps"])}))
    return kind(**values)


def _png(pixels: Frame) -> bytes:
    from PIL import Image

    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, "PNG")
    return packed.getvalue()


def _pixels(png: bytes) -> Frame:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=np.uint8)


@dataclass(frozen=True)
class Expected:
    """Work that a job has before it: `units` of a stage, about `seconds` each."""

    stage: Stage
    units: int
    seconds: float


class Clock:
    """Times stages where their events pass by, and tells with every event how far the whole job is.

    seconds: of each stage so far, by its name. A stage's remaining units count by the seconds its own units have taken, and by
    the expected ones before its first unit is done.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._now: Callable[[], float] = time.perf_counter
        self._began = self._now()
        self._expected: dict[Stage, list[Expected]] = {}
        self._done: dict[Stage, float] = {}
        self._open: StageStarted | None = None
        self._since = 0.0
        self._fraction = 0.0

    def expect(self, work: Iterable[Expected]) -> None:
        """Set what is before the job, in place of what was expected of these stages."""
        parts = list(work)
        for stage in {part.stage for part in parts}:
            self._expected[stage] = [part for part in parts if part.stage == stage]

    def start(self, stage: Stage, total: int = 0, segment: int | None = None) -> Iterator[Event]:
        """End the stage that is open, and begin another."""
        yield from self.stop()
        self._open, self._since = StageStarted(stage, total, segment), self._now()
        yield self.placed(self._open)

    def stop(self) -> Iterator[Event]:
        """End the stage that is open, if one is."""
        if self._open is not None:
            began, self._open = self._open, None
            spent = self._now() - self._since
            self.seconds[began.stage] = self.seconds.get(began.stage, 0.0) + spent
            yield self.placed(StageFinished(began.stage, spent, began.segment))

    @contextmanager
    def within(self, stage: Stage) -> Iterator[None]:
        """The time of the block belongs to this stage, and not to the one that is open."""
        began = self._now()
        yield
        spent = self._now() - began
        self.seconds[stage] = self.seconds.get(stage, 0.0) + spent
        self._since += spent

    def note(self, event: Event) -> Iterator[Event]:
        """Pass an event on; starts and ends of stages are timed."""
        if isinstance(event, StageStarted):
            yield from self.start(event.stage, event.total, event.segment)
        elif isinstance(event, StageFinished):
            yield from self.stop()
        else:
            yield self.placed(event)

    def watch(self, events: Generator[Event, None, _Value]) -> Generator[Event, None, _Value]:
        """`note` every event; returns what the generator returns."""
        while True:
            try:
                event = next(events)
            except StopIteration as stop:
                result: _Value = stop.value
                return result
            yield from self.note(event)

    def placed(self, event: Event) -> Event:
        """The event with the job's fraction and the seconds left."""
        self._count(event)
        if isinstance(event, Finished):
            return replace(event, fraction=1.0, seconds_left=0.0)
        if not self._expected:
            return event
        left = sum(self._left(stage) for stage in self._expected)
        spent = self._now() - self._began
        self._fraction = max(self._fraction, min(spent / (spent + left), 0.999) if spent + left > 0 else 0.0)
        return replace(event, fraction=self._fraction, seconds_left=left)

    def _count(self, event: Event) -> None:
        if isinstance(event, StepDone):
            self._done[Stage.DENOISE] = self._done.get(Stage.DENOISE, 0) + 1
        elif isinstance(event, StageProgress) and event.total:
            expected = sum(part.units for part in self._expected.get(event.stage, []))
            self._done[event.stage] = max(self._done.get(event.stage, 0), expected * event.done / event.total)
        elif isinstance(event, StageFinished) and event.segment is None:
            self._done[event.stage] = sum(part.units for part in self._expected.get(event.stage, []))
        elif isinstance(event, StageFinished) and event.stage is Stage.CONDITIONS:
            self._done[event.stage] = self._done.get(event.stage, 0) + 1

    def _left(self, stage: Stage) -> float:
        """Seconds that the stage still needs."""
        parts, done = self._expected[stage], self._done.get(stage, 0.0)
        units = sum(part.units for part in parts)
        if done <= 0:
            return sum(part.units * part.seconds for part in parts)
        spent = self.seconds.get(stage, 0.0)
        if self._open is not None and self._open.stage == stage:
            spent += self._now() - self._since
        return max(0.0, units - done) * spent / done
