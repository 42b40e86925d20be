"""The queue: who works on which job, and who may write what.

A claim gives a worker the job's attempt number. Every later write of that worker holds it against the row: a worker that was
frozen, whose job went to another one, finds another number there and writes nothing.

A worker shows that it lives by counting `beat` up. Who looks after dead ones compares the count with what it saw before, by a
clock of its own that never jumps: no clock of another machine is asked, and a database that was away counts for nobody.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from wanimate.serve.database import Database
from wanimate.serve.events import tell
from wanimate.serve.reviews.stacks import stack
from wanimate.serve.settings import ServeSettings
from wanimate.serve.tables import Job, Key, Setting, Stage, State, Worker, now, storable

_OF_A_KEY = 8
"""Jobs of a key that are looked at for one claim."""
_PATIENCE = 60.0
"""Seconds that the first job in the queue waits at most behind others that a worker has the weights for."""
_BACKOFF, _LONGEST_BACKOFF = 2_000, 60_000
"""Milliseconds before the second attempt, and at most. A row that says more was written by a clock that went wrong."""
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
    """What a worker tells of its job. `events`: (kind, data). `warnings`: texts that the job's owner should read.
    `clip_seconds`: length of the driving clip. `worker`: facts of the worker itself."""

    doing: str | None = None
    fraction: float | None = None
    seconds_left: float | None = None
    events: Sequence[tuple[str, dict[str, Any]]] = ()
    warnings: Sequence[str] = ()
    clip_seconds: float | None = None
    worker: dict[str, Any] | None = None


class Queue:
    """Every change of a job's state, each one transaction.

    Args:
        clock: seconds that never jump, of this process.
    """

    def __init__(
        self, database: Database, settings: ServeSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database, self._settings, self._clock = database, settings, clock
        self._passed_over: dict[str, float] = {}

    # Workers

    def claim(self, worker: str, stages: Sequence[Stage], holds: str = "") -> Claim | None:
        """The next job for a worker, or None. `holds`: "checkpoint|loras" that are in its memory.

        Order: priority, owners with fewer jobs in work, owners whose last turn is longer ago, place in the queue. Among jobs
        of one priority and as many in work, one for the weights at hand goes before the first, for a minute at most.
        """
        with self._database.read() as session:  # an empty queue is found without a lock
            if _paused(session) or not self._waiting(session, stages):
                return None
        with self._database.write() as session:
            if _paused(session):
                return None
            waiting = self._waiting(session, stages)
            for job_id in self._order(waiting, _turns(session, waiting, stages), holds):
                job = self._take(session, job_id, stages)
                if job is None or not self._may_run(session, job):
                    continue
                at = now()
                job.attempt, job.worker, job.beat = job.attempt + 1, worker, job.beat + 1
                setattr(job, _turn_of(job.stage).key, at)
                first = job.scheduled is None
                job.state, job.scheduled = State.RUNNING, job.scheduled or at
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
        if report.fraction is not None and math.isfinite(report.fraction):
            values |= {"fraction": report.fraction, "seconds_left": storable(report.seconds_left)}
        if report.clip_seconds is not None:
            values["clip_seconds"] = report.clip_seconds
        changed = sa.update(Job).where(*_ours(claim)).values(values).returning(Job)
        with self._database.write() as session:
            job = session.scalar(changed.execution_options(synchronize_session=False, populate_existing=True))
            if job is None:
                raise LostClaim(claim.job_id)
            seen: dict[str, Any] = {"seen": now(), "beat": Worker.beat + 1, "job_id": claim.job_id}
            seen |= {} if report.worker is None else {"facts": report.worker}
            session.execute(sa.update(Worker).where(Worker.id == claim.worker).values(seen))
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
            job.stage, job.worker, job.waits_since = Stage.GENERATE, None, now()
            if job.cancelling:
                self._end(session, job, State.CANCELLED)
            else:
                tell(session, job, "prepared")

    def succeed(self, claim: Claim, result: dict[str, str], guides: str | None = None, **facts: Any) -> None:
        """Result and guides lie in the storage. A job that was cancelled meanwhile stays without. Raises LostClaim."""
        with self._database.write() as session:
            job = self._held(session, claim)
            if job.cancelling:
                self._end(session, job, State.CANCELLED)
                return
            job.guides = guides or job.guides
            job.result, job.facts, job.fraction, job.seconds_left = result, {**job.facts, **facts}, 1.0, 0.0
            self._end(session, job, State.SUCCEEDED)
            stack(session, job, self._settings.keep_reviewed)

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
            self._wait_again(session, self._held(session, claim))

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

    def release(self, worker: str) -> int:
        """A worker holds no job: what is its own by the database all the same waits again, and no attempt is counted. So it is
        where the connection broke while a claim was committed. Returns how many."""
        with self._database.write() as session:
            jobs = session.scalars(sa.select(Job).where(Job.worker == worker).with_for_update()).all()
            for job in jobs:
                self._wait_again(session, job)
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
        value = str(int(paused))
        with self._database.write() as session:
            insert = sqlite.insert if self._database.is_sqlite else postgresql.insert
            wanted = insert(Setting).values(name=PAUSED, value=value)
            session.execute(wanted.on_conflict_do_update(index_elements=[Setting.name], set_={"value": value}))

    @property
    def paused(self) -> bool:
        with self._database.read() as session:
            return _paused(session)

    # Within

    def _waiting(self, session: Session, stages: Sequence[Stage]) -> Sequence[sa.Row[Any]]:
        place = (Job.priority.desc(), Job.order_key, Job.id)
        rank = sa.func.row_number().over(partition_by=(Job.owner, Job.key_id), order_by=place)
        jobs = (
            sa.select(
                Job.id, Job.owner, Job.priority, Job.order_key, Job.checkpoint, Job.loras, Job.stage, rank.label("rank")
            )
            .where(*_free(stages))
            .subquery()
        )
        return session.execute(sa.select(jobs).where(jobs.c.rank <= _OF_A_KEY)).all()

    def _order(self, waiting: Sequence[sa.Row[Any]], turns: dict[str, tuple[int, int]], holds: str) -> list[str]:
        """Ids of waiting jobs, the next one first. `turns`: see `_turns`."""
        rows = sorted(waiting, key=lambda j: (-j.priority, turns[j.owner], j.order_key, j.id))
        at = self._clock()
        self._passed_over = {j.id: self._passed_over[j.id] for j in rows if j.id in self._passed_over}
        if not rows or not holds or at - self._passed_over.get(rows[0].id, at) >= _PATIENCE:
            return [j.id for j in rows]
        place = (rows[0].priority, turns[rows[0].owner][0])
        fits = [j for j in rows if (j.priority, turns[j.owner][0]) == place and _fits(j, holds)]
        if fits and fits[0] is not rows[0]:
            self._passed_over.setdefault(rows[0].id, at)
        return [j.id for j in (*fits, *(j for j in rows if j not in fits))]

    def _take(self, session: Session, job_id: str, stages: Sequence[Stage]) -> Job | None:
        """The row, locked, if it still waits in one of these queues."""
        free = sa.select(Job).where(Job.id == job_id, *_free(stages)).with_for_update(skip_locked=True)
        return session.scalar(free.execution_options(populate_existing=True))

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
        job.worker, job.failures, job.waits_since = None, job.failures + 1, now()
        if job.cancelling:
            self._end(session, job, State.CANCELLED)
        elif job.failures >= self._settings.attempts:
            job.code = code
            job.message = f"The job was tried {job.failures} times and not finished. The last time: {reason}."
            self._end(session, job, State.FAILED)
        else:
            job.not_before = job.waits_since + min(_BACKOFF * 2 ** (job.failures - 1), _LONGEST_BACKOFF)
            tell(session, job, "retrying", reason=reason, failures=job.failures)

    def _wait_again(self, session: Session, job: Job) -> None:
        job.worker, job.waits_since = None, now()
        if job.cancelling:
            self._end(session, job, State.CANCELLED)
        else:
            tell(session, job, "given back")

    def _end(self, session: Session, job: Job, state: State) -> None:
        job.state, job.worker, job.ended = state, None, now()
        job.expires = job.ended + int(self._settings.keep_results * 3_600_000)
        told = {} if state is not State.FAILED else {"code": job.code, "message": job.message}
        tell(session, job, state.value, **told)


def _free(stages: Sequence[Stage]) -> tuple[Any, ...]:
    """What holds of a job that a worker of these stages may take."""
    at = now()
    return (
        Job.state.in_((State.PENDING, State.RUNNING)), Job.worker.is_(None), Job.stage.in_(stages), Job.held.is_(False),
        sa.or_(Job.not_before <= at, Job.not_before > at + _LONGEST_BACKOFF),
    )  # fmt: skip


def _turns(session: Session, waiting: Sequence[sa.Row[Any]], stages: Sequence[Stage]) -> dict[str, tuple[int, int]]:
    """Owner -> (jobs in work, when the last one was begun in one of these stages)."""
    owners = {job.owner for job in waiting}
    last = [sa.func.max(_turn_of(stage)) for stage in stages]
    counted = sa.select(Job.owner, sa.func.count(Job.worker), *last).where(Job.owner.in_(owners)).group_by(Job.owner)
    return {owner: (count, max(at or 0 for at in ends)) for owner, count, *ends in session.execute(counted)}


def _turn_of(stage: str) -> sa.orm.InstrumentedAttribute[int | None]:
    return Job.prepare_at if stage == Stage.PREPARE else Job.generate_at


def _fits(job: Any, holds: str) -> bool:
    return job.stage == Stage.PREPARE or f"{job.checkpoint}|{job.loras}" == holds


def _ours(claim: Claim) -> tuple[Any, ...]:
    return (Job.id == claim.job_id, Job.attempt == claim.attempt, Job.worker == claim.worker)


def _paused(session: Session) -> bool:
    row = session.get(Setting, PAUSED)
    return row is not None and row.value == "1"
