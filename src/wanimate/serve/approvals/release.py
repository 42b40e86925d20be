"""A result leaves quarantine: it gets the name that it leaves the house by, with the bytes that were approved."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wanimate.approval.leaving import Gate, Leaving, Passed
from wanimate.errors import InputError, OutputError
from wanimate.finish.lock import record_path, sheet_path
from wanimate.finish.record import renamed
from wanimate.media.files import AtomicFile, json_bytes, output_error
from wanimate.media.lock import NameLock
from wanimate.media.names import remove, temporary_name
from wanimate.media.places import check_apart_from, check_names
from wanimate.provenance.forms import manifest_beside, xmp_beside
from wanimate.serve.approvals.hashes import files_of, hash_of, pieces_of, record_beside


def release(gate: Gate, result: Path, out: Path, keep: bool = False) -> list[Path]:
    """Give a result its release name, if the gate lets it leave.

    The bytes are hashed again while they are copied. Nothing is written over. The result gets its name last, after its record
    and what else lies beside it; then the quarantined files go.

    Args:
        keep: the quarantined files stay.

    Returns:
        What was written.

    Raises:
        InputError: it may not leave, or was changed meanwhile. OutputError: a name is taken or cannot be written.
    """
    found = hash_of(result, "file")
    leaving = Leaving(found, "release", str(out.absolute()))
    passed = gate.check(result, leaving)
    names = _names(result, out)
    if result.suffix != out.suffix:
        rule = f"{result.name} ends otherwise, and a release changes no bytes"
        raise OutputError("out", out, rule, "Give a name with the same ending.")
    check_names("out", out, (*names.values(), record_path(out)))
    check_apart_from("out", (*names.values(), record_path(out)), (*names, record_path(result)))
    with NameLock(out), NameLock(record_path(out)), ExitStack() as undo:
        for name in (*names.values(), record_path(out)):
            _check_free(name)
        made, why = record_beside(result, found)
        gate.left(leaving, passed)
        ready = [(_copied(source, target, undo), target) for source, target in names.items() if source != result]
        ready.append((_copied(result, out, undo, found), out))
        if why is None:
            record = AtomicFile(record_path(out))
            undo.callback(record.discard)
            record.write(json_bytes(_released(made, result, out, passed), 2))
            record.settle()
            ready.insert(0, (record.temporary, record.path))
        for temporary, target in ready:
            _named(temporary, target)
    if not keep:
        for path in (*names, *([record_path(result)] if why is None else [])):
            remove(path)
    return [target for _, target in ready]


def _names(result: Path, out: Path) -> dict[Path, Path]:
    """What gets a new name with the result: sheet, sidecars, and the result itself as the last."""
    beside = {sheet_path(result): sheet_path(out)}
    if not result.is_dir():
        beside |= {xmp_beside(result): xmp_beside(out), manifest_beside(result): manifest_beside(out)}
    return {source: target for source, target in beside.items() if source.is_file()} | {result: out}


def _check_free(name: Path) -> None:
    if os.path.lexists(name):
        rule = f"{name.name} is there, and a release writes over nothing"
        raise OutputError("out", name, rule, "Give another name.")


def _copied(source: Path, target: Path, undo: ExitStack, sha256: str | None = None) -> Path:
    """A copy under a temporary name. `sha256`: what its bytes have to be."""
    told = hashlib.sha256()
    pictures = files_of(source, "file")
    temporary = temporary_name(target)
    undo.callback(remove, temporary)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            temporary.mkdir()
        for picture in pictures:
            _write(temporary / picture.name if source.is_dir() else temporary, _heard(picture, told))
    except OSError as error:
        raise output_error(target, error) from error
    if sha256 is not None and told.hexdigest() != sha256:
        rule = "it was changed while it was copied"
        raise InputError("file", source, rule, "Release it again when nobody writes to it.")
    return temporary


def _heard(path: Path, told: Any) -> Iterator[bytes]:
    for piece in pieces_of(path, "file"):
        told.update(piece)
        yield piece


def _write(path: Path, pieces: Iterator[bytes]) -> None:
    with open(path, "xb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def _named(temporary: Path, target: Path) -> None:
    """Give a finished file or folder its name, unless somebody has taken it meanwhile."""
    try:
        if temporary.is_dir():
            _check_free(target)
            temporary.rename(target)
            return
        try:
            os.link(temporary, target)  # other than a rename, it never writes over
        except FileExistsError:
            _check_free(target)
            raise
        except OSError:  # a file system without links
            _check_free(target)
            shutil.move(temporary, target)
    except OSError as error:
        raise output_error(target, error) from error


def _released(made: dict[str, Any], result: Path, out: Path, passed: Passed) -> dict[str, Any]:
    """The record of a result under its release name."""
    told = {"from": result.name, "at": datetime.now(UTC).isoformat(timespec="seconds"), "decisions": passed.decisions}
    return {**renamed(made, out), "released": told}
