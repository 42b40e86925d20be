"""The default mask backend: two networks look at the box around the person, the skeleton and the colours decide.

The networks look at every third frame. Every frame takes its answers from the frames around it, moved along optical flow.
So nothing lags, single errors are outvoted, and seven frames are in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from wanimate.preprocess.detect.litert import Array
from wanimate.preprocess.masks.base import Mask
from wanimate.preprocess.masks.decide import Decision, Evidence, Flags, blended, decide
from wanimate.preprocess.masks.networks import Box, Segmenter, person_box
from wanimate.preprocess.masks.skeleton import distances, sure_pixels
from wanimate.preprocess.masks.skeleton import unit as shoulder_width
from wanimate.preprocess.pose.keypoints import BODY, VALID_CONFIDENCE, runs, uncut
from wanimate.types import Frame, Keypoints

_LONGEST = 512
"""Masks are computed in pictures of at most this many pixels a side, and resized to the frame at the end."""
_EVERY, _REACH = 3, 3
"""The networks look at every so many frames; answers serve frames up to so far away."""
_FLOW_SIDE = 32
"""Optical flow needs pictures of at least this side."""
_SAME = 20.0
"""Grey levels by which a moved pixel may differ from the one that it stands for, before it counts much less."""
_LEAST_WEIGHT = 1e-4
_BESIDE, _STRANGE = 0.6, 0.05
"""Somebody else may be in the picture where more than this share of the foreground is so far from the person's bones, in
shoulder widths."""
_SURVEY = 8
"""Looks to wait after a search for other people that found nobody."""

Everybody = Callable[[Frame], Sequence[Keypoints]]
"""Finds all people in a picture [H, W, 3], as points [133, 3]."""


@dataclass(frozen=True)
class Explained:
    """Why a mask looks as it does: the frame's number, the box that the networks saw (None between looks), what was known
    and what was decided, at the small size."""

    index: int
    box: Box | None
    seen: Evidence
    decision: Decision


@dataclass(frozen=True)
class _Frame:
    """A frame on the way: `small` [h, w, 3] and `grey` [h, w]; `answers` [h, w, 2] of both networks, where they looked."""

    frame: Frame
    small: Frame
    grey: npt.NDArray[np.uint8]
    box: Box | None
    answers: Array | None


class OfflineMasks:
    """A `MaskBackend`. Not for use by several threads at once."""

    name = "offline"

    def __init__(
        self,
        salient: Segmenter,
        person: Segmenter,
        everybody: Everybody = lambda frame: (),
        explain: Callable[[Explained], None] | None = None,
    ) -> None:
        """Args:
        salient, person: what finds the foreground, and what finds people.
        everybody: finds all people in a picture, so that those beside the performer can be told apart.
        explain: is handed what led to every mask.
        """
        self._networks, self._everybody, self._explain = (salient, person), everybody, explain

    def follow(
        self, frames: Iterable[Frame], people: Keypoints, valid: npt.NDArray[np.bool_], cuts: Sequence[int] = ()
    ) -> Iterator[tuple[Frame, Mask]]:
        """See `MaskBackend`."""
        following = self.begin(people, valid, cuts)
        for frame in frames:
            yield from map(_hard, following.add(frame))
        yield from map(_hard, following.rest())

    def begin(self, people: Keypoints, valid: npt.NDArray[np.bool_], cuts: Sequence[int] = ()) -> Following:
        """`follow` for frames that come one by one."""
        return Following(self, people, stretches(valid, cuts))

    def _seen(self, frame: Frame, person: Keypoints, look: bool, wait: int) -> tuple[_Frame, int]:
        """The frame, looked at or not, and how many looks to go on without a search for other people."""
        height, width = frame.shape[:2]
        size = _small_size(width, height)
        small = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        grey = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
        if not look:
            return _Frame(frame, small, grey, None, None), wait
        box = person_box(person, width, height)
        points = _moved(person, size, width, height)
        core = sure_pixels(points, size)
        away = distances(points, core)
        answers = self._answers(frame, box, size)
        cut = box.touched(answers.max(axis=2) * (away < _BESIDE), width, height)
        if any(cut):
            box = box.grown(cut, width, height)
            answers = self._answers(frame, box, size)
        if wait:
            wait -= 1
        elif _strange(Evidence(answers[..., 0], answers[..., 1], core, away)):
            others = [_moved(other, size, width, height) for other in without(self._everybody(frame), person)]
            for other in others:
                answers[distances(other, sure_pixels(other, size)) < away] = 0
            wait = 0 if others else _SURVEY
        return _Frame(frame, small, grey, box, answers), wait

    def _answers(self, frame: Frame, box: Box, size: tuple[int, int]) -> Array:
        return np.stack([box.answered(network, frame, size) for network in self._networks], axis=-1)

    def _finished(
        self, index: int, window: dict[int, _Frame], people: Keypoints, stretch: npt.NDArray[np.int_]
    ) -> tuple[Frame, Array]:
        now = window[index]
        height, width = now.frame.shape[:2]
        if not stretch[index]:
            return now.frame, np.zeros((height, width), np.float32)
        around = {i: f for i, f in window.items() if abs(i - index) <= _REACH and stretch[i] == stretch[index]}
        answers = _voted(index, around)
        size = now.grey.shape[1], now.grey.shape[0]
        points = _moved(people[index], size, width, height)
        core = sure_pixels(points, size)
        seen = Evidence(answers[..., 0], answers[..., 1], core, distances(points, core))
        decision = decide(now.small, seen)
        if self._explain is not None:
            self._explain(Explained(index, now.box, seen, decision))
        large = cv2.resize(decision.mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        return now.frame, np.asarray(large, np.float32)


class Following:
    """One clip's frames on their way through `OfflineMasks`; each comes out three frames after it went in."""

    def __init__(self, masks: OfflineMasks, people: Keypoints, stretch: npt.NDArray[np.int_]) -> None:
        self._masks, self._people, self._stretch = masks, people, stretch
        self._looks, self._wait, self._count = look_frames(stretch), 0, 0
        self._window: dict[int, _Frame] = {}

    def add(self, frame: Frame) -> Iterator[tuple[Frame, Array]]:
        """The next frame; gives those [H, W, 3] that are finished, with their outline [H, W]: 1 = person, about 0.5 on the
        border."""
        i = self._count
        self._count += 1
        self._window[i], self._wait = self._masks._seen(frame, self._people[i], bool(self._looks[i]), self._wait)
        if i >= _REACH:
            yield self._finished(i - _REACH)
            self._window.pop(i - 2 * _REACH, None)

    def rest(self) -> Iterator[tuple[Frame, Array]]:
        """The last ones."""
        for i in range(max(self._count - _REACH, 0), self._count):
            yield self._finished(i)

    def _finished(self, index: int) -> tuple[Frame, Array]:
        return self._masks._finished(index, self._window, self._people, self._stretch)


def _hard(found: tuple[Frame, Array]) -> tuple[Frame, Mask]:
    frame, outline = found
    return frame, np.asarray(outline > 0.5, dtype=np.uint8)


def stretches(valid: npt.NDArray[np.bool_], cuts: Sequence[int]) -> npt.NDArray[np.int_]:
    """The number of each frame's stretch [n]: from 1 on, and 0 where nobody is. A cut starts another one."""
    out = np.zeros(len(valid), dtype=np.int_)
    for number, (start, stop) in enumerate(uncut(runs(valid), cuts), start=1):
        out[start:stop] = number
    return out


def look_frames(stretch: npt.NDArray[np.int_]) -> Flags:
    """The frames that the networks look at [n]: of each of the `stretches` every third one, and the last."""
    out = np.zeros(len(stretch), dtype=np.bool_)
    for number in range(1, int(stretch.max(initial=0)) + 1):
        frames = np.flatnonzero(stretch == number)
        out[frames[::_EVERY]] = out[frames[-1:]] = True
    return out


def without(people: Sequence[Keypoints], person: Keypoints) -> list[Keypoints]:
    """All but the one among `people` that is `person`, points [133, 3] each."""
    near = shoulder_width(person)
    return [other for other in people if _apart(other, person) > near / 2]


def _apart(a: Keypoints, b: Keypoints) -> float:
    """The median distance of the body points that both show, in pixels; infinite where there are none."""
    both = (a[BODY, 2] >= VALID_CONFIDENCE) & (b[BODY, 2] >= VALID_CONFIDENCE)
    steps = (a[BODY, :2] - b[BODY, :2])[both]
    return float(np.median(np.hypot(steps[:, 0], steps[:, 1]))) if len(steps) else float("inf")


def _strange(seen: Evidence) -> bool:
    """Whether much of the foreground is further from the bones than clothes usually are."""
    found = np.maximum(seen.salient, seen.person) > 0.5
    return bool((found & (seen.away > _BESIDE)).sum() > _STRANGE * max(int((blended(seen) > 0.5).sum()), 1))


def _voted(index: int, around: dict[int, _Frame]) -> Array:
    """Both answers [h, w, 2] for one frame: the mean of those nearby, nearer ones and those that fit counting more."""
    now = around[index]
    total = np.zeros((*now.grey.shape, 2), np.float32)
    weights = np.full((*now.grey.shape, 1), 1e-9, np.float32)
    for i, other in around.items():
        if other.answers is None:
            continue
        near = 1 - abs(i - index) / (_REACH + 1)
        if i == index:
            moved, weight = other.answers, np.full_like(weights, near)
        else:
            moved, weight = _along_flow(other, other.answers, now.grey, near)
        total += weight * moved
        weights += weight
    return np.asarray(total / weights, dtype=np.float32)


def _along_flow(other: _Frame, answers: Array, grey: npt.NDArray[np.uint8], near: float) -> tuple[Array, Array]:
    """Another frame's answers [h, w, 2] where the present frame has the same things, and their weight [h, w, 1]."""
    if min(grey.shape) < _FLOW_SIDE:
        return answers, np.full((*grey.shape, 1), near, np.float32)
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST).calc(grey, other.grey, None)
    rows, columns = np.indices(grey.shape, dtype=np.float32)
    x, y = columns + flow[..., 0], rows + flow[..., 1]
    moved = np.asarray(cv2.remap(answers, x, y, cv2.INTER_LINEAR), dtype=np.float32)
    there = cv2.remap(other.grey, x, y, cv2.INTER_LINEAR)
    wrong = cv2.blur(cv2.absdiff(grey, there).astype(np.float32), (5, 5))
    weight = near * np.exp(-((wrong / _SAME) ** 2)) + _LEAST_WEIGHT
    return moved, np.asarray(weight[..., None], dtype=np.float32)


def _small_size(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, _LONGEST / max(height, width))
    return max(round(width * scale), 1), max(round(height * scale), 1)


def _moved(person: Keypoints, size: tuple[int, int], width: int, height: int) -> Keypoints:
    """Points of a frame of width x height in its small picture."""
    return person * (size[0] / width, size[1] / height, 1)
