"""Finding the performer in every frame of a job: the first of the two passes over the clip."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wanimate.config import PreprocessSettings
from wanimate.errors import InputError
from wanimate.events import Event, Stage, StageFinished, StageProgress, StageStarted
from wanimate.media.video import iter_backwards, iter_indices
from wanimate.preprocess.detect.base import PoseBackend
from wanimate.preprocess.layout import Layout
from wanimate.preprocess.people.choice import Choice, parse_choice
from wanimate.preprocess.pose.face import Squares, steady_squares
from wanimate.preprocess.pose.keypoints import COUNT, FACE
from wanimate.preprocess.pose.person import PersonPose
from wanimate.preprocess.pose.smooth import smooth
from wanimate.types import Clip, Keypoints


@dataclass(frozen=True)
class Performer:
    """The performer in the n frames of a job, in pixels of `Layout.seen`.

    keypoints [n, 133, 3] as detected, steady [n, 133, 3] as drawn, valid [n], found [n] as of `PersonPose`, and the
    square of the face [n, 3].
    """

    keypoints: Keypoints
    steady: Keypoints
    valid: npt.NDArray[np.bool_]
    found: tuple[str, ...]
    squares: Squares


def find_performer(
    people: PoseBackend, layout: Layout, settings: PreprocessSettings
) -> Generator[Event, None, Performer]:
    """Track the performer through the job's frames.

    A person chosen for a time is tracked from there to the end, and from there back to the start.

    Yields:
        The started, progress and finished events of the stage.

    Raises:
        InputError: nobody is in the clip, or the chosen person is not.
    """
    started, count = time.perf_counter(), layout.count
    yield StageStarted(Stage.DETECT, count)
    keypoints, valid, found = np.zeros((count, COUNT, 3)), np.zeros(count, dtype=bool), [""] * count
    for done, (i, person) in enumerate(_poses(people, layout, parse_choice(settings.person))):
        keypoints[i], valid[i], found[i] = person.keypoints, person.valid, person.found
        yield StageProgress(Stage.DETECT, done + 1, count)
    yield StageFinished(Stage.DETECT, time.perf_counter() - started)
    if not valid.any():
        raise nobody_found(layout.clip, count)
    steady = smooth(keypoints, valid, layout.fps) if is_smoothed(settings) else keypoints
    squares = steady_squares(keypoints[:, FACE], valid, layout.fps)
    return Performer(keypoints, steady, valid, tuple(found), squares)


def is_smoothed(settings: PreprocessSettings) -> bool:
    """Whether the drawn keypoints are smoothed; the published preprocessing does not."""
    return settings.smooth and not settings.compat


def nobody_found(clip: Clip, count: int) -> InputError:
    """The error of a clip that shows nobody in any of `count` frames."""
    remedy = "Give a clip in which one person's head and shoulders are plainly visible"
    return InputError("video", clip.path, f"nobody was found in any of its {count} frames", remedy)


def frame_at(clip: Clip, indices: tuple[int, ...], choice: Choice) -> int:
    """The job frame that shows the clip at the choice's time; the first one where it has none.

    Raises:
        InputError: the clip ends before.
    """
    if choice.at is None:
        return 0
    if choice.at > clip.duration:
        rule = f"the clip ends at {clip.duration:.2f} s"
        raise InputError("preprocess.person", choice, rule, "Give a time within the clip")
    return int(np.argmin([abs(clip.times[i] - clip.times[0] - choice.at) for i in indices]))


def _poses(people: PoseBackend, layout: Layout, choice: Choice) -> Iterator[tuple[int, PersonPose]]:
    """(job frame, the person in it), each frame once."""
    clip, indices = layout.clip, layout.indices
    first = frame_at(clip, indices, choice)
    ahead = map(layout.seen_frame, iter_indices(clip, indices[first:], damage=layout.damage))
    yield from enumerate(people.track(ahead), start=first)
    if first:
        back = people.track(map(layout.seen_frame, iter_backwards(clip, indices[first::-1])))
        next(back)  # the frame that both ways start from
        yield from zip(range(first - 1, -1, -1), back, strict=True)
