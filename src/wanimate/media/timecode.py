"""SMPTE timecode: frame numbers as HH:MM:SS:FF and back. Integers and fractions only.

Drop-frame leaves out labels, never frames: at the start of each minute but every tenth the first two numbers (four at
60000/1001) are skipped, so that labels stay with the clock. It exists for 30000/1001 and 60000/1001 alone. 24000/1001 is
counted at 24 and never dropped. Other rates (15, 16, 12.5) have no timecode of their own: `is_exact` says so, and they are
counted at the rounded rate.
"""

from __future__ import annotations

import re
from fractions import Fraction

from wanimate.errors import InputError

_DROPPED = {Fraction(30000, 1001): 2, Fraction(60000, 1001): 4}
"""Labels that are left out in a minute."""
_WHOLE = (24, 25, 30, 48, 50, 60, 100, 120)
_EXACT = frozenset(
    {Fraction(rate) for rate in _WHOLE} | {Fraction(rate * 1000, 1001) for rate in (24, 30, 48, 60, 120)}
)
_FASTEST = 1000
_TEXT = re.compile(r"(\d{2}):(\d{2}):(\d{2})([:;])(\d{2,3})", re.ASCII)


def may_drop(rate: Fraction) -> bool:
    """Whether drop-frame exists for a rate (frames a second)."""
    return rate in _DROPPED


def is_exact(rate: Fraction) -> bool:
    """Whether timecode is defined for a rate. Labels of another one are counted at the rounded rate."""
    return rate in _EXACT


def counted(rate: Fraction) -> int:
    """Frames that a second of labels has: the rate rounded, halves up, at least 1.

    Raises:
        InputError: the rate is not above 0, or above 1000.
    """
    if not 0 < rate <= _FASTEST:
        rule = f"a rate has to be above 0 and at most {_FASTEST} frames a second"
        raise InputError("rate", rate, rule, "Give the rate of the video.")
    return max(1, int(rate + Fraction(1, 2)))


def format(frame: int, rate: Fraction, drop: bool = False) -> str:
    """The label of a frame: "01:00:00:00", with ";" before the frames where labels are dropped.

    Args:
        frame: from 0. Labels begin again after 24 hours.
        rate: frames a second, exact.
        drop: whether labels are dropped.

    Raises:
        InputError: a negative frame, no such rate, or drop-frame at a rate that has none.
    """
    label, base = frame, counted(rate)
    if frame < 0:
        raise InputError("frame", frame, "frames are counted from 0", "Give a frame that is not negative.")
    if drop:
        label = _with_gaps(frame, base, _left_out(rate))
    label %= base * 86_400
    seconds, frames = divmod(label, base)
    width = len(str(max(base - 1, 10)))
    sign = ";" if drop else ":"
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{sign}{frames:0{width}}"


def parse(text: str, rate: Fraction) -> int:
    """The frame of a label. A ";" before the frames says that labels are dropped.

    Args:
        text: "01:00:00:00" or "01:00:00;00".
        rate: frames a second, exact.

    Raises:
        InputError: it is no label, none of this rate, or one that drop-frame leaves out.
    """
    base = counted(rate)
    found = _TEXT.fullmatch(text)
    if found is None:
        raise InputError(
            "timecode", text, "it is no timecode", "Write it as HH:MM:SS:FF, or HH:MM:SS;FF for drop-frame."
        )
    hours, minutes, seconds, frames = (int(found[part]) for part in (1, 2, 3, 5))
    if hours > 23 or minutes > 59 or seconds > 59 or frames >= base:
        rule = f"the largest label at {rate} frames a second is {format(base * 86_400 - 1, rate)}"
        raise InputError("timecode", text, rule, "Give a label of this rate.")
    label = ((hours * 60 + minutes) * 60 + seconds) * base + frames
    if found[4] == ":":
        return label
    dropped = _left_out(rate)
    if minutes % 10 and seconds == 0 and frames < dropped:
        rule = f"drop-frame leaves out the first {dropped} labels of this minute"
        raise InputError("timecode", text, rule, f"Give ;{dropped:02} or a later label.")
    minute = hours * 60 + minutes
    return label - dropped * (minute - minute // 10)


def _left_out(rate: Fraction) -> int:
    if not may_drop(rate):
        rule = f"drop-frame exists for 30000/1001 and 60000/1001 only, and the rate is {rate}"
        raise InputError("timecode", "drop-frame", rule, "Count without drop-frame.")
    return _DROPPED[rate]


def _with_gaps(frame: int, base: int, dropped: int) -> int:
    """The label of a frame as a plain count, with those that are left out."""
    first, other = base * 60, base * 60 - dropped
    tens, rest = divmod(frame, first + 9 * other)
    within = 0 if rest < first else 1 + (rest - first) // other
    return frame + dropped * (9 * tens + within)
