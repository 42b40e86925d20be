"""The service under random kills: its API and its workers as processes, a dummy runner, and what became of each job.

Processes are forked from a server that has imported everything, so that a restart takes milliseconds.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import signal
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa
from postgres_cluster import Cluster

from wanimate.events import Event, Stage, StageFinished, StageStarted
from wanimate.serve.database import Database
from wanimate.serve.keys import Keys
from wanimate.serve.settings import Quotas, ServeSettings
from wanimate.serve.storage import Storage
from wanimate.serve.tables import Event as EventRow
from wanimate.serve.tables import Job, State
from wanimate.serve.worker.loop import WorkerLoop, worker_name
from wanimate.serve.worker.work import Work

LEASE = 1.5
_OWNERS = 3
_CLIENTS = 4
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["service_chaos", "wanimate.serve.app", "uvicorn"])


@dataclass
class DummyRunner:
    """Jobs of about 20 ms. Each finished side effect is a line of the ledger: job, attempt."""

    ledger: Path
    seconds: float = 0.02
    holds: str = ""

    def prepare(self, work: Work) -> Iterator[Event]:
        yield StageStarted(stage=Stage.DETECT)
        work.guides = f"guides/{work.job.id}/{work.claim.attempt}"
        work.storage.put(f"{work.guides}/guide", [b"guides"])
        yield StageFinished(stage=Stage.DETECT, seconds=0.0)

    def generate(self, work: Work) -> Iterator[Event]:
        yield StageStarted(stage=Stage.DENOISE)
        time.sleep(self.seconds)
        name = f"{work.place}/result.mp4"
        work.storage.put(name, [f"{work.job.id} {work.claim.attempt}".encode()])
        work.result["video"] = name
        with open(self.ledger, "ab", buffering=0) as file:
            file.write(f"{work.job.id} {work.claim.attempt}\n".encode())
        yield StageFinished(stage=Stage.DENOISE, seconds=self.seconds)

    def store(self, work: Work) -> bool:
        return False

    def close(self) -> None: ...


def run_worker(settings: ServeSettings, ledger: Path, seconds: float) -> None:
    """A worker process."""
    logging.disable(logging.CRITICAL)
    storage = Storage(settings.storage_url, b"s" * 16)
    loop = WorkerLoop(
        settings, Database(settings.database_url), storage, DummyRunner(ledger, seconds), worker_name("chaos")
    )
    signal.signal(signal.SIGTERM, lambda *_: loop.stop())
    loop.run()


def run_api(settings: ServeSettings) -> None:
    """The API's process."""
    import uvicorn

    from wanimate.serve.app import create_app

    logging.disable(logging.CRITICAL)
    uvicorn.run(create_app(settings), host="127.0.0.1", port=settings.port, log_config=None, access_log=False)


@dataclass(frozen=True)
class Verdict:
    """What became of the jobs. `twice`: finished side effects beyond one a job, by attempts that were killed before they could
    say so; no result is made of them."""

    jobs: int
    lost: list[str]
    doubled: list[str]
    wrong: list[str]
    twice: int
    attempts: int
    failures: int
    kills: Counter[str]
    seconds: float

    @property
    def good(self) -> bool:
        return not (self.lost or self.doubled or self.wrong)


@dataclass
class Chaos:
    """A service of `workers` processes in a folder.

    Args:
        cluster: a Postgres; None is SQLite.
        pause: seconds between two kills, from and to.

    memory: resident bytes of each process, when a tenth of the jobs was over and at the end, for runs without kills.
    """

    folder: Path
    workers: int
    cluster: Cluster | None = None
    seed: int = 0
    pause: tuple[float, float] = (0.4, 1.2)
    seconds: float = 0.02
    kills: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        quotas = Quotas(queued=None, creations_a_second=1e6, requests_a_second=1e6)
        self.settings = ServeSettings(
            data=self.folder, port=port, database=self.cluster.url if self.cluster else None, lease=LEASE, attempts=10,
            quotas=quotas,
        )  # fmt: skip
        self.ledger = self.folder / "ledger"
        self.ledger.touch()
        self._random = random.Random(self.seed)
        self._database = Database(self.settings.database_url)
        self._database.migrate()
        keys = Keys(self._database, self.settings)
        self._keys = [keys.create(f"owner {i}") for i in range(_OWNERS)]
        self._processes: dict[str, BaseProcess] = {}
        self._thawing: list[tuple[float, int]] = []
        self.memory: dict[str, tuple[int, int]] = {}

    def run(self, jobs: int, deadline: float) -> Verdict:
        """Submit jobs by HTTP while processes are killed; returns when all have ended, or after `deadline` seconds."""
        began = time.monotonic()
        stop = threading.Event()
        submitted: list[str] = []
        submitters = [
            threading.Thread(target=self._submit, args=(range(first, jobs, _CLIENTS), submitted, stop))
            for first in range(_CLIENTS)
        ]
        self._keep_alive()
        for submitter in submitters:
            submitter.start()
        due = began + self._random.uniform(*self.pause)
        first: dict[str, int] = {}
        try:
            while time.monotonic() - began < deadline and not self._over(jobs):
                time.sleep(0.1)
                self._thaw()
                if not first and self._over(jobs // 10):
                    first = self._resident()
                if time.monotonic() > due:
                    self._strike()
                    due = time.monotonic() + self._random.uniform(*self.pause)
                self._keep_alive()
            self.memory = {name: (first.get(name, 0), now) for name, now in self._resident().items()}
        finally:
            stop.set()
            self._thaw(everybody=True)
            self._end()
            for submitter in submitters:
                submitter.join()
        return self._verdict(submitted, jobs, time.monotonic() - began)

    # What goes wrong

    def _strike(self) -> None:
        ways: list[tuple[Callable[[], None], float]] = [
            (self._kill_worker, 6),
            (self._freeze_worker, 1.5),
            (self._kill_api, 1),
        ]
        if self.cluster is not None:
            ways += [(self._drop_connections, 2), (self._restart_database, 0.3)]
        way = self._random.choices([way for way, _ in ways], [weight for _, weight in ways])[0]
        way()
        self.kills[way.__name__.strip("_").replace("_", " ")] += 1

    def _kill_worker(self) -> None:
        self._kill(self._random.choice([name for name in self._processes if name != "api"]))

    def _kill_api(self) -> None:
        self._kill("api")

    def _kill(self, name: str) -> None:
        pid = self._processes[name].pid
        assert pid is not None
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def _freeze_worker(self) -> None:
        """It wakes up when its job is somebody else's."""
        pid = self._processes[self._random.choice([name for name in self._processes if name != "api"])].pid
        assert pid is not None
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
        self._thawing.append((time.monotonic() + self._random.uniform(1.2, 2.5) * LEASE, pid))

    def _thaw(self, everybody: bool = False) -> None:
        for at, pid in list(self._thawing):
            if everybody or time.monotonic() > at:
                self._thawing.remove((at, pid))
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def _drop_connections(self) -> None:
        with suppress(sa.exc.DBAPIError), self._database.write() as session:
            others = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename IS NOT NULL"
            session.execute(sa.text(f"SELECT pg_terminate_backend(pid) {others}"))

    def _restart_database(self) -> None:
        assert self.cluster is not None
        self.cluster.stop()
        time.sleep(self._random.uniform(0.2, 1.5 * LEASE))
        self.cluster.start()

    # Processes

    def _keep_alive(self) -> None:
        """As a supervisor does. The queue is told nothing: dead workers have to be found."""
        for name in ("api", *(f"worker {i}" for i in range(self.workers))):
            process = self._processes.get(name)
            if process is None or not process.is_alive():
                target, given = (run_api, (self.settings,)) if name == "api" else (
                    run_worker, (self.settings, self.ledger, self.seconds))  # fmt: skip
                process = _forks.Process(target=target, args=given, daemon=True)  # type: ignore[arg-type]
                process.start()
                self._processes[name] = process

    def _end(self) -> None:
        for process in self._processes.values():
            process.terminate()
        until = time.monotonic() + 10
        for process in self._processes.values():
            process.join(max(0.1, until - time.monotonic()))
            process.kill()
            process.join()

    def _resident(self) -> dict[str, int]:
        """Process -> bytes, of those that live."""
        found = {}
        for name, process in self._processes.items():
            with suppress(OSError):
                found[name] = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf(
                    "SC_PAGE_SIZE"
                )
        return found

    # Clients

    def _submit(self, jobs: range, submitted: list[str], stop: threading.Event) -> None:
        """Each job is asked for until it is answered, as a client does that sends `Idempotency-Key`."""
        address = f"http://127.0.0.1:{self.settings.port}/v1/jobs"
        asked = {"image": {"url": "http://example.org/a.png"}, "video": {"url": "http://example.org/a.mp4"}}
        with httpx.Client(timeout=10, trust_env=False) as client:
            for number in jobs:
                key = self._keys[number % _OWNERS]
                headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": f"job {number}"}
                while not stop.is_set():
                    with suppress(httpx.TransportError):
                        answer = client.post(address, headers=headers, json=asked | {"name": f"job {number}"})
                        if answer.status_code == 201:
                            submitted.append(answer.json()["id"])
                            break
                        if answer.status_code < 500:
                            raise RuntimeError(answer.text)
                    time.sleep(0.05)

    def _over(self, jobs: int) -> bool:
        counted = sa.select(sa.func.count()).where(Job.state.in_((State.SUCCEEDED, State.FAILED, State.CANCELLED)))
        try:
            with self._database.read() as session:
                return (session.scalar(counted) or 0) >= jobs
        except sa.exc.DBAPIError:
            return False

    def _verdict(self, submitted: list[str], jobs: int, seconds: float) -> Verdict:
        with self._database.read() as session:
            rows = {job.id: job for job in session.scalars(sa.select(Job))}
            ends = Counter(session.scalars(sa.select(EventRow.job_id).where(EventRow.kind == "succeeded")))
        self._database.close()
        done = Counter(line.split()[0] for line in self.ledger.read_text().splitlines())
        lines = set(self.ledger.read_text().splitlines())
        storage = Storage(self.settings.storage_url, b"s" * 16)
        names = Counter(job.submission["name"] for job in rows.values())
        lost = [one for one in submitted if one not in rows or rows[one].state != State.SUCCEEDED]
        lost += [f"job {number} was never taken" for number in range(len(submitted), jobs)]
        doubled = [one for one, count in ends.items() if count > 1] + [
            name for name, count in names.items() if count > 1
        ]
        wrong = []
        for job in rows.values():
            if job.state != State.SUCCEEDED:
                continue
            stored = job.result["video"]
            said = b"".join(storage.read(stored)).decode()
            if (
                said not in lines
                or stored != f"jobs/{job.id}/{said.split()[1]}/result.mp4"
                or int(said.split()[1]) != job.attempt
            ):
                wrong.append(job.id)
        return Verdict(
            len(rows), lost, doubled, wrong, sum(done.values()) - len(done), sum(job.attempt for job in rows.values()),
            sum(job.failures for job in rows.values()), self.kills, seconds,
        )  # fmt: skip


def chaos(jobs: int, workers: int, postgres: bool, seed: int = 0, deadline: float = 600.0, **given: Any) -> Verdict:
    """One run in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        cluster = Cluster() if postgres else None
        try:
            return Chaos(Path(folder), workers, cluster, seed, **given).run(jobs, deadline)
        finally:
            if cluster is not None:
                cluster.close()
