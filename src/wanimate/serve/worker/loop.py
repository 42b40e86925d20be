"""The loop of a worker: claim a job, do it, say how it ended."""

from __future__ import annotations

import logging
import math
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from typing import Any

import sqlalchemy as sa

from wanimate.errors import Cancelled, InputError, OutputError, WanimateError, as_ours
from wanimate.events import Event, StageFinished, StageStarted
from wanimate.jobs.cancel import CancelToken
from wanimate.serve.checks import refusal_of
from wanimate.serve.database import Database, is_away, patiently
from wanimate.serve.ops import telemetry
from wanimate.serve.ops.logs import bound
from wanimate.serve.queue import Claim, LostClaim, Queue
from wanimate.serve.settings import ServeSettings
from wanimate.serve.storage import Storage, StorageAway
from wanimate.serve.submission import PREPARED_ONLY, Submission
from wanimate.serve.tables import Stage, Worker, now
from wanimate.serve.watch import Watch
from wanimate.serve.worker.memory import gpu_memory
from wanimate.serve.worker.reporter import Reporter
from wanimate.serve.worker.work import Broken, Refused, Runner, Work

_IDLE = 0.25
"""Seconds between two looks into an empty queue."""
_SLOW = Refused("InvalidFile.Content", "Finding the performer took too long.")
_log = logging.getLogger(__name__)


class WorkerLoop:
    """One worker. `run` returns when `stop` was called and the job at hand is given back.

    Args:
        name: unique among all workers that ever lived: host, process, a random part.
        stages: the queues that it serves.
        grace: seconds after `stop` in which a segment may still be finished.
        exit: ends the process, where a decoder hangs.
    """

    def __init__(
        self, settings: ServeSettings, database: Database, storage: Storage, runner: Runner, name: str,
        stages: Sequence[Stage] = tuple(Stage), device: str = "", grace: float = 60.0,
        exit: Callable[[int], object] = os._exit,
    ) -> None:  # fmt: skip
        self._settings, self._database, self._storage, self._runner = settings, database, storage, runner
        self.name, self._stages, self._device, self._grace = name, tuple(stages), device, grace
        self._exit = exit
        self._queue = Queue(database, settings)
        self._watch = Watch(database, self._queue, settings.lease)
        self._stopping = threading.Event()
        self._stopped_at = 0.0
        self._looked = -math.inf
        self._unsure = False
        """Whether a claim may have been committed that this worker has not heard of."""
        self._storage_away = False

    def stop(self) -> None:
        """Take no new job; give the one at hand back as soon as its segment is stored."""
        self._stopped_at = time.monotonic()
        self._stopping.set()

    def run(self) -> None:
        stopping = self._stopping.is_set
        with bound(worker=self.name):
            try:
                while not stopping():
                    claim = self._next()
                    if claim is not None:
                        with bound(job_id=claim.job_id, attempt=claim.attempt, request_id=claim.job.request_id):
                            self._attempt(claim)
            finally:
                self._runner.close()
                with suppress(Exception):
                    self._queue.worker_ended(self.name, "the worker was stopped")

    def _next(self) -> Claim | None:
        """A claimed job; None after a pause, where there is none, or database or storage are away. The first call brings the
        worker into the table."""
        try:
            if time.monotonic() - self._looked > self._settings.lease / 6:
                self._looked = time.monotonic()
                self._seen()
                self._watch.look()
            if self._unsure:
                self._queue.release(self.name)
                self._unsure = False
            claim = self._queue.claim(self.name, self._stages, self._runner.holds) if self._storage_answers() else None
        except Exception as error:
            if not is_away(error):
                raise
            self._unsure = True
            _log.warning("the database is away: %s", str(error).partition("\n")[0])
            self._stopping.wait(1.0)
            return None
        if claim is None:
            self._stopping.wait(_IDLE)
        return claim

    def _storage_answers(self) -> bool:
        """After an attempt that failed at the storage: whether it takes a file again. Else each waiting job would fail, too."""
        if not self._storage_away:
            return True
        name = f"ready/{self.name}"
        try:
            self._storage.put(name, [b"."])
            self._storage.remove(name)
        except StorageAway as error:
            _log.warning("no job is taken while the storage is away: %s", error)
            self._stopping.wait(1.0)
            return False
        self._storage_away = False
        return True

    def _attempt(self, claim: Claim) -> None:
        """Do a claimed job and write how it ended, unless it is somebody else's by then."""
        scratch = self._settings.scratch / f"{claim.job_id}-{claim.attempt}"
        queue, cancel = self._queue, CancelToken()
        _log.info("%s begins", claim.stage)

        def hung() -> None:
            with suppress(Exception):
                queue.fail(claim, _SLOW.code, _SLOW.message)
            self._exit(70)

        limit = self._settings.prepare_seconds if claim.stage is Stage.PREPARE else None
        reporter = Reporter(queue, claim, cancel, self._settings.lease / 5, limit, hung, self._facts)
        began = time.monotonic()
        try:
            submission = Submission.model_validate(claim.job.submission)
        except ValueError as error:
            text = f"the stored job cannot be read: {error}"
            self._ended(claim, reporter, lambda: queue.fail(claim, "InternalError", text))
            return
        work = Work(claim, submission, self._settings, self._storage, cancel, scratch, guides=claim.job.guides)
        try:
            with telemetry.span(f"job {claim.stage}", claim.job.facts, job_id=claim.job_id, attempt=claim.attempt):
                write = self._done(claim, work, reporter)
            self._ended(claim, reporter, write)
            _log.info("%s ends after %.1f s", claim.stage, time.monotonic() - began)
        except LostClaim:
            _log.warning("the job is another worker's by now, or has ended")
        finally:
            work.clean()

    def _ended(self, claim: Claim, reporter: Reporter, write: Callable[[], None]) -> None:
        """Write how a job ended, after the news that could not be written before. Raises LostClaim."""

        def write_all() -> None:
            rest = reporter.rest
            if rest is not None:
                self._queue.report(claim, rest)
                reporter.told()
            write()

        def too_late() -> bool:
            return self._stopping.is_set() and time.monotonic() - self._stopped_at > self._grace

        try:
            patiently(write_all, stop=too_late)
        except LostClaim:
            raise
        except Exception as error:
            if is_away(error):
                _log.error("the database stayed away: the end of the job could not be written")
                return
            _log.exception("the end of the job could not be written")
            reason = f"its end could not be written ({type(error).__name__})"
            patiently(lambda: self._queue.broken(claim, reason), stop=too_late)

    def _done(self, claim: Claim, work: Work, reporter: Reporter) -> Callable[[], None]:
        """Do the job; returns what has to be written at its end. Raises LostClaim."""
        queue = self._queue
        began = time.monotonic()
        try:
            work.scratch.mkdir(parents=True, mode=0o700, exist_ok=True)
            with reporter:
                whole = self._worked(claim, work, reporter)
        except LostClaim:
            raise
        except Refused as error:
            code, message = error.code, error.message
            return lambda: queue.fail(claim, code, message)
        except Cancelled:
            if reporter.lost.is_set():
                raise LostClaim(claim.job_id) from None
            return lambda: queue.stopped(claim)
        except (StorageAway, Broken, OSError, OutputError) as error:  # an OutputError is of this worker's own folders
            reason = str(error)
            self._storage_away = isinstance(error, StorageAway)
            _log.warning("the attempt failed: %s", reason)
            return lambda: queue.broken(claim, reason)
        except InputError as error:
            refused = refusal_of(error)
            return lambda: queue.fail(claim, refused.code, refused.message)
        except WanimateError as error:
            text = str(error)
            return lambda: queue.fail(claim, "InternalError.Algo", text)
        except Exception as error:
            _log.exception("the attempt failed")
            text = str(as_ours(error))
            return lambda: queue.broken(claim, text)
        seconds = time.monotonic() - began
        if not whole:
            return lambda: queue.give_back(claim)
        if claim.stage is Stage.PREPARE and work.submission.kind not in PREPARED_ONLY:
            assert work.guides is not None
            guides, facts = work.guides, work.facts | {"prepare_seconds": seconds}
            return lambda: queue.prepared(claim, guides, **facts)
        key = f"{claim.stage}_seconds"
        return lambda: queue.succeed(claim, work.result, work.guides, **(work.facts | {key: seconds}))

    def _worked(self, claim: Claim, work: Work, reporter: Reporter) -> bool:
        """Returns whether the job is done; False: it is to be given back."""
        runner = self._runner
        made = runner.prepare(work) if claim.stage is Stage.PREPARE else runner.generate(work)
        events: Iterator[Event] = iter(made)
        with _closing(events), closing(telemetry.Stages()) as spans:
            for event in events:
                if reporter.lost.is_set():
                    raise LostClaim(claim.job_id)
                if reporter.overdue.is_set():
                    raise _SLOW
                if work.cancel.is_cancelled:
                    raise Cancelled("stopped")
                reporter.measured(work.clip_seconds)
                reporter.note(event)
                spans.note(event)
                at_rest = isinstance(event, (StageStarted, StageFinished))
                stored = at_rest and claim.stage is Stage.GENERATE and runner.store(work)
                if self._stopping.is_set() and (
                    stored or claim.stage is Stage.PREPARE or time.monotonic() - self._stopped_at > self._grace
                ):
                    return False
        reporter.measured(work.clip_seconds)  # known after the last event, perhaps
        return True

    def _enlist(self) -> None:
        import socket

        at = now()
        with self._database.write() as session:
            session.merge(
                Worker(
                    id=self.name, host=socket.gethostname(), pid=os.getpid(), stages=[s.value for s in self._stages],
                    device=self._device, holds="", job_id=None, facts={}, beat=0, started=at, seen=at,
                )
            )  # fmt: skip

    def _seen(self) -> None:
        values = {
            "seen": now(), "beat": Worker.beat + 1, "holds": self._runner.holds, "job_id": None, "facts": self._facts(),
        }  # fmt: skip
        with self._database.write() as session:
            known = session.scalar(sa.update(Worker).where(Worker.id == self.name).values(values).returning(Worker.id))
        if known is None:
            self._enlist()

    def _facts(self) -> dict[str, Any]:
        return gpu_memory(self._device)


class _closing:
    """Closes a generator at the end of the block, where it is one."""

    def __init__(self, events: Iterator[Event]) -> None:
        self._events = events

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        close = getattr(self._events, "close", None)
        if close is not None:
            close()


def worker_name(host: str) -> str:
    """A name that no other worker has or had."""
    return f"{host}-{os.getpid()}-{secrets.token_hex(3)}"
