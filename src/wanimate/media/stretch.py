"""Which stretch of a clip is used, told by the time stamps of its frames."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from wanimate.config import PreprocessSettings
from wanimate.errors import Fault, InputError, setting
from wanimate.media.probe import SLACK_SECONDS, probe
from wanimate.media.timing import cap_rate
from wanimate.types import Clip

ROUNDING = 0.001
"""Seconds that a time may be beside the time stamp it means: people write three decimals. Frames are 4 ms apart at least."""


@dataclass(frozen=True)
class Stretch:
    """The frames [first, stop) of a clip. `start`: time stamp of the first, `seconds`: from there to the end. `handles`: how
    many of them come before the stretch that was asked for, and after it."""

    first: int
    stop: int
    start: float
    seconds: float
    handles: tuple[int, int] = (0, 0)


def stretch_of(clip: Clip, settings: PreprocessSettings) -> Stretch:
    """The frames whose time stamps lie in [settings.start, settings.end), and their handles; all where neither is given.

    Raises:
        InputError: the stretch begins or ends after the clip, or there is no frame in it.
    """
    whole = f"the clip is {clip.duration:.2f} s long"
    if settings.end is not None and settings.end > clip.duration + SLACK_SECONDS:
        raise InputError("preprocess.end", settings.end, whole, "Give a time within the clip.", Fault.DURATION)
    end = clip.duration if settings.end is None else min(settings.end, clip.duration)
    first = bisect_left(clip.times, settings.start - ROUNDING)
    stop = clip.count if settings.end is None else bisect_left(clip.times, settings.end - ROUNDING)
    if first == clip.count:
        raise InputError("preprocess.start", settings.start, whole, "Give a time within the clip.", Fault.DURATION)
    if first >= stop:
        rule = f"no frame of the clip lies between {settings.start:g} s and {settings.end:g} s"
        raise InputError("preprocess.end", settings.end, rule, "Give a longer stretch.", Fault.DURATION)
    wanted = round(settings.handles * clip.fps / job_rate(clip, settings))
    before, after = min(wanted, first), min(wanted, clip.count - stop)
    if after:
        end = clip.duration if stop + after == clip.count else clip.times[stop + after]
    first, stop = first - before, stop + after
    return Stretch(first, stop, clip.times[first], end - clip.times[first], (before, after))


def job_rate(clip: Clip, settings: PreprocessSettings) -> Fraction:
    """The rate of the result."""
    return cap_rate(clip.fps, settings.max_fps) if settings.fps is None else settings.fps


def handles_of(clip: Clip, settings: PreprocessSettings) -> tuple[int, int]:
    """Frames of the result before and after the stretch that was asked for."""
    rate = job_rate(clip, settings)
    before, after = (min(round(n * rate / clip.fps), settings.handles) for n in stretch_of(clip, settings).handles)
    return before, after


def missing_handles(clip: Clip, settings: PreprocessSettings) -> str | None:
    """What is told where the clip has fewer frames than handles were asked for."""
    before, after = handles_of(clip, settings)
    if min(before, after) >= settings.handles:
        return None
    there = f"{before} frames for the handle before the stretch and {after} for the one after"
    return f"the clip has {there}, not {settings.handles}"


def probe_used(path: Path, settings: PreprocessSettings, field: str = "video") -> Clip:
    """The whole clip, probed and held to the limits. Those of its length hold for the stretch that is used.

    Raises:
        InputError: as `probe` and `stretch_of`; the stretch is too short or too long.
    """
    if settings.start == 0 and settings.end is None:
        return probe(path, settings.limits, field)
    clip = probe(path, settings.limits.model_copy(update={"min_seconds": 0.0, "max_seconds": None}), field)
    _check_length(clip, settings)
    return clip


def _check_length(clip: Clip, settings: PreprocessSettings) -> None:
    used, limits = stretch_of(clip, settings), settings.limits
    given = "start" if settings.end is None else "end"
    value = getattr(settings, given)
    rule = f"{used.seconds:.2f} s of the clip are used"
    if used.seconds < limits.min_seconds - SLACK_SECONDS:
        rule += f", fewer than {limits.min_seconds:g} s"
        raise InputError(f"preprocess.{given}", value, rule, "Give a longer stretch.", Fault.DURATION)
    if limits.max_seconds is not None and used.seconds > limits.max_seconds + SLACK_SECONDS:
        rule += f", more than {limits.max_seconds:g} s"
        remedy = f"Give a shorter stretch, or allow it with {setting('preprocess.limits.max_seconds')}."
        raise InputError(f"preprocess.{given}", value, rule, remedy, Fault.DURATION)
