"""Which versions are one shot. Redraws, videos from the same guides, and jobs that were made "again" stack by themselves."""

from __future__ import annotations

import re
import secrets
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from wanimate.review.records import State
from wanimate.serve.errors import ServiceError
from wanimate.serve.events import REVIEW, tell
from wanimate.serve.tables import Job, Shot, ShotComment, ShotDecision, ShotVersion, now

MOST = 500
"""Versions of a shot."""
_HOUR = 3_600_000
_SHA256 = re.compile(r"[0-9a-f]{64}")


def stack(session: Session, job: Job, keep_hours: float) -> Shot | None:
    """Put a finished job on the stack that it belongs to, or begin one. None where it has made no video.

    Args:
        keep_hours: how long the files of a shot that is reviewed are kept.
    """
    if "video" not in job.result:
        return None
    known = session.get(ShotVersion, job.id)
    if known is not None:
        return session.get_one(Shot, known.shot_id)
    shot = _stack_of(session, job)
    if shot is None or not add(session, shot, job):
        shot = begin(session, job, job.id)
        add(session, shot, job)
    elif shot.touched and job.expires is not None:
        job.expires = max(job.expires, now() + int(keep_hours * _HOUR))
    if shot.root != job.id:
        tell(session, job, REVIEW, shot=shot.id, what="version")
    return shot


def begin(session: Session, job: Job, root: str) -> Shot:
    """A new stack without versions. Where another process has begun it a moment ago, that one."""
    at = now()
    name = job.submission.get("name") or f"Shot {job.id[:8]}"
    shot = Shot(
        id=f"shot_{secrets.token_hex(12)}", owner=job.owner, name=name, root=root, state=State.NEEDS_REVIEW, touched=False,
        head="", created=at, changed=at,
    )  # fmt: skip
    try:
        with session.begin_nested():
            session.add(shot)
    except IntegrityError:
        return session.scalars(sa.select(Shot).where(Shot.root == root)).one()
    return shot


def add(session: Session, shot: Shot, job: Job) -> bool:
    """Put a job on top of a stack. Returns False where that is full."""
    session.scalar(sa.select(Shot.id).where(Shot.id == shot.id).with_for_update())
    highest = session.scalar(sa.select(sa.func.max(ShotVersion.number)).where(ShotVersion.shot_id == shot.id)) or 0
    count = session.scalar(sa.select(sa.func.count()).where(ShotVersion.shot_id == shot.id)) or 0
    if count >= MOST:
        return False
    made = job.facts.get("sha256")
    session.add(
        ShotVersion(
            job_id=job.id, shot_id=shot.id, number=highest + 1, state=State.NEEDS_REVIEW, facts=_facts(job),
            digest=made if isinstance(made, str) and _SHA256.fullmatch(made) else None, added=now(),
        )
    )  # fmt: skip
    shot.state, shot.changed = State.NEEDS_REVIEW, now()
    session.flush()
    return True


def move(session: Session, version: ShotVersion, target: Shot) -> None:
    """Put a version with its comments on top of another stack.

    Raises:
        ServiceError: 409 it was decided on, or the stack is full.
    """
    decided = session.scalar(sa.select(ShotDecision.seq).where(ShotDecision.job_id == version.job_id).limit(1))
    if decided is not None:
        text = "The version was decided on, and its decisions are part of its shot's chain. Leave it where it is."
        raise ServiceError(409, "InvalidParameter", text, "job")
    highest = session.scalar(sa.select(sa.func.max(ShotVersion.number)).where(ShotVersion.shot_id == target.id)) or 0
    if highest >= MOST:
        raise ServiceError(409, "InvalidParameter", f"A shot has at most {MOST} versions.", "job")
    left = version.shot_id
    version.shot_id, version.number = target.id, highest + 1
    of_version = sa.update(ShotComment).where(ShotComment.job_id == version.job_id)
    session.execute(of_version.values(shot_id=target.id))
    session.flush()
    settle(session, target)
    source = session.get(Shot, left)
    if source is not None and not settle(session, source) and not source.head:
        session.delete(source)


def settle(session: Session, shot: Shot) -> bool:
    """Give a shot the state of its newest version. Returns whether it has any."""
    newest = sa.select(ShotVersion.state).where(ShotVersion.shot_id == shot.id).order_by(ShotVersion.number.desc())
    state = session.scalar(newest.limit(1))
    shot.state, shot.changed = state or State.NEEDS_REVIEW, now()
    return state is not None


def forgotten(session: Session, job_id: str) -> None:
    """A job is removed. Where nobody has touched its shot, nothing is left of it there."""
    version = session.get(ShotVersion, job_id)
    shot = None if version is None else session.get(Shot, version.shot_id)
    if version is None or shot is None or shot.touched:
        return
    session.delete(version)
    session.flush()
    if not settle(session, shot):
        session.delete(shot)


def keep(session: Session, shot_id: str, until: int) -> None:
    """The files of a shot's versions are kept until then (ms), at least."""
    versions = sa.select(ShotVersion.job_id).where(ShotVersion.shot_id == shot_id)
    shorter = sa.update(Job).where(Job.id.in_(versions), Job.expires < until)
    session.execute(shorter.values(expires=until).execution_options(synchronize_session=False))


def _stack_of(session: Session, job: Job) -> Shot | None:
    """The stack of the first job above this one that has one, or that will have one."""
    above, seen = _above(job), {job.id}
    root = job.id
    while above is not None and above not in seen:
        root = above
        version = session.get(ShotVersion, above)
        if version is not None:
            shot = session.get(Shot, version.shot_id)
            return shot if shot is not None and shot.owner == job.owner else None
        seen.add(above)
        found = session.get(Job, above)
        above = None if found is None or found.owner != job.owner else _above(found)
    shot = session.scalar(sa.select(Shot).where(Shot.root == root))
    if shot is None:
        return begin(session, job, root)
    return shot if shot.owner == job.owner else None


def _above(job: Job) -> str | None:
    asked = job.submission
    above: str | None = asked.get("version_of") or asked.get("parent")
    return above


def _facts(job: Job) -> dict[str, Any]:
    known = {name: job.facts.get(name) for name in ("seed", "frames", "fps", "size")}
    by = job.facts.get("by", f"key:{job.key_id}")
    made = {"made": made} if (made := made_of(job)) else {}
    return {"name": job.submission.get("name", ""), "mode": job.mode, "by": by, **known, **made}


def made_of(job: Job) -> dict[str, Any]:
    """What is known of a job's inputs, in the form of a record."""
    if "made" in job.facts:
        return dict(job.facts["made"])
    sources = job.facts.get("sources", {})
    return {"inputs": {name: {"sha256": f"sha256:{one}"} for name, one in sources.items()}} if sources else {}
