"""The queue: who works on which job, and who may write what.

A claim gives a worker the job's attempt number. Every later write of that worker holds it against the row: a worker that was
frozen, whose job went to another one, finds another number there and writes nothing.

A worker shows that it lives by counting `beat` up. Who looks after dead ones compares the count with what it saw before, by a
clock of its own that never jumps: no clock of another machine is asked, and a database that was away counts for nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from wanimate.serve.database import Database
from wanimate.serve.events import tell
from wanimate.serve.settings import ServeSettings
from wanimate.serve.tables import Job, Key, Setting, Stage, State, Worker, now

_OF_AN_OWNER = 8
"""Jobs of an owner that are looked at for one claim."""
_PATIENCE = 60_000
"""Milliseconds that a job waits at most behind others that a worker has the weights for."""
_BACKOFF = 2_000
PAUSED = "paused"


class LostClaim(Exception):
    """The job belongs to another attempt by now, has been ended, or is gone: nothing of this attempt may be written."""


@dataclass(frozen=True)
class Claim:
    """A job in a worker's hands. `attempt` is its fencing token."""

    job_id: str
    attempt: int
    worker: str
    stage: Stage
    job: Job = field(compare=False, repr=False)


@dataclass(frozen=True)
class Report:
    """What a worker tells of its job. `events`: (kind, data). `warnings`: texts that the job's owner should read."""

    doing: str | None = None
    fraction: float | None = None
    seconds_left: float | None = None
    events: Sequence[tuple[str, dict[str, Any]]] = ()
    warnings: Sequence[str] = ()


class Queue:
    """Every change of a job's state, each one transaction."""

    def __init__(self, database: Database, settings: ServeSettings) -> None:
        self._database, self._settings = database, settings

    # Workers

    def claim(self, worker: str, stages: Sequence[Stage], holds: str = "") -> Claim | None:
        """The next job for a worker, or None. `holds`: "checkpoint|loras" that are in its memory.

        Order: priority, owners with fewer jobs in work, place in the queue. Among equals, a job for the weights at hand.
        """
        with self._database.read() as session:  # an empty queue is found without a lock
            if _paused(session) or not self._waiting(session, stages):
                return None
        with self._database.write() as session:
            if _paused(session):
                return None
            running = dict(
                session.execute(
                    sa.select(Job.owner, sa.func.count()).where(Job.worker.is_not(None)).group_by(Job.owner)
                )
                .tuples()
                .all()
            )
            waiting = self._waiting(session, stages)
            if not waiting:
                return None
            for job_id in _order(waiting, running, holds):
                job = self._take(session, job_id)
                if job is None or not self._may_run(session, job):
                    continue
                job.attempt, job.worker, job.beat = job.attempt + 1, worker, job.beat + 1
                first = job.scheduled is None
                job.state, job.scheduled = State.RUNNING, job.scheduled or now()
                if first:
                    tell(session, job, "scheduled")
                tell(session, job, "claimed", stage=job.stage, attempt=job.attempt)
                return Claim(job.id, job.attempt, worker, Stage(job.stage), job)
        return None

    def report(self, claim: Claim, report: Report) -> bool:
        """Show that the worker lives, and what it does. Returns whether somebody wants the job stopped.

        Raises:
            LostClaim.
        """
        values: dict[str, Any] = {"beat": Job.beat + 1}
        if report.doing is not None:
            values["doing"] = report.doing
        if report.fraction is not None:
            values |= {"fraction": report.fraction, "seconds_left": report.seconds_left}
        changed = sa.update(Job).where(*_ours(claim)).values(values).returning(Job)
        with self._database.write() as session:
            job = session.scalar(changed.execution_options(synchronize_session=False, populate_existing=True))
            if job is None:
                raise LostClaim(claim.job_id)
            alive = sa.update(Worker).where(Worker.id == claim.worker)
            session.execute(alive.values(seen=now(), beat=Worker.beat + 1, job_id=claim.job_id))
            for kind, data in report.events:
                tell(session, job, kind, **data)
            if report.warnings:
                job.warnings = [*job.warnings, *(text for text in report.warnings if text not in job.warnings)]
            return job.cancelling

    def prepared(self, claim: Claim, guides: str, **facts: Any) -> None:
        """The guides lie in the storage: the job waits for a worker that generates. Raises LostClaim."""
        with self._database.write() as session:
            job = self._held(session, claim)
            job.guides, job.facts = guides, {**job.facts, **facts}
            job.stage, job.worker = Stage.GENERATE, None
            tell(session, job, "prepared")

    def note(self, claim: Claim, **values: Any) -> None:
        """Set columns of a claimed job. Raises LostClaim."""
        with self._database.write() as session:
            job = self._held(session, claim)
            for name, value in values.items():
                setattr(job, name, value)

    def succeed(self, claim: Claim, result: dict[str, str], guides: str | None = None, **facts: Any) -> None:
        """The result lies in the storage, and the guides. Raises LostClaim: then it is not the job's."""
        with self._database.write() as session:
            job = self._held(session, claim)
            if job.cancelling:
                self._end(session, job, State.CANCELLED)
                return
            job.guides = guides or job.guides
            job.result, job.facts, job.fraction, job.seconds_left = result, {**job.facts, **facts}, 1.0, 0.0
            self._end(session, job, State.SUCCEEDED)

    def fail(self, claim: Claim, code: str, message: str) -> None:
        """The job itself cannot be done: no other attempt would. Raises LostClaim."""
        with self._database.write() as session:
            job = self._held(session, claim)
            job.code, job.message = code, message
            self._end(session, job, State.CANCELLED if job.cancelling else State.FAILED)

    def stopped(self, claim: Claim) -> None:
        """The worker has stopped because somebody cancelled. Raises LostClaim."""
        with self._database.write() as session:
            self._end(session, self._held(session, claim), State.CANCELLED)

    def give_back(self, claim: Claim) -> None:
        """The worker stops in good order: the job waits for another, and no attempt is counted. Raises LostClaim."""
        with self._database.write() as session:
            job = self._held(session, claim)
            job.worker = None
            if job.cancelling:
                self._end(session, job, State.CANCELLED)
            else:
                tell(session, job, "given back")

    def broken(self, claim: Claim, reason: str, code: str = "InternalError") -> None:
        """The attempt failed by no fault of the job: another follows, unless it was the last. Raises LostClaim."""
        with self._database.write() as session:
            self.lose(session, self._held(session, claim), reason, code)

    def worker_ended(self, worker: str, reason: str) -> int:
        """A worker is dead for certain: its jobs wait again at once. Returns how many."""
        with self._database.write() as session:
            jobs = session.scalars(sa.select(Job).where(Job.worker == worker).with_for_update()).all()
            for job in jobs:
                self.lose(session, job, reason)
            session.execute(sa.delete(Worker).where(Worker.id == worker))
            return len(jobs)

    # Whoever asked for the job

    def cancel(self, job_id: str) -> State | None:
        """Cancel: at once if nobody works on it, else as soon as the worker looks. Returns the state; None: no such job."""
        with self._database.write() as session:
            job = session.scalar(sa.select(Job).where(Job.id == job_id).with_for_update())
            if job is None:
                return None
            if not State(job.state).final:
                job.cancelling = True
                if job.worker is None:
                    self._end(session, job, State.CANCELLED)
                else:
                    tell(session, job, "cancelling")
            return State(job.state)

    def cancel_pending(self, job_id: str) -> bool:
        """Cancel a job that no worker has begun. Returns whether it was one."""
        with self._database.write() as session:
            job = session.scalar(sa.select(Job).where(Job.id == job_id).with_for_update())
            if job is None or job.state != State.PENDING:
                return False
            self._end(session, job, State.CANCELLED)
            return True

    def pause(self, paused: bool) -> None:
        """Workers take no new jobs while the queue is paused."""
        with self._database.write() as session:
            row = session.get(Setting, PAUSED)
            if row is None:
                session.add(Setting(name=PAUSED, value=str(int(paused))))
            else:
                row.value = str(int(paused))

    @property
    def paused(self) -> bool:
        with self._database.read() as session:
            return _paused(session)

    # Within

    def _waiting(self, session: Session, stages: Sequence[Stage]) -> Sequence[sa.Row[Any]]:
        rank = sa.func.row_number().over(partition_by=Job.owner, order_by=(Job.priority.desc(), Job.order_key, Job.id))
        jobs = (
            sa.select(
                Job.id, Job.owner, Job.priority, Job.order_key, Job.checkpoint, Job.loras, Job.stage, Job.created,
                rank.label("rank"),
            )
            .where(
                Job.state.in_((State.PENDING, State.RUNNING)), Job.worker.is_(None), Job.stage.in_(stages),
                Job.held.is_(False), Job.not_before <= now(),
            )
            .subquery()
        )  # fmt: skip
        return session.execute(sa.select(jobs).where(jobs.c.rank <= _OF_AN_OWNER)).all()

    def _take(self, session: Session, job_id: str) -> Job | None:
        """The row, locked, if nobody else has taken it meanwhile."""
        free = sa.select(Job).where(Job.id == job_id, Job.worker.is_(None)).with_for_update(skip_locked=True)
        job = session.scalar(free.execution_options(populate_existing=True))
        return job if job is not None and not State(job.state).final and not job.held else None

    def _may_run(self, session: Session, job: Job) -> bool:
        """Whether its key may have one more job in work."""
        key = session.get(Key, job.key_id)
        limit = (
            self._settings.quotas.running if key is None else key.quotas.get("running", self._settings.quotas.running)
        )
        if limit is None:
            return True
        if not self._database.is_sqlite:  # two workers that count at once would both find room
            lock = sa.func.pg_try_advisory_xact_lock(sa.func.hashtext(job.key_id))
            if not session.scalar(sa.select(lock)):
                return False
        count = sa.select(sa.func.count()).where(Job.key_id == job.key_id, Job.worker.is_not(None))
        return (session.scalar(count) or 0) < limit

    def _held(self, session: Session, claim: Claim) -> Job:
        job = session.scalar(sa.select(Job).where(*_ours(claim)).with_for_update())
        if job is None:
            raise LostClaim(claim.job_id)
        return job

    def lose(self, session: Session, job: Job, reason: str, code: str = "InternalError") -> None:
        """A worker is gone: the job waits again, or ends if that was its last attempt. `job` is locked by the session."""
        job.worker, job.failures = None, job.failures + 1
        if job.cancelling:
            self._end(session, job, State.CANCELLED)
        elif job.failures >= self._settings.attempts:
            job.code = code
            job.message = f"The job was tried {job.failures} times and not finished. The last time: {reason}."
            self._end(session, job, State.FAILED)
        else:
            job.not_before = now() + _BACKOFF * 2 ** (job.failures - 1)
            tell(session, job, "retrying", reason=reason, failures=job.failures)

    def _end(self, session: Session, job: Job, state: State) -> None:
        job.state, job.worker, job.ended = state, None, now()
        job.expires = job.ended + int(self._settings.keep_results * 3_600_000)
        told = {} if state is not State.FAILED else {"code": job.code, "message": job.message}
        tell(session, job, state.value, **told)


def _order(waiting: Sequence[sa.Row[Any]], running: dict[str, int], holds: str) -> list[str]:
    """Ids of waiting jobs, the next one first."""
    rows = sorted(waiting, key=lambda j: (-j.priority, running.get(j.owner, 0), j.order_key, j.id))
    first = rows[0]
    place = (first.priority, running.get(first.owner, 0))
    fits = [
        j
        for j in rows
        if (j.priority, running.get(j.owner, 0)) == place and (j.stage == Stage.PREPARE or _needs(j) == holds)
    ]
    if holds and fits and now() - first.created < _PATIENCE:
        rows = [*fits, *(j for j in rows if j not in fits)]
    return [j.id for j in rows]


def _needs(job: Any) -> str:
    return f"{job.checkpoint}|{job.loras}"


def _ours(claim: Claim) -> tuple[Any, ...]:
    return (Job.id == claim.job_id, Job.attempt == claim.attempt, Job.worker == claim.worker)


def _paused(session: Session) -> bool:
    row = session.get(Setting, PAUSED)
    return row is not None and row.value == "1"
