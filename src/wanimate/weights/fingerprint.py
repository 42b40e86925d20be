"""What tells one file of weights from another, for the record of a job.

A file of up to `WHOLE` bytes: "sha256:" and the hash of all its bytes. A larger one, whose hash would take minutes:
"sampled:" and the SHA-256 of its size, its first `HEAD` bytes (the header of a .safetensors file lies there), `SAMPLES` blocks
of `BLOCK` bytes at equal distances, and its last block. Another training of the same network changes every block.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from wanimate.media.files import sha256

WHOLE = 2**30
HEAD = 2**22
BLOCK = 2**16
SAMPLES = 64


class Stopped(Exception):
    """The caller has no more use for the hash."""


def fingerprint(path: Path, stopped: Callable[[], bool] = lambda: False) -> str:
    """As the head of this module says.

    Raises:
        OSError: the file cannot be read.
        Stopped: `stopped` said so; it is asked before every piece.
    """
    size = path.stat().st_size
    return file_hash(path, stopped) if size <= WHOLE else _sampled(path, size, stopped)


def file_hash(path: Path, stopped: Callable[[], bool] = lambda: False) -> str:
    """ "sha256:..." of all bytes of a file; raises as `fingerprint`."""
    return f"sha256:{sha256(path, before_piece=lambda: _check(stopped))}"


def _check(stopped: Callable[[], bool]) -> None:
    if stopped():
        raise Stopped


def _sampled(path: Path, size: int, stopped: Callable[[], bool]) -> str:
    digest = hashlib.sha256(str(size).encode())
    places = [HEAD + i * (size - HEAD - BLOCK) // SAMPLES for i in range(SAMPLES)] + [size - BLOCK]
    with path.open("rb") as file:
        digest.update(file.read(HEAD))
        for place in places:
            _check(stopped)
            file.seek(place, os.SEEK_SET)
            digest.update(file.read(BLOCK))
    return f"sampled:{digest.hexdigest()}"
