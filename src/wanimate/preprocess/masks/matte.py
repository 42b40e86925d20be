"""A soft, steady matte of a person in frames that come one by one: the offline masks, smoothed over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from wanimate.preprocess.detect.litert import Array
from wanimate.preprocess.detect.models import SELFIE, U2NETP, find
from wanimate.preprocess.masks.networks import Salient, Selfie
from wanimate.preprocess.masks.offline import OfflineMasks
from wanimate.types import Frame, Keypoints

MATTE_MODELS = (SELFIE, U2NETP)
_LONGEST = 512
"""Optical flow is computed in pictures of at most this many pixels a side."""
_HELD, _SAME = 0.6, 12.0
"""How much of the frame before stays, and the grey levels by which what moved may differ before less of it does."""
_FLOW_SIDE = 32


def open_masks() -> OfflineMasks:
    """The networks.

    Raises:
        InputError: their files are missing.
    """
    folder = find(None, MATTE_MODELS)
    return OfflineMasks(Salient(folder, "standard"), Selfie(folder))


class SoftMatte:
    """Args:
    masks: what finds the outlines.
    people: the person's points [n, 133, 3] in pixels of the frames.
    valid: frames that show somebody [n]; the others get an empty matte.
    cuts: first frames of shots, over which nothing is carried.
    """

    def __init__(
        self, masks: OfflineMasks, people: Keypoints, valid: npt.NDArray[np.bool_], cuts: Sequence[int] = ()
    ) -> None:
        self._following = masks.begin(people, valid, cuts)
        self._cuts, self._index = frozenset(cuts), 0
        self._before: tuple[npt.NDArray[np.uint8], Array] | None = None

    def add(self, frame: Frame) -> Iterator[Array]:
        """The next frame, uint8 RGB [H, W, 3]; gives the mattes [H, W] in 0..1 that are finished, in order."""
        yield from map(self._soft, self._following.add(frame))

    def rest(self) -> Iterator[Array]:
        """The last mattes."""
        yield from map(self._soft, self._following.rest())

    def _soft(self, found: tuple[Frame, Array]) -> Array:
        frame, outline = found
        grey = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)
        if self._index in self._cuts:
            self._before = None
        self._index += 1
        return self._steady(grey, outline)

    def _steady(self, grey: npt.NDArray[np.uint8], outline: Array) -> Array:
        """The outline, mixed with that of the frame before where the same things have moved to."""
        scale = min(1.0, _LONGEST / max(grey.shape))
        size = max(round(grey.shape[1] * scale), 1), max(round(grey.shape[0] * scale), 1)
        small = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)
        soft = np.asarray(cv2.resize(outline, size, interpolation=cv2.INTER_AREA), np.float32)
        if self._before is not None and min(small.shape) >= _FLOW_SIDE:
            last, held = self._before
            flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST).calc(small, last, None)
            rows, columns = np.indices(small.shape, dtype=np.float32)
            x, y = columns + flow[..., 0], rows + flow[..., 1]
            moved, there = (cv2.remap(part, x, y, cv2.INTER_LINEAR) for part in (held, last))
            wrong = cv2.blur(cv2.absdiff(small, there).astype(np.float32), (5, 5))
            share = _HELD * np.exp(-((wrong / _SAME) ** 2))
            soft = np.asarray(soft * (1 - share) + moved * share, np.float32)
        self._before = small, soft
        return np.asarray(cv2.resize(soft, grey.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)
