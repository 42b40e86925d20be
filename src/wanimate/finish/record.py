"""The record of a job, beside its result: what was asked, what was used, what it took."""

from __future__ import annotations

import json
import platform
import resource
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from wanimate.finish.lock import manifest_path
from wanimate.media.files import AtomicFile, sha256

LIBRARIES = ("torch", "numpy", "opencv-python-headless", "av", "ai-edge-litert", "onnxruntime", "transformers")


def write_manifest(out: Path, data: Mapping[str, Any]) -> Path:
    """Write `data`, with versions, time and peak memory added, as JSON beside `out`; return its path.

    Paths, fractions ("30000/1001"), settings objects and numpy numbers are converted; NaN is refused.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    path = manifest_path(Path(out))
    record = {
        "wanimate": _installed("wanimate"),
        "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "out": Path(out).name,
        "versions": versions(),
        "peak_rss_bytes": peak_rss(),
        **data,
    }
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False, default=_plain) + "\n"
    with AtomicFile(path) as file:
        file.write(text.encode())
    return path


def versions() -> dict[str, str | None]:
    """The Python, the system and the libraries that take part in a result; None where one is not installed."""
    return {"python": platform.python_version(), "system": platform.platform(), **{n: _installed(n) for n in LIBRARIES}}


def hash_file(path: Path) -> str:
    """ "sha256:..." of a file's bytes, read in pieces."""
    return f"sha256:{sha256(path)}"


def peak_rss() -> int:
    """The most memory this process has had resident so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _plain(value: object) -> Any:
    if isinstance(value, (Path, Fraction)):
        return str(value)
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"a manifest cannot hold {type(value).__name__}")
