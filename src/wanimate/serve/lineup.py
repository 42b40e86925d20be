"""The queue as people see it and arrange it. A job never passes one of another owner by being moved: places are exchanged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from wanimate.serve.errors import ServiceError, missing
from wanimate.serve.events import tell
from wanimate.serve.keys import Caller
from wanimate.serve.service import Service
from wanimate.serve.tables import Job, State, now

_OPEN = (State.PENDING, State.RUNNING)
_ORDER = (Job.priority.desc(), Job.order_key, Job.id)
_SHOWN = 1000


@dataclass(frozen=True)
class Place:
    """An unfinished job; `position` counts from 1 among those that wait for the same kind of worker, None while one has it.

    Owners take turns and workers prefer jobs whose weights they hold, so that a later one may begin earlier.
    """

    job: Job
    position: int | None


class Lineup:
    """What an owner may do with jobs that are not finished."""

    def __init__(self, service: Service) -> None:
        self._service, self._database = service, service.database

    def view(self, caller: Caller, everybody: bool = False) -> list[Place]:
        """The caller's unfinished jobs as they are next, at most 1000; for an admin, those of all with `everybody`."""
        waits = sa.case((Job.worker.is_(None), 1), else_=0)
        rank = sa.func.row_number().over(partition_by=(Job.stage, waits), order_by=_ORDER)
        placed = sa.select(Job.id, Job.owner, waits.label("waits"), rank.label("rank")).where(Job.state.in_(_OPEN))
        rows = placed.subquery()
        wanted = sa.select(Job, rows.c.waits, rows.c.rank).join(rows, rows.c.id == Job.id)
        if not (everybody and caller.is_admin):
            wanted = wanted.where(Job.owner == caller.owner)
        with self._database.read() as session:
            found = session.execute(wanted.order_by(rows.c.waits, *_ORDER).limit(_SHOWN)).all()
        return [Place(job, rank if waits else None) for job, waits, rank in found]

    def position(self, job: Job) -> int | None:
        """As `Place.position`, of one job."""
        if State(job.state).final or job.worker is not None:
            return None
        earlier = sa.or_(
            Job.priority > job.priority,
            sa.and_(Job.priority == job.priority, Job.order_key < job.order_key),
            sa.and_(Job.priority == job.priority, Job.order_key == job.order_key, Job.id < job.id),
        )
        waiting = (Job.state.in_(_OPEN), Job.worker.is_(None), Job.stage == job.stage)
        with self._database.read() as session:
            return 1 + (session.scalar(sa.select(sa.func.count()).select_from(Job).where(*waiting, earlier)) or 0)

    def change(
        self, caller: Caller, job_id: str, request_id: str, priority: int | None = None, held: bool | None = None
    ) -> Job:
        """Set a job's priority, hold it back or let it go on. A job that is in work is held before its next stage.

        Raises:
            ServiceError: 404; 409 it is finished.
        """
        told: dict[str, Any] = {}
        with self._database.write() as session:
            job = self._mine(session, caller, job_id)
            if priority is not None and priority != job.priority:
                job.priority = told["priority"] = priority
            if held is not None and held != job.held:
                job.held = told["held"] = held
            if told:
                tell(session, job, "changed", **told)
                self._service.audit(session, caller, request_id, "job.change", job_id, **told)
        return job

    def order(self, caller: Caller, ids: Sequence[str], request_id: str) -> None:
        """Let these jobs exchange their places so that they come in this order. Their priorities stay, and come first.

        Raises:
            ServiceError: 404; 409 one is finished or in work.
        """
        with self._database.write() as session:
            jobs = [self._waiting(session, caller, job_id) for job_id in dict.fromkeys(ids)]
            self._exchange(session, jobs)
            self._service.audit(session, caller, request_id, "queue.order", None, ids=[job.id for job in jobs])

    def move(self, caller: Caller, job_id: str, target_id: str, before: bool, request_id: str) -> None:
        """Bring a job right before or behind another one of its owner, whose priority it takes.

        Raises:
            ServiceError: 404; 409 one is finished or in work, or they are of two owners.
        """
        with self._database.write() as session:
            job, target = self._waiting(session, caller, job_id), self._waiting(session, caller, target_id)
            if job.owner != target.owner:
                raise _conflict("The two jobs belong to two owners.")
            job.priority = target.priority
            same = (Job.owner == job.owner, Job.priority == target.priority, Job.state.in_(_OPEN), Job.worker.is_(None))
            line = session.scalars(sa.select(Job).where(*same).order_by(*_ORDER).with_for_update()).all()
            others = [one for one in line if one is not job]
            at = others.index(target) + (not before) if target in others else 0
            self._exchange(session, [*others[:at], job, *others[at:]])
            self._service.audit(session, caller, request_id, "queue.move", job_id, beside=target_id, before=before)

    def _exchange(self, session: Session, jobs: Sequence[Job]) -> None:
        last = -1
        for job, key in zip(jobs, sorted(job.order_key for job in jobs), strict=True):
            last = max(key, last + 1)
            if job.order_key != last:
                job.order_key = last
                tell(session, job, "changed", order=True)

    def _mine(self, session: Session, caller: Caller, job_id: str) -> Job:
        job = session.scalar(sa.select(Job).where(Job.id == job_id).with_for_update())
        if job is None or not (caller.is_admin or job.owner == caller.owner):
            raise missing("job")
        if job.expires is not None and job.expires < now():
            raise missing("job")
        if State(job.state).final:
            raise _conflict(f"The job {job_id} is finished.")
        return job

    def _waiting(self, session: Session, caller: Caller, job_id: str) -> Job:
        job = self._mine(session, caller, job_id)
        if job.worker is not None:
            raise _conflict(f"The job {job_id} is in work.")
        return job


def _conflict(message: str) -> ServiceError:
    return ServiceError(409, "UnsupportedOperation", message)
