"""A hand-off that is killed in the middle goes on where it was; bytes arrive once and as they are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from parcels import noise
from standin import serving
from standin_descript import DescriptStandIn
from standin_frameio import FrameIoStandIn
from test_handoff_descript import film

from wanimate.handoff.remote.tokens import DESCRIPT_TOKEN, FRAMEIO_TOKEN

HERE = Path(__file__).parent


def begun(home: Path, url: str, service: str, token: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, FRAMEIO_TOKEN: token, DESCRIPT_TOKEN: token, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, str(HERE / "send_process.py"), str(home), url, service]
    return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def killed(process: subprocess.Popen[bytes], when: Callable[[], bool]) -> None:
    """Kill it as soon as something is so."""
    ends = time.monotonic() + 60
    while not when():
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < ends
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.communicate()


def test_frameio_goes_on_at_the_next_part(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    data = noise(40_500)
    (tmp_path / "package/hero.mp4").write_bytes(data)
    (tmp_path / "package/hero.json").write_bytes(b"{}")
    standin = FrameIoStandIn(time.time)
    with serving(standin) as url:
        for stop in (0, 25):  # in the first file, and in the parts of the second
            standin.hold = lambda stop=stop: len(standin.puts) == stop  # type: ignore[misc]
            killed(begun(tmp_path, url, "frameio", standin.token), standin.held.is_set)
            standin.hold = lambda: False
            standin.go.set()
            standin.held.clear()
            standin.go.clear()
        assert begun(tmp_path, url, "frameio", standin.token).wait(60) == 0
    assert standin.violations == []
    (review,), (record,) = standin.files("hero.mp4"), standin.files("hero.json")
    assert (standin.bytes_of(review), standin.bytes_of(record)) == (data, b"{}")
    again = len(standin.puts) - len(set(standin.puts))
    assert again <= 2, "a kill costs the part that was on its way"
    assert len(standin.puts) == 42 + again


def test_descript_goes_on_with_the_same_job(tmp_path: Path) -> None:
    data = film(tmp_path / "package/hero.mp4", "libx264", "yuv420p")
    standin = DescriptStandIn(time.time)
    standin.seconds, standin.calls, standin.hold = 1e9, 100, lambda: True
    with serving(standin) as url:
        killed(begun(tmp_path, url, "descript", standin.token), standin.held.is_set)
        standin.faults = 1e-9  # the address takes the bytes once more
        standin.hold = lambda: False
        standin.go.set()
        killed(
            begun(tmp_path, url, "descript", standin.token), lambda: any("GET /v1/jobs" in one for one in standin.asked)
        )
        standin.seconds = 0.0
        puts = sum("PUT /upload/" in line for line in standin.asked)
        assert begun(tmp_path, url, "descript", standin.token).wait(60) == 0
        assert sum("PUT /upload/" in line for line in standin.asked) == puts
    assert (len(standin.jobs), standin.violations) == (1, [])
    (project,) = standin.projects.values()
    assert project.media == {"hero.mp4": data}
