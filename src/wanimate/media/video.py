"""Frames of a clip or a guide, one at a time: memory does not grow with the length of a clip."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from wanimate.errors import Fault, InputError
from wanimate.media.decode import Damage, Decoder
from wanimate.media.probe import probe
from wanimate.media.stretch import Stretch
from wanimate.media.timing import cap_rate, resample
from wanimate.media.writer import LosslessWriter, VideoWriter, write_h264
from wanimate.types import Clip, Frame, Frames

__all__ = [
    "ArrayFrames", "LosslessWriter", "VideoFrames", "VideoWriter", "iter_backwards", "iter_frames", "iter_indices",
    "plan_frames", "write_h264",
]  # fmt: skip
CHUNK_BYTES, CACHE_BYTES = 64 * 2**20, 16 * 2**20
CACHE_FRAMES = 96
"""More than a segment has: small frames would fill the bytes little by little, over minutes of a clip."""
"""Frames that are decoded at once to run backwards, and that a source keeps: those that two segments share."""


def plan_frames(
    clip: Clip, fps: Fraction | None, max_fps: Fraction = Fraction(30), used: Stretch | None = None
) -> tuple[tuple[int, ...], Fraction]:
    """Which frames of the clip make the job, and at what rate.

    Args:
        clip: the probed clip.
        fps: target rate; None is the clip's own rate, capped at `max_fps`.
        max_fps: cap for `fps` None.
        used: the stretch of the clip that is used; None is all of it.

    Returns:
        For every job frame the index of a frame of the clip (non-decreasing; repeats where the clip is slower), and the
        exact rate. The frames' true times decide; no constant rate is assumed.
    """
    rate = cap_rate(clip.fps, max_fps) if fps is None else Fraction(fps)
    first, stop, seconds = (0, clip.count, clip.duration) if used is None else (used.first, used.stop, used.seconds)
    if rate == clip.fps and not clip.variable_rate:
        return tuple(range(first, stop)), rate
    return tuple(first + i for i in resample(clip.times[first:stop], seconds, rate)), rate


def iter_frames(clip: Clip, fps: Fraction | None = None, max_fps: Fraction = Fraction(30)) -> Iterator[Frame]:
    """The frames that `plan_frames` names, in order, upright, uint8 RGB [H, W, 3]. Decodes as it goes.

    Raises:
        InputError: the file vanished or changed since it was probed, or nothing in it can be decoded.
    """
    return iter_indices(clip, plan_frames(clip, fps, max_fps)[0])


def iter_indices(
    clip: Clip, indices: Sequence[int], field: str = "video", damage: Damage | None = None
) -> Iterator[Frame]:
    """The clip's frames at `indices` (non-decreasing). A frame that cannot be decoded is replaced by the one before, and
    `damage` remembers it. What lies before the first of them is passed over by a seek, where the format can."""
    with Decoder(clip, field, damage) as decoder:
        pictures = decoder.pictures_before(indices[0]) if len(indices) else decoder.pictures()
        following = next(pictures, None)
        if following is None:
            rule, remedy = "not one of its frames can be decoded", "Export it again as H.264."
            raise InputError(field, clip.path, rule, remedy, Fault.UNREADABLE)
        held, shown = following, None
        for index in indices:
            while following is not None and following[0] <= index:
                held, shown = following, None
                following = next(pictures, None)
            if shown is None:
                shown = decoder.upright(held[1])
            yield shown


def iter_backwards(clip: Clip, indices: Sequence[int]) -> Iterator[Frame]:
    """The clip's frames at `indices` (non-increasing), a few at a time in memory."""
    source = VideoFrames(clip.path, "video")
    at_once = max(CHUNK_BYTES // (3 * clip.width * clip.height), 1)
    for start in range(0, len(indices), at_once):
        yield from source.take(indices[start : start + at_once])
    source.close()


class ArrayFrames:
    """A `FrameSource` over frames in memory, uint8 RGB [n, H, W, 3]."""

    def __init__(self, frames: Frames) -> None:
        assert frames.ndim == 4
        assert frames.shape[3] == 3
        assert frames.dtype == np.uint8
        self.frames = frames

    @property
    def count(self) -> int:
        return int(self.frames.shape[0])

    @property
    def size(self) -> tuple[int, int]:
        return int(self.frames.shape[2]), int(self.frames.shape[1])

    def take(self, indices: Sequence[int]) -> Frames:
        _check_indices(indices, self.count)
        taken: Frames = self.frames[np.asarray(indices, dtype=np.intp)]
        return taken

    def __repr__(self) -> str:
        return f"ArrayFrames({self.count} frames, {self.size[0]}x{self.size[1]})"


class VideoFrames:
    """A `FrameSource` over a video file; `fps` is its exact rate. Seeks to key frames and decodes forward from there.

    It is exact in every accepted file, and quick in lossless ones, where each frame is a key frame. Recent frames are kept,
    up to 16 MiB and 96 frames. It is not for use by several threads at once.

    Args:
        sd: without tags its colours are BT.601's, whatever its size.

    Raises:
        InputError: the file cannot be read (on construction).
    """

    def __init__(self, path: Path, field: str = "guides", sd: bool = False) -> None:
        self.path, self._field = Path(path), field
        clip = probe(self.path, limits=None, field=field)
        self.fps = clip.fps
        self._size = (clip.width, clip.height)
        self._decoder = Decoder(clip, field, sd=sd)
        self._keys = [0] + [i for i, key in enumerate(self._decoder.index.keys) if key and i > 0]
        self._pictures = self._decoder.pictures()
        self._held: tuple[int, Any] | None = None
        self._following = next(self._pictures, None)
        self._cache: OrderedDict[int, Frame] = OrderedDict()
        self._cache_frames = min(max(CACHE_BYTES // (3 * clip.width * clip.height), 1), CACHE_FRAMES)

    @property
    def count(self) -> int:
        return len(self._decoder.index.pts)

    @property
    def size(self) -> tuple[int, int]:
        return self._size

    def take(self, indices: Sequence[int]) -> Frames:
        _check_indices(indices, self.count)
        width, height = self._size
        out = np.empty((len(indices), height, width, 3), np.uint8)
        for row in sorted(range(len(indices)), key=lambda r: indices[r]):
            out[row] = self._frame(indices[row])
        return out

    def close(self) -> None:
        self._decoder.close()

    def _frame(self, index: int) -> Frame:
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        key = bisect_right(self._keys, index) - 1
        ahead = self._following is not None and self._keys[key] > self._following[0]
        if ahead or (self._held is not None and index < self._held[0]):
            self._restart(key)
            # A seek by decode times may land on a later key frame; the first frame is always reached.
            while key > 0 and (self._following is None or self._following[0] > index):
                key -= 1
                self._restart(key)
        while self._following is not None and (self._following[0] <= index or self._held is None):
            self._held = self._following
            self._following = next(self._pictures, None)
        if self._held is None:
            rule = "not one of its frames can be decoded"
            raise InputError(self._field, self.path, rule, "Make the file again.", Fault.UNREADABLE)
        frame = self._decoder.upright(self._held[1])
        self._cache[index] = frame
        if len(self._cache) > self._cache_frames:
            self._cache.popitem(last=False)
        return frame

    def _restart(self, key: int) -> None:
        self._pictures = self._decoder.pictures_from(self._keys[key])
        self._held, self._following = None, next(self._pictures, None)

    def __repr__(self) -> str:
        return f"VideoFrames({self.path.name}, {self.count} frames, {self._size[0]}x{self._size[1]})"


def _check_indices(indices: Sequence[int], count: int) -> None:
    if len(indices) and (min(indices) < 0 or max(indices) >= count):
        raise IndexError(f"frames {min(indices)}..{max(indices)} asked of a source with 0..{count - 1}")
