"""The result that is handed off: a finished file with its record, and what both tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

from wanimate.config.values import parse_rate
from wanimate.errors import Fault, InputError
from wanimate.finish.labels import first_label
from wanimate.finish.lock import record_path
from wanimate.media.files import read_own_json, sha256
from wanimate.media.master import Master, open_master
from wanimate.review.markers import Count
from wanimate.weights.fingerprint import fingerprint

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_CHANGED = ("upscale", "fps_out", "watermark", "burn_in", "slate")
"""Settings of a finished file by which its frames are other ones than its master's."""
_CHAIN = 16
"""So many masters of masters are followed."""


@dataclass(frozen=True)
class Told:
    """A file and what the record beside it says."""

    path: Path
    record: Mapping[str, Any]

    @property
    def output(self) -> Mapping[str, Any]:
        """The settings that the file was written with."""
        return _mapping(self.record.get("output"))


@dataclass(frozen=True)
class Source:
    """A result that is proved to be what its record tells of.

    history: the result, then the master that it was finished from, and so on back to the job that made the frames, as far as
    hashes prove it. output_sha256: of the result's bytes. master: the result, opened. best: what a mezzanine is made of: the
    result, or its master where finishing changed nothing but the codec. matte: where there is one. count: how frames are
    counted. reel: of the result.
    """

    history: tuple[Told, ...]
    output_sha256: str
    master: Master
    best: Master
    matte: Path | None
    count: Count
    reel: str

    @property
    def path(self) -> Path:
        return self.history[0].path

    @property
    def record(self) -> Mapping[str, Any]:
        """Of the result."""
        return self.history[0].record

    @property
    def mode(self) -> str | None:
        """Of the job that made the frames; None where no record tells."""
        return mode_of(self.history)

    @property
    def slate(self) -> int:
        """Frames before the picture."""
        return int(bool(self.record.get("slate")))

    def check_unchanged(self) -> None:
        """Raises InputError: a file that copies are made of is another one than it was."""
        whole = _SHA256.fullmatch(str(_mapping(self.record.get("result")).get("sha256"))) is not None
        same = whole or bytes_hash(self.path, self.master) == self.output_sha256
        if not same or not all(_proved(told.path, told.record) for told in self.history):
            rule = "the file has changed while it was handed off"
            raise InputError("result", self.path, rule, "Hand it off again.")
        if self.matte is not None and not _same(self.matte, _mapping(self.record.get("matte")).get("sha256")):
            raise InputError(
                "result", self.matte, "its matte has changed while it was handed off", "Hand it off again."
            )


def open_source(path: Path) -> Source:
    """Look at a finished result.

    Raises:
        InputError: it cannot be read; there is no record beside it, or the record is of another file.
    """
    history = history_of(path)
    told = history[0].record
    master = open_master(path, _rate(told) if path.is_dir() else None)
    label = master.timecode or first_label(told)
    count = Count.of(master.fps, label)
    reel = master.reel or str(told.get("reel") or "")
    output = bytes_hash(path, master)
    if _SHA256.fullmatch(known := str(_mapping(told.get("result")).get("sha256"))) and known != f"sha256:{output}":
        raise _changed(path)
    return Source(history, output, master, _best(history, master), _matte(history[0]), count, reel)


def history_of(path: Path) -> tuple[Told, ...]:
    """A result and the masters that it was finished from.

    Raises:
        InputError: there is no record beside the result, or it is of another file.
    """
    if not path.exists():
        raise InputError("result", path, "there is no such file", "Name a finished result.", Fault.UNREADABLE)
    record = record_path(path)
    found = read_own_json(record)
    if not isinstance(found, dict) or not isinstance(found.get("result"), dict):
        rule = (
            f"{record.name} beside it is no record of a job" if record.exists() else f"{record.name} is not beside it"
        )
        raise InputError("result", path, rule, "Keep a result and its record together.")
    if not _proved(path, found):
        raise _changed(path)
    history = [Told(path, found)]
    while len(history) < _CHAIN and (before := _before(history[-1])) is not None:
        history.append(before)
    return tuple(history)


def mode_of(history: tuple[Told, ...]) -> str | None:
    """The mode of the job that made the frames; None where the record of a master is missing."""
    mode = history[-1].record.get("mode")
    return mode if mode in ("animation", "replacement") else None


def bytes_hash(path: Path, master: Master) -> str:
    """SHA-256 of a file, or of a folder's pictures on end, in hex."""
    return sha256(*(master.pictures or (path,)))


def _proved(path: Path, record: Mapping[str, Any]) -> bool:
    """Whether a file is the one that a record tells of."""
    told = _mapping(record.get("result")).get("sha256")
    try:
        if path.is_dir():
            return told == f"sha256:{bytes_hash(path, open_master(path, _rate(record)))}"
        return isinstance(told, str) and told == fingerprint(path)
    except OSError as error:
        raise InputError("result", path, f"it cannot be read ({error.strerror})", "Name a finished result.") from error


def _before(told: Told) -> Told | None:
    """The master that a file was finished from, where it and its record are still there."""
    given = _mapping(_mapping(told.record.get("inputs")).get("master"))
    if told.record.get("mode") != "finish" or not isinstance(given.get("path"), str):
        return None
    path = Path(given["path"])
    path = path if path.is_file() else told.path.with_name(path.name)
    record = read_own_json(record_path(path))
    if not path.is_file() or not isinstance(record, dict) or given.get("sha256") is None:
        return None
    same = given["sha256"] == _mapping(record.get("result")).get("sha256")
    return Told(path, record) if same and _proved(path, record) else None


def _best(history: tuple[Told, ...], master: Master) -> Master:
    """The result, or the master before it where that holds the same frames with less loss."""
    best = master
    for told, before in pairwise(history):
        marks = _mapping(told.record.get("marks"))
        marked = bool(marks.get("payload")) or marks.get("label", "none") != "none"
        if marked or any(told.output.get(name) for name in _CHANGED) or not best.lossy:
            break
        found = open_master(before.path)
        if (found.size, found.fps, found.count) != (master.size, master.fps, master.count):
            break
        best = found
    return best


def _matte(told: Told) -> Path | None:
    """The matte of a result, if its record proves it."""
    made = _mapping(told.record.get("matte"))
    name, given = made.get("name"), told.output.get("matte")
    if not isinstance(name, str):
        return None
    places = [told.path.with_name(Path(name).name), *([Path(given)] if isinstance(given, str) else [])]
    return next((place for place in places if place.exists() and _same(place, made.get("sha256"))), None)


def _same(path: Path, told: object) -> bool:
    if path.is_dir():
        return told == f"sha256:{bytes_hash(path, open_master(path))}"
    return told == fingerprint(path)


def _rate(record: Mapping[str, Any]) -> Fraction | None:
    """The rate of what was delivered."""
    try:
        return parse_rate(str(_mapping(record.get("delivered")).get("fps")))
    except ValueError:
        return None


def _changed(path: Path) -> InputError:
    rule = "it is not the file that its record tells of, or was changed since"
    return InputError("result", path, rule, "Name the result as its job has written it.")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
