"""How a clip of any length is cut into runs of the network (model spec, section 10.1).

Letters: n frames of the job, K frames of a segment (4j+1), o overlap.
"""

from __future__ import annotations

from wanimate.errors import InputError
from wanimate.types import Segment


def plan_segments(count: int, clip_length: int, overlap: int, compat: bool = False) -> tuple[Segment, ...]:
    """Segments that cover frames 0..count-1; each after the first starts on the last `overlap` frames of the one before.

    The last segment is only as long as it must be; with `compat` all have `clip_length` frames, as published.
    """
    if count < 1:
        raise InputError("frames", count, "there is nothing to generate", "Give guides with at least one frame.")
    if clip_length % 4 != 1:
        lower = max(1, (clip_length - 1) // 4 * 4 + 1)
        raise InputError("generate.clip_length", clip_length, "it has to be 4n+1", f"Use {lower} or {lower + 4}.")
    if overlap not in (1, 5):
        raise InputError("generate.overlap", overlap, "segments share 1 or 5 frames", "Use 1 or 5.")
    if clip_length <= overlap and (compat or count > clip_length):
        rule = f"it has to be longer than the overlap of {overlap}"
        raise InputError("generate.clip_length", clip_length, rule, f"Use {overlap + 4} or more, or a smaller overlap.")
    segments: list[Segment] = []
    start = 0
    while not segments or start + overlap < count:
        rest = -(-(count - start - 1) // 4) * 4 + 1
        length = clip_length if compat else min(clip_length, rest)
        segments.append(Segment(len(segments), start, length, overlap if segments else 0))
        start += clip_length - overlap
    return tuple(segments)


def reflect(index: int, count: int) -> int:
    """Frame to show at `index` of a clip of `count` frames that runs forwards and backwards without repeating its ends."""
    if count == 1:
        return 0
    q = index % (2 * (count - 1))
    return q if q < count else 2 * (count - 1) - q


def reflected(start: int, stop: int, count: int) -> list[int]:
    return [reflect(i, count) for i in range(start, stop)]
