"""The service with real jobs and real processes: killed workers, stopped workers, a service that is gone."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "weights"))
from tiny_checkpoints import own_checkpoint

from wanimate.media.probe import probe
from wanimate.media.video import iter_indices
from wanimate.serve.keys import Caller
from wanimate.serve.service import Service
from wanimate.serve.settings import ServeSettings
from wanimate.serve.submission import Submission
from wanimate.serve.sweep import sweep_orphans
from wanimate.serve.tables import Job, State

DEMO = Path(str(files("wanimate.weights") / "embedded" / "demo"))


def until(found: Callable[[], Any], seconds: float = 90.0) -> Any:
    """What `found` returns as soon as it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.02)
    raise AssertionError("it did not come true in time")


class Machine:
    """A service without its HTTP, and worker processes that a test starts and kills."""

    def __init__(self, folder: Path, checkpoint: Path) -> None:
        self.settings = ServeSettings(data=folder, checkpoints={"tiny": checkpoint}, checkpoint=checkpoint, lease=3.0)
        self.service = Service(self.settings)
        caller = self.service.keys.find(self.service.keys.create("tester"))
        assert caller is not None
        self.caller: Caller = caller
        self.processes: list[subprocess.Popen[bytes]] = []

    def worker(self, *stages: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "wanimate.serve.worker.process"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert process.stdin is not None
        told = {"settings": self.settings.model_dump(mode="json"), "stages": stages, "device": "cpu"}
        process.stdin.write(json.dumps(told).encode() + b"\n")
        process.stdin.flush()
        self.processes.append(process)
        return process

    def upload(self, path: Path) -> str:
        copy = self.settings.data / path.name
        copy.write_bytes(path.read_bytes())
        digest = hashlib.sha256(copy.read_bytes()).hexdigest()
        return self.service.add_upload("tester", copy, path.name, digest).id

    def submit(self, **given: Any) -> str:
        return self.service.submit(self.caller, Submission.of(given), "own", "test").id

    def job(self, job_id: str) -> Job:
        return self.service.job(self.caller, job_id)

    def ended(self, job_id: str) -> Job:
        return until(lambda: job if State((job := self.job(job_id)).state).final else None)

    def segments(self, job_id: str) -> int:
        return sum("segment-" in stored.name for stored in self.service.storage.list(f"jobs/{job_id}/work"))

    def frames(self, job: Job, folder: Path) -> np.ndarray[Any, Any]:
        path = folder / f"{job.id}.mkv"
        self.service.storage.fetch(job.result["video"], path)
        clip = probe(path, None)
        return np.stack(list(iter_indices(clip, range(clip.count))))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("service")
    machine = Machine(folder / "data", own_checkpoint(folder / "tiny"))
    yield machine
    for process in machine.processes:
        process.kill()
        process.wait()
    machine.service.close()


@pytest.fixture(scope="module")
def prepared(machine: Machine) -> str:
    """A job with the guides of the demo's clip."""
    image = machine.upload(min(DEMO.glob("*.png")))
    video = machine.upload(DEMO / "performer.mp4")
    process = machine.worker("prepare")
    job = machine.submit(
        kind="preprocess", image={"upload": image}, video={"upload": video}, preprocess={"area": "96x96"}
    )
    assert machine.ended(job).message is None
    process.terminate()
    assert process.wait(20) == 0
    return job


def test_files_of_guides_tell_no_folder_of_the_server(machine: Machine, prepared: str) -> None:
    storage, result = machine.service.storage, machine.job(prepared).result
    manifest = b"".join(storage.read(result["manifest"]))
    assert json.loads(manifest)["source"]
    assert str(machine.settings.data).encode() not in manifest


SETTINGS = {"generate": {"seed": 3, "steps": 1, "clip_length": 13}, "output": {"codec": "ffv1"}}


def test_a_killed_workers_job_goes_on_at_its_last_segment(machine: Machine, prepared: str, tmp_path: Path) -> None:
    worker = machine.worker("generate")
    whole = machine.ended(machine.submit(kind="generate", parent=prepared, **SETTINGS))
    assert whole.message is None
    broken = machine.submit(kind="generate", parent=prepared, name="again", **SETTINGS)
    until(lambda: machine.segments(broken) >= 2)
    worker.kill()
    worker.wait()
    second = machine.worker("generate")
    resumed = machine.ended(broken)
    assert (resumed.state, resumed.failures, resumed.attempt) == (State.SUCCEEDED, 1, 2)
    record = json.loads(b"".join(machine.service.storage.read(resumed.result["record"])))
    assert record["resumed"] >= 2
    assert np.array_equal(machine.frames(whole, tmp_path), machine.frames(resumed, tmp_path))

    redrawn = machine.ended(machine.submit(kind="redraw", parent=broken, segment=2, **SETTINGS))
    assert redrawn.message is None
    before, after = machine.frames(resumed, tmp_path), machine.frames(redrawn, tmp_path)
    start, length, overlap = record["segments"][1]
    assert np.array_equal(before[:start], after[:start])
    assert not np.array_equal(before[start + overlap : start + length], after[start + overlap : start + length])
    second.kill()
    second.wait()


@pytest.mark.slow
def test_frames_are_finished_anew(machine: Machine, prepared: str, tmp_path: Path) -> None:
    worker = machine.worker("generate")
    whole = machine.ended(machine.submit(kind="generate", parent=prepared, name="to finish", **SETTINGS))
    redrawn = machine.ended(machine.submit(kind="redraw", parent=whole.id, segment=2, **SETTINGS))
    for parent in (whole, redrawn):
        frames = machine.frames(parent, tmp_path)
        output = {"codec": "ffv1", "fps_out": 32, "interpolate": "hold"}
        finished = machine.ended(machine.submit(kind="finish", parent=parent.id, output=output))
        assert finished.message is None
        made = machine.frames(finished, tmp_path)
        assert np.array_equal(made[::2], frames)
        assert (finished.facts["fps"], finished.facts["frames"]) == ("32", len(made))
        told = json.loads(b"".join(machine.service.storage.read(finished.result["record"])))
        assert ("denoise" in told["seconds"]) == (parent is redrawn)  # a redrawn segment is drawn once more
    worker.kill()
    worker.wait()


@pytest.mark.slow
def test_a_stopped_worker_stores_its_segment_and_gives_the_job_back(machine: Machine, prepared: str) -> None:
    first = machine.worker("generate")
    job = machine.submit(kind="generate", parent=prepared, name="stopped", **SETTINGS)
    until(lambda: machine.segments(job) >= 1)
    first.terminate()
    assert first.wait(30) == 0
    waiting = machine.job(job)
    assert (waiting.state, waiting.worker, waiting.failures) == (State.RUNNING, None, 0)
    kept = machine.segments(job)
    second = machine.worker("generate")
    done = machine.ended(job)
    assert (done.state, done.failures) == (State.SUCCEEDED, 0)
    record = json.loads(b"".join(machine.service.storage.read(done.result["record"])))
    assert record["resumed"] >= kept
    second.kill()
    second.wait()


@pytest.mark.slow
def test_a_running_job_that_is_deleted_is_stopped(machine: Machine, prepared: str) -> None:
    worker = machine.worker("generate")
    job = machine.submit(kind="generate", parent=prepared, name="deleted", **SETTINGS)
    until(lambda: machine.segments(job) >= 1)
    machine.service.delete(machine.caller, job, "test")
    next_one = machine.ended(machine.submit(kind="generate", parent=prepared, name="after", **SETTINGS))
    assert next_one.state == State.SUCCEEDED
    sweep_orphans(machine.service, older_than=0.0)
    assert not machine.service.storage.list(f"jobs/{job}")
    worker.kill()
    worker.wait()


@pytest.mark.slow
def test_the_service_starts_its_workers_again_and_they_end_with_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "wanimate", "serve", "--port", "0", "--data", str(tmp_path), "--device", "cpu"]
    service = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert service.stdout is not None
    address = service.stdout.readline().split()[-1]
    lines = [service.stdout.readline() for _ in range(5)]
    assert any(line.split()[-1].startswith("wan_") for line in lines if line.split())
    assert httpx.get(f"{address}/healthz", trust_env=False).status_code == 200
    children = until(lambda: found if len(found := psutil.Process(service.pid).children()) >= 2 else None)
    until(lambda: httpx.get(f"{address}/readyz", trust_env=False).status_code == 200)
    children[0].kill()
    until(lambda: len([c for c in psutil.Process(service.pid).children() if c.status() != "zombie"]) >= 2, 20)
    children = psutil.Process(service.pid).children()
    os.kill(service.pid, signal.SIGKILL)
    service.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
