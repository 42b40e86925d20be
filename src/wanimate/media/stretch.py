"""Which stretch of a clip is used, told by the time stamps of its frames."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

from wanimate.config import PreprocessSettings
from wanimate.errors import Fault, InputError, setting
from wanimate.media.probe import SLACK_SECONDS, probe
from wanimate.types import Clip

ROUNDING = 0.001
"""Seconds that a time may be beside the time stamp it means: people write three decimals. Frames are 4 ms apart at least."""


@dataclass(frozen=True)
class Stretch:
    """The frames [first, stop) of a clip. `start`: time stamp of the first, `seconds`: from there to the end."""

    first: int
    stop: int
    start: float
    seconds: float


def stretch_of(clip: Clip, settings: PreprocessSettings) -> Stretch:
    """The frames whose time stamps lie in [settings.start, settings.end); all of them where neither is given.

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
    return Stretch(first, stop, clip.times[first], end - clip.times[first])


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
