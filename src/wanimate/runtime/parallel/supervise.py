"""Starting the ranks of a job, watching them, and ending them together."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from wanimate.errors import RankFailed

SUPERVISED = "WANIMATE_SUPERVISED"
LOST = 75
"""Exit code of a first rank that ends because another one is gone; the supervisor says why."""
GRACE, LONG_GRACE = 5.0, 30.0
"""Seconds that ranks have to end by themselves: after another one failed, and after the user stopped the job."""
_POLL = 0.05


def supervise(command: Sequence[str], count: int, beside: Path) -> int:
    """Run `command` as ranks 0..count-1 of one job and return the exit code of rank 0.

    Rank 0 has this process's input and output; what the others print is kept for the message in case one fails. Temporary
    files of the ranks vanish with them, also those beside the result, in the folder `beside`.

    Raises:
        RankFailed: a rank ended badly; all others have been ended. Its message names the rank and says why.
        KeyboardInterrupt: passed on where rank 0 did not end by itself when it was told of it.
    """
    with tempfile.TemporaryDirectory(prefix="wanimate-ranks-") as folder:
        place = Path(folder)
        ranks = _start(command, count, place)
        try:
            return _watch(ranks, place)
        except KeyboardInterrupt:
            with suppress(ProcessLookupError):
                ranks[0].send_signal(signal.SIGTERM)
            _wait(ranks[:1], LONG_GRACE)
            if (code := ranks[0].poll()) is None:
                raise
            return code
        finally:
            _end(ranks)
            for left in beside.glob(f".*.{ranks[0].pid}-*.part"):
                if left.is_file():
                    left.unlink(missing_ok=True)


def obey_supervisor() -> None:
    """In a rank: end with the supervisor, and leave by `RankFailed` when it says that another rank is gone."""
    if os.environ.get(SUPERVISED) is None:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    signal.signal(signal.SIGUSR1, _another_is_gone)


def _another_is_gone(*_: object) -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    raise RankFailed("another rank of the job has ended", LOST)


def _start(command: Sequence[str], count: int, place: Path) -> list[subprocess.Popen[bytes]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {
        "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), SUPERVISED: str(os.getpid()),
        "TMPDIR": str(place),
    }  # fmt: skip
    ranks: list[subprocess.Popen[bytes]] = []
    for rank in range(count):
        environment = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        if rank == 0:
            ranks.append(subprocess.Popen(command, env=environment))
            continue
        with open(_log(place, rank), "wb") as log:
            # A session of its own: Ctrl-C is for the first rank, which tidies up; the others are ended after it.
            started = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        ranks.append(started)
    return ranks


def _log(place: Path, rank: int) -> Path:
    return place / f"rank-{rank}.log"


def _watch(ranks: list[subprocess.Popen[bytes]], place: Path) -> int:
    while True:
        first, *others = (process.poll() for process in ranks)
        failed = next((i for i, code in enumerate(others, 1) if code not in (None, 0)), None)
        if failed is not None and first != 0:
            raise _failure(ranks, failed, place)
        if first is not None:
            if first < 0:
                raise RankFailed(f"rank 0 of {len(ranks)} {_ending(first)}; the job was stopped")
            if first == LOST:  # the one that is gone has not been seen yet
                _wait(ranks[1:], GRACE, until_one=True)
                gone = next((i for i, p in enumerate(ranks[1:], 1) if p.poll() not in (None, 0)), None)
                if gone is None:
                    raise RankFailed("the ranks lost each other; the job was stopped")
                raise _failure(ranks, gone, place)
            if first == 0:
                _wait(ranks[1:], LONG_GRACE)
            return first
        time.sleep(_POLL)


def _failure(ranks: list[subprocess.Popen[bytes]], failed: int, place: Path) -> Exception:
    """The error for a failed rank; where rank 0 failed by itself and has said so, that is the end of it."""
    first = ranks[0]
    if first.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            first.wait(0.5)
        if first.poll() is None:
            first.send_signal(signal.SIGUSR1)
            _wait([first], GRACE)
    if (own := first.poll()) is not None and own > 0 and own != LOST:
        return RankFailed("", own)
    code = ranks[failed].returncode
    message, exit_code = _last_words(_log(place, failed))
    why = _ending(code) if code < 0 else f"failed: {message or f'exit code {code}'}"
    return RankFailed(f"rank {failed} of {len(ranks)} {why}; the job was stopped", exit_code)


def _ending(code: int) -> str:
    return f"was killed by signal {-code} ({signal.Signals(-code).name})"


def _last_words(log: Path) -> tuple[str, int]:
    """A rank's error message and exit code, from what it printed."""
    lines = log.read_text(errors="replace").strip().splitlines()
    for line in reversed(lines):
        with suppress(ValueError, TypeError, KeyError):
            words = json.loads(line)
            return str(words["message"]), int(words["exit_code"])
    return (lines[-1] if lines else ""), 1


def _wait(ranks: list[subprocess.Popen[bytes]], seconds: float, until_one: bool = False) -> None:
    """Until all have ended (or one has), at most so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended = [process.poll() is not None for process in ranks]
        if (any if until_one else all)(ended):
            return
        time.sleep(_POLL)


def _end(ranks: list[subprocess.Popen[bytes]]) -> None:
    for process in ranks:
        if process.poll() is None:
            process.kill()
    for process in ranks:
        process.wait()
