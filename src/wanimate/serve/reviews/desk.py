"""What the parts of a review share: who reviews, which shot they may see, and what every change leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from wanimate.review.records import LONGEST_NAME
from wanimate.serve.approvals.house import Approvals
from wanimate.serve.database import Database
from wanimate.serve.errors import ServiceError, missing
from wanimate.serve.events import REVIEW, tell
from wanimate.serve.keys import Caller
from wanimate.serve.reviews.stacks import keep
from wanimate.serve.settings import ServeSettings
from wanimate.serve.storage import Storage
from wanimate.serve.tables import Audit, Job, Shot, ShotVersion, now, storable

Right = Literal["view", "comment", "decide", "manage"]
"""`manage`: name and stack shots, invite guests."""
REVOKED = "revoked"
"""What a change is called that takes an approval back."""
_HOUR = 3_600_000


@dataclass(frozen=True)
class Reviewer:
    """Who reviews. `owner`: whose shots they see; None sees all. `shot`: the only one that they see. `identity`: what they were
    let in by."""

    name: str
    role: Literal["owner", "admin", "guest", "operator"]
    identity: str
    rights: frozenset[Right]
    owner: str | None = None
    shot: str | None = None
    key_id: str | None = None
    request_id: str | None = None

    @classmethod
    def of_key(cls, caller: Caller, name: str | None, request_id: str | None = None) -> Reviewer:
        """Somebody with a key. `name`: what they call themselves; the owner's name if None."""
        rights: set[Right] = set()
        if caller.is_admin or "read" in caller.scopes:
            rights.add("view")
        if caller.is_admin or "submit" in caller.scopes:
            rights |= {"comment", "decide", "manage"}
        return cls(
            name or caller.owner[:LONGEST_NAME].strip(), "admin" if caller.is_admin else "owner", f"key:{caller.key_id}",
            frozenset(rights), None if caller.is_admin else caller.owner, None, caller.key_id, request_id,
        )  # fmt: skip


@dataclass(frozen=True)
class Desk:
    """Where the records lie."""

    database: Database
    storage: Storage
    settings: ServeSettings
    approvals: Approvals

    def opened(self, session: Session, who: Reviewer, shot_id: str, right: Right = "view", lock: bool = False) -> Shot:
        """A shot that somebody may see and do `right` with. `lock`: nobody else changes it until the transaction ends.

        Raises:
            ServiceError: 404 there is none, or it is somebody else's; 403.
        """
        wanted = sa.select(Shot).where(Shot.id == storable(shot_id))
        shot = session.scalar(wanted.with_for_update() if lock else wanted)
        if shot is None or who.shot not in (None, shot.id) or who.owner not in (None, shot.owner):
            raise missing("shot")
        if right not in who.rights:
            raise ServiceError(403, "AccessDenied", f"The right to {right} is missing here.")
        return shot

    def version(self, session: Session, shot: Shot, job_id: str) -> ShotVersion:
        """Raises ServiceError (404)."""
        found = session.get(ShotVersion, storable(job_id))
        if found is None or found.shot_id != shot.id:
            raise missing("version")
        return found

    def changed(self, session: Session, who: Reviewer, shot: Shot, what: str, job_id: str | None, **data: Any) -> None:
        """Leave behind what a change leaves: an event, a line of the audit, and that the shot and its files are kept."""
        shot.touched, shot.changed = True, now()
        keep(session, shot.id, now() + int(self.settings.keep_reviewed * _HOUR))
        told = {"what": what, "by": who.name, "identity": who.identity, **data}
        session.add(
            Audit(
                at=now(), owner=shot.owner, key_id=who.key_id, request_id=who.request_id, what=f"review.{what}",
                target=shot.id, data=told | ({"version": job_id} if job_id else {}),
            )
        )  # fmt: skip
        self.told(session, shot, what, job_id, **(data if what == REVOKED else {}))

    def told(self, session: Session, shot: Shot, what: str, job_id: str | None, **data: Any) -> None:
        """Write the event that pages and webhooks listen for. It belongs to a job of the shot, and goes with it."""
        newest = sa.select(ShotVersion.job_id).where(ShotVersion.shot_id == shot.id).order_by(ShotVersion.number.desc())
        job = session.get(Job, job_id or session.scalar(newest.limit(1)) or "")
        if job is not None:
            tell(session, job, REVIEW, shot=shot.id, what=what, **data)
