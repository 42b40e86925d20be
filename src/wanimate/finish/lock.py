"""An output name, checked and held for one job from before its first work until its end."""

from __future__ import annotations

import fcntl
import glob
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

import psutil

from wanimate.config import Codec
from wanimate.errors import OutputError, setting
from wanimate.media.files import missing_folders, output_error, remove_empty

ENDINGS: dict[Codec, tuple[str, ...]] = {
    "h264": (".mp4", ".mov", ".m4v", ".mkv"),
    "h265": (".mp4", ".mov", ".m4v", ".mkv"),
    "ffv1": (".mkv",),
    "png": ("",),
}


def record_path(out: Path) -> Path:
    """Where the job's record goes: out.mp4 -> out.json, frames/ -> frames.json."""
    return out.with_name(out.stem + ".json")


def sheet_path(out: Path) -> Path:
    """Where the contact sheet goes: out.mp4 -> out.sheet.png."""
    return out.with_name(out.stem + ".sheet.png")


def work_path(out: Path) -> Path:
    """Where the job keeps its finished work (`jobs.store`): out.mp4 -> .out.mp4.work/."""
    return out.with_name(f".{out.name}.work")


class OutputLock:
    """Holds `out` against other jobs, of this process or another, until `release` or the end of the `with` block.

    The operating system drops the lock of a process that dies, so a lock file left behind stops nobody.

    Args:
        out: the final name: a video file, or the folder of a PNG sequence.
        codec: what will be written.
        inputs: files of the user's that must not be overwritten.

    Raises:
        OutputError: there is no name; the folder cannot be written; the name's ending does not suit the codec; `out` is one of
            `inputs`; a folder with files in it has the name of a PNG sequence; another job is writing `out`.
    """

    def __init__(self, out: Path, codec: Codec = "h264", inputs: Sequence[Path] = ()) -> None:
        self.out, self.codec = Path(out), codec
        if not self.out.name:
            raise OutputError("out", out, "it names no file", "Give the result a name.")
        self._path = self.out.with_name(f".{self.out.name}.lock")
        self._parents: list[Path] = []
        try:
            self._check(inputs)
            self._parents = missing_folders(self.out)
            self._lock: IO[str] | None = self._acquire()
        except OSError as e:
            remove_empty(self._parents)
            raise output_error(self.out, e) from e

    def release(self) -> None:
        """Let others write `out`. Does nothing the second time."""
        if self._lock is not None:
            self._path.unlink(missing_ok=True)
            self._lock.close()
            self._lock = None
            remove_empty(self._parents)

    def _check(self, inputs: Sequence[Path]) -> None:
        out, endings = self.out, ENDINGS[self.codec]
        if out.suffix.lower() not in endings:
            fitting = " or ".join(endings) if self.codec != "png" else "no ending, for a folder"
            raise OutputError(
                "out", out, f"codec {self.codec} needs {fitting}", f"Change the name or {setting('output.codec')}."
            )
        for other in inputs:
            if out.exists() and other.exists() and out.samefile(other):
                raise OutputError("out", out, "this is an input of the job", "Give the result another name.")
        if self.codec == "png" and out.is_dir() and any(out.iterdir()):
            raise OutputError("out", out, "the folder is not empty", "Name a new folder for the PNG sequence.")
        if self.codec != "png" and out.is_dir():
            raise OutputError("out", out, "this is a folder", "Name a file.")
        record = record_path(out)
        if record.exists() and not _is_record(record):
            raise OutputError("out", out, f"{record.name} beside it is not ours to replace", "Choose another name.")

    def _acquire(self) -> IO[str]:
        self.out.parent.mkdir(parents=True, exist_ok=True)
        while True:
            lock = open(self._path, "a+")  # noqa: SIM115 - closed by release
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as e:
                lock.seek(0)
                holder = lock.read().strip()
                lock.close()
                rule = f"another job{f' (process {holder})' if holder else ''} is writing it"
                raise OutputError("out", self.out, rule, "Wait for it, or choose another name.") from e
            # The former holder may have removed the file between our open and our lock.
            if _is_at(lock, self._path):
                lock.truncate(0)
                lock.write(f"{os.getpid()}\n")
                lock.flush()
                remove_leftovers(self.out)
                return lock
            lock.close()

    def __enter__(self) -> OutputLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.release()


def remove_leftovers(out: Path) -> list[Path]:
    """Remove what dead processes have left of `out`: temporary files and folders beside it, `.NAME.PID-xxxxxx.part`. The caller
    holds the lock, so that no living job writes it. Returns what was removed."""
    removed = []
    for path in out.parent.glob(f".{glob.escape(out.name)}.*.part"):
        found = re.fullmatch(r"(\d+)-[0-9a-f]{6}", path.name.removeprefix(f".{out.name}.").removesuffix(".part"))
        if found is None or psutil.pid_exists(int(found[1])):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        removed.append(path)
    return removed


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _is_record(path: Path) -> bool:
    try:
        return "wanimate" in json.loads(path.read_text())
    except (OSError, ValueError, TypeError):
        return False
