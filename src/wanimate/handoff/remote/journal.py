"""What a hand-off has done so far, on disk before the next step: who is killed goes on where he was.

One file for each shot and place. A line is a JSON object with its `kind`, appended in one write and brought to the disk. A
last line that was cut off counts as not written. Signed addresses are in it, so that only its owner may read it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from wanimate.errors import InputError, OutputError
from wanimate.media.files import output_error, private_folder, user_data
from wanimate.media.json_file import parse_json
from wanimate.media.lock import NameLock

FORMAT = "wanimate.handoff-journal/1"
_LARGEST = 2**28

Entry = dict[str, Any]


def journals_folder() -> Path:
    """Where journals lie: WANIMATE_HANDOFF, else `handoff` in the user's data."""
    named = os.environ.get("WANIMATE_HANDOFF")
    return Path(named) if named else user_data() / "handoff"


class Journal:
    """The journal of one hand-off, held against other processes until `close`.

    Args:
        path: its file. It and its folder are made where they are missing.
        about: what the hand-off is; stands in the first line. An existing journal has to be about the same.

    Raises:
        HeldError: another process is at it. InputError: it is damaged, or about something else. OutputError: it cannot be
            written.
    """

    def __init__(self, path: Path, about: Entry) -> None:
        self.path = path
        try:
            private_folder(path.parent)
        except OSError as error:
            raise output_error(path.parent, error, "journal") from error
        self._lock = NameLock(path, "journal")
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self._lock.release()
            raise output_error(path, error, "journal") from error
        try:
            self._entries, self._end = _read(path, self._file)
            os.ftruncate(self._file, self._end)
            if not self._entries:
                self.add("begun", format=FORMAT, **about)
                _settle_folder(path.parent)
            elif {**self._entries[0], **about} != self._entries[0]:
                raise InputError("journal", path, "it is about another hand-off", "Move it away, then try again.")
        except OSError as error:
            self.close()
            raise output_error(path, error, "journal") from error
        except BaseException:
            self.close()
            raise

    def add(self, kind: str, **facts: Any) -> None:
        """Write down a step. When this returns, it is on the disk."""
        entry = {"kind": kind, **facts}
        line = json.dumps(entry, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        try:
            written = os.write(self._file, line)
            if written != len(line):
                raise OSError(28, os.strerror(28))
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, self._end)
            raise output_error(self.path, error, "journal") from error
        self._end += len(line)
        self._entries.append(entry)

    def all(self, kind: str, **facts: Any) -> Iterator[Entry]:
        """Steps of a kind with these facts, oldest first."""
        asked = {"kind": kind, **facts}.items()
        return (one for one in self._entries if all(one.get(name) == value for name, value in asked))

    def last(self, kind: str, **facts: Any) -> Entry | None:
        """The newest such step."""
        return next(reversed(list(self.all(kind, **facts))), None)

    def has(self, kind: str, **facts: Any) -> bool:
        return self.last(kind, **facts) is not None

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._lock.release()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def journals_of(folder: Path, shot: str, service: str) -> list[tuple[Path, Entry]]:
    """Journals of a shot's hand-offs to a service, with their first lines."""
    found = []
    for path in sorted(folder.glob("*.jsonl")) if folder.is_dir() else ():
        try:
            with path.open("rb") as file:
                first = parse_json(file.readline(2**16))
        except (OSError, ValueError):
            continue
        if isinstance(first, dict) and (first.get("shot"), first.get("service")) == (shot, service):
            found.append((path, first))
    return found


def _read(path: Path, file: int) -> tuple[list[Entry], int]:
    """The entries, and where the last whole line ends."""
    size = os.fstat(file).st_size
    if size > _LARGEST:
        raise OutputError("journal", path, "it is too large to be a journal", "Move it away, then try again.")
    data = b""
    while len(data) < size and (piece := os.pread(file, 1 << 20, len(data))):
        data += piece
    end = data.rfind(b"\n") + 1
    entries = []
    for number, line in enumerate(data[:end].splitlines(), 1):
        try:
            entry = parse_json(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or not isinstance(entry.get("kind"), str):
            remedy = "Move it away and try again; everything is then sent anew."
            raise InputError("journal", path, f"its line {number} is damaged", remedy)
        entries.append(entry)
    if entries and entries[0].get("format") != FORMAT:
        raise InputError("journal", path, "it is no journal of this version", "Move it away and try again.")
    return entries, end


def _settle_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
