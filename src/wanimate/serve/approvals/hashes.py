"""The SHA-256 of the very bytes of a result that is about to leave, and copies of which nothing else gets into the way."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wanimate.errors import InputError
from wanimate.finish.lock import record_path
from wanimate.media.files import read_own_json
from wanimate.serve.storage import Storage
from wanimate.weights.fingerprint import fingerprint

PICTURES = (".png", ".exr")
_PIECE = 1 << 20


def hash_of(result: Path, field: str = "result") -> str:
    """Of a file, or of a folder's pictures on end, in hex.

    Raises:
        InputError: it is a link, or no plain file; a folder holds something beside its pictures; it cannot be read.
    """
    told = hashlib.sha256()
    for path in files_of(result, field):
        for piece in pieces_of(path, field):
            told.update(piece)
    return told.hexdigest()


def files_of(result: Path, field: str = "result") -> list[Path]:
    """The file itself, or the pictures of a sequence in their order. Raises InputError as `hash_of`."""
    if result.is_symlink():
        raise InputError(field, result, "it is a link, which can lead elsewhere at any time", "Name the file itself.")
    if not result.is_dir():
        return [result]
    found = sorted(result.iterdir())
    other = next((path for path in found if path.suffix not in PICTURES or not path.stem.isdecimal()), None)
    if other is not None or not found:
        rule = "there is nothing in it" if other is None else f"{other.name} in it is none of its pictures"
        raise InputError(field, result, rule, "Name a folder that holds a result and nothing else.")
    return found


def pieces_of(path: Path, field: str = "result") -> Iterator[bytes]:
    """The bytes of a plain file, which is opened once. Raises InputError as `hash_of`."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise InputError(field, path, "it is no plain file", "Name a video, or a folder of pictures.")
            while piece := file.read(_PIECE):
                yield piece
    except OSError as error:
        rule = "it is a link" if error.errno == errno.ELOOP else f"it cannot be read ({error.strerror})"
        raise InputError(field, path, rule, "Name a finished result.") from error


def stored_hash(storage: Storage, stored: str, pictures: bool) -> str:
    """Of a stored result. pictures: it is a zip of a folder's pictures, and the hash is theirs.

    Raises:
        NotStored, StorageAway.
    """
    told = hashlib.sha256()
    if not pictures:
        for piece in storage.read(stored):
            told.update(piece)
        return told.hexdigest()
    with tempfile.TemporaryDirectory(prefix="wanimate-approval-") as folder:
        place = Path(folder) / "pictures.zip"
        storage.fetch(stored, place)
        with zipfile.ZipFile(place) as archive:
            for name in sorted(archive.namelist()):
                with archive.open(name) as file:
                    while piece := file.read(_PIECE):
                        told.update(piece)
    return told.hexdigest()


def record_beside(result: Path, sha256: str) -> tuple[dict[str, Any], str | None]:
    """The record beside a result, and why it is not the record of these bytes; None where it is."""
    place = record_path(result)
    made = read_own_json(place)
    if not isinstance(made, dict):
        return {}, f"no record lies beside it ({place.name})"
    told = made.get("result")
    if not isinstance(told, dict) or not {"wanimate", "schema", "mode"} <= made.keys():
        return {}, f"{place.name} beside it is no record of a job"
    if made.get("out") != result.name or told.get("name") != result.name:
        return {}, f"{place.name} beside it is the record of {made.get('out')}"
    told_hash = str(told.get("sha256"))
    sampled = told_hash.startswith("sampled:") and result.is_file() and fingerprint(result) == told_hash
    if told_hash != f"sha256:{sha256}" and not sampled:
        return {}, f"{place.name} beside it tells of other bytes"
    return made, None
