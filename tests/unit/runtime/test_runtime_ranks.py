"""Ranks meet among themselves, take nothing from strangers, and end with the process that started them."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from wanimate.config import LoraUse, ParallelSettings, RuntimeSettings
from wanimate.runtime.parallel.ranks import pack, unpack
from wanimate.sampling.cache import Caching
from wanimate.types import Conditions

START = """
from wanimate.runtime.parallel.workers import Workers
workers = Workers(3)
print(*workers.pids, flush=True)
input()
"""
LISTEN = """
import psutil
from wanimate.runtime.parallel.workers import Workers
from wanimate.runtime.parallel.ranks import join
workers = Workers(2)
ranks = join(workers.meeting, 0, 2)
for process in (psutil.Process(), *map(psutil.Process, workers.pids)):
    for found in process.net_connections("tcp"):
        if found.status == psutil.CONN_LISTEN:
            print(found.laddr.ip)
workers.end()
"""


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | more


@pytest.mark.parametrize("delay", [0.0, 0.03, 0.3])
def test_ranks_end_with_a_process_that_is_killed_while_they_start(delay: float) -> None:
    line = [sys.executable, "-c", START]
    first = subprocess.Popen(line, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, env=environment())
    assert first.stdout is not None
    ranks = [psutil.Process(int(pid)) for pid in first.stdout.readline().split()]
    assert len(ranks) == 2
    time.sleep(delay)
    first.send_signal(signal.SIGKILL)
    first.wait()
    _, alive = psutil.wait_procs(ranks, timeout=5)
    assert alive == []


def test_ranks_import_nothing_before_they_are_bound_to_their_parent(tmp_path: Path) -> None:
    """A rank whose parent is gone ends where no module of the package can be read."""
    worker = Path(unpack.__code__.co_filename).with_name("worker.py")
    late = f"import sys, runpy; sys.modules['wanimate'] = None; runpy.run_path({str(worker)!r}, run_name='__main__')"
    line = [sys.executable, "-c", late]
    done = subprocess.run(line, env=environment(WANIMATE_PARENT="1"), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_ranks_listen_on_the_loopback_address_only() -> None:
    strange = environment(GLOO_SOCKET_IFNAME="eth0", NCCL_SOCKET_IFNAME="eth0")
    done = subprocess.run([sys.executable, "-c", LISTEN], env=strange, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    addresses = set(done.stdout.split())
    assert addresses
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_every_call_between_ranks_comes_through() -> None:
    tensor = torch.rand(2, 3)
    conditions = Conditions(torch.rand(20, 2, 1, 1), torch.rand(16, 1, 1, 1), tensor, tensor, None, None)
    uses = (LoraUse(path=Path("a.safetensors"), strength=0.5, start=0.25),)
    calls: list[Any] = [
        ("load", (Path("folder"), ParallelSettings(gpus=2), RuntimeSettings(speed="fast"), None)),
        ("use_loras", (uses, False, True)),
        ("prepare", ((0, 1), conditions, 2.5, Caching("taylor", 0.1, 20))),
        ("flow", (tensor, torch.tensor(0.5))),
        [((2, 3), torch.float32, "cpu"), ((), torch.bfloat16, "cuda")],
    ]
    for call in calls:
        packed, tensors = pack(call)
        assert str(unpack(packed, tensors)) == str(call)


class _Evil:
    def __init__(self, target: Any, *args: Any) -> None:
        self._made = target, args

    def __reduce__(self) -> Any:
        return self._made


@pytest.mark.parametrize(
    "target", [os.system, eval, getattr, torch.load, subprocess.Popen], ids=lambda one: one.__name__
)
def test_nothing_of_a_stranger_runs(target: Any, tmp_path: Path) -> None:
    packed = pickle.dumps(("load", _Evil(target, f"touch {tmp_path / 'ran'}")))
    with pytest.raises(pickle.UnpicklingError, match="is no value of a call between ranks"):
        unpack(packed)
    assert not list(tmp_path.iterdir())
