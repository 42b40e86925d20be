"""A service for the tests of its own face: its application over SQLite in a folder, keys, and a worker that only pretends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from wanimate.events import Event, Stage, StageProgress, StageStarted
from wanimate.serve.app import create_app
from wanimate.serve.service import Service
from wanimate.serve.settings import ServeSettings
from wanimate.serve.worker.loop import WorkerLoop
from wanimate.serve.worker.work import Refused, Work

PNG = b"\x89PNG\r\n\x1a\n" + b"a picture"
MP4 = b"\x00\x00\x00\x18ftypisom" + b"a clip"
JOB: dict[str, Any] = {
    "image": {"url": "https://example.org/hero.png"},
    "video": {"url": "https://example.org/dance.mp4"},
}


@dataclass
class Pretender:
    """A runner that makes files of a few bytes. `gate`: generating waits until it is set."""

    gate: threading.Event = field(default_factory=threading.Event)
    holds: str = ""

    def prepare(self, work: Work) -> Iterator[Event]:
        if work.submission.name == "bad":
            raise Refused("InvalidFile.NoHuman", "There is nobody in the clip.")
        yield StageStarted(Stage.DETECT, 2)
        if work.submission.kind == "people":
            work.storage.put(f"{work.place}/people.png", [PNG])
            work.result["picture"] = f"{work.place}/people.png"
            boxes = [[1.0, 2.0, 30.0, 40.0], [50.0, 2.0, 70.0, 40.0]]
            work.facts |= {"people": boxes, "frame": 3, "size": [640, 360], "seconds": 4.0, "fps": "25"}
            return
        if work.submission.kind == "check":
            spans = [{"first": 12, "stop": 20, "start": 0.5, "end": 0.8}]
            findings = [{"kind": "nobody", "text": "nobody", "spans": spans, "count": None, "factor": None}]
            work.facts |= {"frames": 96, "fps": "24", "seconds": 4.0, "findings": findings}
            return
        work.guides = f"guides/{work.job.id}/{work.claim.attempt}"
        work.storage.put(f"{work.guides}/guides/pose.mkv", [b"guides"])
        work.clip_seconds = 4.0
        work.facts |= {"frames": 100, "fps": "25"}
        if work.submission.kind == "preprocess":
            work.result["pose"] = f"{work.guides}/guides/pose.mkv"

    def generate(self, work: Work) -> Iterator[Event]:
        yield StageStarted(Stage.DENOISE, 2)
        work.storage.put(f"jobs/{work.job.id}/preview.png", [PNG])
        while not self.gate.wait(0.02):
            yield StageProgress(Stage.DENOISE, 1, 2, fraction=0.5)
        work.storage.put(f"{work.place}/result.mp4", [MP4])
        work.result["video"] = f"{work.place}/result.mp4"
        work.facts |= {"segments": 2, "seed": 7}

    def store(self, work: Work) -> bool:
        return False

    def close(self) -> None: ...


@dataclass
class Served:
    """`keys`: by owner; "boss" is an admin."""

    service: Service
    app: FastAPI
    keys: dict[str, str]
    runner: Pretender

    def client(self, owner: str, **more: Any) -> TestClient:
        return TestClient(self.app, headers={"Authorization": f"Bearer {self.keys[owner]}"}, **more)

    def loop(self) -> WorkerLoop:
        service = self.service
        name = f"pretender-{time.time_ns()}"
        return WorkerLoop(service.settings, service.database, service.storage, self.runner, name, grace=0)

    @contextmanager
    def worker(self) -> Iterator[None]:
        loop = self.loop()
        thread = threading.Thread(target=loop.run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.runner.gate.set()
            loop.stop()
            thread.join(10)
            assert not thread.is_alive()

    def waited(self, owner: str, job_id: str, *states: str) -> dict[str, Any]:
        """The job, once it is in one of these states."""
        until = time.monotonic() + 10
        while time.monotonic() < until:
            job: dict[str, Any] = self.client(owner).get(f"/v1/jobs/{job_id}").json()
            if job["state"] in (states or ("succeeded", "failed", "cancelled")):
                return job
            time.sleep(0.03)
        raise AssertionError(f"the job is {job}")


@contextmanager
def served(folder: Path, **settings: Any) -> Iterator[Served]:
    chosen = ServeSettings.of(
        **{
            "data": folder,
            "quotas": {"creations_a_second": 1000},
            "loras": {"hero": folder / "hero.safetensors"},
            "repeated_within": 0.0,
            **settings,
        }
    )
    service = Service(chosen)
    keys = {owner: service.keys.create(owner) for owner in ("ann", "bob")}
    keys["boss"] = service.keys.create("boss", ("submit", "read", "admin"))
    keys["reader"] = service.keys.create("ann", ("read",))
    keys["sender"] = service.keys.create("ann", ("submit",))
    yield Served(service, create_app(chosen, service), keys, Pretender())
    service.close()


def until_a_worker_is_there(service: Served) -> None:
    boss, until = service.client("boss"), time.monotonic() + 10
    while not boss.get("/v1/workers").json()["data"] and time.monotonic() < until:
        time.sleep(0.02)


def made(client: TestClient, **more: Any) -> str:
    answer = client.post("/v1/jobs", json={**JOB, **more})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def names(client: TestClient, **query: Any) -> list[str]:
    answer = client.get("/v1/jobs", params=query)
    assert answer.status_code == 200, answer.text
    return [job["name"] for job in answer.json()["data"]]
