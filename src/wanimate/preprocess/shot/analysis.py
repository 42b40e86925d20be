"""One look through a clip for its shot records. Frames go by once; few of them are looked at."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import cv2
import numpy as np
import numpy.typing as npt

from wanimate.preprocess.pose.keypoints import FACE, VALID_CONFIDENCE
from wanimate.preprocess.shot import camera, light
from wanimate.preprocess.shot.camera import LightChange, Look, Step
from wanimate.preprocess.shot.framing import framing_of
from wanimate.types import Frame, Keypoints

RATE = 8
"""Frames a second that are looked at, about."""
_GROWN = 0.14
"""The outline around a person's points grows by this part of their height: hair, clothes and hands lie outside of them."""

_FACE_POINTS, _ABOVE, _HALF = 20, 0.8, 0.6
"""A face is seen with so many points. The top of its head is so far above the brows, and so wide on either side, in lengths
from the chin to the brows."""


@dataclass
class Sighting:
    """What was seen of one shot: frames [first, stop) of the job; of the looked-at ones their numbers, the steps between
    them and the changes of light, the light, and how much of the performer is in the picture."""

    first: int
    stop: int
    at: list[int] = field(default_factory=list)
    steps: list[Step | None] = field(default_factory=list)
    changes: list[LightChange | None] = field(default_factory=list)
    tally: light.Tally = field(default_factory=light.Tally)
    sizes: list[str | None] = field(default_factory=list)


class ShotWatch:
    """Takes up a job's frames in order. `fps`: their rate; `cpu`: processor seconds that it has taken.

    Args:
        cuts: frames that begin a shot, but the first, where they are known before.
    """

    def __init__(self, count: int, fps: Fraction, cuts: Sequence[int] = ()) -> None:
        self.fps, self._pace, self._cuts = float(fps), max(1, round(float(fps) / RATE)), frozenset(cuts)
        self.shots = [Sighting(0, count)]
        self._before: Look | None = None
        self.cpu = 0.0

    def cut(self, index: int) -> None:
        """A frame begins a shot."""
        last = self.shots[-1]
        self.shots.append(Sighting(index, last.stop))
        last.stop = index

    def looks(self, first: int, stop: int) -> range:
        """The frames of a shot [first, stop) that are looked at."""
        return range(first, stop, self._pace)

    def wants(self, index: int) -> bool:
        """Whether a frame of the newest shot is looked at."""
        return (index - self.shots[-1].first) % self._pace == 0

    def see(
        self, index: int, frame: Frame, points: Keypoints | None = None, hidden: npt.NDArray[np.uint8] | None = None
    ) -> None:
        """Take up a frame [H, W, 3]; those that are not looked at are passed over.

        Args:
            points: the performer's points [133, 3] in pixels of the frame; None where nobody is.
            hidden: uint8 [H, W], not 0 where the performer is; None takes an outline around the points.
        """
        if index in self._cuts:
            self.cut(index)
        if not self.wants(index):
            return
        began, shot = time.thread_time(), self.shots[-1]
        height, width = frame.shape[:2]
        size = camera.WIDTH, max(round(camera.WIDTH * height / width), 16)
        seen = cv2.resize(frame, size, interpolation=cv2.INTER_AREA) if width > camera.WIDTH else frame
        if hidden is not None:
            hidden = cv2.resize(hidden, seen.shape[1::-1], interpolation=cv2.INTER_NEAREST)
            hidden = cv2.dilate(hidden, np.ones((9, 9), np.uint8))
        elif points is not None:
            hidden = outline(points * (seen.shape[1] / width, seen.shape[0] / height, 1), seen.shape[:2])
        small_size = light.LIGHT_WIDTH, max(round(light.LIGHT_WIDTH * seen.shape[0] / seen.shape[1]), 8)
        small = np.asarray(cv2.resize(seen.astype(np.float32), small_size, interpolation=cv2.INTER_AREA), np.float32)
        shining = light.small_light(small)
        covered = None if hidden is None else cv2.resize(hidden, small_size, interpolation=cv2.INTER_NEAREST)
        look = Look(np.asarray(cv2.cvtColor(seen, cv2.COLOR_RGB2GRAY), np.uint8), hidden, shining)
        if shot.at:
            assert self._before is not None
            step, change = camera.step_between(self._before, look, (index - shot.at[-1]) / self.fps)
            shot.steps.append(step)
            shot.changes.append(change)
        self._before = look
        shot.at.append(index)
        face = None if points is None else _face(points, small_size, (width, height))
        shot.tally.add(small, shining, covered, face)
        if points is not None:
            shot.sizes.append(framing_of(points, (width, height)))
        self.cpu += time.thread_time() - began

    def seeing(self, frames: Iterable[Frame], points: Keypoints, valid: npt.NDArray[np.bool_]) -> Iterator[Frame]:
        """Frames that pass by, all of a job; `points` [n, 133, 3] of the performer where they are `valid`."""
        for i, frame in enumerate(frames):
            self.see(i, frame, points[i] if valid[i] else None)
            yield frame


def _crown(face: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Both sides of the top of a head [2, 2] whose face [68, 2] is seen: hair lies above all points."""
    brows = face[[19, 24]].mean(axis=0)
    up = brows - face[8]
    side = _HALF * np.array([-up[1], up[0]])
    return np.asarray(brows + _ABOVE * up + np.stack([side, -side]))


def _face(points: Keypoints, size: tuple[int, int], of: tuple[int, int]) -> npt.NDArray[np.uint8] | None:
    """uint8 [h, w] of (width, height) `size`, 255 on the face of somebody in a frame of size `of`; None where none is seen."""
    seen = points[FACE][points[FACE, 2] >= VALID_CONFIDENCE, :2] * (size[0] / of[0], size[1] / of[1])
    if len(seen) < _FACE_POINTS:
        return None
    mask = np.zeros(size[::-1], np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(seen.round().astype(np.int32)), 255)
    return mask


def outline(points: Keypoints, shape: tuple[int, int]) -> npt.NDArray[np.uint8] | None:
    """uint8 [h, w], 255 inside of a hull around a person's points [133, 3] and the top of their head, grown; None where too few
    points are seen."""
    seen = points[points[:, 2] >= VALID_CONFIDENCE, :2]
    if (points[FACE, 2] >= VALID_CONFIDENCE).sum() >= _FACE_POINTS:
        seen = np.concatenate([seen, _crown(points[FACE, :2])])
    if len(seen) < 3:
        return None
    hull = cv2.convexHull(seen.round().astype(np.int32))
    mask = np.zeros(shape, np.uint8)
    cv2.fillConvexPoly(mask, hull, 255)
    tall = min(float(np.ptp(seen[:, 1])), shape[0])
    side = max(3, round(_GROWN * tall)) | 1
    return np.asarray(cv2.dilate(mask, np.ones((side, side), np.uint8)), np.uint8)
