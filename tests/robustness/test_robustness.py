"""Damaged and hostile files: a result or one sentence with exit code 2 comes of each, soon, in bounded memory.

A case is a kind of file and a seed. `pytest "tests/robustness/test_robustness.py::test_a_damaged_file[guides-17]"` repeats one.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

CASES = {
    "media": 240,
    "pictures": 200,
    "guides": 150,
    "weights": 120,
    "quantised": 80,
    "folders": 40,
    "loras": 90,
    "detectors": 60,
    "training": 60,
}
QUICK = {"media": 6, "pictures": 6, "guides": 6, "weights": 5, "quantised": 4, "folders": 2, "loras": 6, "training": 5}
PATIENCE = 60.0
"""Seconds for a case; most take a hundredth of one."""


class Worker:
    """A process that runs cases; a new one where the last one died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(self, kind: str, seed: int) -> dict[str, str]:
        process = self._process
        if process is None or process.poll() is not None:
            command = [sys.executable, str(Path(__file__).with_name("worker.py"))]
            self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - a pipe would fill up
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True, bufsize=1
            )
            self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{kind} {seed}\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], PATIENCE)[0]:
            self.close()
            return {"fault": f"no answer within {PATIENCE:g} s"}
        line = process.stdout.readline()
        if not line:
            process.communicate()
            self._said.seek(0)
            return {"fault": f"the process died ({process.returncode})", "where": self._said.read()[-3000:]}
        found: dict[str, str] = json.loads(line)
        return found

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("kind", "seed"),
    [
        pytest.param(kind, seed, id=f"{kind}-{seed}", marks=() if seed < QUICK.get(kind, 0) else pytest.mark.slow)
        for kind, count in CASES.items()
        for seed in range(count)
    ],
)
def test_a_damaged_file(worker: Worker, kind: str, seed: int) -> None:
    found = worker.run(kind, seed)
    assert "fault" not in found, f"{found.get('file')}: {found['fault']}\n{found.get('where', '')}"
