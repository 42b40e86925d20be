"""The end of a job: record, sheet and result get their names, the result last."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from wanimate.finish.encode import OutputWriter
from wanimate.finish.lock import OutputLock, record_path, sheet_path
from wanimate.finish.record import record_bytes
from wanimate.media.files import AtomicFile, output_error
from wanimate.media.png import png_bytes
from wanimate.types import Frame
from wanimate.weights.fingerprint import fingerprint


def commit(
    writer: OutputWriter,
    lock: OutputLock,
    data: Mapping[str, Any],
    sheet: Frame | None,
    matte: OutputWriter | None = None,
    beside: Sequence[AtomicFile] = (),
) -> dict[str, Any]:
    """Name sheet and record of a job whose `writer` and `matte` have finished and are closed next; `data` is for the record,
    which is returned as it was written. `beside`: what holds the result's marks beside it. What held those of an older result
    and is not written again is removed.

    All are whole on the disk before the first gets its name, so a full disk changes nothing. The record holds the hashes of
    result, sheet and matte, and those of the older files that they replace: they prove what is ours, also if the job is killed
    between two names. There is never a result without its record.

    Raises:
        OutputError: the disk is full, or a name cannot be given; somebody has put a file under one of the names since the job
            began. The result is kept then, and the error tells where.
    """
    with ExitStack() as undo:
        files: list[AtomicFile] = []

        def whole(path: Path, content: bytes) -> AtomicFile:
            file = AtomicFile(path)
            undo.callback(file.discard)
            files.append(file)
            _fill(file, content)
            return file

        made = {**data, "sheet": None, "matte": None}
        if sheet is not None:
            picture = whole(sheet_path(lock.out), png_bytes(sheet))
            made["sheet"] = _proof(picture.path, fingerprint(picture.temporary), lock.older.sheet)
        if matte is not None:
            made["matte"] = _proof(matte.path, matte.hash, lock.older.matte)
        made["result"] = _proof(lock.out, writer.hash, lock.older.result)
        older = lock.older.beside
        proofs = [_proof(file.path, fingerprint(file.temporary), older.get(file.path)) for file in beside]
        gone = [path for path in older if path not in [file.path for file in beside]]
        if proofs or gone:
            made["beside"] = [*proofs, *(_proof(path, None, older[path]) for path in gone)]
        for file in beside:
            file.settle()
        content = record_bytes(lock.out, made)
        whole(record_path(lock.out), content)
        if (newcomer := lock.newcomer()) is not None:
            why = OSError(0, f"somebody has written {newcomer.name} meanwhile")
            for one in (*((matte,) if matte is not None else ()), *beside):
                one.keep(why)
            raise writer.keep(why)
        for file in reversed(files):  # the record first
            file.commit()
        for file in beside:
            file.commit()
        for path in gone:
            path.unlink(missing_ok=True)
    written: dict[str, Any] = json.loads(content)
    return written


def _proof(path: Path, made: str | None, older: str | None) -> dict[str, str | None]:
    return {"name": path.name, "sha256": made, "replaces": older}


def _fill(file: AtomicFile, content: bytes) -> None:
    try:
        file.write(content)
    except OSError as error:
        raise output_error(file.path, error) from error
    file.settle()
