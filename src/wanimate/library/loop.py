"""Loop points: where a clip can begin again so that nobody sees it.

A loop shows frames i to j - 1 and begins again at i. It closes if frame i comes where frame j would have come: the difference
is at most one step of the motion, and the motion goes on in its direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wanimate.media.resize import AREA
from wanimate.media.video import iter_indices
from wanimate.types import Clip

Poses = npt.NDArray[np.float64]
"""One row of numbers a frame: small pictures, or keypoints."""

LONGEST = 1200
"""Frames from the clip's beginning in which a loop is looked for."""
_SIDE = 48
_SHORTEST, _FEWEST = 0.5, 6
"""Seconds and frames of a loop at the least."""
_ONWARD = 0.5
"""Over the seam, three steps lead so far as this share of what three steps lead within the clip."""
_MOVES, _COMES_BACK = 1.7, 0.4
"""A still picture with noise is no loop. A loop leads away from its first frame by so many steps at the least, or its seam is
smaller than this: pictures of quick motion differ by one step and hardly more, however far it leads."""
_AS_GOOD = 0.15
"""Loops whose seams differ by so many steps close equally well; the longest is taken."""
_TRIED = 64


@dataclass(frozen=True)
class Loop:
    """Frames `start` to `stop` - 1 of the clip, again and again. `seam`: how far the frame after the seam is from the one that
    would have come, in steps of the motion there; at most 1."""

    start: int
    stop: int
    seam: float

    @property
    def length(self) -> int:
        return self.stop - self.start


def loop_of(clip: Clip) -> Loop | None:
    """The best loop of a clip by its pictures; None where it does not come back to where it was.

    Raises:
        InputError: nothing in the clip can be decoded.
    """
    indices = range(min(clip.count, LONGEST))
    return find_loop(np.stack([_small(frame) for frame in iter_indices(clip, indices)]), float(clip.fps))


def find_loop(poses: Poses, fps: float) -> Loop | None:
    """The best loop of n frames.

    Args:
        poses: [n, d], float64, in any unit.
        fps: frames per second, above 0.

    Returns:
        The loop with the smallest seam; of those that close equally well the longest. None: none closes within one step.
    """
    count = len(poses)
    shortest = max(_FEWEST, round(_SHORTEST * fps))
    if count <= shortest:
        return None
    apart = _distances(poses)
    steps = np.diagonal(apart, 1)
    if not steps.any():
        return None
    seam, first = _seams(apart, steps), np.arange(count)
    long_enough = first[None, :] - first[:, None] >= shortest - 1  # the last frame is one before the loop's end
    seam = np.where(long_enough, seam, np.inf)
    if seam.min() > 1:
        return None
    good = np.argwhere(seam <= min(1.0, seam.min() + _AS_GOOD))
    order = np.lexsort((seam[good[:, 0], good[:, 1]], good[:, 0] - good[:, 1]))
    usual = float(np.median(steps[steps > 0]))
    for i, last in good[order[:_TRIED]]:
        comes_back = (
            seam[i, last] <= _COMES_BACK and last - i < count - 1
        )  # of the whole clip nothing is known to come back
        if comes_back or apart[i, i : last + 1].max() >= _MOVES * usual:
            return Loop(int(i), int(last) + 1, float(seam[i, last]))
    return None


def _seams(apart: Any, steps: Any) -> Any:
    """[first, last]: how far the first frame is from the one that would follow the last, in steps; inf where the motion turns
    round at the seam."""
    count = len(apart)
    usual = float(np.median(steps[steps > 0]))
    onward = np.append(steps, steps[-1])  # from each frame to the next
    back = np.append(steps[0], steps)  # to each frame from the one before
    step = np.maximum((onward[:, None] + back[None, :]) / 2, usual / 2)
    # Frame `first` against the frame behind `last`, and the frame before `first` against `last`: what the clip has of both.
    after, before = np.full((count, count), -np.inf), np.full((count, count), -np.inf)
    after[:, :-1] = apart[:, 1:]
    before[1:, :] = apart[:-1, :]
    missed = np.maximum(after, before)
    missed = np.where(
        np.isfinite(missed), missed, np.abs(apart - step)
    )  # from the first frame to the last one of the clip
    over = np.full((count, count), -np.inf)
    over[:-1, 1:] = apart[1:, :-1]  # the second frame against the last but one: three steps over the seam
    straight = np.median(np.diagonal(apart, 3)) / max(3 * usual, 1e-12) if count > 3 else 1.0
    turns = over < _ONWARD * straight * (onward[:, None] + apart + back[None, :])
    return np.where(turns | (apart > 2 * step), np.inf, missed / step)


def _distances(poses: Poses) -> Any:
    """[n, n]: root of the sum of squared differences of every two frames."""
    centred = poses - poses.mean(axis=0)
    squares = (centred**2).sum(axis=1)
    return np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * centred @ centred.T, 0))


def _small(frame: Any) -> Poses:
    """A frame in grey at most 48 pixels long, blurred by averaging, so that noise and small motion stay small."""
    height, width = frame.shape[:2]
    scale = min(1.0, _SIDE / max(width, height))
    size = max(1, round(scale * width)), max(1, round(scale * height))
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, size, interpolation=AREA), np.float64).ravel()
