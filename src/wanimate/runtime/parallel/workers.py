"""The processes of the other ranks: starting them, watching them, ending them together. This process is rank 0.

    started -> joined (they meet in a file of a private folder) -> following calls, job after job -> ended

A rank never outlives this process: it gets the parent-death signal, and the end of its standard input ends it, too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from wanimate.errors import RankFailed

GRACE = 10.0
"""Seconds in which an end of a rank is noticed, or a rank ends by itself."""
_POLL = 0.02
_COMMAND = ("-P", str(Path(__file__).with_name("worker.py")))
"""By its file: nothing of the package is imported before the parent-death signal is set."""


class Workers:
    """Ranks 1 to count-1 as processes of this machine. What they print is kept for the message in case one fails.

    `meeting`: the file where all ranks find each other.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._folder = tempfile.TemporaryDirectory(prefix="wanimate-ranks-")
        self.meeting = Path(self._folder.name) / "meeting"
        self._ranks: list[subprocess.Popen[bytes]] = []
        self._failure: RankFailed | None = None
        self._ending = threading.Event()
        self._started = threading.Event()
        self._failed = threading.Event()
        self._wrong: list[OSError] = []
        # The parent-death signal comes when the thread that started a process ends: this one lives as long as the ranks do.
        self._watcher = threading.Thread(target=self._watch, name="wanimate-ranks", daemon=True)
        self._watcher.start()
        self._started.wait()
        if self._wrong:
            self.end()
            raise self._wrong[0]

    @property
    def pids(self) -> list[int]:
        return [rank.pid for rank in self._ranks]

    @property
    def known_failure(self) -> RankFailed | None:
        """Why a rank has ended before its time; None as long as all are there."""
        return self._failure

    def failure(self, seconds: float = GRACE) -> RankFailed:
        """Why the ranks lost each other, known within so many seconds."""
        self._failed.wait(seconds)
        return self._failure or RankFailed("the ranks lost each other; the job was stopped")

    def end(self, kindly: bool = False) -> None:
        """End the ranks; `kindly`: they have been told to stop and get some time for it."""
        if kindly:
            stop = time.monotonic() + GRACE
            while time.monotonic() < stop and any(rank.poll() is None for rank in self._ranks):
                time.sleep(_POLL)
        self._ending.set()
        self._watcher.join()
        self._folder.cleanup()

    def _watch(self) -> None:
        try:
            for rank in range(1, self.count):
                self._ranks.append(self._start(rank))
        except OSError as error:
            self._wrong.append(error)
        self._started.set()
        try:
            while not self._wrong and not self._ending.wait(_POLL):
                gone = next((i for i, rank in enumerate(self._ranks, 1) if rank.poll() not in (None, 0)), None)
                if gone is not None and self._failure is None:
                    self._failure = self._why(gone)
                    self._failed.set()
                    _unblock()
        finally:
            for process in self._ranks:
                if process.poll() is None:
                    process.kill()
            for process in self._ranks:
                process.wait()
                assert process.stdin is not None
                with suppress(OSError):
                    process.stdin.close()

    def _start(self, rank: int) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WANIMATE_RANKS": str(self.count),
            "WANIMATE_MEETING": str(self.meeting), "WANIMATE_PARENT": str(os.getpid()),
        }  # fmt: skip
        with open(self._log(rank), "wb") as log:
            # A session of its own: Ctrl-C is for rank 0, which ends the others.
            return subprocess.Popen(
                [sys.executable, *_COMMAND], env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def _log(self, rank: int) -> Path:
        return Path(self._folder.name) / f"rank-{rank}.log"

    def _why(self, rank: int) -> RankFailed:
        code = self._ranks[rank - 1].returncode
        if code < 0:
            why, exit_code = f"was killed by signal {-code} ({signal.Signals(-code).name})", 1
        else:
            message, exit_code = _last_words(self._log(rank))
            why = f"failed: {message or f'exit code {code}'}"
        return RankFailed(f"rank {rank} of {self.count} {why}; the job was stopped", exit_code)


def _unblock() -> None:
    """Where this rank waits for one that is gone, let the waiting end with an error. NCCL waits on the GPU, and gloo misses
    some of the connections that close."""
    import torch

    if torch.distributed.is_initialized():
        with suppress(RuntimeError, ValueError):
            torch.distributed.distributed_c10d._abort_process_group()


def _last_words(log: Path) -> tuple[str, int]:
    """A rank's error message and exit code, from what it printed."""
    lines = log.read_text(errors="replace").strip().splitlines()
    for line in reversed(lines):
        with suppress(ValueError, TypeError, KeyError):
            words = json.loads(line)
            return str(words["message"]), int(words["exit_code"])
    return (lines[-1] if lines else ""), 1
