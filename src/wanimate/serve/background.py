"""What goes on beside requests in the API's process: looking after dead workers, retention, webhooks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from wanimate.serve.database import is_away
from wanimate.serve.service import Service
from wanimate.serve.storage import StorageAway
from wanimate.serve.sweep import sweep
from wanimate.serve.watch import Watch
from wanimate.serve.webhooks import Deliverer

_log = logging.getLogger(__name__)


class Background:
    """Threads that each do one thing again and again. A database or storage that is away is waited for."""

    def __init__(self, service: Service) -> None:
        self._stop = threading.Event()
        watch = Watch(service.database, service.queue, service.settings.lease)
        deliverer = Deliverer(service.database, service.settings)
        self._work: list[tuple[str, Callable[[], object], float]] = [
            ("watch", watch.look, max(0.5, service.settings.lease / 6)),
            ("sweep", lambda: sweep(service), 60.0),
            ("webhooks", deliverer.deliver, 1.0),
        ]
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        for name, work, pace in self._work:
            thread = threading.Thread(target=self._repeat, args=(name, work, pace), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        self._stop.set()
        until = time.monotonic() + 5
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _repeat(self, name: str, work: Callable[[], object], pace: float) -> None:
        while not self._stop.wait(pace):
            try:
                work()
            except Exception as error:
                if is_away(error) or isinstance(error, StorageAway):
                    _log.warning("%s: %s", name, str(error).partition("\n")[0])
                else:
                    _log.exception("%s failed", name)
