"""The thread that shows the queue that a worker lives, and carries what happens to the database.

The thread that works never waits for the database: it leaves its news here.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any

from wanimate.events import Event, Finished, Notice, StageStarted, StepDone, to_dict
from wanimate.jobs.cancel import CancelToken
from wanimate.serve.database import is_away
from wanimate.serve.queue import Claim, LostClaim, Queue, Report

_PACE = 0.5
"""Seconds between two reports while there is news."""
_GRACE = 30.0
"""Seconds that an attempt gets to end by itself after its limit."""
_KEPT = 200
"""Events that are kept while the database is away."""
_log = logging.getLogger(__name__)


class Reporter:
    """For one attempt, in a `with` block. `lost` is set when the job belongs to somebody else.

    Args:
        beat: seconds between two signs of life.
        limit: seconds that the attempt may take; `overdue` is set then.
        hung: called from this thread where the attempt goes on all the same, in a decoder that never returns.
        facts: of the worker, asked with each sign of life.
    """

    def __init__(
        self, queue: Queue, claim: Claim, cancel: CancelToken, beat: float, limit: float | None = None,
        hung: Callable[[], None] = lambda: None, facts: Callable[[], dict[str, Any] | None] = lambda: None,
    ) -> None:  # fmt: skip
        self._queue, self._claim, self._cancel, self._beat, self._limit = queue, claim, cancel, beat, limit
        self._hung, self._facts = hung, facts
        self.lost = threading.Event()
        self.overdue = threading.Event()
        self._news = threading.Condition()
        self._events: list[tuple[str, dict[str, object]]] = []
        self._warnings: list[str] = []
        self._doing: str | None = None
        self._fraction: float | None = None
        self._left: float | None = None
        self._clip_seconds: float | None = None
        self._over = False
        self._began = time.monotonic()
        ids = contextvars.copy_context()  # what the log says of the job
        self._thread = threading.Thread(target=ids.run, args=(self._run,), name="reporter", daemon=True)

    def __enter__(self) -> Reporter:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with self._news:
            self._over = True
            self._news.notify()
        self._thread.join(timeout=10)

    def note(self, event: Event) -> None:
        """Take up an event of the job."""
        with self._news:
            if event.fraction is not None:
                self._fraction, self._left = event.fraction, event.seconds_left
            if isinstance(event, StageStarted):
                self._doing = event.stage.value
            if isinstance(event, Notice) and event.level == "warning":
                self._warnings.append(event.message)
            if not isinstance(event, Finished):
                self._add(event)
            self._news.notify()

    def measured(self, clip_seconds: float | None) -> None:
        """Take up the length of the driving clip."""
        with self._news:
            self._clip_seconds = clip_seconds

    @property
    def rest(self) -> Report | None:
        """What the database has not been told when the attempt was over, since it was away then."""
        return self._report() if self._events or self._warnings else None

    def told(self) -> None:
        """The rest has been told."""
        self._events, self._warnings = [], []

    def _report(self) -> Report:
        return Report(
            self._doing, self._fraction, self._left, tuple(self._events), tuple(self._warnings), self._clip_seconds
        )

    def _add(self, event: Event) -> None:
        told = to_dict(event)
        kind = str(told.pop("event"))
        if kind in ("progress", "step") and self._events and self._events[-1][0] == kind:
            self._events.pop()  # nobody needs each frame
        if isinstance(event, StepDone):
            told["stage"] = event.stage.value
        self._events.append((kind, told))

    def _run(self) -> None:
        last = 0.0
        while True:
            with self._news:
                if not self._events and not self._over:
                    self._news.wait(self._beat)
                if self._events:
                    self._rest_until(last + _PACE)
                over = self._over
            self._look_at_limit(over)
            with self._news:
                report = replace(self._report(), worker=self._facts())
                self.told()
            last = time.monotonic()
            if self.lost.is_set():
                return
            sent = self._sent(report)
            with self._news:
                if not sent:  # kept for when the database is back; of much news the last
                    self._events = [*report.events, *self._events][-_KEPT:]
                    self._warnings = [*report.warnings, *self._warnings]
                if over:
                    return
                if not sent:
                    self._rest_until(time.monotonic() + min(self._beat, 1.0))

    def _rest_until(self, moment: float) -> None:
        """Wait, but not beyond the end of the attempt. `_news` is held."""
        self._news.wait_for(lambda: self._over, max(0.0, moment - time.monotonic()))

    def _look_at_limit(self, over: bool) -> None:
        spent = time.monotonic() - self._began
        if self._limit is not None and spent > self._limit:
            self.overdue.set()
            if spent > self._limit + _GRACE and not over:
                self._hung()

    def _sent(self, report: Report) -> bool:
        """Returns False if it should be sent again."""
        try:
            if self._queue.report(self._claim, report):
                self._cancel.cancel()
        except LostClaim:
            self.lost.set()
            self._cancel.cancel()
        except Exception as error:
            if not is_away(error):  # this news cannot be written; the next may, and the sign of life has to come
                _log.exception("a report could not be written")
                return True
            _log.warning("the database is away; the job goes on: %s", str(error).partition("\n")[0])
            return False
        return True
