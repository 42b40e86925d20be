"""What is made once for a machine and kept between processes, in `compiled` of the user's cache: machine code, measurements,
sizes that are found by running networks without values.

An entry is one file named by its key. It holds a hash of its content: what is half-written, damaged or of another form is made
again. Two processes that make the same entry at once both make it, and the last one's stays. What cannot be kept is made anew
by every process.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch

from wanimate.errors import OutputError
from wanimate.log import LOG
from wanimate.media.files import AtomicFile, cache_folder, sha256
from wanimate.runtime.compilers import compiled_folder
from wanimate.versions import version_of

Kind = Literal["cuda", "measured", "planned"]
"""Folders: machine code of the project's CUDA kernels; what a device does in a second; what networks take."""
DAYS = 30
"""A measurement is older than that: it is made again."""
_HASH = 32


def kept_bytes(
    kind: Kind, key: object, make: Callable[[], bytes], lasts: Callable[[bytes], bool] = lambda _: True
) -> bytes:
    """What was made for `key` before, else what `make` gives now. `key`: all that it depends on, as JSON can hold it. `lasts`:
    whether what was made is worth keeping."""
    file = compiled_folder(kind) / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:40]
    found = _read(file, kind)
    if found is not None:
        return found
    made = make()
    if lasts(made):
        try:
            with AtomicFile(file) as out:
                out.write(hashlib.sha256(made).digest() + made)
        except (OutputError, OSError) as error:
            LOG.warning("%s cannot be kept (%s)", file, error)
    return made


def kept_json(kind: Kind, key: object, make: Callable[[], Any], lasts: Callable[[Any], bool] = lambda _: True) -> Any:
    """The same of a value that JSON can hold."""
    made = kept_bytes(kind, key, lambda: json.dumps(make()).encode(), lambda data: lasts(json.loads(data)))
    return json.loads(made)


def _read(file: Path, kind: Kind) -> bytes | None:
    try:
        data = file.read_bytes()
        old = kind == "measured" and not 0 <= time.time() - file.stat().st_mtime < DAYS * 86400
    except OSError:
        return None
    whole = hashlib.sha256(data[_HASH:]).digest() == data[:_HASH]
    return data[_HASH:] if whole and not old else None


def kept_here() -> tuple[Path, int, int]:
    """The folder of all that is compiled or kept, what compilers keep for themselves included; its files and their bytes."""
    folder = cache_folder() / "compiled"
    sizes = []
    for file in folder.rglob("*"):
        with suppress(OSError):  # another process makes and removes files meanwhile
            if file.is_file():
                sizes.append(file.stat().st_size)
    return folder, len(sizes), sum(sizes)


@cache
def source_hash(files: tuple[Path, ...]) -> str:
    """Of these source files' contents, in this order."""
    return sha256(*files)


def _driver_version() -> int:
    version = ctypes.c_int()
    try:
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except OSError:  # a GPU of another make
        return 0
    return version.value


def device_key(device: torch.device) -> list[object]:
    """What tells GPUs apart, and what runs on them: model, memory, capability, driver, versions of PyTorch, CUDA and Triton."""
    found = torch.cuda.get_device_properties(device)
    driver = _driver_version()
    runs = (torch.__version__, torch.version.cuda, driver, version_of("triton"))
    return [found.name, found.total_memory, found.major, found.minor, found.multi_processor_count, *runs]
