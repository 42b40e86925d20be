"""API keys: made, found by their hash, revoked; and the rates they may ask at."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import sqlalchemy as sa
from pydantic import ValidationError

from wanimate.errors import InputError
from wanimate.serve.database import Database
from wanimate.serve.settings import Quotas, ServeSettings
from wanimate.serve.tables import DAY, Key, now

Scope = Literal["submit", "read", "admin"]
"""`submit` creates and cancels, `read` looks, `admin` also sees and does what concerns other owners."""
SCOPES: tuple[Scope, ...] = get_args(Scope)
USUAL: tuple[Scope, ...] = ("submit", "read")


@dataclass(frozen=True)
class Caller:
    """Who asks. Everything that they see belongs to `owner`."""

    key_id: str
    owner: str
    scopes: frozenset[str]
    quotas: Quotas

    @property
    def is_admin(self) -> bool:
        return "admin" in self.scopes


class Keys:
    """Keys are `wan_` and 43 letters: 256 random bits. Only their SHA-256 is stored."""

    def __init__(self, database: Database, settings: ServeSettings) -> None:
        self._database, self._settings = database, settings
        self._known: dict[str, tuple[float, Caller | None]] = {}

    def create(
        self, owner: str, scopes: Sequence[str] = USUAL, days: float | None = None, quotas: dict[str, Any] | None = None
    ) -> str:
        """A new key, which is shown only now.

        Args:
            owner: who everything made with it belongs to. Keys of one owner see the same.
            days: until it expires; None is never.
            quotas: fields of `Quotas` that differ from the service's.

        Raises:
            InputError.
        """
        owner = owner.strip()
        if not owner or len(owner) > 200 or not owner.isprintable():
            raise InputError("owner", owner, "it has to have 1 to 200 printable letters", "Give another name.")
        unknown = [scope for scope in scopes if scope not in SCOPES]
        if unknown or not scopes:
            raise InputError(
                "scopes", ", ".join(unknown), "there is no such scope", f"Give some of {', '.join(SCOPES)}."
            )
        if days is not None and not 0 < days < 36_500:
            raise InputError("days", days, "it has to be above 0 and below 36500", "Give a number of days.")
        try:
            Quotas.model_validate(self._settings.quotas.model_dump() | (quotas or {}))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = ".".join(str(part) for part in first["loc"])
            raise InputError(f"quotas.{name}", first["input"], first["msg"], "Give another value.") from error
        key = f"wan_{secrets.token_urlsafe(32)}"
        at = now()
        with self._database.write() as session:
            session.add(
                Key(
                    id=secrets.token_hex(8), owner=owner, digest=_digest(key), scopes=list(scopes), quotas=quotas or {},
                    webhook_secret=f"whsec_{secrets.token_hex(16)}", created=at,
                    expires=None if days is None else at + int(days * DAY), revoked=None,
                )
            )  # fmt: skip
        return key

    def find(self, key: str) -> Caller | None:
        """Who a key belongs to; None for one that is wrong, revoked or expired. Answers are kept for a few seconds."""
        digest = _digest(key)
        at = time.monotonic()
        known = self._known.get(digest)
        if known is not None and known[0] > at:
            return known[1]
        with self._database.read() as session:
            row = session.scalar(sa.select(Key).where(Key.digest == digest))
        caller = self._caller(row)
        if len(self._known) > 10_000:
            self._known.clear()
        if caller is not None:
            self._known[digest] = (at + 5.0, caller)
        return caller

    def by_id(self, key_id: str) -> Caller | None:
        """Who the key of an id belongs to; None as `find`."""
        with self._database.read() as session:
            return self._caller(session.get(Key, key_id))

    def _caller(self, row: Key | None) -> Caller | None:
        if row is None or row.revoked is not None or (row.expires is not None and row.expires <= now()):
            return None
        quotas = Quotas.model_validate(self._settings.quotas.model_dump() | row.quotas)
        return Caller(row.id, row.owner, frozenset(row.scopes), quotas)

    def revoke(self, key_id: str) -> bool:
        """Returns whether there was such a key."""
        with self._database.write() as session:
            row = session.get(Key, key_id)
            if row is not None and row.revoked is None:
                row.revoked = now()
        self._known.clear()
        return row is not None

    def list(self, owner: str | None = None) -> Sequence[Key]:
        with self._database.read() as session:
            wanted = sa.select(Key).order_by(Key.created)
            return session.scalars(wanted if owner is None else wanted.where(Key.owner == owner)).all()

    @property
    def any(self) -> bool:
        with self._database.read() as session:
            return session.scalar(sa.select(sa.func.count()).select_from(Key).where(Key.revoked.is_(None))) != 0


class Rate:
    """How often each of many may do something: a bucket of `burst` tokens that fills with `rate` a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def wait(self, who: str, rate: float, burst: float | None = None) -> float:
        """0 if it may be done now, which takes a token; else the seconds until then."""
        most = max(1.0, rate if burst is None else burst)
        at = self._clock()
        with self._lock:
            tokens, since = self._buckets.get(who, (most, at))
            tokens = min(most, tokens + (at - since) * rate)
            if tokens >= 1:
                self._buckets[who] = (tokens - 1, at)
                return 0.0
            self._buckets[who] = (tokens, at)
            if len(self._buckets) > 10_000:
                self._buckets = {name: value for name, value in self._buckets.items() if at - value[1] < 60}
            return (1 - tokens) / rate


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
