"""The worker: it does jobs, shows that it lives, and goes on while database or storage are away."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from serve_jobs import add_job, claimed, job_of, told
from sqlalchemy.exc import OperationalError

from wanimate.errors import InputError, OutputError
from wanimate.events import Event, Notice, Stage, StageFinished, StageProgress, StageStarted, StepDone
from wanimate.jobs.cancel import CancelToken
from wanimate.serve.database import Database
from wanimate.serve.ops.logs import JsonLines
from wanimate.serve.queue import LostClaim, Queue, Report
from wanimate.serve.service import Service
from wanimate.serve.settings import ServeSettings
from wanimate.serve.storage import Storage, StorageAway
from wanimate.serve.tables import Job, State, Worker, now
from wanimate.serve.tables import Stage as Place
from wanimate.serve.worker import reporter as reporter_module
from wanimate.serve.worker import work as work_module
from wanimate.serve.worker.loop import WorkerLoop, worker_name
from wanimate.serve.worker.reporter import Reporter
from wanimate.serve.worker.work import Broken, Refused, Work


@dataclass
class Dummy:
    """A runner whose stages last `steps` events. `during` is called with each; what it raises is raised."""

    steps: int = 3
    during: Callable[[Work, int], None] = lambda work, step: None
    prepared: list[str] = field(default_factory=list)
    generated: list[str] = field(default_factory=list)
    stored: int = 0
    closed: bool = False

    @property
    def holds(self) -> str:
        return "mannequin|"

    def prepare(self, work: Work) -> Iterator[Event]:
        work.clip_seconds = 2.5
        yield from self._stage(work, Stage.DETECT)
        work.guides = f"guides/{work.job.id}/{work.claim.attempt}"
        work.facts["frames"] = self.steps
        self.prepared.append(work.job.id)

    def generate(self, work: Work) -> Iterator[Event]:
        assert work.guides is not None
        assert work.guides.startswith(f"guides/{work.job.id}/")
        yield from self._stage(work, Stage.DENOISE)
        made = work.scratch / "result.mp4"
        made.write_bytes(b"frames")
        work.keep(made, f"{work.place}/result.mp4")
        work.result["video"] = f"{work.place}/result.mp4"
        self.generated.append(work.job.id)

    def _stage(self, work: Work, stage: Stage) -> Iterator[Event]:
        yield StageStarted(stage=stage, total=self.steps, fraction=0.0)
        for step in range(self.steps):
            self.during(work, step)
            yield StageProgress(stage=stage, done=step + 1, total=self.steps, fraction=(step + 1) / self.steps)
        yield StageFinished(stage=stage, seconds=0.1)

    def store(self, work: Work) -> bool:
        self.stored += 1
        return self.stored > 1

    def close(self) -> None:
        self.closed = True


class _Bench:
    """A worker in a thread of this process."""

    def __init__(self, database: Database, tmp_path: Path, runner: Dummy, **settings: Any) -> None:
        self.settings = ServeSettings(data=tmp_path, **{"lease": 2.0, **settings})
        self.storage = Storage(tmp_path / "files", b"s" * 16)
        self.database, self.runner = database, runner
        self.exits: list[int] = []
        self.loop = self.another()
        self.thread = threading.Thread(target=self.loop.run)

    def another(self, **given: Any) -> WorkerLoop:
        return WorkerLoop(
            self.settings, self.database, self.storage, self.runner, worker_name("here"), device="cpu", exit=self.exits.append,
            **given,
        )  # fmt: skip

    def __enter__(self) -> _Bench:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()

    def until(self, job_id: str, *states: State, seconds: float = 20) -> Job:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            job = job_of(self.database, job_id)
            if job.state in states:
                return job
            time.sleep(0.02)
        raise AssertionError(f"the job is still {job.state} in {job.stage}, {told(self.database, job_id)}")


FINAL = (State.SUCCEEDED, State.FAILED, State.CANCELLED)


def test_a_job_goes_through_both_stages(database: Database, tmp_path: Path) -> None:
    job_id = add_job(database)
    with _Bench(database, tmp_path, Dummy()) as bench:
        job = bench.until(job_id, *FINAL)
    assert (job.state, job.fraction, job.clip_seconds, job.guides) == (State.SUCCEEDED, 1.0, 2.5, f"guides/{job_id}/1")
    assert b"".join(bench.storage.read(job.result["video"])) == b"frames"
    assert job.facts["frames"] == 3
    assert job.facts["prepare_seconds"] >= 0
    assert job.facts["generate_seconds"] >= 0
    kinds = told(database, job_id)
    assert [kind for kind in kinds if kind in ("scheduled", "claimed", "prepared", "succeeded")] == [
        "scheduled", "claimed", "prepared", "claimed", "succeeded"
    ]  # fmt: skip
    assert kinds.count("stage_finished") == 2
    assert not list(bench.settings.scratch.iterdir())
    assert bench.runner.closed
    with database.read() as session:
        assert session.scalars(sa.select(Worker)).all() == []


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (Refused("InvalidImage.NoHuman", "Nobody is there."), "InvalidImage.NoHuman", "Nobody is there."),
        (InputError("generate.steps", 0, "it has to be at least 1", "Give more."), None, "at least 1"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_job_that_cannot_be_done_fails_at_once(
    database: Database, tmp_path: Path, error: Exception, code: str | None, message: str
) -> None:
    job_id = add_job(database)

    def wrong(work: Work, step: int) -> None:
        raise error

    with _Bench(database, tmp_path, Dummy(during=wrong)) as bench:
        job = bench.until(job_id, *FINAL)
    assert (job.state, job.failures) == (State.FAILED, 0)
    assert code in (None, job.code)
    assert message in (job.message or "")


@pytest.mark.parametrize(
    "error",
    [Broken("the GPU fell off"), OSError(28, "No space left on device"), OutputError("out", "x", "it is full", "Free some."),
     RuntimeError("CUDA error: unspecified launch failure")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_an_attempt_that_fails_is_followed_by_another(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("wanimate.serve.queue._BACKOFF", 1)
    job_id = add_job(database)
    tries: list[int] = []

    def wrong(work: Work, step: int) -> None:
        tries.append(work.claim.attempt)
        if len(tries) < 3:
            raise error

    with _Bench(database, tmp_path, Dummy(during=wrong)) as bench:
        job = bench.until(job_id, *FINAL)
    assert (job.state, job.failures) == (State.SUCCEEDED, 2)
    assert told(database, job_id).count("retrying") == 2


def test_cancelled_while_it_runs_it_stops_soon(database: Database, tmp_path: Path) -> None:
    job_id = add_job(database)
    begun = threading.Event()

    def slow(work: Work, step: int) -> None:
        begun.set()
        time.sleep(0.02)

    with _Bench(database, tmp_path, Dummy(1000, slow)) as bench:
        assert begun.wait(10)
        Queue(database, bench.settings).cancel(job_id)
        at = time.monotonic()
        assert bench.until(job_id, *FINAL).state == State.CANCELLED
        assert time.monotonic() - at < 3
    assert bench.runner.prepared == []


def test_deleted_while_it_runs_it_stops_and_writes_nothing(database: Database, tmp_path: Path) -> None:
    job_id = add_job(database)
    begun = threading.Event()
    steps: list[int] = []

    def slow(work: Work, step: int) -> None:
        begun.set()
        steps.append(step)
        time.sleep(0.02)

    with _Bench(database, tmp_path, Dummy(1000, slow)) as bench:
        assert begun.wait(10)
        Service(bench.settings, database).forget(job_of(database, job_id))
        end = time.monotonic() + 5
        count = -1
        while count != len(steps) and time.monotonic() < end:
            count = len(steps)
            time.sleep(0.3)
    assert len(steps) < 900
    assert told(database, job_id) == []


def test_a_stopped_worker_gives_its_job_back(database: Database, tmp_path: Path) -> None:
    job_id = add_job(database)
    begun = threading.Event()

    def slow(work: Work, step: int) -> None:
        begun.set()
        time.sleep(0.02)

    with _Bench(database, tmp_path, Dummy(1000, slow)):
        assert begun.wait(10)
    job = job_of(database, job_id)
    assert (job.state, job.worker, job.failures) == (State.RUNNING, None, 0)
    assert told(database, job_id)[-1] == "given back"
    with _Bench(database, tmp_path, Dummy()) as other:
        assert other.until(job_id, *FINAL).state == State.SUCCEEDED


class _Network:
    """The way to a database, which can be cut."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cut = threading.Event()
        self.refused = 0
        for name in ("read", "write"):
            monkeypatch.setattr(database, name, self._guarded(getattr(database, name)))

    def _guarded(self, open_: Callable[[], Any]) -> Callable[[], Any]:
        def opened() -> Any:
            if self.cut.is_set():
                self.refused += 1
                raise OperationalError("SELECT", {}, Exception("the server is away"))
            return open_()

        return opened


def test_a_job_goes_on_while_the_database_is_away_and_nothing_is_lost(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes away in the middle of a stage, and comes back when the job has long been done."""
    job_id = add_job(database)
    network = _Network(database, monkeypatch)
    done = threading.Event()

    def step(work: Work, number: int) -> None:
        if work.claim.stage is Place.GENERATE and number == 1:
            network.cut.set()
        time.sleep(0.01)

    class Noisy(Dummy):
        def generate(self, work: Work) -> Iterator[Event]:
            yield from super().generate(work)
            yield Notice(text="frames without a person", level="warning")
            done.set()

    bench = _Bench(database, tmp_path, Noisy(during=step))
    with bench:
        assert done.wait(20)
        end = time.monotonic() + 10
        while network.refused < 4 and time.monotonic() < end:
            time.sleep(0.05)
        network.cut.clear()
        job = bench.until(job_id, *FINAL)
    assert network.refused >= 4
    assert (job.state, job.failures) == (State.SUCCEEDED, 0)
    assert job.warnings == ["frames without a person"]
    kinds = told(database, job_id)
    assert kinds[-1] == "succeeded"
    assert kinds.count("stage_finished") == 2
    assert bench.runner.generated == [job_id]


def test_a_worker_starts_before_the_database(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = _Network(database, monkeypatch)
    network.cut.set()
    with _Bench(database, tmp_path, Dummy()) as bench:
        time.sleep(0.3)
        network.cut.clear()
        job_id = add_job(database)
        assert bench.until(job_id, *FINAL).state == State.SUCCEEDED


def test_a_claim_that_the_worker_never_heard_of_is_given_back(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks after the commit of a claim."""
    job_id = add_job(database)
    bench = _Bench(database, tmp_path, Dummy(), lease=600.0)
    claim = bench.loop._queue.claim
    broken: list[int] = []

    def breaks(*given: Any) -> Any:
        found = claim(*given)
        if found is not None and not broken:
            broken.append(1)
            raise OperationalError("COMMIT", {}, Exception("the connection was closed"))
        return found

    monkeypatch.setattr(bench.loop._queue, "claim", breaks)
    with bench:
        job = bench.until(job_id, *FINAL)
    assert broken
    assert (job.state, job.failures) == (State.SUCCEEDED, 0)


def test_an_end_that_was_committed_though_the_connection_broke_is_no_second_one(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = add_job(database)
    bench = _Bench(database, tmp_path, Dummy())
    succeed = bench.loop._queue.succeed
    broken: list[int] = []

    def breaks(*given: Any, **facts: Any) -> None:
        succeed(*given, **facts)
        if not broken:
            broken.append(1)
            raise OperationalError("COMMIT", {}, Exception("the connection was closed"))

    monkeypatch.setattr(bench.loop._queue, "succeed", breaks)
    with bench:
        bench.until(job_id, *FINAL)
        time.sleep(0.3)
    assert broken
    assert told(database, job_id).count("succeeded") == 1
    assert bench.runner.generated == [job_id]


def test_an_end_that_cannot_be_written_costs_an_attempt_not_the_worker(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wanimate.serve.queue._BACKOFF", 1)
    job_id, other = add_job(database), add_job(database, order_key=now() + 10)
    bench = _Bench(database, tmp_path, Dummy())
    succeed = bench.loop._queue.succeed

    def refuses(claim: Any, *given: Any, **facts: Any) -> None:
        if claim.job_id == job_id:
            raise sa.exc.DataError("UPDATE", {}, Exception("value too long"))
        succeed(claim, *given, **facts)

    monkeypatch.setattr(bench.loop._queue, "succeed", refuses)
    with bench:
        assert bench.until(other, *FINAL).state == State.SUCCEEDED
        job = bench.until(job_id, *FINAL)
    assert (job.state, job.failures) == (State.FAILED, 3)


def test_a_stop_while_the_database_is_away_ends_the_worker(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_job(database)
    network = _Network(database, monkeypatch)
    bench = _Bench(database, tmp_path, Dummy(during=lambda work, step: network.cut.set()))
    bench.loop = bench.another(grace=0.2)
    bench.thread = threading.Thread(target=bench.loop.run)
    with bench:
        end = time.monotonic() + 10
        while network.refused < 3 and time.monotonic() < end:
            time.sleep(0.02)
    assert network.refused >= 3


# Storage


def test_a_result_waits_for_the_storage(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_module, "_PAUSE", 0.02)
    job_id = add_job(database)
    bench = _Bench(database, tmp_path, Dummy())
    put, left = bench.storage.put, [5]

    def away(*given: Any) -> int:
        if left[0]:
            left[0] -= 1
            raise StorageAway("The storage cannot be used: it is full.")
        return put(*given)

    monkeypatch.setattr(bench.storage, "put", away)
    with bench:
        job = bench.until(job_id, *FINAL)
    assert (job.state, job.failures, left) == (State.SUCCEEDED, 0, [0])


def test_no_job_is_taken_while_the_storage_is_away(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each waiting job would use its attempts up within seconds."""
    monkeypatch.setattr("wanimate.serve.queue._BACKOFF", 1)
    monkeypatch.setattr(work_module, "STORAGE_PATIENCE", 0.0)
    jobs = [add_job(database, order_key=now() + i, stage=Place.GENERATE) for i in range(4)]
    for job_id in jobs:
        with database.write() as session:
            session.execute(sa.update(Job).where(Job.id == job_id).values(guides=f"guides/{job_id}/1"))
    bench = _Bench(database, tmp_path, Dummy())
    put, full, refused = bench.storage.put, threading.Event(), []

    def away(*given: Any) -> int:
        if full.is_set():
            refused.append(given[0])
            raise StorageAway("The storage cannot be used: it is full.")
        return put(*given)

    monkeypatch.setattr(bench.storage, "put", away)
    full.set()
    with bench:
        end = time.monotonic() + 10
        while len(refused) < 3 and time.monotonic() < end:
            time.sleep(0.02)
        failures = [job_of(database, job_id).failures for job_id in jobs]
        full.clear()
        states = [bench.until(job_id, *FINAL).state for job_id in jobs]
    assert sum(failures) == 1
    assert states == [State.SUCCEEDED] * 4
    assert not bench.storage.list("ready")


# Time


def test_a_decoder_that_never_returns_ends_the_process(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporter_module, "_GRACE", 0.1)
    job_id = add_job(database)
    free = threading.Event()
    with _Bench(
        database, tmp_path, Dummy(during=lambda work, step: free.wait(20) or None), prepare_seconds=0.1
    ) as bench:
        job = bench.until(job_id, *FINAL)
        end = time.monotonic() + 10
        while not bench.exits and time.monotonic() < end:
            time.sleep(0.02)
        free.set()
    assert (job.state, job.code, bench.exits[:1]) == (State.FAILED, "InvalidFile.Content", [70])


def test_a_slow_preparation_is_refused(database: Database, tmp_path: Path) -> None:
    job_id = add_job(database)
    runner = Dummy(1000, lambda work, step: time.sleep(0.02))
    with _Bench(database, tmp_path, runner, prepare_seconds=0.1) as bench:
        job = bench.until(job_id, *FINAL)
    assert (job.state, job.message) == (State.FAILED, "Finding the performer took too long.")
    assert not bench.exits


# The worker's own row


def test_a_worker_is_seen_and_comes_back_into_the_table(database: Database, tmp_path: Path) -> None:
    """Its row was swept while the database was away for hours."""
    with _Bench(database, tmp_path, Dummy(), lease=1.0) as bench:
        for _ in range(2):
            end = time.monotonic() + 10
            rows: list[Worker] = []
            while not rows and time.monotonic() < end:
                with database.read() as session:
                    rows = list(session.scalars(sa.select(Worker)))
                time.sleep(0.02)
            assert [(row.id, row.device, row.stages) for row in rows] == [
                (bench.loop.name, "cpu", ["prepare", "generate"])
            ]
            with database.write() as session:
                session.execute(sa.delete(Worker))


# The reporter alone


class _Recorder:
    """A queue that only takes reports."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.answer: Callable[[], bool] = lambda: False

    def report(self, claim: Any, report: Report) -> bool:
        answer = self.answer()
        self.reports.append(report)
        return answer


def raising(error: Exception) -> Callable[[], bool]:
    def answer() -> bool:
        raise error

    return answer


def reporting(recorder: _Recorder, cancel: CancelToken | None = None, beat: float = 0.02) -> Reporter:
    return Reporter(recorder, None, cancel or CancelToken(), beat)  # type: ignore[arg-type]


def test_news_that_cannot_be_written_does_not_end_the_signs_of_life(caplog: pytest.LogCaptureFixture) -> None:
    recorder = _Recorder()
    recorder.answer = raising(TypeError("not JSON"))
    with reporting(recorder) as reporter:
        reporter.note(Notice(text="odd"))
        end = time.monotonic() + 5
        while "a report could not be written" not in caplog.text and time.monotonic() < end:
            time.sleep(0.01)
        recorder.answer = lambda: False
        while not recorder.reports and time.monotonic() < end:
            time.sleep(0.01)
    assert recorder.reports
    assert reporter.rest is None


def test_the_end_of_an_attempt_is_not_waited_for() -> None:
    """News comes at most twice a second, but the last news at once."""
    recorder = _Recorder()
    at = time.monotonic()
    for _ in range(3):
        with reporting(recorder, beat=30.0) as reporter:
            reporter.note(StepDone(segment=0, segments=1, step=1, steps=2))
            time.sleep(0.02)
            reporter.note(StepDone(segment=0, segments=1, step=2, steps=2))
    assert time.monotonic() - at < 0.45
    assert recorder.reports[-1].events[-1][1]["step"] == 2


def test_a_lost_claim_stops_the_job() -> None:
    recorder, cancel = _Recorder(), CancelToken()
    recorder.answer = raising(LostClaim("a"))
    with reporting(recorder, cancel) as reporter:
        assert reporter.lost.wait(5)
    assert cancel.is_cancelled


def test_of_much_news_the_last_is_kept_while_the_database_is_away() -> None:
    recorder = _Recorder()
    recorder.answer = raising(OperationalError("UPDATE", {}, Exception("away")))
    with reporting(recorder) as reporter:
        for number in range(500):
            reporter.note(Notice(text=str(number), level="warning"))
    rest = reporter.rest
    assert rest is not None
    assert rest.warnings == tuple(str(number) for number in range(500))
    assert rest.events[-1][1]["text"] == "499"
    assert len(rest.events) <= 500
    reporter.told()
    assert reporter.rest is None


def test_what_a_worker_logs_names_job_attempt_and_request(database: Database, tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(JsonLines().format(record)))

    logger = logging.getLogger("wanimate.serve.worker")
    handler = Keeper()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        job_id = add_job(database, request_id="req-7")
        with _Bench(database, tmp_path, Dummy()) as bench:
            bench.until(job_id, *FINAL)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    of_job = [line for line in lines if line.get("job_id") == job_id]
    assert {(line["request_id"], line["worker"]) for line in of_job} == {("req-7", bench.loop.name)}
    assert {line["attempt"] for line in of_job} == {1, 2}


def test_names_differ() -> None:
    assert len({worker_name("host") for _ in range(100)}) == 100


def test_a_frozen_worker_that_wakes_up_reports_nothing(database: Database) -> None:
    """A frozen worker wakes up in the middle of its report while another one holds the job."""
    job_id = add_job(database)
    queue = Queue(database, ServeSettings())
    frozen = claimed(queue)
    queue.worker_ended("w1", "frozen")
    with database.write() as session:
        session.execute(sa.update(Job).values(not_before=0))
    claimed(queue, "w2")
    cancel = CancelToken()
    with Reporter(queue, frozen, cancel, 0.02) as reporter:
        reporter.note(Notice(text="late", level="warning"))
        assert reporter.lost.wait(10)
    assert job_of(database, job_id).warnings == []
    assert "notice" not in told(database, job_id)
