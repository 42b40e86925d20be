"""Which instants a video of another rate shows, in exact fractions.

Frame i of the result shows the instant i / fps. It lies between two frames of the source, or on one of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from wanimate.post.base import VideoSpec

NEAR = Fraction(1, 1000)
"""An instant within this share of a frame's duration of a source frame is that frame."""


@dataclass(frozen=True)
class Instant:
    """Source frame `frame`, or, where `share` is above 0, so far from it towards the next one."""

    frame: int
    share: Fraction = Fraction(0)


def at_rate(spec: VideoSpec, fps: Fraction) -> VideoSpec:
    """What the video is at another rate: as long as before to half a frame. Cuts move with their frames."""
    ratio = fps / spec.fps
    count = max(math.floor(spec.count * ratio + Fraction(1, 2)), 1)
    cuts = sorted({math.ceil((cut - NEAR) * ratio) for cut in spec.cuts})
    return replace(spec, fps=fps, count=count, cuts=tuple(cut for cut in cuts if 0 < cut < count))


def instants(spec: VideoSpec, fps: Fraction) -> Iterator[Instant]:
    """What each frame of `at_rate(spec, fps)` shows. Before a cut and at the end, the last frame is held."""
    cuts, ratio = frozenset(spec.cuts), spec.fps / fps
    for number in range(at_rate(spec, fps).count):
        place = min(number * ratio, Fraction(spec.count - 1))
        frame = math.floor(place + NEAR)
        share = place - frame
        held = share <= NEAR or frame + 1 in cuts
        yield Instant(frame) if held else Instant(frame, share)
