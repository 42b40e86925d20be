"""Writing a BagIt bag (RFC 8493, version 1.0): whole under its final name, or not there at all."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from wanimate.archive.names import coded
from wanimate.errors import OutputError
from wanimate.media.files import missing_folders, output_error, remove_empty, write_new
from wanimate.media.json_file import open_plain
from wanimate.media.lock import NameLock
from wanimate.media.names import remove, temporary_name
from wanimate.media.places import check_names
from wanimate.versions import version_of

PAYLOAD, DECLARATION, INFO = "data", "bagit.txt", "bag-info.txt"
DECLARED = "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
ALGORITHMS = ("sha256", "sha512")
_PIECE = 1 << 20


@dataclass(frozen=True)
class Packed:
    """A file in the payload: its name below `data/`, its bytes, and its hashes in hex by algorithm."""

    name: str
    size: int
    hashes: Mapping[str, str]

    @property
    def sha256(self) -> str:
        return self.hashes["sha256"]


class NewBag:
    """A bag that is being made, under a temporary name beside `path`. It gets its name at the end of the `with` block, after
    `finish`. On any exception nothing of it is left; a process that is killed leaves a temporary folder, which the next one of
    this name removes.

    Raises:
        OutputError: something has the name; the folder cannot be written; the disk is full.
    """

    def __init__(self, path: Path, field: str = "out") -> None:
        self.path, self.field = Path(os.path.abspath(path)), field
        self.files: dict[str, Packed] = {}
        self._finished = False

    def __enter__(self) -> NewBag:
        self._check_free()
        check_names(self.field, self.path, (self.path,))
        with ExitStack() as undo:
            self._parents = missing_folders(self.path)
            undo.callback(lambda: remove_empty(self._parents))
            undo.enter_context(NameLock(self.path, self.field))
            self._check_free()
            self.place = temporary_name(self.path)
            undo.callback(remove, self.place)
            try:
                (self.place / PAYLOAD).mkdir(parents=True)
            except OSError as error:
                raise output_error(self.path, error, self.field) from error
            self._undo = undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with self._undo:
            try:
                if kind is None:
                    assert self._finished, "a bag is finished before it gets its name"
                    self._check_free()
                    os.rename(self.place, self.path)
                    _sync(self.path.parent)
            except OSError as failed:
                raise output_error(self.path, failed, self.field) from failed
        if isinstance(error, OSError):
            raise output_error(self.path, error, self.field) from error

    def copy(self, name: str, source: Path, links: bool = False) -> Packed:
        """Put a file into the payload. `links`: a link is followed; otherwise it is refused.

        Raises:
            Unreadable: the source cannot be read, or is no plain file. OSError: the bag cannot be written.
        """
        try:
            handle = open_plain(source, links)
        except (OSError, ValueError) as error:
            raise Unreadable(_why(source, error)) from error
        with os.fdopen(handle, "rb") as file:
            return self.add(name, _pieces(file.read))

    def add(self, name: str, data: Iterable[bytes]) -> Packed:
        """Put bytes into the payload. Raises Unreadable as `data` does; OSError: the bag cannot be written."""
        assert name not in self.files
        path = self.place / PAYLOAD / name
        path.parent.mkdir(parents=True, exist_ok=True)
        found = {algorithm: hashlib.new(algorithm) for algorithm in ALGORITHMS}
        size = 0
        with open(path, "xb") as file:
            for piece in data:
                size += file.write(piece)
                for digest in found.values():
                    digest.update(piece)
            file.flush()
            os.fsync(file.fileno())
        packed = Packed(name, size, {algorithm: digest.hexdigest() for algorithm, digest in found.items()})
        self.files[name] = packed
        return packed

    def drop(self, name: str) -> None:
        """Take a file out of the payload again."""
        del self.files[name]
        (self.place / PAYLOAD / name).unlink()

    def where(self, name: str) -> Path:
        """Where a file of the payload lies now."""
        return self.place / PAYLOAD / name

    def finish(self, info: Mapping[str, str]) -> None:
        """Write the tag files. `info`: what is said of the bag; sizes and date are added."""
        self._drop_empty_folders()
        size = sum(one.size for one in self.files.values())
        told = dict(info) | {
            "Bagging-Date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "Bag-Software-Agent": f"wanimate {version_of('wanimate') or 'from its sources'}",
            "Bag-Size": _told_size(size), "Payload-Oxum": f"{size}.{len(self.files)}",
        }  # fmt: skip
        tags = {DECLARATION: DECLARED, INFO: "".join(f"{name}: {_one_line(text)}\n" for name, text in told.items())}
        for algorithm in ALGORITHMS:
            rows = sorted((f"{PAYLOAD}/{one.name}", one.hashes[algorithm]) for one in self.files.values())
            tags[f"manifest-{algorithm}.txt"] = _rows(rows)
        for name, text in tags.items():
            write_new(self.place / name, text.encode())
        for algorithm in ALGORITHMS:
            rows = [(name, hashlib.new(algorithm, text.encode()).hexdigest()) for name, text in sorted(tags.items())]
            write_new(self.place / f"tagmanifest-{algorithm}.txt", _rows(rows).encode())
        for folder, _, _ in os.walk(self.place):
            _sync(Path(folder))
        self._finished = True

    def _drop_empty_folders(self) -> None:
        """A bag holds files: folders without any would be lost by the next copy."""
        for folder, _, _ in os.walk(self.place / PAYLOAD, topdown=False):
            if Path(folder) != self.place / PAYLOAD:
                remove_empty([Path(folder)])

    def _check_free(self) -> None:
        if os.path.lexists(self.path):
            remedy = "Name a folder that is not there yet: an archive is never written over."
            raise OutputError(self.field, self.path, "the name is taken", remedy)


class Unreadable(Exception):
    """A file that was to be archived cannot be read. The message is a phrase about it."""


def _pieces(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while True:
        try:
            piece = read(_PIECE)
        except OSError as error:
            raise Unreadable(f"it cannot be read ({error.strerror})") from error
        if not piece:
            return
        yield piece


def _why(source: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is not there any more"
    try:
        kind = source.lstat().st_mode
    except (OSError, ValueError):
        kind = 0
    if stat.S_ISLNK(kind):
        return "it is a link, and an archive holds the files themselves"
    if isinstance(error, OSError):
        return f"it cannot be read ({error.strerror})"
    return "it is not a plain file"


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{digest}  {coded(name)}\n" for name, digest in rows)


def _one_line(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _told_size(size: int) -> str:
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
