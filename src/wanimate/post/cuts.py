"""Where a file is cut, for stages that must not work across cuts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from wanimate.preprocess.people.cuts import with_cuts
from wanimate.types import Frame


def shots(frames: Iterable[Frame]) -> Iterator[bool]:
    """Whether each of the frames [H, W, 3] begins a new shot. The first one begins none. Reads three ahead."""
    return (begins for begins, _ in with_cuts(frames))
