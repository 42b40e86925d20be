"""Sessions of the page: random tokens, stored as hashes. They end with their time, with their key, or by signing out."""

from __future__ import annotations

import hashlib
import secrets

import sqlalchemy as sa

from wanimate.serve.database import Database
from wanimate.serve.keys import Caller, Keys
from wanimate.serve.tables import PageSession, now

HOURS = 7 * 24
_LINK_MINUTES = 10
_PAGE, _LINK = "page", "link"


class Sessions:
    """Sessions and the links that begin one. A token is 256 random bits, and no key."""

    def __init__(self, database: Database, keys: Keys) -> None:
        self._database, self._keys = database, keys

    def begin(self, key_id: str) -> str:
        """A session of a key's owner. Returns its token."""
        return self._add(key_id, _PAGE, HOURS * 3_600_000)

    def link(self, key_id: str) -> str:
        """A token that begins one session, within ten minutes."""
        return self._add(key_id, _LINK, _LINK_MINUTES * 60_000)

    def redeem(self, token: str) -> Caller | None:
        """Use a link's token up. None where it is none, was used, or is too old."""
        mark = _digest(token)
        with self._database.write() as session:
            row = session.get(PageSession, mark)
            if row is None or row.kind != _LINK or row.expires < now():
                return None
            used = session.execute(sa.delete(PageSession).where(PageSession.digest == mark))
            if used.rowcount != 1:  # type: ignore[attr-defined]
                return None
        return self._keys.by_id(row.key_id)

    def find(self, token: str) -> Caller | None:
        """Who a session belongs to; None where it has ended."""
        with self._database.read() as session:
            row = session.get(PageSession, _digest(token))
        if row is None or row.kind != _PAGE or row.expires < now():
            return None
        return self._keys.by_id(row.key_id)

    def end(self, token: str) -> None:
        with self._database.write() as session:
            session.execute(sa.delete(PageSession).where(PageSession.digest == _digest(token)))

    def _add(self, key_id: str, kind: str, lasts: int) -> str:
        token = secrets.token_urlsafe(32)
        at = now()
        with self._database.write() as session:
            session.add(PageSession(digest=_digest(token), key_id=key_id, kind=kind, created=at, expires=at + lasts))
        return token


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
