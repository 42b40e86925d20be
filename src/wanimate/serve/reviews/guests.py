"""Guests: links that let somebody without a key see one shot, until they expire or are revoked.

A link's token is 256 random bits and is stored as its hash. Opening a link begins a session of the guest's browser.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import Literal, get_args

import sqlalchemy as sa

from wanimate.serve.errors import ServiceError, missing
from wanimate.serve.reviews.desk import Desk, Reviewer
from wanimate.serve.reviews.desk import Right as AnyRight
from wanimate.serve.reviews.stacks import keep
from wanimate.serve.tables import DAY, GuestLink, GuestSession, Job, now, storable

Right = Literal["view", "comment", "decide"]
RIGHTS: tuple[Right, ...] = get_args(Right)
DAYS, LONGEST = 7.0, 90.0
"""Days that a link works if nothing is said, and at most."""
_MOST = 100
"""Links of a shot that work at the same time."""


class Guests:
    """Every method raises ServiceError: 404 for what is not there or is somebody else's, 403 for a right that is missing."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def invite(
        self, who: Reviewer, shot_id: str, label: str = "", rights: Sequence[Right] = RIGHTS[:2], days: float = DAYS
    ) -> tuple[GuestLink, str]:
        """A new link, and its token, which is shown only now.

        Args:
            label: for whom it is.
            rights: what guests may do; to see the shot is always among them.
            days: above 0, and at most 90.

        Raises:
            ServiceError: 409 the shot has too many links.
        """
        with self._desk.database.write() as session:
            shot = self._desk.opened(session, who, shot_id, "manage", lock=True)
            at = now()
            working = GuestLink.shot_id == shot.id, GuestLink.revoked.is_(None), GuestLink.expires > at
            if (session.scalar(sa.select(sa.func.count()).where(*working)) or 0) >= _MOST:
                raise ServiceError(409, "InvalidParameter", f"A shot has at most {_MOST} links that work. Revoke one.")
            token = secrets.token_urlsafe(32)
            link = GuestLink(
                id=f"guest_{secrets.token_hex(12)}", shot_id=shot.id, digest=_digest(token), label=label,
                rights=[right for right in RIGHTS if right == "view" or right in rights], made_by=who.name, created=at,
                expires=at + int(days * DAY),
            )  # fmt: skip
            session.add(link)
            self._desk.changed(
                session, who, shot, "invite", None, link=link.id, rights=link.rights, expires=link.expires
            )
            keep(session, shot.id, link.expires)
        return link, token

    def links(self, who: Reviewer, shot_id: str) -> Sequence[GuestLink]:
        """All links of a shot, newest first."""
        with self._desk.database.read() as session:
            shot = self._desk.opened(session, who, shot_id, "manage")
            wanted = sa.select(GuestLink).where(GuestLink.shot_id == shot.id)
            return session.scalars(wanted.order_by(GuestLink.created.desc(), GuestLink.id)).all()

    def revoke(self, who: Reviewer, shot_id: str, link_id: str) -> None:
        """End a link, and the sessions of who has opened it, at once."""
        with self._desk.database.write() as session:
            shot = self._desk.opened(session, who, shot_id, "manage", lock=True)
            link = session.get(GuestLink, storable(link_id))
            if link is None or link.shot_id != shot.id:
                raise missing("link")
            link.revoked = link.revoked or now()
            session.execute(sa.delete(GuestSession).where(GuestSession.link_id == link.id))
            self._desk.changed(session, who, shot, "revoke", None, link=link.id)

    def link(self, token: str) -> GuestLink | None:
        """The link of a token; None where it is none, has expired or is revoked."""
        with self._desk.database.read() as session:
            return _working(session.scalar(sa.select(GuestLink).where(GuestLink.digest == _digest(token))))

    def begin(self, link: GuestLink, name: str) -> str:
        """A session of somebody who has opened a link. Returns its token."""
        token = secrets.token_urlsafe(32)
        at = now()
        with self._desk.database.write() as session:
            row = GuestSession(digest=_digest(token), link_id=link.id, name=name, created=at, expires=link.expires)
            session.add(row)
        return token

    def find(self, token: str) -> tuple[Reviewer, GuestLink] | None:
        """Who a session belongs to; None where it or its link has ended."""
        with self._desk.database.read() as session:
            row = session.get(GuestSession, _digest(token))
            link = None if row is None else _working(session.get(GuestLink, row.link_id))
        if row is None or link is None or row.expires <= now():
            return None
        rights: frozenset[AnyRight] = frozenset(right for right in RIGHTS if right in link.rights)
        identity = f"guest:{link.id}:{row.digest[:12]}"
        return Reviewer(row.name, "guest", identity, rights, shot=link.shot_id), link

    def end(self, token: str) -> None:
        with self._desk.database.write() as session:
            session.execute(sa.delete(GuestSession).where(GuestSession.digest == _digest(token)))

    def file(self, who: Reviewer, job_id: str, name: Literal["video", "thumbnail"]) -> str:
        """Where the storage has a file of a version of the guest's shot. Raises ServiceError (404)."""
        with self._desk.database.read() as session:
            shot = self._desk.opened(session, who, who.shot or "")
            version = self._desk.version(session, shot, job_id)
            job = session.get(Job, version.job_id)
        stored = None if job is None or (job.expires is not None and job.expires < now()) else job.result.get(name)
        if stored is None:
            raise missing("file")
        return stored


def _working(link: GuestLink | None) -> GuestLink | None:
    return None if link is None or link.revoked is not None or link.expires <= now() else link


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
