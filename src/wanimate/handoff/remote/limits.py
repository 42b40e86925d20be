"""How often a service may be called, kept on our side, and how long to wait after a failure."""

from __future__ import annotations

import random
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Protocol

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds after the first failure, doubled after each, and their most."""
_LONGEST_POLL = 15.0


class Clock(Protocol):
    """Time, so that tests need not wait."""

    def now(self) -> float:
        """Seconds since 1970."""
        ...

    def sleep(self, seconds: float) -> None: ...


class RealClock:
    def now(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True)
class CallClass:
    """Calls that are counted together: at most `calls` in any `seconds`."""

    name: str
    calls: int
    seconds: float


class Limits:
    """Holds calls back, so that no class of them is called more often than it may be."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._made: dict[str, deque[float]] = defaultdict(deque)
        self._free: dict[str, float] = {}

    def wait(self, kind: CallClass) -> None:
        """Wait until a call of this class may be made, and count it."""
        made = self._made[kind.name]
        while True:
            now = self._clock.now()
            while made and not now - kind.seconds < made[0] <= now:  # later than now: the clock was set back
                made.popleft()
            free = self._free.get(kind.name, 0.0)
            if len(made) >= kind.calls:
                free = max(free, made[-kind.calls] + kind.seconds)
            if free <= now:
                made.append(now)
                return
            self._clock.sleep(min(free - now, max(kind.seconds, LONGEST_WAIT)))

    def told(self, kind: CallClass, headers: Mapping[str, str]) -> float:
        """Take notice of what the service says of its limits. Returns seconds to wait where it has refused.

        `x-ratelimit-remaining`, `-limit` (calls) and `-window` (milliseconds): of the class; the room grows back evenly.
        """
        calls = _number(headers.get("x-ratelimit-limit")) or kind.calls
        window = _number(headers.get("x-ratelimit-window"))
        pause = (kind.seconds if window is None else window / 1000) / max(calls, 1)
        if _number(headers.get("x-ratelimit-remaining")) == 0:
            self._free[kind.name] = self._clock.now() + pause
        return pause


def pause_after(failures: int) -> float:
    """Seconds to wait after so many failures in a row: doubled each time, at random between half of it and all of it."""
    longest = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(failures - 1, 30))
    return longest * random.uniform(0.5, 1.0)


def done_within(patience: float, done: Callable[[], bool], clock: Clock) -> bool:
    """Ask until something is done, less and less often. Returns whether it was done within so many seconds."""
    ends, pause = clock.now() + patience, FIRST_WAIT
    while not done():
        if clock.now() + pause > ends:
            return False
        clock.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_POLL)
    return True


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that `Retry-After` asks for, from a number or a date; None where it says nothing that can be read."""
    text = headers.get("retry-after", "").strip()
    seconds = _number(text)
    if seconds is None and text:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return None if seconds is None else max(0.0, seconds)


def _number(text: str | None) -> float | None:
    """A plain number that is not negative, as headers have it."""
    try:
        found = float(text) if text else None
    except ValueError:
        return None
    return found if found is not None and 0 <= found < 1e12 else None
