"""A service that listens, for tests through real clients: the whole application on a free port, and a worker that is quick.

What the worker does with a job is said by the job's picture: `http://do/hold` waits until it is let go or stopped,
`http://do/refuse/CODE` refuses, `http://do/break` fails; all others succeed.
"""

from __future__ import annotations

import io
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import av
import httpx
import numpy as np
import pytest
import sqlalchemy as sa
import uvicorn
from PIL import Image

from wanimate.events import Event, Stage, StageProgress, StageStarted
from wanimate.serve.app import create_app
from wanimate.serve.service import Service
from wanimate.serve.settings import ServeSettings
from wanimate.serve.tables import Job
from wanimate.serve.worker import loop, reporter
from wanimate.serve.worker.loop import WorkerLoop
from wanimate.serve.worker.work import Broken, Refused, Work

IMAGE, VIDEO = "http://files.example/character.png", "http://files.example/performer.mp4"
HOLD = "http://do/hold"


@cache
def png(colour: int = 90, side: int = 32) -> bytes:
    """A picture of one grey."""
    file = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), colour, np.uint8)).save(file, "PNG")
    return file.getvalue()


@cache
def mp4(colour: int = 90, frames: int = 4) -> bytes:
    """A clip of one grey, 15 frames/s."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(15))
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), colour, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


class QuickRunner:
    """Makes no frames: it stores a small clip, a picture and a sheet."""

    holds = ""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.running = threading.Event()
        self.stopped: list[str] = []
        self.inputs: dict[str, dict[str, bytes]] = {}

    def prepare(self, work: Work) -> Iterator[Event]:
        yield StageStarted(Stage.DETECT)
        read = {field: b"".join(work.storage.read(stored)) for field, stored in work.uploads.items()}
        self.inputs[work.job.id] = read
        image = work.submission.image
        url = (image.url if image is not None else None) or ""
        if url.startswith("http://do/refuse/"):
            raise Refused(url.rpartition("/")[2], "The input image has no human body.")
        if url == "http://do/break":
            raise Broken("the GPU fell out of its slot")
        work.clip_seconds = 2.5
        work.guides = f"guides/{work.job.id}/{work.claim.attempt}"
        work.storage.put(f"{work.guides}/guides/manifest.json", [b"{}"])
        if url == HOLD:
            yield from self._hold(work)

    def generate(self, work: Work) -> Iterator[Event]:
        yield StageStarted(Stage.DENOISE, fraction=0.5, seconds_left=4.0)
        for name, data in (("result.mp4", mp4()), ("thumbnail.png", png()), ("result.sheet.png", png(200))):
            work.storage.put(f"{work.place}/{name}", [data])
        sheet = {"sheet": f"{work.place}/result.sheet.png"} if work.submission.output.get("sheet") else {}
        work.result = {
            "video": f"{work.place}/result.mp4", "thumbnail": f"{work.place}/thumbnail.png", **sheet
        }  # fmt: skip
        work.facts |= {"size": [1280, 720], "seconds": 2.4, "seed": 7, "frames": 36}

    def store(self, work: Work) -> bool:
        return False

    def close(self) -> None: ...

    def _hold(self, work: Work) -> Iterator[Event]:
        self.running.set()
        try:
            while not self.released.wait(0.02):
                yield StageProgress(Stage.DRAW, 1, 2, fraction=0.25, seconds_left=8.0)
        except GeneratorExit:
            self.stopped.append(work.job.id)
            raise


class Live:
    """A service that listens. `base` is its address; `port` that of an earlier one, which this one takes."""

    def __init__(self, folder: Path, port: int = 0, **settings: Any) -> None:
        given = {"quotas": {"creations_a_second": 1000, "queued": None}} | settings
        self.settings = ServeSettings(data=folder, **given)
        self.service = Service(self.settings)
        self.app = create_app(self.settings, self.service)
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self.base = f"http://127.0.0.1:{self.port}"
        self._server = uvicorn.Server(uvicorn.Config(self.app, log_level="error"))
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    def __enter__(self) -> Live:
        self._thread.start()
        until(lambda: self._server.started)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self.service.close()

    def key(self, owner: str, **more: Any) -> str:
        return self.service.keys.create(owner, **more)

    def http(self, key: str | None = None) -> httpx.Client:
        """A plain client, for what no SDK sends."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.base, headers=headers, trust_env=False, timeout=20)

    def row(self, job_id: str) -> Job | None:
        with self.service.database.read() as session:
            return session.get(Job, job_id)

    @contextmanager
    def working(self) -> Iterator[QuickRunner]:
        """A worker, within the block."""
        runner = QuickRunner()
        name = f"quick-{time.monotonic_ns()}"
        worker = WorkerLoop(self.settings, self.service.database, self.service.storage, runner, name, grace=0.0)
        thread = threading.Thread(target=worker.run, daemon=True)
        with patch.object(reporter, "_PACE", 0.02), patch.object(loop, "_IDLE", 0.02):
            thread.start()
            try:
                yield runner
            finally:
                runner.released.set()
                until(lambda: not self._in_work(name))  # what is given back would hold the next worker up
                worker.stop()
                thread.join(10)

    def clear(self) -> None:
        """No worker takes what is left of a test."""
        with self.service.database.write() as session:
            session.execute(sa.update(Job).values(held=True))

    def _in_work(self, worker: str) -> bool:
        with self.service.database.read() as session:
            return session.scalar(sa.select(Job.id).where(Job.worker == worker).limit(1)) is not None


def until(true: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for something. Raises AssertionError."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def quick_dashscope(monkeypatch: pytest.MonkeyPatch, base: str, key: str) -> None:
    """Set the SDK up as its users do, and shorten its pauses."""
    polls = itertools.count()

    def sleep(_: float) -> None:
        assert next(polls) < 500, "the task does not end"
        time.sleep(0.02)

    pause = SimpleNamespace(time=time.time, sleep=sleep)
    monkeypatch.setattr("dashscope.base_http_api_url", f"{base}/api/v1")
    monkeypatch.setattr("dashscope.api_key", key)
    monkeypatch.setattr("dashscope.client.base_api.time", pause)
    monkeypatch.setattr("dashscope.v2.transport.http.backoff_delay", lambda *_: 0.01)
    monkeypatch.setattr(
        "dashscope.v2.resources._jobs.time", SimpleNamespace(monotonic=time.monotonic, sleep=pause.sleep)
    )
