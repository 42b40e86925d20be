"""What the stages between decoder and writer share: the shape of a video, and the protocol of a stage.

Frames travel as chunks: float32 [n, 3, H, W], RGB of BT.709 (gamma-coded), 0 to 1, on any device, n of 1 and more. Where
they have opacity, it is a fourth channel, which goes where the frame's pixels go. The chunks of a video hold its frames in
order; where they are cut apart means nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from torch import Tensor

from wanimate.errors import InputError

Chunks = Iterator[Tensor]
"""The frames of a video: float32 [n, 3, H, W] each."""


@dataclass(frozen=True)
class VideoSpec:
    """What is known of a video before its frames come.

    size: (width, height) in pixels. fps: exact frames per second. count: frames. cuts: frames that begin a new shot, in
    rising order, each in 1..count-1.
    """

    size: tuple[int, int]
    fps: Fraction
    count: int
    cuts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        assert min(self.size) >= 1, self.size
        assert self.fps > 0, self.fps
        assert self.count >= 1, self.count
        edges = (0, *self.cuts, self.count)
        assert all(a < b for a, b in itertools.pairwise(edges)), (self.cuts, self.count)


class PostStage(Protocol):
    """One step of finishing. `result` says what comes out before anything runs; memory does not grow with a video's length."""

    def result(self, spec: VideoSpec) -> VideoSpec:
        """What `run` makes of such a video. Raises InputError where it cannot."""
        ...

    def run(self, spec: VideoSpec, chunks: Iterable[Tensor]) -> Chunks:
        """The frames of `result(spec)`, for those of `spec`, as they come. A stage runs one video at a time."""
        ...

    def close(self) -> None:
        """Give networks and threads back; the stage cannot run afterwards. Closing twice is fine."""
        ...


def result_of(stages: Sequence[PostStage], spec: VideoSpec) -> VideoSpec:
    """What comes out of the stages, one after the other. Raises InputError where one cannot."""
    for stage in stages:
        spec = stage.result(spec)
    return spec


def run_stages(stages: Sequence[PostStage], spec: VideoSpec, chunks: Iterable[Tensor]) -> Chunks:
    """The frames of `result_of(stages, spec)`, each stage fed by the one before."""
    for stage in stages:
        chunks = stage.run(spec, chunks)
        spec = stage.result(spec)
    return iter(chunks)


def single_frames(spec: VideoSpec, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
    """The frames one by one, float32 [1, 3, H, W], held against what was said of the video.

    Raises:
        InputError: they are fewer, more or of another size than `spec` says.
    """
    count, (width, height) = 0, spec.size
    for chunk in chunks:
        for frame in chunk.split(1):
            if frame.shape[2:] != (height, width) or frame.shape[1] not in (3, 4):
                found = "x".join(str(side) for side in frame.shape[:0:-1])
                raise _other("video", f"frame {count} is {found}, and {width}x{height}x3 was said")
            count += 1
            if count <= spec.count:
                yield frame
    if count != spec.count:
        raise _other("video", f"it holds {count} frames, and {spec.count} were said")


def _other(field: str, rule: str) -> InputError:
    return InputError(field, "frames", rule, "Probe the video again.")
