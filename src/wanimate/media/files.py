"""Files that appear whole or not at all, and that say so when the disk is full."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from wanimate.errors import OutputError


def user_cache() -> Path:
    """The package's folder in the user's cache: XDG_CACHE_HOME/wanimate, else ~/.cache/wanimate."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wanimate"


def cache_folder() -> Path:
    """Where the package keeps what it can make again: WANIMATE_CACHE, else `user_cache`."""
    named = os.environ.get("WANIMATE_CACHE")
    return Path(named) if named else user_cache()


def missing_folders(path: Path) -> list[Path]:
    """The folders above `path` that are not there, the nearest first."""
    return [folder for folder in path.absolute().parents if not folder.exists()]


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders that were made for something that did not come; those in use by now stay."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def sha256(path: Path, before_piece: Callable[[], None] = lambda: None) -> str:
    """SHA-256 of a file's bytes in hex, read in pieces; `before_piece` may raise to end it."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            before_piece()
            digest.update(piece)
    return digest.hexdigest()


def output_error(path: Path, error: OSError, field: str = "out") -> OutputError:
    """An operating system's refusal as a sentence for the user."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(field, path, "the disk is full", "Free some space or choose another folder.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(field, path, "the folder is not writable", "Choose a folder you may write to.")
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return OutputError(field, path, "a part of its path is a file, not a folder", "Choose another folder.")
    if error.errno == errno.ENAMETOOLONG:
        return OutputError(field, path, "the name is too long", "Choose a shorter name.")
    if error.errno == errno.EISDIR:
        return OutputError(field, path, "this is a folder", "Name a file.")
    return OutputError(field, path, f"cannot be written ({error.strerror or error})", "Choose another place.")


class AtomicFile:
    """A file under a hidden temporary name beside `path`, renamed to `path` by `commit` and removed by `discard`.

    It is unbuffered and remembers the first failed write, because libraries that are handed a file (muxers) may drop
    that error while they close. As a context manager it commits on a clean exit and discards on any exception.

    Raises:
        OutputError: the folder cannot be written (on construction), the disk is full (on `write` or `commit`).
    """

    def __init__(self, path: Path, field: str = "out") -> None:
        self.path, self.field = Path(path), field
        self.temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}-{secrets.token_hex(3)}.part")
        self.error: OSError | None = None
        self._open = True
        try:
            if self.path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "is a directory")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file: BinaryIO = open(self.temporary, "w+b", buffering=0)  # noqa: SIM115 - closed by commit or discard
        except OSError as e:
            raise output_error(self.path, e, field) from e

    @property
    def name(self) -> str:
        """Where the bytes are now (muxers reopen it by this name to move their index to the front)."""
        return str(self.temporary)

    def write(self, data: bytes) -> int:
        try:
            view = memoryview(data)
            while view:  # an unbuffered file may take less than it is given
                view = view[self.file.write(view) :]
        except OSError as e:
            self.error = self.error or e
            raise
        return len(data)

    def read(self, size: int = -1) -> bytes:
        return self.file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def commit(self) -> None:
        """Flush to the disk and rename to the final name; on failure nothing is left behind."""
        try:
            if self.error is not None:
                raise self.error
            os.fsync(self.file.fileno())
            self.file.close()
            os.replace(self.temporary, self.path)
            self._open = False
        except OSError as e:
            raise output_error(self.path, e, self.field) from e
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove what was written; does nothing after a commit."""
        if self._open:
            self._open = False
            self.file.close()
            self.temporary.unlink(missing_ok=True)

    def __enter__(self) -> AtomicFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.commit()
            return
        self.discard()
        if isinstance(error, OSError):
            raise output_error(self.path, self.error or error, self.field) from error
