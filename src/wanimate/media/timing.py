"""Frame rates and which source frame belongs to which output frame. Integers and fractions only; no pixels."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction


def cap_rate(rate: Fraction, max_fps: Fraction) -> Fraction:
    """`rate`, lowered to at most `max_fps`; whole divisions are kept whole (60000/1001 under 30 becomes 30000/1001)."""
    if rate <= max_fps:
        return rate
    parts = round(rate / max_fps)
    if abs(rate / parts / max_fps - 1) <= Fraction(1, 400) and rate / parts <= max_fps:
        return rate / parts
    return max_fps


def resample(times: Sequence[float], duration: float, fps: Fraction) -> tuple[int, ...]:
    """For every instant i / fps within `duration` seconds, the index into `times` of the frame to show.

    The nearest frame in time is taken, but never one that appears later than half an output interval after the instant:
    a frame that the clip holds for long (variable rate) is held just as long. Duplicates or drops, never blends.
    """
    period = 1 / float(fps)
    count = max(1, int(duration * float(fps) + 0.5))
    chosen = []
    for i in range(count):
        instant = times[0] + i * period
        after = min(bisect_left(times, instant), len(times) - 1)
        before = after if times[after] <= instant else max(after - 1, 0)
        ahead, behind = times[after] - instant, instant - times[before]
        # The slack keeps exact halves (60 -> 30 with an offset) from flipping with the last bit of a float.
        chosen.append(after if ahead <= behind - 1e-9 and ahead <= period / 2 + 1e-9 else before)
    return tuple(chosen)


def published_indices(frame_count: int, video_fps: float, fps: float) -> tuple[tuple[int, ...], float]:
    """The published sampling rule (preprocess spec, section 5): computed as if the rate were constant.

    Args:
        frame_count: frames of the clip, after `published_count`.
        video_fps: average rate of the clip.
        fps: target rate; -1 keeps `video_fps`.

    Returns:
        Source indices (round half to even, clipped to the clip) and the rate used. Empty for a very short clip.
    """
    used = video_fps if fps == -1 else fps
    count = int(frame_count / video_fps * used)
    return tuple(min(max(round(i / used * video_fps), 0), frame_count - 1) for i in range(count)), used


def published_count(decoded: int, last_end: float, video_fps: float) -> int:
    """Frame count under the published mismatch rule: the time stamps win where they differ by more than 10 %."""
    expected = int(last_end * video_fps + 0.5)
    return expected if abs(decoded - expected) / decoded > 0.1 else decoded
