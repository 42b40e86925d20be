"""A Ray cluster of two nodes on this machine loses one, and the jobs of the service are finished all the same."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from service_chaos import DummyRunner

from wanimate.errors import InputError
from wanimate.serve.database import Database
from wanimate.serve.settings import ServeSettings
from wanimate.serve.storage import Storage
from wanimate.serve.tables import Job, Stage, State, Worker
from wanimate.serve.worker.loop import WorkerLoop, worker_name

HERE = Path(__file__).parent


def dummy_loop(ledger: Path, settings: ServeSettings, stages: Sequence[Stage], device: str | None) -> WorkerLoop:
    storage = Storage(settings.storage_url, b"s" * 16)
    return WorkerLoop(
        settings,
        Database(settings.database_url),
        storage,
        DummyRunner(ledger, 0.2),
        worker_name("ray"),
        stages,
        grace=1.0,
    )


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    paths = [str(HERE), str(HERE.parent / "unit" / "serve"), *sys.path]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100 * 2**20})
    yield made
    import ray

    ray.shutdown()
    made.shutdown()


@pytest.mark.slow
def test_a_cluster_that_loses_a_node_finishes_its_jobs(cluster: Any, tmp_path: Path) -> None:
    sys.path.insert(0, str(HERE.parent / "unit" / "serve"))
    from serve_jobs import add_jobs

    from wanimate.serve.ray import RayWorkers

    nodes = [cluster.add_node(num_cpus=4, object_store_memory=100 * 2**20) for _ in range(2)]
    settings = ServeSettings(data=tmp_path, ray=cluster.address, lease=2.0, attempts=10, workers=2, device="cpu")
    database = Database(settings.database_url)
    database.migrate()
    ledger = tmp_path / "ledger"
    ledger.touch()
    add_jobs(database, 60)
    workers = RayWorkers(settings, functools.partial(dummy_loop, ledger))
    assert sorted(workers.plan()) == sorted([((Stage.PREPARE,), "cpu")] * 3 + [((Stage.GENERATE,), "cpu")] * 2)
    workers.start()

    def count(*states: State) -> int:
        with database.read() as session:
            return session.scalar(sa.select(sa.func.count()).where(Job.state.in_(states))) or 0

    def until(done: int, seconds: float) -> None:
        end = time.monotonic() + seconds
        while count(State.SUCCEEDED, State.FAILED) < done:
            assert time.monotonic() < end, f"{count(State.SUCCEEDED)} succeeded"
            time.sleep(0.1)

    try:
        until(5, 120)
        with database.read() as session:
            before = set(session.scalars(sa.select(Worker.id)))
        cluster.remove_node(nodes[0], allow_graceful=False)
        until(60, 240)
        with database.read() as session:
            after = set(session.scalars(sa.select(Worker.id)))
    finally:
        workers.stop(10)
    assert count(State.SUCCEEDED) == 60
    assert after - before  # workers of the lost node came up on the other one
    database.close()


def test_ray_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from wanimate.serve.ray import RayWorkers

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"wanimate\[ray\]"):
        RayWorkers(ServeSettings(data=tmp_path, ray="auto"))
