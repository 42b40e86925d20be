"""How fast the service answers: latency of polls beside a running job, of a job's first step, and memory over many jobs.

    python benchmarks/service.py --out benchmarks/results/service_cpu_DATE.md

It starts a service of its own on the processor with `mannequin` (`--address` and `--key`: asks one that runs already, without
the part on memory). Inputs are the demo's, sent as clients of the hosted contract send them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "robustness"))
sys.path.insert(0, str(ROOT / "benchmarks"))

from hardware import described  # noqa: E402

DEMO = ROOT / "src" / "wanimate" / "weights" / "embedded" / "demo"
MODEL = "wan2.2-animate-move"
_CLIENTS = 10


class Client:
    """The hosted contract over HTTP, and the event stream of the own face."""

    def __init__(self, address: str, key: str) -> None:
        self._http = httpx.Client(
            base_url=address, headers={"Authorization": f"Bearer {key}"}, timeout=60, trust_env=False
        )
        self.address, self.key = address, key

    def upload(self, path: Path, name: str) -> str:
        """Returns its `oss://` address."""
        answer = self._http.get("/api/v1/uploads", params={"action": "getPolicy", "model": MODEL})
        data = answer.raise_for_status().json()["data"]
        key = f"{data['upload_dir']}/{name}"
        form = {
            "OSSAccessKeyId": data["oss_access_key_id"], "Signature": data["signature"], "policy": data["policy"], "key": key,
            "x-oss-object-acl": data["x_oss_object_acl"], "x-oss-forbid-overwrite": data["x_oss_forbid_overwrite"],
            "success_action_status": "200",
        }  # fmt: skip
        sent = httpx.post(
            data["upload_host"], data=form, files={"file": (name, path.read_bytes())}, trust_env=False, timeout=60
        )
        sent.raise_for_status()
        return f"oss://{key}"

    def create(self, image: str, video: str) -> str:
        """Returns the task's id."""
        headers = {"X-DashScope-Async": "enable", "X-DashScope-OssResourceResolve": "enable"}
        body = {
            "model": MODEL, "input": {"image_url": image, "video_url": video},
            "parameters": {"mode": "wan-std", "check_image": False},
        }  # fmt: skip
        answer = self._http.post("/api/v1/services/aigc/image2video/video-synthesis", headers=headers, json=body)
        return str(answer.raise_for_status().json()["output"]["task_id"])

    def own(self, **body: Any) -> str:
        """Returns the id of a job of the own face."""
        return str(self._http.post("/v1/jobs", json=body).raise_for_status().json()["id"])

    def status(self, task: str) -> str:
        return str(self._http.get(f"/api/v1/tasks/{task}").raise_for_status().json()["output"]["task_status"])

    def ended(self, task: str) -> None:
        """Wait for it. Raises RuntimeError if it did not succeed."""
        while (status := self.status(task)) in ("PENDING", "RUNNING"):
            time.sleep(0.5)
        if status != "SUCCEEDED":
            raise RuntimeError(f"the job is {status}")

    def events(self, task: str) -> Iterator[tuple[str, dict[str, Any]]]:
        with self._http.stream("GET", f"/v1/jobs/{task}/events", timeout=None) as stream:
            kind = ""
            for line in stream.iter_lines():
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    yield kind, json.loads(line.removeprefix("data: "))


def first_steps(client: Client, made: str, began: float) -> dict[str, float]:
    """Seconds from `began` until a worker has the job, and until the first diffusion step of it is done."""
    found: dict[str, float] = {}
    for kind, _ in client.events(made):
        if kind in ("scheduled", "step"):
            found.setdefault(kind, time.perf_counter() - began)
        if kind == "step" or kind in ("failed", "cancelled"):
            break
    return found


def polls(client: Client, task: str, rate: float, seconds: float) -> list[float]:
    """Seconds of each of `rate` polls a second, over kept connections. Late ones count from when they were due."""
    due = [i / rate for i in range(int(rate * seconds))]
    spent: list[float] = []
    lock = threading.Lock()
    began = time.perf_counter()

    def ask(share: list[float]) -> None:
        mine = Client(client.address, client.key)
        for moment in share:
            time.sleep(max(0.0, began + moment - time.perf_counter()))
            mine.status(task)
            with lock:
                spent.append(time.perf_counter() - began - moment)

    threads = [threading.Thread(target=ask, args=(due[i::_CLIENTS],)) for i in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return spent


@contextmanager
def service(folder: Path) -> Iterator[Client]:
    """A service on the processor, as a user starts it."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "wanimate"]
    key = subprocess.run(
        [*command, "keys", "create", "--owner", "bench", "--data", str(folder)], check=True, capture_output=True, text=True,
        env=environment,
    ).stdout.strip()  # fmt: skip
    process = subprocess.Popen(
        [*command, "serve", "--port", "0", "--data", str(folder), "--device", "cpu"], stdout=subprocess.PIPE, text=True,
        env=environment, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield Client(process.stdout.readline().split()[-1], key)
    finally:
        process.terminate()
        process.wait()


def measured(client: Client, rate: float, seconds: float) -> Iterator[str]:
    image = client.upload(min(DEMO.glob("*.png")), "character.png")
    video = client.upload(DEMO / "performer.mp4", "performer.mp4")
    client.ended(client.create(image, video))  # warms weights and detectors
    began = time.perf_counter()
    task = client.create(image, video)
    whole = first_steps(client, task, began)
    yield "| from submitting to | seconds |\n|---|---|"
    yield f"| a worker begins, whole job, warm | {whole['scheduled']:.2f} |"
    yield f"| the first diffusion step, whole job, warm (with finding the performer) | {whole['step']:.2f} |"
    spent = sorted(polls(client, task, rate, seconds))
    still = client.status(task)
    client.ended(task)
    began = time.perf_counter()
    again = first_steps(client, client.own(kind="generate", parent=task), began)
    yield f"| the first diffusion step, guides ready, warm | {again['step']:.2f} |\n"
    yield (
        f"{len(spent)} polls, {rate:g} a second, beside that job (it was {still} at the end of them): "
        f"median {1000 * statistics.median(spent):.1f} ms, p99 {1000 * spent[int(0.99 * len(spent))]:.1f} ms, "
        f"longest {1000 * spent[-1]:.1f} ms.\n"
    )


def memory(jobs: int) -> Iterator[str]:
    """Resident memory of API and worker, when a tenth of the dummy jobs is done and at the end."""
    from service_chaos import Chaos

    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        run = Chaos(Path(folder), 1, pause=(1e9, 1e9))
        found = run.run(jobs, 600)
    yield "| process | after a tenth, MB | at the end, MB |\n|---|---|---|"
    for name, (before, after) in sorted(run.memory.items()):
        yield f"| {name} | {before / 1e6:.1f} | {after / 1e6:.1f} |"
    yield f"\n{found.jobs} dummy jobs by HTTP in {found.seconds:.0f} s, {len(found.lost)} lost."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", help="of a service that runs")
    parser.add_argument("--key", help="of that service")
    parser.add_argument("--rate", type=float, default=50.0, help="polls a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="of polling")
    parser.add_argument("--jobs", type=int, default=500, help="dummy jobs of the part on memory; 0 leaves it out")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    lines = ["# The service's answers\n", "`python benchmarks/service.py`\n", *described(threads=1), ""]
    if args.address is not None:
        lines += measured(Client(args.address, args.key), args.rate, args.seconds)
    else:
        with tempfile.TemporaryDirectory(prefix="service-") as folder, service(Path(folder)) as client:
            lines += measured(client, args.rate, args.seconds)
        if args.jobs:
            lines += memory(args.jobs)
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out is not None:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
