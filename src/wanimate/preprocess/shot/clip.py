"""The record of a clip without its guides: one pass over its frames, or over those that are looked at."""

from __future__ import annotations

import time
from collections.abc import Generator

import numpy as np
import numpy.typing as npt

from wanimate.config import PreprocessSettings
from wanimate.events import Event, Stage, StageFinished, StageProgress, StageStarted
from wanimate.media.video import iter_indices
from wanimate.preprocess.detect.base import PoseBackend
from wanimate.preprocess.detect.registry import open_detector
from wanimate.preprocess.layout import Layout, job_frames
from wanimate.preprocess.people.choice import box
from wanimate.preprocess.people.cuts import with_cuts
from wanimate.preprocess.performer import Performer
from wanimate.preprocess.shot.analysis import ShotWatch, outline
from wanimate.preprocess.shot.proposals import record_of
from wanimate.preprocess.shot.record import ShotRecord
from wanimate.types import Clip, Frame, Keypoints


def analyse_clip(
    clip: Clip, settings: PreprocessSettings | None = None, detector: PoseBackend | None = None
) -> Generator[Event, None, ShotRecord]:
    """Everybody in the clip is left out of the search for the camera's movement; the largest one tells the shot's size.

    Args:
        settings: rate and stretch; None takes all of the clip, at 30 frames/s at most.
        detector: finds the people; None loads the one that the settings name.

    Yields:
        The started, progress and finished events of the stage.

    Raises:
        InputError: the clip cannot be read, or the detector's models are missing.
    """
    settings = settings or PreprocessSettings()
    detector = open_detector(settings) if detector is None else detector
    (indices, fps), started = job_frames(clip, settings), time.perf_counter()
    watch = ShotWatch(len(indices), fps)
    yield StageStarted(Stage.DETECT, len(indices))
    for i, (cut, frame) in enumerate(with_cuts(iter_indices(clip, indices))):
        if cut:
            watch.cut(i)
        if watch.wants(i):
            people = [person.keypoints for person in detector.candidates(frame, deep=False)]
            watch.see(i, frame, max(people, key=_area, default=None), _everybody(people, frame))
        yield StageProgress(Stage.DETECT, i + 1, len(indices))
    yield StageFinished(Stage.DETECT, time.perf_counter() - started)
    return record_of(clip, watch)


def analyse_performer(layout: Layout, performer: Performer) -> ShotRecord:
    """The same where the performer has been found already; only frames that are looked at are taken.

    Raises:
        InputError: the clip cannot be read.
    """
    watch = ShotWatch(layout.count, layout.fps, performer.cuts)
    starts = [0, *performer.cuts]
    wanted = [i for a, b in zip(starts, [*performer.cuts, layout.count], strict=True) for i in watch.looks(a, b)]
    frames = iter_indices(layout.clip, [layout.indices[i] for i in wanted])
    for i, frame in zip(wanted, map(layout.seen_frame, frames), strict=True):
        watch.see(i, frame, performer.keypoints[i] if performer.valid[i] else None)
    return record_of(layout.clip, watch)


def _area(person: Keypoints) -> float:
    left, top, right, bottom = box(person)
    return (right - left) * (bottom - top)


def _everybody(people: list[Keypoints], frame: Frame) -> npt.NDArray[np.uint8] | None:
    """uint8 [H, W], 255 on people; None where nobody is."""
    masks = [mask for person in people if (mask := outline(person, frame.shape[:2])) is not None]
    return np.asarray(np.maximum.reduce(masks), np.uint8) if masks else None
