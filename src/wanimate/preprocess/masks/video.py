"""A mask video made elsewhere: one mask frame for every frame of the clip, white where the performer is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wanimate.errors import InputError, setting
from wanimate.media.probe import probe
from wanimate.media.video import iter_indices
from wanimate.preprocess.masks.base import Mask
from wanimate.preprocess.pose.keypoints import BODY, VALID_CONFIDENCE
from wanimate.types import Clip, Frame, Keypoints

_FIELD = "preprocess.mask"
_SAMPLES = 16
"""So many frames, spread over the clip, tell whether a mask lies on the performer."""
_LEAST_INSIDE = 0.5


class MaskVideo:
    """A `MaskBackend` that reads the masks from a file."""

    name = "given"

    def __init__(self, path: Path, clip: Clip, indices: Sequence[int], fit: Callable[[Frame], Frame]) -> None:
        """Args:
            path: a video of the clip's size and number of frames; lossy is fine, above 127 is white.
            indices: the clip's frame of every job frame.
            fit: brings a frame of the clip to the job's size.

        Raises:
            InputError: the file cannot be read, or has another size or length than the clip.
        """
        self._clip, self._indices, self._fit = probe(path, None, _FIELD), tuple(indices), fit
        found, wanted = (f"{c.width}x{c.height} pixels and {c.count} frames" for c in (self._clip, clip))
        if found != wanted:
            rule = f"has {found}, but the clip {clip.path.name} has {wanted}"
            raise InputError(_FIELD, path, rule, "Give one mask frame for each frame of the clip, at its size")

    def follow(
        self, frames: Iterable[Frame], people: Keypoints, valid: npt.NDArray[np.bool_], cuts: Sequence[int] = ()
    ) -> Iterator[tuple[Frame, Mask]]:
        """See `MaskBackend`.

        Raises:
            InputError: the performer lies outside of the mask: it is inverted, or of somebody else.
        """
        self._check(people, valid)
        masks = self._masks(range(len(self._indices)))
        for i, (frame, mask) in enumerate(zip(frames, masks, strict=True)):
            yield frame, mask if valid[i] else np.zeros_like(mask)

    def _masks(self, which: Iterable[int]) -> Iterator[Mask]:
        """The masks of these job frames, at the job's size."""
        for frame in iter_indices(self._clip, [self._indices[i] for i in which], _FIELD):
            yield np.asarray(self._fit(frame)[..., 1] > 127, dtype=np.uint8)

    def _check(self, people: Keypoints, valid: npt.NDArray[np.bool_]) -> None:
        shown = np.flatnonzero(valid)
        shown = shown[np.unique(np.linspace(0, len(shown) - 1, _SAMPLES).astype(int))]
        inside, around, marked = [], [], False
        for i, mask in zip(shown, self._masks(shown), strict=True):
            if mask.any():
                marked = True
                inside.append(_inside(mask, people[i]))
                around.append(np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]))
        path = self._clip.path
        if not marked:
            rule = "it is black in every frame that was compared with the performer"
            raise InputError(_FIELD, path, rule, "Give a mask that is white where the performer is")
        share = float(np.concatenate(inside).mean())
        if share >= _LEAST_INSIDE:
            return
        rule = f"only {100 * share:.0f} % of the performer's keypoints lie in its white part"
        if np.concatenate(around).mean() > 0.5:
            raise InputError(_FIELD, path, f"{rule}: it is inverted", "Make the performer white and the scene black")
        remedy = f"Give the mask of this clip, or choose the person it is of with {setting('preprocess.person')}"
        raise InputError(_FIELD, path, f"{rule}: it is of somebody else", remedy)


def _inside(mask: Mask, person: Keypoints) -> npt.NDArray[np.bool_]:
    """Of each body point [133, 3] that is seen and in the picture, whether it is in the mask."""
    height, width = mask.shape
    body = person[BODY]
    seen = (body[:, 2] >= VALID_CONFIDENCE) & (body[:, :2] >= 0).all(axis=1)
    seen &= (body[:, 0] < width) & (body[:, 1] < height)
    x, y = body[seen, :2].astype(int).T
    return np.asarray(mask[y, x] > 0)
