"""The stage that changes the rate. Frames of the source stay bit for bit; nothing is made across a cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import groupby

import torch
from torch import Tensor

from wanimate.post.base import Chunks, VideoSpec, single_frames
from wanimate.post.interpolate.instants import at_rate, instants
from wanimate.post.interpolate.methods import Between


class Interpolator:
    """Brings a video to another rate.

    Args:
        fps: frames per second of the result.
        between: makes the frames that the source does not have.
    """

    def __init__(self, fps: Fraction, between: Between) -> None:
        self.fps, self.between = fps, between

    def result(self, spec: VideoSpec) -> VideoSpec:
        return at_rate(spec, self.fps)

    def run(self, spec: VideoSpec, chunks: Iterable[Tensor]) -> Chunks:
        frames = single_frames(spec, chunks)
        if self.fps == spec.fps:
            yield from frames
            return
        window = _Window(frames)
        for number, group in groupby(instants(spec, self.fps), lambda instant: instant.frame):
            shares = [instant.share for instant in group]
            frame = window.at(number)
            yield from (frame for share in shares if not share)
            between = [float(share) for share in shares if share]
            if between:
                yield self.between(frame, window.following(), between)
        for _ in frames:  # a source that ends otherwise than was said is an error
            pass

    def close(self) -> None:
        self.between.close()


class _Window:
    """One frame of a stream and the one after it."""

    def __init__(self, frames: Iterator[Tensor]) -> None:
        self._frames, self._number, self._now = frames, -1, torch.empty(0)
        self._next: Tensor | None = None

    def at(self, number: int) -> Tensor:
        """The frame; numbers never fall."""
        while self._number < number:
            self._now = next(self._frames) if self._next is None else self._next
            self._next, self._number = None, self._number + 1
        return self._now

    def following(self) -> Tensor:
        """The frame after the last one that `at` gave."""
        if self._next is None:
            self._next = next(self._frames)
        return self._next
