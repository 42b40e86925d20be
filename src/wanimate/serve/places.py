"""Places where files lie: a folder, and an object store through fsspec. `Storage` gives them names that it has checked."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from wanimate.errors import InputError, OutputError, WanimateError, one_line
from wanimate.media.files import AtomicFile, output_error
from wanimate.media.names import leftovers, remove_folder, temporary_name

_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}", re.ASCII)
_LONGEST_NAME = 800
_PIECE = 1 << 18
_OBJECT_PIECE = 1 << 22
"""Bytes of one request to an object store."""
_TRIES = 5
_S3_OPTIONS: Mapping[str, Any] = {
    "use_listings_cache": False,
    "config_kwargs": {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 2}},
}


class StorageAway(WanimateError):
    """The storage cannot be used now: away, full, or not permitted. The same call may work later."""


class NotStored(WanimateError):
    """Nothing is stored under this name."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"{one_line(name)} is not stored.")


@dataclass(frozen=True)
class Stored:
    """A stored file: its name, its bytes, and when it was written, in seconds since 1970."""

    name: str
    size: int
    modified: float


def checked_name(name: str) -> str:
    """The name itself.

    Raises:
        ValueError: it is not made of segments of A-Z, a-z, 0-9, `.`, `_` and `-` joined by `/`, or a segment begins with `.`,
            is empty or longer than 200, or all are longer than 800 characters.
    """
    if len(name) > _LONGEST_NAME or not all(_SEGMENT.fullmatch(segment) for segment in name.split("/")):
        raise ValueError(f"not a name of a stored file: {one_line(name)!r}")
    return name


class Place(Protocol):
    """Where files lie. Names are checked by the caller."""

    def put(self, name: str, source: Path | Iterable[bytes]) -> int: ...
    def read(self, name: str, start: int, stop: int) -> Iterator[bytes]: ...
    def stat(self, name: str) -> Stored: ...
    def fetch(self, name: str, path: Path) -> None: ...
    def remove(self, name: str) -> None: ...
    def remove_tree(self, prefix: str) -> None: ...
    def list(self, prefix: str) -> list[Stored]: ...
    def local_path(self, name: str) -> Path | None: ...
    def sweep(self) -> int: ...


class Folder:
    """Files below a folder of this machine or of a network file system."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as e:
            raise output_error(root, e, "storage") from e

    def put(self, name: str, source: Path | Iterable[bytes]) -> int:
        if isinstance(source, Path):
            with open(source, "rb") as file:
                return self._write(name, iter(lambda: file.read(1 << 20), b""))
        return self._write(name, source)

    def _write(self, name: str, pieces: Iterable[bytes]) -> int:
        size = 0
        with self._told(name):
            file = self._begin(self.root / name)
            try:
                for piece in pieces:
                    size += file.write(piece)
                file.commit()
            finally:
                file.discard()
        return size

    def _begin(self, path: Path) -> AtomicFile:
        """A new file, although another process may just remove a folder above it as empty."""
        for _ in range(_TRIES - 1):
            try:
                return AtomicFile(path)
            except OutputError as e:
                if not isinstance(
                    e.__cause__, FileNotFoundError | FileExistsError
                ):  # the latter: gone once it is looked at
                    raise
        return AtomicFile(path)

    def read(self, name: str, start: int, stop: int) -> Iterator[bytes]:
        with self._told(name), open(self.root / name, "rb") as file:
            file.seek(start)
            left = stop - start
            while left > 0 and (piece := file.read(min(_PIECE, left))):
                left -= len(piece)
                yield piece

    def stat(self, name: str) -> Stored:
        with self._told(name):
            path = self.root / name
            found = path.stat()
            if not path.is_file():
                raise NotStored(name)
            return Stored(name, found.st_size, found.st_mtime)

    def fetch(self, name: str, path: Path) -> None:
        size = self.stat(name).size
        temporary = temporary_name(path)
        with on_disk():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(self.root / name, temporary)
                os.replace(temporary, path)
            except OSError:  # another disk, a file system without links, or the file has just gone
                with AtomicFile(path) as file:
                    for piece in self.read(name, 0, size):
                        file.write(piece)
            finally:
                temporary.unlink(missing_ok=True)  # a rename of a file to itself leaves it

    def remove(self, name: str) -> None:
        with self._told(name), suppress(NotADirectoryError):
            path = self.root / name
            path.unlink(missing_ok=True)
            self._prune(path.parent)

    def remove_tree(self, prefix: str) -> None:
        with self._told(prefix):
            folder = self.root / prefix
            if folder.is_dir():
                remove_folder(folder, folder)
                self._prune(folder.parent)

    def _prune(self, folder: Path) -> None:
        """Remove folders that are empty now, from `folder` upwards, below the root."""
        with suppress(OSError):
            while folder != self.root:
                folder.rmdir()
                folder = folder.parent

    def list(self, prefix: str) -> list[Stored]:
        found = []
        with self._told(prefix):
            self.root.stat()
            for folder, _, files in os.walk(self.root / prefix):
                for file in files:
                    name = (Path(folder) / file).relative_to(self.root).as_posix()
                    with suppress(ValueError, NotStored):
                        found.append(self.stat(checked_name(name)))
        return found

    def local_path(self, name: str) -> Path | None:
        return self.root / name

    def sweep(self) -> int:
        removed = 0
        with self._told(""):
            for folder, _, _ in os.walk(self.root):
                for left in leftovers(Path(folder)):
                    if left.path.suffix == ".part" and not left.alive:
                        left.path.unlink(missing_ok=True)
                        removed += 1
        return removed

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as e:
            if not self.root.is_dir():
                raise StorageAway("The storage cannot be used: its folder is gone.") from e
            raise NotStored(name) from e
        except NotADirectoryError as e:
            raise NotStored(name) from e
        except (OSError, OutputError) as e:
            raise _away(e) from e


class Objects:
    """Files in an object store. Such a store shows an object when it is whole, and replaces it in one step."""

    def __init__(self, url: str, scheme: str, options: Mapping[str, Any]) -> None:
        import fsspec

        defaults = _S3_OPTIONS if scheme in ("s3", "s3a") else {}
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url, **{**defaults, **options})
        except ImportError as e:
            package = "wanimate[s3]" if scheme in ("s3", "s3a") else "that package"
            raise InputError("storage", url, one_line(str(e)), f"Install {package}.") from e
        except ValueError as e:
            remedy = "Give a folder, or a URL that begins with s3://."
            raise InputError("storage", url, one_line(str(e)), remedy) from e

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}" if name else self._root

    def put(self, name: str, source: Path | Iterable[bytes]) -> int:
        if isinstance(source, Path):
            size = source.stat().st_size
            with self._told(name, writing=True):
                self._fs.put_file(str(source), self._path(name))
            return size
        # fsspec ends an upload that stops half-way as if it were whole. So it begins when all is there.
        with tempfile.TemporaryDirectory(prefix="wanimate-put-") as folder:
            whole = Path(folder) / "object"
            with on_disk(), AtomicFile(whole) as file:
                for piece in source:
                    file.write(piece)
            return self.put(name, whole)

    def read(self, name: str, start: int, stop: int) -> Iterator[bytes]:
        for place in range(start, stop, _OBJECT_PIECE):
            with self._told(name):
                piece = self._fs.cat_file(self._path(name), start=place, end=min(place + _OBJECT_PIECE, stop))
            yield piece

    def stat(self, name: str) -> Stored:
        with self._told(name):
            found = self._fs.info(self._path(name))
        if found["type"] != "file":
            raise NotStored(name)
        return Stored(name, int(found["size"]), _time(found))

    def fetch(self, name: str, path: Path) -> None:
        size = self.stat(name).size
        with on_disk(), AtomicFile(path) as file:
            for piece in self.read(name, 0, size):
                file.write(piece)

    def remove(self, name: str) -> None:
        with suppress(NotStored), self._told(name):
            self._fs.rm_file(self._path(name))

    def remove_tree(self, prefix: str) -> None:
        names = [self._path(one.name) for one in self.list(prefix)]
        with self._told(prefix):
            if names:
                self._fs.rm(names)

    def list(self, prefix: str) -> list[Stored]:
        below = f"{self._path(prefix).rstrip('/')}/"
        found: dict[str, Any] = {}
        with suppress(NotStored), self._told(prefix):
            found = self._fs.find(below, detail=True)
        start = len(self._root.rstrip("/")) + 1
        return [
            Stored(path[start:], int(one["size"]), _time(one)) for path, one in found.items() if path.startswith(below)
        ]

    def local_path(self, name: str) -> Path | None:
        return None

    def sweep(self) -> int:
        return 0

    @contextmanager
    def _told(self, name: str, writing: bool = False) -> Iterator[None]:
        """Errors of any store's library as ours. Each library has its own kinds, and few are OSErrors."""
        try:
            yield
        except WanimateError:
            raise
        except Exception as e:
            response = getattr(e.__cause__ or e.__context__, "response", None) or {}
            bucket_is_gone = response.get("Error", {}).get("Code") == "NoSuchBucket"
            if isinstance(e, FileNotFoundError) and not writing and not bucket_is_gone:
                raise NotStored(name) from e
            raise _away(e) from e


@contextmanager
def on_disk() -> Iterator[None]:
    """What the local disk refuses within the block is `StorageAway`: nobody who sent a file is at fault."""
    try:
        yield
    except (OSError, OutputError) as e:
        raise _away(e) from e


def _away(error: Exception) -> StorageAway:
    what = error.rule if isinstance(error, OutputError) else getattr(error, "strerror", None) or str(error)
    return StorageAway(f"The storage cannot be used: {one_line(what or type(error).__name__)}.")


def _time(found: Mapping[str, Any]) -> float:
    """When an object was written; stores call it differently."""
    time = next(found[key] for key in ("LastModified", "created", "mtime") if key in found)
    return float(time.timestamp() if isinstance(time, datetime) else time)
