"""Temporary names, who owns what lies under them, and what dead processes have left."""

from __future__ import annotations

import ctypes
import glob
import hashlib
import os
import re
import secrets
import shutil
import socket
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from wanimate.media.json_file import open_plain

PART, OLD = "part", "old"
_TEMPORARY = re.compile(r"\.(?P<of>.+)\.(?P<pid>\d{1,10})-(?P<host>[0-9a-f]{4})?[0-9a-f]{6}\.(part|old)", re.DOTALL)
_LOCK = re.compile(r"\.(?P<of>.+)\.lock", re.DOTALL)
_HELD = re.compile(rb"wanimate (\d{1,10}) (\d{1,12}) (\S+)\n")
_HERE, _EXCHANGE = -100, 2
"""Of renameat2: paths from the working folder; two names change places."""
_SAME_START = 2
"""Seconds by which two readings of the start of one process can differ."""


@dataclass(frozen=True)
class Leftover:
    """Something temporary of this program. `of`: the name that it is for. `pid`: the process that made it; `alive`: that
    process runs, or runs on another machine, where nobody here can know."""

    path: Path
    of: str
    pid: int
    alive: bool


@dataclass(frozen=True)
class Owner:
    """A process as a lock file names it: its number, its start in seconds since 1970, and its machine."""

    pid: int
    start: int
    host: str

    @classmethod
    def this(cls) -> Owner:
        return cls(os.getpid(), int(psutil.Process().create_time()), socket.gethostname() or "localhost")

    @classmethod
    def read(cls, text: bytes) -> Owner | None:
        """From the content of a lock file; None where another program wrote it."""
        found = _HELD.fullmatch(text)
        return None if found is None else cls(int(found[1]), int(found[2]), os.fsdecode(found[3]))

    def written(self) -> bytes:
        return f"wanimate {self.pid} {self.start} {self.host}\n".encode("utf-8", "surrogateescape")

    @property
    def alive(self) -> bool:
        """Whether it runs; a process of another machine does, as far as can be known here."""
        if self.host != Owner.this().host:
            return True
        try:
            return abs(psutil.Process(self.pid).create_time() - self.start) <= _SAME_START
        except psutil.NoSuchProcess:
            return False


@cache
def _machine() -> str:
    """Four digits that tell this machine from others that share a folder with it."""
    return hashlib.sha256(socket.gethostname().encode("utf-8", "surrogateescape")).hexdigest()[:4]


def temporary_name(path: Path, ending: str = PART) -> Path:
    """A new hidden name beside `path`: `.NAME.PID-xxxxxxxxxx.part`. The first four digits are the machine's."""
    return path.with_name(f".{path.name}.{os.getpid()}-{_machine()}{secrets.token_hex(3)}.{ending}")


def lock_name(path: Path) -> Path:
    """Where the lock of `path` lies."""
    return path.with_name(f".{path.name}.lock")


def owner_pid(path: Path) -> int | None:
    """The process that made a temporary name; None for any other name."""
    found = _TEMPORARY.fullmatch(path.name)
    return None if found is None else int(found["pid"])


def leftovers(folder: Path) -> list[Leftover]:
    """Every temporary file and folder of this program in `folder`, and every lock, by name. Nothing below it is looked at."""
    found = (_leftover(path) for path in sorted(folder.iterdir()))
    return [one for one in found if one is not None]


def remove_leftovers(out: Path) -> list[Path]:
    """Remove what dead processes of this machine have left of `out`: temporary files and folders beside it. An older folder
    that a process has put aside and could not replace gets its name back.

    The caller holds the lock, so that no living job writes it. Returns what was removed.
    """
    removed = []
    for path in sorted(out.parent.glob(f".{glob.escape(out.name)}.*")):
        left = _leftover(path)
        if left is None or left.of != out.name or left.alive or path.suffix == ".lock":
            continue
        if path.suffix == f".{OLD}" and not os.path.lexists(out):
            path.rename(out)
        else:
            remove(path)
            removed.append(path)
    return removed


def is_real_folder(path: Path) -> bool:
    """Whether it is a folder, and no link to one."""
    return path.is_dir() and not path.is_symlink()


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all in it, as far as that is allowed."""
    if is_real_folder(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def remove_folder(folder: Path, of: Path) -> None:
    """Remove a folder of the name `of` with all in it. Its own name is free at once: who is killed meanwhile leaves nothing
    under it that is neither whole nor gone, but a leftover of `of`."""
    aside = temporary_name(of)
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return
    except OSError:
        aside = folder
    remove(aside)


def exchanged(new: Path, place: Path) -> Path:
    """Give `new` the name `place`; returns where the older folder is. With Linux's exchange the name is never free; elsewhere
    `remove_leftovers` gives it back to the older folder if this process is killed between two renames."""
    swap = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if swap is not None and swap(_HERE, os.fsencode(new), _HERE, os.fsencode(place), _EXCHANGE) == 0:
        return new
    old = temporary_name(place, OLD)
    os.rename(place, old)
    try:
        os.rename(new, place)
    except OSError:
        os.rename(old, place)
        raise
    return old


def _leftover(path: Path) -> Leftover | None:
    if found := _TEMPORARY.fullmatch(path.name):
        pid = int(found["pid"])
        elsewhere = found["host"] not in (None, _machine())
        return Leftover(path, found["of"], pid, elsewhere or psutil.pid_exists(pid))
    if found := _LOCK.fullmatch(path.name):
        owner = lock_owner(path)
        return None if owner is None else Leftover(path, found["of"], owner.pid, owner.alive)
    return None


def lock_owner(path: Path) -> Owner | None:
    """Who wrote a lock file; None where it is gone, or no lock file of this program."""
    try:
        with os.fdopen(open_plain(path, links=False), "rb") as file:
            return Owner.read(file.read(1024))
    except (OSError, ValueError):
        return None
