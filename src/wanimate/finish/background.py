"""Calls that go on beside the caller's own work: encoding a video while a GPU makes its next frames."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

WAITING = 20
"""Calls that may wait; the caller waits with one more. So many take the pictures of a segment of 77 frames."""


class Background:
    """Does calls one after the other, in order, in one thread of its own.

    What a call raises is raised by the next `do`, or by `finish`; calls after it are left out.
    """

    def __init__(self, waiting: int = WAITING) -> None:
        self._calls: queue.Queue[Callable[[], None] | None] = queue.Queue(waiting)
        self._failure: BaseException | None = None
        self._abandoned = False
        self._thread = threading.Thread(target=self._work, name="wanimate-encode", daemon=True)
        self._thread.start()

    def do(self, call: Callable[[], None]) -> None:
        """Have a call done; waits while `waiting` others are still to be done."""
        self._fail()
        self._calls.put(call)

    def finish(self) -> None:
        """Wait for all calls. Nothing may be asked for afterwards."""
        self._end()
        self._fail()

    def abandon(self) -> None:
        """Leave out what is still waiting, and wait for the call in hand."""
        self._abandoned = True
        self._end()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            if not self._abandoned:
                try:
                    call()
                except BaseException as failure:
                    self._abandoned, self._failure = True, failure

    def _end(self) -> None:
        if self._thread.is_alive():
            self._calls.put(None)
            self._thread.join()

    def _fail(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
