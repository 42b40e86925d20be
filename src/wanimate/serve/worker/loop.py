"""The loop of a worker: claim a job, do it, say how it ended."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa

from wanimate.errors import Cancelled, InputError, OutputError, WanimateError, as_ours
from wanimate.events import Event, StageFinished, StageStarted
from wanimate.jobs.cancel import CancelToken
from wanimate.serve.checks import refusal_of
from wanimate.serve.database import Database, is_away, patiently
from wanimate.serve.queue import Claim, LostClaim, Queue
from wanimate.serve.settings import ServeSettings
from wanimate.serve.storage import Storage, StorageAway
from wanimate.serve.submission import PREPARED_ONLY, Submission
from wanimate.serve.tables import Stage, Worker, now
from wanimate.serve.watch import Watch
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

    def stop(self) -> None:
        """Take no new job; give the one at hand back as soon as its segment is stored."""
        self._stopped_at = time.monotonic()
        self._stopping.set()

    def run(self) -> None:
        stopping = self._stopping.is_set
        patiently(self._enlist, stop=stopping)
        try:
            looked, pace = 0.0, self._settings.lease / 6
            while not stopping():
                try:
                    if time.monotonic() - looked > pace:
                        looked = time.monotonic()
                        self._seen()
                        self._watch.look()
                    claim = self._queue.claim(self.name, self._stages, self._runner.holds)
                except Exception as error:
                    if not is_away(error):
                        raise
                    _log.warning("the database is away: %s", str(error).partition("\n")[0])
                    self._stopping.wait(1.0)
                    continue
                if claim is None:
                    self._stopping.wait(_IDLE)
                else:
                    self._attempt(claim)
        finally:
            self._runner.close()
            with suppress(Exception):
                self._queue.worker_ended(self.name, "the worker was stopped")

    def _attempt(self, claim: Claim) -> None:
        """Do a claimed job and write how it ended, unless it is somebody else's by then."""
        scratch = self._settings.scratch / f"{claim.job_id}-{claim.attempt}"
        cancel = CancelToken()
        with suppress(LostClaim):
            try:
                submission = Submission.model_validate(claim.job.submission)
            except ValueError as error:
                text = f"the stored job cannot be read: {error}"
                self._ended(lambda: self._queue.fail(claim, "InternalError", text))
                return
            work = Work(claim, submission, self._settings, self._storage, cancel, scratch, guides=claim.job.guides)
            try:
                self._ended(self._done(claim, work, cancel))
            finally:
                work.clean()

    def _ended(self, write: Callable[[], None]) -> None:
        patiently(write)

    def _done(self, claim: Claim, work: Work, cancel: CancelToken) -> Callable[[], None]:
        """Do the job; returns what has to be written at its end."""
        queue = self._queue
        limit = self._settings.prepare_seconds if claim.stage is Stage.PREPARE else None

        def hung() -> None:
            with suppress(Exception):
                queue.fail(claim, _SLOW.code, _SLOW.message)
            self._exit(70)

        began = time.monotonic()
        try:
            work.scratch.mkdir(parents=True, mode=0o700, exist_ok=True)
            with Reporter(queue, claim, cancel, self._settings.lease / 5, limit, hung) as reporter:
                whole = self._worked(claim, work, reporter)
        except Refused as error:
            code, message = error.code, error.message
            return lambda: queue.fail(claim, code, message)
        except Cancelled:
            if reporter.lost.is_set():
                raise LostClaim(claim.job_id) from None
            return lambda: queue.stopped(claim)
        except (StorageAway, Broken, OSError) as error:
            reason = str(error)
            return lambda: queue.broken(claim, reason)
        except OutputError as error:  # of files in this worker's own folders
            reason = str(error)
            return lambda: queue.broken(claim, reason)
        except InputError as error:
            refused = refusal_of(error)
            return lambda: queue.fail(claim, refused.code, refused.message)
        except WanimateError as error:
            text = str(error)
            return lambda: queue.fail(claim, "InternalError.Algo", text)
        except Exception as error:
            _log.exception("job %s, attempt %s", claim.job_id, claim.attempt)
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
        noted = work.clip_seconds
        with _closing(events):
            for event in events:
                if reporter.lost.is_set():
                    raise LostClaim(claim.job_id)
                if reporter.overdue.is_set():
                    raise _SLOW
                if work.cancel.is_cancelled:
                    raise Cancelled("stopped")
                reporter.note(event)
                if work.clip_seconds != noted:
                    noted = work.clip_seconds
                    patiently(lambda: self._queue.note(claim, clip_seconds=work.clip_seconds), 30)
                at_rest = isinstance(event, (StageStarted, StageFinished))
                stored = at_rest and claim.stage is Stage.GENERATE and runner.store(work)
                if self._stopping.is_set() and (
                    stored or claim.stage is Stage.PREPARE or time.monotonic() - self._stopped_at > self._grace
                ):
                    return False
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
        values = {"seen": now(), "beat": Worker.beat + 1, "holds": self._runner.holds, "job_id": None}
        with self._database.write() as session:
            session.execute(sa.update(Worker).where(Worker.id == self.name).values(values))


class _closing:
    """Closes a generator at the end of the block, where it is one."""

    def __init__(self, events: Iterator[Event]) -> None:
        self._events = events

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        close = getattr(self._events, "close", None)
        if close is not None:
            close()


def worker_name(host: str, folder: Path | None = None) -> str:
    """A name that no other worker has or had."""
    import secrets

    return f"{host}-{os.getpid()}-{secrets.token_hex(3)}"
