"""What a job would be told of its clip and its picture, found out before anything is drawn."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from fractions import Fraction

from wanimate.config import PreprocessSettings
from wanimate.events import Event
from wanimate.preprocess import report
from wanimate.preprocess.detect.base import PoseBackend
from wanimate.preprocess.detect.registry import open_detector
from wanimate.preprocess.layout import Layout, plan_layout
from wanimate.preprocess.modes import DIFFERENT, Animation
from wanimate.preprocess.people.choice import parse_choice
from wanimate.preprocess.performer import Performer, find_performer
from wanimate.preprocess.pose import retarget
from wanimate.preprocess.pose.keypoints import runs
from wanimate.preprocess.shot.clip import analyse_performer
from wanimate.types import Clip, Frame, Mode

_MOST = 450
"""A longer stretch is looked at with fewer frames a second. Each takes about 0.06 s."""


@dataclass(frozen=True)
class Span:
    """A stretch of the clip: its frames [first, stop), and the same in seconds."""

    first: int
    stop: int
    start: float
    end: float


@dataclass(frozen=True)
class Finding:
    """One thing that the user should know.

    Attributes:
        kind: `nobody`: in `spans` nobody is found; `others`: up to `count` other people are in the picture, first seen in
            `spans`; `proportions`: of character and performer differ by `factor`; `character`: nobody is in the picture;
            `cuts`: the clip is cut at the beginning of each of `spans`; `light`: what to
            do about its light; `hdr`: its colours are tone mapped; `other`: as `text`
            says.
        text: as a job tells it.
    """

    kind: str
    text: str
    spans: tuple[Span, ...] = ()
    count: int | None = None
    factor: float | None = None


@dataclass(frozen=True)
class Inspection:
    """What was found in `count` frames, taken at the rate `fps`."""

    count: int
    fps: Fraction
    findings: tuple[Finding, ...]


def inspect(
    mode: Mode, clip: Clip, image: Frame, settings: PreprocessSettings, area: int, notices: tuple[str, ...] = (),
    detector: PoseBackend | None = None,
) -> Generator[Event, None, Inspection]:  # fmt: skip
    """Find the performer as a job would, and say what it would tell. Nothing is written.

    Args:
        image, area: as of `drive.preprocess`.
        notices: what there is to tell of the picture.
        detector: finds the people; None loads the one that the settings name.

    Yields:
        The events of the search.

    Raises:
        InputError: nobody is in the clip, the chosen person is not, or it cannot be read.
    """
    shape = image.shape[1], image.shape[0]
    layout = plan_layout(mode, clip, shape, settings, area)
    if layout.count > _MOST:
        rate = (layout.fps * _MOST / layout.count).limit_denominator(1000)
        layout = plan_layout(mode, clip, shape, settings.model_copy(update={"fps": rate}), area)
    detector = open_detector(settings) if detector is None else detector
    picture = Animation(layout, image, settings).character if mode == "animation" else image
    character = None if picture is None else detector.detect(picture)
    performer = yield from find_performer(detector, layout, settings)
    found = [Finding("hdr" if text == clip.hdr else "other", text) for text in (*clip.notices, *notices)]
    if (damage := layout.damage.told(clip)) is not None:
        found.append(Finding("other", damage))
    found += _of_people(performer, layout, settings)
    if picture is not None and character is None:
        found.append(Finding("character", "no person was found in the character image"))
    if mode == "replacement" and character is not None:
        factor = retarget.mismatch(performer.keypoints, performer.valid, layout.seen, character.keypoints, shape)
        if factor >= DIFFERENT:
            text = f"the proportions of character and performer differ by a factor of {factor:.1f}"
            found.append(Finding("proportions", text, factor=factor))
    if settings.shot_record and mode == "replacement":
        found.append(Finding("light", analyse_performer(layout, performer).advice.text))
    return Inspection(layout.count, layout.fps, tuple(found))


def _of_people(performer: Performer, layout: Layout, settings: PreprocessSettings) -> list[Finding]:
    found = []
    if (text := report.missing(performer.valid)) is not None:
        spans = tuple(_span(layout, *run) for run in runs(~performer.valid))
        found.append(Finding("nobody", text, spans))
    most = max(performer.others, default=0)
    if most and parse_choice(settings.person).is_anybody:
        first = next(i for i, others in enumerate(performer.others) if others)
        text = f"up to {most} other people are in the picture"
        found.append(Finding("others", text, (_span(layout, first, first + 1),), count=most))
    if performer.cuts:
        spans = tuple(_span(layout, cut, cut + 1) for cut in performer.cuts)
        found.append(Finding("cuts", "the clip is cut", spans))
    texts = report.doubts(performer.keypoints, performer.valid, performer.found) + report.faces(performer)
    return found + [Finding("other", text) for text in texts]


def _span(layout: Layout, first: int, stop: int) -> Span:
    """Frames [first, stop) of the job, as frames of its clip."""
    clip, indices = layout.clip, layout.indices
    last = indices[stop] if stop < layout.count else indices[-1] + 1
    end = clip.times[last] if last < clip.count else clip.duration
    return Span(indices[first], last, clip.times[indices[first]], end)
