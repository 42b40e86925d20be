"""Stopping a job from elsewhere: another thread, a signal handler, a service."""

from __future__ import annotations

import threading
from collections.abc import Generator
from typing import TypeVar

from wanimate.errors import Cancelled
from wanimate.events import Finished

T = TypeVar("T")


class CancelToken:
    """Asks a job to stop. The job looks at it with every event but the last; nothing half-written is left then."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def cancel(self) -> None:
        """Ask for it; from any thread, any number of times."""
        self._asked.set()

    @property
    def is_cancelled(self) -> bool:
        return self._asked.is_set()


def cancellable(events: Generator[T, None, None], token: CancelToken | None) -> Generator[T, None, None]:
    """The events of a job, until the token asks for its end.

    Raises:
        Cancelled: it has; the job has tidied up by then.
    """
    try:
        for event in events:
            if token is not None and token.is_cancelled and not isinstance(event, Finished):
                raise Cancelled("stopped; nothing half-written was left")
            yield event
    finally:
        events.close()
