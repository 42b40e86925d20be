"""Seconds of video that a key has used of its day, also those of jobs that were removed."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from wanimate.serve.database import Database
from wanimate.serve.keys import Caller
from wanimate.serve.tables import DAY, Audit, Job, now

_REMOVED = "job.removed"


def seconds_today(session: Session, key_id: str) -> float:
    """Seconds of the clips of a key's jobs of the last 24 hours."""
    since = now() - DAY
    kept = sa.select(sa.func.sum(Job.clip_seconds)).where(Job.key_id == key_id, Job.created > since)
    gone = sa.select(Audit.data).where(Audit.what == _REMOVED, Audit.key_id == key_id, Audit.at > since)
    removed = (data["seconds"] for data in session.scalars(gone) if data["created"] > since)
    return (session.scalar(kept) or 0.0) + sum(removed)


def seconds_left(database: Database, caller: Caller) -> float | None:
    """Seconds that the caller's key has left today; None where it has no limit."""
    most = caller.quotas.seconds_a_day
    if most is None:
        return None
    with database.read() as session:
        return max(0.0, most - seconds_today(session, caller.key_id))


def remove(session: Session, job: Job) -> None:
    """Remove a job's row. What it has used stays used: who deletes a job has no more seconds."""
    gone = sa.delete(Job).where(Job.id == job.id).returning(Job.clip_seconds)
    seconds = session.scalar(gone.execution_options(synchronize_session=False))
    if seconds:
        data = {"seconds": seconds, "created": job.created}
        session.add(Audit(at=now(), owner=job.owner, key_id=job.key_id, what=_REMOVED, target=job.id, data=data))
