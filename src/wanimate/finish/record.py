"""The record of a job, beside its result: what was asked, what was used, what it took."""

from __future__ import annotations

import os
import platform
import resource
import sys
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from pydantic import BaseModel

from wanimate.finish.lock import sheet_path
from wanimate.media.files import json_bytes
from wanimate.versions import commit, version_of
from wanimate.weights.fingerprint import fingerprint

SCHEMA = 2
"""Version of the record. It goes up when a key changes its name or meaning; new keys do not raise it."""
LIBRARIES = ("torch", "numpy", "opencv-python-headless", "av", "ai-edge-litert", "onnxruntime", "transformers")


def record_bytes(out: Path, data: Mapping[str, Any]) -> bytes:
    """`data` as the record of `out`, with schema, versions, time and peak memory added: JSON.

    Paths, fractions ("30000/1001"), settings objects and numpy numbers are converted.

    Raises:
        ValueError: NaN or infinity. TypeError: something that JSON cannot say.
    """
    record = {
        **stamp(),
        "out": Path(out).name,
        "versions": versions(),
        "peak_rss_bytes": peak_rss(),
        **data,
    }
    return json_bytes(record, 2, _plain)


def stamp() -> dict[str, Any]:
    """Form, program and time of a record. Where `data` has them, they stay: marks tell the same."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"schema": SCHEMA, "wanimate": version_of("wanimate"), "commit": commit(), "written": now}


def renamed(made: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """The record of a result that has got another name, with its sheet: the very files are proved by it as before."""
    found = {**made, "out": out.name}
    for kind, name in (("result", out.name), ("sheet", sheet_path(out).name)):
        if isinstance(made.get(kind), dict):
            found[kind] = {**made[kind], "name": name, "replaces": None}
    return found


class Hashes:
    """Fingerprints of files and folders, made by a thread of their own beside the job's work. Use as a context manager: a job
    that is broken off stops the thread within a piece of a file."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = ThreadPoolExecutor(1, "hashes")
        self._found: dict[Path, Future[dict[str, Any]]] = {}

    def add(self, paths: Iterable[Path]) -> None:
        """Have these hashed, each once."""
        for path in paths:
            if path not in self._found:
                self._found[path] = self._thread.submit(self._described, path)

    def of(self, path: Path) -> dict[str, Any]:
        """Path and hash of a file that was added, or path and hashes by name of a folder's files; waits for them."""
        return self._found[path].result()

    def by_name(self, files: Iterable[Path], folder: str) -> dict[str, str]:
        """Hashes of files that were added, by their path in `folder`, or beside it if it is a file; waits for them."""
        folder = os.path.dirname(folder) if os.path.isfile(folder) else folder
        return {os.path.relpath(file, folder): self.of(file)["sha256"] for file in files}

    def _described(self, path: Path) -> dict[str, Any]:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.is_file())
            return {"path": str(path), "files": {file.name: self._hash(file) for file in inside}}
        return {"path": str(path)} | ({"sha256": self._hash(path)} if path.is_file() else {})

    def _hash(self, file: Path) -> str:
        return fingerprint(file, self._stop.is_set)

    def __enter__(self) -> Hashes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        self._thread.shutdown(cancel_futures=True)


def versions() -> dict[str, str | None]:
    """The Python, the system and the libraries that take part in a result; None where one is not installed."""
    return {"python": platform.python_version(), "system": platform.platform(), **{n: version_of(n) for n in LIBRARIES}}


def peak_rss() -> int:
    """The most memory this process has had resident so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _plain(value: object) -> Any:
    if isinstance(value, (Path, Fraction)):
        return str(value)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"a record cannot hold {type(value).__name__}")
