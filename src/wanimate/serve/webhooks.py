"""Webhooks: messages to their receivers, signed the standard way (standardwebhooks.com), and sent again until one answers.

Any number of processes deliver. Who takes a message moves its `due` in a transaction, so that no other takes it meanwhile; a
process that dies with it leaves it to the others after that.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from urllib.parse import urlsplit

import sqlalchemy as sa
from standardwebhooks import Webhook

from wanimate.serve.addresses import Allowed
from wanimate.serve.database import Database, is_away
from wanimate.serve.fetch import FetchError, FetchInvalid, FetchLimits, post
from wanimate.serve.settings import ServeSettings
from wanimate.serve.tables import Hook, Key, now

PAUSES = (5, 30, 120, 600, 3600, 21_600, 43_200, 86_400)
"""Seconds from one try to the next. After the last one the message is given up."""
_THREADS, _OF_A_HOST = 8, 4
_LOOKED_AT = 1000
_LIMITS = FetchLimits(max_bytes=0, seconds=15.0)
_TAKEN = 60_000
"""Milliseconds for which a message belongs to who took it. One try takes less."""
_log = logging.getLogger(__name__)


class Deliverer:
    """Delivers messages from a few threads, at most half of them to one host: a slow receiver does not hold up the others."""

    def __init__(self, database: Database, settings: ServeSettings) -> None:
        self._database = database
        self._allowed = Allowed.parse(settings.allow_fetch)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="webhook")
        self._lock = threading.Lock()
        self._busy: Counter[str] = Counter()
        """Messages on their way, by the receiver's host and port."""

    def deliver(self) -> None:
        """Begin to deliver what is due, as far as threads are free. Called again and again."""
        while True:
            with self._lock:
                if self._busy.total() >= _THREADS:
                    return
                hook = self._take([host for host, count in self._busy.items() if count >= _OF_A_HOST])
                if hook is None:
                    return
                self._busy[_host(hook.url)] += 1
            self._threads.submit(self._delivered, hook)

    def close(self) -> None:
        """Wait for tries that are on their way."""
        self._threads.shutdown(wait=True)

    def _take(self, busy: Sequence[str]) -> Hook | None:
        """The next message that is due, of no busy host; nobody else has it then."""
        waits = (Hook.due <= now(), Hook.delivered.is_(None), Hook.failed.is_(None))
        with self._database.write() as session:
            due = session.execute(sa.select(Hook.id, Hook.url).where(*waits).order_by(Hook.due).limit(_LOOKED_AT))
            for hook_id, url in due.all():
                if _host(url) in busy:
                    continue
                free = sa.select(Hook).where(Hook.id == hook_id, *waits).with_for_update(skip_locked=True)
                hook = session.scalar(free)
                if hook is not None:
                    hook.due = now() + _TAKEN
                    hook.tries += 1
                    return hook
        return None

    def _delivered(self, hook: Hook) -> None:
        try:
            trouble, final = self._sent(hook)
            with self._database.write() as session:
                row = session.get(Hook, hook.id)
                if row is None or row.tries != hook.tries:
                    return
                if trouble is None:
                    row.delivered = now()
                elif final or row.tries > len(PAUSES):
                    row.failed = trouble
                else:
                    row.due = now() + PAUSES[row.tries - 1] * 1000
        except Exception as error:
            if not is_away(error):
                _log.exception("webhook %s of job %s", hook.id, hook.job_id)
        finally:
            with self._lock:
                self._busy[_host(hook.url)] -= 1

    def _sent(self, hook: Hook) -> tuple[str | None, bool]:
        """What is wrong, if anything, and whether it stays so."""
        with self._database.read() as session:
            key = session.get(Key, hook.key_id)
        if key is None or key.revoked is not None:
            return "the key that asked for it is revoked", True
        at = datetime.now(UTC)
        headers = {
            "content-type": "application/json",
            "webhook-id": hook.id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Webhook(key.webhook_secret).sign(hook.id, at, hook.body),
        }
        try:
            status = post(hook.url, hook.body.encode(), headers, _LIMITS, self._allowed)
        except FetchInvalid as error:
            return str(error), True
        except FetchError as error:
            return str(error), False
        if 200 <= status < 300:
            return None, False
        return f"the receiver answered {status}", status == 410


def _host(url: str) -> str:
    """Host and port; the whole text where it is no address."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2].lower()
    except ValueError:
        return url
