"""A segment's frames from the guides; the next segment's are read while the network computes."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from wanimate.conditions.segments import reflected
from wanimate.types import Frames, FrameSource, Guides, Segment


@dataclass(frozen=True)
class SegmentFrames:
    """uint8 [K, ..., 3] of every video of the guides; past its end a video runs backwards."""

    pose: Frames
    face: Frames
    background: Frames | None
    mask: Frames | None


class GuidesReader:
    """Reads one segment at a time, ahead where it is told to.

    Sources are not for several threads at once: between `begin` and `wait` nobody else may use the guides.
    """

    def __init__(self, guides: Guides) -> None:
        self.guides = guides
        self._thread = ThreadPoolExecutor(1, "guides")
        self._ahead: tuple[Segment, Future[SegmentFrames]] | None = None

    def begin(self, segment: Segment) -> None:
        """Start to read a segment that `read` will be asked for."""
        self.wait()
        self._ahead = segment, self._thread.submit(self._read, segment)

    def wait(self) -> None:
        """Until what has begun is done; what went wrong is said by `read`."""
        if self._ahead is not None:
            self._ahead[1].exception()

    def read(self, segment: Segment) -> SegmentFrames:
        """A segment's frames, and what goes wrong in reading them."""
        self.wait()
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == segment:
            return ahead[1].result()
        return self._read(segment)

    def _read(self, segment: Segment) -> SegmentFrames:
        g = self.guides
        with ThreadPoolExecutor(4, "guides") as beside:  # every video by a thread of its own
            pose, face = (beside.submit(_frames, source, segment) for source in (g.pose, g.face))
            others = [None if s is None else beside.submit(_frames, s, segment) for s in (g.background, g.mask)]
            background, mask = (None if other is None else other.result() for other in others)
            return SegmentFrames(pose.result(), face.result(), background, mask)


def _frames(source: FrameSource, segment: Segment) -> Frames:
    return source.take(reflected(segment.start, segment.stop, source.count))
