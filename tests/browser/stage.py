"""A service for the browser's tests: it listens, and a quick worker makes clips whose frames can be told apart.

What the worker does is said by the job's name: "hold" generates until it is let go, "fail" fails, "gaps" has frames without a
person; all others succeed.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import av
import httpx
import numpy as np
import numpy.typing as npt
from live import Live
from PIL import Image

from wanimate.events import Event, Notice, Stage, StageProgress, StageStarted, StepDone
from wanimate.library import places
from wanimate.media.writer import repeatable
from wanimate.preprocess.report import missing
from wanimate.serve.worker import loop, reporter
from wanimate.serve.worker.loop import WorkerLoop
from wanimate.serve.worker.work import Refused, Runner, Work

FPS, FRAMES, SIZE = 15, 30, (160, 96)
BITS, CELL = 6, 16
ADMIN = ("submit", "read", "admin")


def numbered(i: int, tint: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """A frame that says its number in black and white cells along its upper edge."""
    frame = np.empty((SIZE[1], SIZE[0], 3), np.uint8)
    frame[:] = tint
    frame[CELL + 8 + i :][:20, 20 + 2 * i : 60 + 2 * i] = 230
    for bit in range(BITS):
        frame[:CELL, bit * CELL : (bit + 1) * CELL] = 255 * (i >> bit & 1)
    return frame


@cache
def clip(tint: tuple[int, int, int], frames: int = FRAMES) -> bytes:
    """Numbered frames as H.264 with frames that refer to later ones, as the service writes it."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS), options=repeatable("libx264"))
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for i in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(i, tint), format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def picture(tint: tuple[int, int, int], size: tuple[int, int] = SIZE) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, tint).save(file, "PNG")
    return file.getvalue()


class Sketch:
    """A preview of one colour."""

    def __init__(self, tint: int) -> None:
        self.tint = tint

    def picture(self) -> npt.NDArray[np.uint8]:
        return np.full((48, 80, 3), self.tint, np.uint8)


class Actor:
    """A runner that pretends. `released` lets jobs named "hold" go on; `holding` says that one does. `findings`: of a check.
    `seconds`: of the clip, as a look at it tells. `record`: the shot record of guides."""

    holds = ""

    def __init__(self) -> None:
        self.released, self.holding = threading.Event(), threading.Event()
        self.asked: list[dict[str, Any]] = []
        self.findings: list[dict[str, Any]] = []
        self.seconds = FRAMES / FPS
        self.record: dict[str, Any] | None = None

    def prepare(self, work: Work) -> Iterator[Event]:
        yield StageStarted(Stage.DETECT, FRAMES)
        submission = work.submission
        self.asked.append(submission.model_dump(mode="json"))
        if submission.kind == "library":
            content = next(iter(work.job.facts["library"].values()))["sha256"]
            work.storage.put(places.beside(content, places.POSTER), [picture((120, 110, 100))])
            work.storage.put(places.beside(content, places.PREVIEW), [clip((70, 90, 110))])
            work.facts["look"] = {"width": SIZE[0], "height": SIZE[1], "seconds": FRAMES / FPS, "fps": str(FPS)}
            return
        if submission.kind == "people":
            work.storage.put(f"{work.place}/people.png", [picture((120, 110, 100))])
            work.result["picture"] = f"{work.place}/people.png"
            boxes = [[10.0, 10.0, 60.0, 90.0], [90.0, 10.0, 140.0, 90.0]]
            work.facts |= {"people": boxes, "frame": 0, "size": list(SIZE), "seconds": self.seconds, "fps": str(FPS)}
            return
        if submission.kind == "check":
            work.facts |= {"frames": FRAMES, "fps": str(FPS), "seconds": self.seconds, "findings": self.findings}
            return
        if submission.name == "fail":
            raise Refused("InvalidFile.NoHuman", "Nobody was found in the clip.")
        work.clip_seconds = FRAMES / FPS
        place = work.guides = f"guides/{work.job.id}/{work.claim.attempt}"
        manifest = {} if self.record is None else {"shot": self.record}
        work.storage.put(f"{place}/guides/manifest.json", [json.dumps(manifest).encode()])
        work.storage.put(f"{place}/guides/reference.png", [picture((150, 90, 60))])
        parts = {"driver": (70, 90, 110), "pose": (0, 0, 0), "face": (160, 120, 100)}
        if submission.mode == "replacement":
            parts["mask"] = (0, 0, 0)
        for name, tint in parts.items():
            work.storage.put(f"{place}/previews/{name}.mp4", [clip(tint)])
        gaps = [[5, 9], [20, 21]] if submission.name == "gaps" else []
        facts = {"frames": FRAMES, "fps": str(FPS), "size": list(SIZE), "no_person": gaps}
        work.facts |= facts | {"start": submission.preprocess.get("start", 0.0)}
        if self.record is not None:
            work.facts["shots"] = len(self.record["shots"])
        if gaps:
            seen = np.ones(FRAMES, bool)
            for a, b in gaps:
                seen[a:b] = False
            yield Notice(missing(seen) or "", "warning")
        if submission.kind == "preprocess":
            work.result = {"pose": f"{place}/guides/pose.mkv", "reference": f"{place}/guides/reference.png"}
            work.storage.put(f"{place}/guides/pose.mkv", [clip((0, 0, 0))])

    def generate(self, work: Work) -> Iterator[Event]:
        yield StageStarted(Stage.DENOISE, fraction=0.2, seconds_left=4.0)
        if work.submission.kind == "relight":
            for name, tint in (("without", (90, 90, 90)), ("with", (160, 120, 60))):
                work.storage.put(f"{work.place}/{name}.png", [picture(tint)])
                work.result[name] = f"{work.place}/{name}.png"
            work.facts |= {"size": list(SIZE), "frames": 5, "steps": 4, "seed": work.submission.generate.get("seed", 1)}
            return
        steps = 4
        for step in range(1, steps + 1):
            sketch = Sketch(40 * step)
            work.storage.put(f"jobs/{work.job.id}/preview.png", [picture((40 * step, 90, 90), (80, 48))])
            yield StepDone(
                0, 1, step, steps, preview=sketch, fraction=0.2 + 0.15 * step, seconds_left=float(steps - step)
            )
            if work.submission.name == "hold" and step == 2:
                self.holding.set()
                while not self.released.wait(0.02):
                    yield StageProgress(Stage.DENOISE, 2, steps, fraction=0.5, seconds_left=3.0)
        seed = work.submission.generate.get("seed", 7)
        tint = (60 + 20 * (seed % 8), 80, 120)
        own = work.job.id.encode()  # other bytes for each job, as networks make: decisions are about bytes
        video = clip(tint) + (8 + len(own)).to_bytes(4, "big") + b"free" + own
        for name, data in (
            ("result.mp4", video),
            ("thumbnail.png", picture(tint)),
            ("result.sheet.png", picture(tint, (320, 192))),
        ):
            work.storage.put(f"{work.place}/{name}", [data])
        proof = {"name": "result.mp4", "sha256": f"sha256:{hashlib.sha256(video).hexdigest()}", "replaces": None}
        record = {
            "schema": 2, "wanimate": "1", "mode": work.submission.mode, "out": "result.mp4", "inputs": {},
            "segments": [{}, {}], "result": proof,
        }  # fmt: skip
        work.storage.put(f"{work.place}/result.json", [json.dumps(record).encode()])
        work.result = {
            "video": f"{work.place}/result.mp4", "thumbnail": f"{work.place}/thumbnail.png",
            "sheet": f"{work.place}/result.sheet.png", "record": f"{work.place}/result.json",
        }  # fmt: skip
        work.facts |= {
            "size": list(SIZE),
            "seconds": FRAMES / FPS,
            "seed": seed,
            "frames": FRAMES,
            "fps": str(FPS),
            "segments": 2,
        }

    def store(self, work: Work) -> bool:
        return False

    def close(self) -> None: ...


class Playhouse(Live):
    """As `Live`, with `Actor` at work."""

    def __init__(self, folder: Path, port: int = 0, **settings: Any) -> None:
        super().__init__(folder, port, **settings)
        self.service.forecaster._ask = _forecast  # type: ignore[method-assign]

    @contextmanager
    def acting(self) -> Iterator[Actor]:
        """Has `Actor` do the jobs within the block."""
        runner = Actor()
        with self.employed(runner):
            try:
                yield runner
            finally:
                runner.released.set()

    @contextmanager
    def employed(self, runner: Runner) -> Iterator[None]:
        """Has a runner do the jobs within the block."""
        worker = WorkerLoop(
            self.settings,
            self.service.database,
            self.service.storage,
            runner,
            f"actor-{time.monotonic_ns()}",
            grace=0.0,
        )
        thread = threading.Thread(target=worker.run, daemon=True)
        with patch.object(reporter, "_PACE", 0.02), patch.object(loop, "_IDLE", 0.02):
            thread.start()
            try:
                yield
            finally:
                worker.stop()
                thread.join(10)

    def sent(self, client: httpx.Client, name: str, data: bytes) -> str:
        found: str = client.post("/v1/uploads", files={"file": (name, data)}).raise_for_status().json()["id"]
        return found

    def made(self, key: str, name: str = "", wait: bool = True, **more: Any) -> str:
        """A job over HTTP, waited for. Returns its id."""
        with self.http(key) as client:
            image, video = (
                self.sent(client, "hero.png", picture((200, 120, 80))),
                self.sent(client, "dance.mp4", clip((70, 90, 110))),
            )
            body = {
                "image": {"upload": image},
                "video": {"upload": video},
                "name": name,
                "output": {"sheet": True},
                **more,
            }
            job: str = client.post("/v1/jobs", json=body).raise_for_status().json()["id"]
            until = time.monotonic() + 20
            while wait and client.get(f"/v1/jobs/{job}").json()["state"] in ("pending", "running"):
                assert time.monotonic() < until, "the job does not end"
                time.sleep(0.05)
        return job


def _forecast(_work: Any, *given: Any) -> dict[str, Any]:
    """What the forecaster's own process would say: it takes seconds to start."""
    if len(given) == 1:
        return {"machine": {"device": "cpu", "gpus": []}}
    return {
        "frames": given[3], "size": list(SIZE), "segments": 1, "steps": 4, "warning": None, "fits": True, "message": None,
        "device": "cpu", "weights": "float32", "placement": "resident", "gpu_bytes": None,
        "gpu_room_bytes": None, "host_bytes": 2 * 2**30, "step_seconds": 1.0, "generate_seconds": 150.0,
    }  # fmt: skip
