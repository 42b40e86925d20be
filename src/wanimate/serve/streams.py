"""Event streams that are open: how many a key may have, and that all of them end when the process stops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from anyio import CapacityLimiter

from wanimate.serve.errors import ServiceError

_OF_A_KEY = 32
_QUERIES = 8


class Streams:
    """Of one process. Used from its event loop; `close` may come from a signal handler.

    `queries`: threads that ask the database for all streams together, apart from those that serve requests.
    """

    def __init__(self) -> None:
        self.queries = CapacityLimiter(_QUERIES)
        self._open: Counter[str] = Counter()
        self._closing = False

    @property
    def closing(self) -> bool:
        """Whether streams are to end: clients come back with `Last-Event-ID`."""
        return self._closing

    def close(self) -> None:
        self._closing = True

    def check(self, key_id: str) -> None:
        """Raises ServiceError (429) where a key has as many streams as it may have, 503 while the process stops."""
        if self._closing:
            raise ServiceError(503, "ServiceUnavailable", "The service is being stopped. Try again.", retry_after=5)
        if self._open[key_id] >= _OF_A_KEY:
            text = f"A key may have {_OF_A_KEY} event streams at a time."
            raise ServiceError(429, "Throttling.Concurrency", text, retry_after=10)

    @contextmanager
    def held(self, key_id: str) -> Iterator[None]:
        """Counts a stream while it is open."""
        self._open[key_id] += 1
        try:
            yield
        finally:
            self._open[key_id] -= 1
            if not self._open[key_id]:
                del self._open[key_id]
