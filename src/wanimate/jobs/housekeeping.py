"""What jobs have left in folders: finished work that a job goes on from, and what dead processes had not finished."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wanimate.errors import InputError, OutputError
from wanimate.jobs.store import finished_segments, read_store
from wanimate.media.lock import NameLock
from wanimate.media.names import is_real_folder, leftovers, remove, remove_folder

DEPTH = 3
"""How many folders deep is looked."""
_PREFIX, _ENDING = ".", ".work"


@dataclass(frozen=True)
class Left:
    """Something a job has left. `of`: its result; `running`: its process lives, or lives on another machine as far as can be
    known here; `finished`: its result was written and the segments are kept; `age`: seconds since it was changed."""

    kind: Literal["work", "temporary", "lock"]
    path: Path
    of: Path
    running: bool
    age: float
    bytes: int
    segments: int = 0
    total: int = 0
    finished: bool = False


def find(folders: Iterable[Path]) -> list[Left]:
    """Everything that jobs have left in `folders` and up to `DEPTH` folders below them; links are not followed.

    Raises:
        InputError: one of them is no folder.
    """
    found: list[Left] = []
    for folder in folders:
        if not folder.is_dir():
            raise InputError("folder", folder, "there is no such folder", "Give the folder of the results.")
        for place in _below(folder, DEPTH):
            with suppress(OSError):  # a folder that may not be read
                found += _in(place)
    return found


def clean(folders: Iterable[Path]) -> list[Left]:
    """Remove what dead processes have left, work that a job could go on from included; returns what was removed. What belongs
    to a job that runs stays.

    Raises:
        InputError: as `find`.
    """
    removed = []
    for left in find(folders):
        if left.running:
            continue
        try:
            with NameLock(left.of):  # nobody begins meanwhile
                if left.kind == "work":
                    remove_folder(left.path, left.of)
                else:
                    remove(left.path)
        except OutputError:
            continue
        if not os.path.lexists(left.path):
            removed.append(left)
    return removed


def _below(folder: Path, depth: int) -> Iterator[Path]:
    yield folder
    if depth == 0:
        return
    with suppress(OSError):
        for inner in sorted(folder.iterdir()):
            if is_real_folder(inner) and not inner.name.startswith("."):
                yield from _below(inner, depth - 1)


def _in(folder: Path) -> Iterator[Left]:
    for path in sorted(folder.glob(f"{_PREFIX}*{_ENDING}")):
        store = read_store(path)
        if store is None or path.name != f"{_PREFIX}{store.out}{_ENDING}":
            continue
        job = store.job
        segments, total = finished_segments(path), 0 if job is None else job.segments
        finished = job is not None and job.finished
        of = folder / store.out
        yield Left("work", path, of, store.owner.alive, _age(path), _bytes(path), segments, total, finished)
    for left in leftovers(folder):
        kind: Literal["temporary", "lock"] = "lock" if left.path.suffix == ".lock" else "temporary"
        yield Left(kind, left.path, folder / left.of, left.alive, _age(left.path), _bytes(left.path))


def _age(path: Path) -> float:
    newest = max((found.st_mtime for found in _states([path, *path.glob("*")])), default=0.0)
    return max(0.0, time.time() - newest)


def _bytes(path: Path) -> int:
    files = path.rglob("*") if is_real_folder(path) else [path]
    return sum(found.st_size for found in _states(files))


def _states(files: Iterable[Path]) -> Iterator[os.stat_result]:
    """Of files that are there; those of a running job can go at any moment."""
    for file in files:
        with suppress(OSError):
            yield file.lstat()
