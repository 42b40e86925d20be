"""The shot record of a guides folder: in its manifest, under `shot`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wanimate.errors import InputError
from wanimate.media.files import AtomicFile
from wanimate.preprocess.folder import MANIFEST
from wanimate.preprocess.manifest import read_manifest
from wanimate.preprocess.shot.record import ShotRecord

KEY = "shot"


def read_record(folder: Path) -> ShotRecord:
    """The record of a guides folder.

    Raises:
        InputError: it is no guides folder of ours, or it has no record.
    """
    return _record(folder, _manifest(folder))


def change_record(folder: Path, change: Callable[[ShotRecord], ShotRecord]) -> ShotRecord:
    """Change the record of a guides folder; nothing else of it changes.

    Raises:
        InputError: as `read_record`, and what `change` raises. OutputError: the manifest cannot be written.
    """
    manifest = _manifest(folder)
    record = change(_record(folder, manifest))
    manifest[KEY] = record.plain()
    with AtomicFile(folder / MANIFEST, "guides") as file:
        file.write((json.dumps(manifest, indent=1) + "\n").encode())
    return record


def told_record(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record in a manifest, for a job's record; None where there is none, or what is there is none."""
    try:
        return ShotRecord.of(manifest[KEY]).plain() if KEY in manifest else None
    except InputError:
        return None


def hash_without_record(manifest: Path) -> str:
    """SHA-256 in hex of what a manifest says besides the record, which people may change at any time.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    found = json.loads(manifest.read_bytes())
    said = {key: value for key, value in found.items() if key != KEY}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def earlier_record(folder: Path, source: dict[str, Any]) -> ShotRecord | None:
    """The record of guides that have the folder's name, if they are of the same frames of the same clip.

    Args:
        source: of the new manifest.
    """
    try:
        _, found = read_manifest(folder / MANIFEST)
        before = found.get("source")
        same = isinstance(before, dict) and all(before.get(key) == source[key] for key in ("sha256", "frames"))
        return ShotRecord.of(found[KEY]) if same and KEY in found else None
    except InputError:
        return None


def _manifest(folder: Path) -> dict[str, Any]:
    if not (folder / MANIFEST).is_file():
        rule = f"there is no {MANIFEST} in it" if folder.is_dir() else "there is no such folder"
        raise InputError("guides", folder, rule, "Give a folder made by `wanimate preprocess`, or a clip.")
    return read_manifest(folder / MANIFEST)[1]


def _record(folder: Path, manifest: dict[str, Any]) -> ShotRecord:
    if KEY not in manifest:
        rule = "its clip was not analysed: it was made by an earlier version, or the analysis was turned off"
        raise InputError("guides", folder, rule, "Run `wanimate preprocess` again.")
    return ShotRecord.of(manifest[KEY])
