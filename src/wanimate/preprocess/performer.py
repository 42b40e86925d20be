"""Finding the performer in every frame of a job: the first of the two passes over the clip.

Every shot is a run of its own: nobody is followed across a cut. In a shot the person is followed from where they are found
first to its end, and then back over the frames before, in which they were not found.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from wanimate.config import PreprocessSettings
from wanimate.errors import Fault, InputError
from wanimate.events import Event, Stage, StageFinished, StageProgress, StageStarted
from wanimate.media.video import iter_backwards, iter_indices
from wanimate.preprocess.detect.base import PoseBackend
from wanimate.preprocess.layout import Layout
from wanimate.preprocess.people.choice import Choice, parse_choice
from wanimate.preprocess.people.cuts import with_cuts
from wanimate.preprocess.people.tracking import Tracker
from wanimate.preprocess.pose.face import Squares, steady_squares
from wanimate.preprocess.pose.keypoints import runs
from wanimate.preprocess.pose.person import PersonPose, nobody
from wanimate.preprocess.pose.smooth import smooth
from wanimate.types import Clip, Frame, Keypoints

_BESIDE = 0.25
"""Seconds by which the time of a choice may lie beside the frames that are used."""
Pose = tuple[int, PersonPose]
"""A job frame, and the person in it."""


@dataclass(frozen=True)
class Performer:
    """The performer in the n frames of a job, in pixels of `Layout.seen`.

    keypoints [n, 133, 3] as detected, steady [n, 133, 3] as drawn, valid [n], found [n] and others [n] as of `PersonPose`,
    and the square of the face [n, 3]. `cuts` are the frames that begin a shot, but the first.
    """

    keypoints: Keypoints
    steady: Keypoints
    valid: npt.NDArray[np.bool_]
    found: tuple[str, ...]
    squares: Squares
    others: tuple[int, ...] = ()
    cuts: tuple[int, ...] = ()


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
    search = _Search(people, layout, parse_choice(settings.person), settings.compat)
    poses = [nobody()] * count
    for done, (i, person) in enumerate(search.forth_and_back()):
        poses[i] = person
        yield StageProgress(Stage.DETECT, done + 1, count)
    valid = np.array([person.valid for person in poses])
    for start, stop in [] if settings.compat else runs(~valid):
        for i, person in search.gap(start, stop, poses):
            poses[i] = person
        yield StageProgress(Stage.DETECT, count, count)
    yield StageFinished(Stage.DETECT, time.perf_counter() - started)
    valid, keypoints = np.array([p.valid for p in poses]), np.stack([p.keypoints for p in poses])
    if not valid.any():
        raise nobody_found(layout.clip, count)
    cuts = tuple(sorted(search.cuts))
    steady = smooth(keypoints, valid, layout.fps, cuts) if is_smoothed(settings) else keypoints
    squares = steady_squares(keypoints, valid, layout.fps, cuts)
    return Performer(
        keypoints, steady, valid, tuple(p.found for p in poses), squares, tuple(p.others for p in poses), cuts
    )


def is_smoothed(settings: PreprocessSettings) -> bool:
    """Whether the drawn keypoints are smoothed; the published preprocessing does not."""
    return settings.smooth and not settings.compat


def nobody_found(clip: Clip, count: int) -> InputError:
    """The error of a clip that shows nobody in any of `count` frames."""
    remedy = "Give a clip in which one person's head and shoulders are plainly visible"
    return InputError("video", clip.path, f"nobody was found in any of its {count} frames", remedy, Fault.NOBODY)


def frame_at(clip: Clip, indices: tuple[int, ...], choice: Choice) -> int:
    """The job frame that shows the clip at the choice's time; the first one where it has none.

    Raises:
        InputError: the clip ends before, or the time lies outside of the stretch that is used.
    """
    if choice.at is None:
        return 0
    if choice.at > clip.duration:
        rule = f"the clip ends at {clip.duration:.2f} s"
        raise InputError("preprocess.person", choice, rule, "Give a time within the clip")
    start, last = (clip.times[i] - clip.times[0] for i in (indices[0], indices[-1]))
    if not start - _BESIDE <= choice.at <= last + _BESIDE and (start > 0 or indices[-1] < clip.count - 1):
        rule = f"the clip is used from {start:.2f} s to {last:.2f} s"
        raise InputError("preprocess.person", choice, rule, "Give a time within that stretch")
    return int(np.argmin([abs(clip.times[i] - clip.times[0] - choice.at) for i in indices]))


class _Search:
    """Looks through a job's frames, shot by shot. `cuts` are known once `forth_and_back` has ended."""

    def __init__(self, people: PoseBackend, layout: Layout, choice: Choice, compat: bool) -> None:
        self._people, self._layout, self._compat = people, layout, compat
        self._tracker, self._first = Tracker(choice), frame_at(layout.clip, layout.indices, choice)
        self.cuts: set[int] = set()

    def forth_and_back(self) -> Iterator[Pose]:
        """Each frame once: from the one of the choice to the end, then from there back to the start."""
        count, first = self._layout.count, self._first
        start: PersonPose | None = None
        for i, person in self._shots(range(first, count), self._tracker):
            start = person if start is None else start
            yield i, person
        if first and start is not None:
            back = self._shots(range(first, -1, -1), self._tracker.starting_from(start.keypoints))
            next(back)  # the frame that both ways start from
            yield from back

    def gap(self, start: int, stop: int, poses: list[PersonPose]) -> Iterator[Pose]:
        """The frames of [start, stop), in which nobody was found, that show the person when followed from the other end.

        Where that is somebody else, they are "other" from the first such frame on.
        """
        if start < self._first:
            end = min((cut for cut in self.cuts if cut >= start), default=stop)
            way = range(start - 1, min(stop, end))
        else:
            way = range(stop, max([start, *(cut for cut in self.cuts if cut <= stop)]) - 1, -1)
        if len(way) < 2 or not 0 <= way[0] < len(poses) or not poses[way[0]].valid:
            return
        again = self._people.track(self._frames(way), self._tracker.starting_from(poses[way[0]].keypoints))
        found: list[Pose] = []
        for i, person in zip(way, again, strict=True):
            if not person.valid or person.found == "other":
                break
            if i != way[0]:
                found.append((i, person))
        known = poses[way[0]]
        if found and known.found == "other":
            found[-1] = found[-1][0], replace(found[-1][1], found="other")
            found.append((way[0], replace(known, found="track")))
        yield from found

    def _frames(self, way: range) -> Iterator[Frame]:
        indices = [self._layout.indices[i] for i in way]
        pictures = (
            iter_indices(self._layout.clip, indices, damage=self._layout.damage)
            if way.step > 0
            else iter_backwards(self._layout.clip, indices)
        )
        return map(self._layout.seen_frame, pictures)

    def _shots(self, way: range, tracker: Tracker) -> Iterator[Pose]:
        """The person in each frame of `way`, tracked from cut to cut. With `compat` there are none, as published."""
        frames, order = self._frames(way), iter(way)
        flagged = ((False, frame) for frame in frames) if self._compat else with_cuts(frames)
        for number, shot in groupby(self._numbered(way, flagged), key=itemgetter(0)):
            if number:
                tracker.new_shot()
            for person in self._people.track(map(itemgetter(1), shot), tracker):
                yield next(order), person

    def _numbered(self, way: range, flagged: Iterable[tuple[bool, Frame]]) -> Iterator[tuple[int, Frame]]:
        """Every frame with the number of its shot."""
        number = 0
        for i, (cut, frame) in zip(way, flagged, strict=True):
            if cut:
                number += 1
                self.cuts.add(i if way.step > 0 else i + 1)
            yield number, frame
