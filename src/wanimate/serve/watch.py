"""Looking after dead workers."""

from __future__ import annotations

import time
from collections.abc import Callable

import sqlalchemy as sa

from wanimate.serve.database import Database
from wanimate.serve.queue import Queue
from wanimate.serve.tables import Job


class Watch:
    """Finds jobs whose worker gives no sign of life. Each long-lived process has one; they do not need to agree."""

    def __init__(
        self, database: Database, queue: Queue, lease: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database, self._queue, self._lease, self._clock = database, queue, lease, clock
        self._seen: dict[str, tuple[int, int, float]] = {}
        self._last, self._time = clock(), 0.0

    def look(self) -> list[str]:
        """Give back the jobs of dead workers; returns their ids. Call it every few seconds.

        Between two calls at most a third of the lease passes, by this count: where they came late, for instance because the
        database was away, workers could not show themselves either.
        """
        with self._database.read() as session:
            rows = session.execute(sa.select(Job.id, Job.attempt, Job.beat).where(Job.worker.is_not(None))).all()
        clock = self._clock()
        self._time += min(clock - self._last, self._lease / 3)
        self._last, at = clock, self._time
        seen, lost = dict[str, tuple[int, int, float]](), list[str]()
        for job_id, attempt, beat in rows:
            before = self._seen.get(job_id)
            if before is None or before[:2] != (attempt, beat):
                before = (attempt, beat, at)
            seen[job_id] = before
            if at - before[2] > self._lease and self._reclaim(job_id, attempt, beat):
                lost.append(job_id)
        self._seen = {job_id: value for job_id, value in seen.items() if job_id not in lost}
        return lost

    def _reclaim(self, job_id: str, attempt: int, beat: int) -> bool:
        with self._database.write() as session:
            same = sa.select(Job).where(
                Job.id == job_id, Job.attempt == attempt, Job.beat == beat, Job.worker.is_not(None)
            )
            job = session.scalar(same.with_for_update())
            if job is None:
                return False
            self._queue.lose(session, job, f"worker {job.worker} gave no sign of life for {self._lease:g} s")
            return True
