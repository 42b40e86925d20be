"""Where a file is cut, for stages that must not work across cuts."""

from __future__ import annotations

from collections.abc import Iterable

from wanimate.preprocess.people.cuts import with_cuts
from wanimate.types import Frame


def find_cuts(frames: Iterable[Frame]) -> tuple[int, ...]:
    """The frames [H, W, 3] that begin a new shot, as in `VideoSpec.cuts`. Reads them once, three ahead."""
    return tuple(number for number, (begins, _) in enumerate(with_cuts(frames)) if begins)
