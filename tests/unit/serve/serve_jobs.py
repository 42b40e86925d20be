"""Jobs and a runner for tests of queue and worker."""

from __future__ import annotations

import uuid
from typing import Any

import sqlalchemy as sa

from wanimate.serve.database import Database
from wanimate.serve.queue import Claim, Queue
from wanimate.serve.tables import Event, Job, Key, Stage, State, now

SUBMISSION = {
    "kind": "animate",
    "image": {"url": "http://example.test/a.png"},
    "video": {"url": "http://example.test/a.mp4"},
}


def add_job(database: Database, **values: Any) -> str:
    """A waiting job. `values` differ from the usual ones."""
    at = now()
    job = Job(
        **{
            "id": str(uuid.uuid4()), "owner": "ann", "key_id": "ann-1", "request_id": "request-1", "face": "own",
            "kind": "animate", "mode": "animation", "model": "mannequin", "tier": None, "checkpoint": "mannequin",
            "loras": "", "submission": SUBMISSION, "state": State.PENDING, "stage": Stage.PREPARE, "held": False,
            "priority": 0, "order_key": at, "not_before": 0, "attempt": 0, "beat": 0, "failures": 0, "cancelling": False,
            "fraction": 0.0, "result": {}, "facts": {}, "warnings": [], "created": at,
        }
        | values
    )  # fmt: skip
    with database.write() as session:
        session.add(job)
    return job.id


def add_jobs(database: Database, count: int, **values: Any) -> list[str]:
    """Several, in their order in the queue."""
    return [add_job(database, **{"order_key": now() + i, **values}) for i in range(count)]


def add_key(database: Database, id_: str, owner: str = "ann", **quotas: Any) -> None:
    with database.write() as session:
        session.add(Key(id=id_, owner=owner, digest=id_, scopes=[], quotas=quotas, webhook_secret="", created=0))


def job_of(database: Database, job_id: str) -> Job:
    with database.read() as session:
        found = session.get(Job, job_id)
    assert found is not None
    return found


def told(database: Database, job_id: str) -> list[str]:
    """Kinds of its events, in order."""
    with database.read() as session:
        return list(session.scalars(sa.select(Event.kind).where(Event.job_id == job_id).order_by(Event.seq)))


def claimed(queue: Queue, worker: str = "w1", stage: Stage = Stage.PREPARE, holds: str = "") -> Claim:
    found = queue.claim(worker, [stage], holds)
    assert found is not None
    return found
