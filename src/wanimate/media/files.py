"""Files that appear whole or not at all, and that say so when the disk is full."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from wanimate.errors import OutputError
from wanimate.media.json_file import open_plain
from wanimate.media.names import is_real_folder, temporary_name

_LARGEST_JSON = 2**26
_TRIES = 100
"""How many temporary names are tried before it is said that all are taken."""


def user_data() -> Path:
    """The package's folder for the user's data: XDG_DATA_HOME/wanimate, else ~/.local/share/wanimate."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "wanimate"


def user_config() -> Path:
    """The package's folder for what the user sets: XDG_CONFIG_HOME/wanimate, else ~/.config/wanimate."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "wanimate"


def user_cache() -> Path:
    """The package's folder in the user's cache: XDG_CACHE_HOME/wanimate, else ~/.cache/wanimate."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wanimate"


def cache_folder() -> Path:
    """Where the package keeps what it can make again: WANIMATE_CACHE, else `user_cache`."""
    named = os.environ.get("WANIMATE_CACHE")
    return Path(named) if named else user_cache()


def private_folder(path: Path) -> Path:
    """Make `path` with those above it, for this user alone.

    Raises:
        OSError: it cannot be made. PermissionError: somebody else owns it, or others may write into it.
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = path.stat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(errno.EACCES, "others may write into this folder", str(path))
    return path


def missing_folders(path: Path) -> list[Path]:
    """The folders above `path` that are not there, the nearest first."""
    return [folder for folder in path.absolute().parents if not folder.exists()]


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders that were made for something that did not come; those in use by now stay."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def sha256(*paths: Path, before_piece: Callable[[], None] = lambda: None) -> str:
    """SHA-256 of a file's bytes, or of several on end, in hex, read in pieces; `before_piece` may raise to end it."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                before_piece()
                digest.update(piece)
    return digest.hexdigest()


@contextmanager
def in_utf8(path: Path) -> Iterator[str]:
    """A name of an existing file for libraries that take names in UTF-8 only, good within the block."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{handle}" if sys.platform == "linux" else str(path)
        finally:
            os.close(handle)
    else:
        yield str(path)


def read_own_json(path: Path, most_bytes: int = _LARGEST_JSON) -> Any:
    """What a small JSON file of this program says, names that are not UTF-8 included; None where the path is a link, a pipe,
    large, or holds something else. `json_file` reads strangers' files, and tells what is wrong with them."""
    try:
        with os.fdopen(open_plain(path, links=False), "rb") as file:
            return None if os.fstat(file.fileno()).st_size > most_bytes else json.loads(file.read())
    except (OSError, ValueError, RecursionError):
        return None


def read_marked(path: Path, format: str) -> dict[str, Any] | None:
    """A JSON object of this program that says it is of `format`; None where the path holds something else."""
    found = read_own_json(path)
    return found if isinstance(found, dict) and found.get("format") == format else None


def json_bytes(value: object, indent: int | None = None, default: Callable[[object], Any] | None = None) -> bytes:
    """JSON in UTF-8. A name that is not UTF-8 has its odd bytes as `\\udcXX`, from which Python makes the same name again.

    Raises:
        ValueError: NaN or infinity. TypeError: something that JSON cannot say.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False, default=default)
    return (text + "\n").encode("utf-8", "backslashreplace")


def write_new(path: Path, data: bytes | memoryview) -> None:
    """Write a file that is not there yet, to the disk. Raises OSError, also where a file or a link has the name."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


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

    The temporary name is new, so nothing is written through a link that somebody has laid. A link under the final name is
    replaced, and what it leads to stays. A file under the final name keeps its mode.

    Raises:
        OutputError: the folder cannot be written (on construction), the disk is full (on `write` or `commit`).
    """

    def __init__(self, path: Path, field: str = "out") -> None:
        self.path, self.field = Path(path), field
        self.error: OSError | None = None
        self._open = True
        try:
            if is_real_folder(self.path):
                raise IsADirectoryError(errno.EISDIR, "is a directory")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            mode = file_mode(self.path)
            self.temporary, handle = _new_file(self.path, 0o666 if mode is None else mode & 0o600)
            self.file: BinaryIO = open(handle, "w+b", buffering=0)  # noqa: SIM115 - closed by commit or discard
            if mode is not None:
                os.fchmod(handle, mode)
        except OSError as e:
            raise output_error(self.path, e, field) from e

    @property
    def name(self) -> str:
        """Where the bytes are now. Muxers reopen it by this name to move their index to the front, so it is this very file, and
        a name in UTF-8, where the system can say so."""
        own = f"/proc/self/fd/{self.file.fileno()}"
        return own if os.path.exists(own) else str(self.temporary)

    def write(self, data: bytes | memoryview) -> int:
        try:
            view = memoryview(data)
            while view:  # an unbuffered file may take less than it is given
                view = view[self.file.write(view) :]
        except OSError as e:
            self.error = self.error or e
            raise
        return len(data)

    def flush(self) -> None:
        """Nothing waits to be written."""

    def read(self, size: int = -1) -> bytes:
        return self.file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def take(self, made: Path) -> None:
        """Put a whole file of the same folder, or of one in it, in the place of what was written so far. The mode stays.

        Raises:
            OutputError: it cannot be put there.
        """
        try:
            made.chmod(stat.S_IMODE(os.fstat(self.file.fileno()).st_mode))
            os.replace(made, self.temporary)
            self.file.close()
            self.file = open(self.temporary, "r+b", buffering=0)  # noqa: SIM115 - as above
        except OSError as e:
            raise output_error(self.path, e, self.field) from e

    def settle(self) -> None:
        """Flush to the disk; all that is left is the rename. On failure nothing is left behind.

        Raises:
            OutputError: the disk is full.
        """
        try:
            if self.error is not None:
                raise self.error
            os.fsync(self.file.fileno())
        except OSError as e:
            self.discard()
            raise output_error(self.path, e, self.field) from e

    def commit(self, keep: bool = False) -> None:
        """Flush to the disk and rename to the final name. On failure nothing is left behind, or, with `keep`, the finished file
        stays under another name, which the error tells."""
        try:
            self.settle()
            os.replace(self.temporary, self.path)
            self._open = False
        except OSError as e:
            if not keep:
                raise output_error(self.path, e, self.field) from e
            raise self.keep(e) from e
        finally:
            self.discard()

    def keep(self, why: OSError) -> OutputError:
        """Put the finished file under another name, as it cannot get its own; returns the error that tells where."""
        error = kept_error(self.path, why, self._kept(), self.field)
        self.discard()
        return error

    def _kept(self) -> Path | None:
        """Where the finished file has been put; None where no place took it."""
        place = kept_name(self.path)
        with suppress(OSError):
            os.rename(self.temporary, place)
            self._open = False
            return place
        if os.path.lexists(self.temporary):
            self._open = False
            return self.temporary
        # Its folder is gone, and so is its name. The file itself lives as long as it is open.
        with suppress(OSError):
            above = next(folder for folder in self.path.absolute().parents if folder.is_dir())
            return self._copied(above / place.name)
        with suppress(OSError):
            return self._copied(Path(tempfile.mkdtemp(prefix="wanimate-kept-")) / place.name)
        return None

    def _copied(self, place: Path) -> Path:
        with open(place, "xb") as copy:
            self.file.seek(0)
            shutil.copyfileobj(self.file, copy, 1 << 20)
        return place

    def discard(self) -> None:
        """Remove what was written; does nothing after a commit."""
        if self._open:
            self._open = False
            self.temporary.unlink(missing_ok=True)
        self.file.close()

    def __enter__(self) -> AtomicFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.commit()
            return
        self.discard()
        if isinstance(error, OSError):
            raise output_error(self.path, self.error or error, self.field) from error


def file_mode(path: Path) -> int | None:
    """The permissions of a plain file; None where there is none under this name."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_mode & 0o777 if stat.S_ISREG(found.st_mode) else None


def kept_name(path: Path) -> Path:
    """A free name beside `path` for a finished result that could not get its own: hero.mp4 -> hero.kept-1a2b3c.mp4."""
    return path.with_name(f"{path.stem}.kept-{os.urandom(3).hex()}{path.suffix}")


def keep_folder(temporary: Path, path: Path) -> Path | None:
    """Put a finished folder that could not get the name `path` under a visible one; where it is then, None if it is gone."""
    place = kept_name(path)
    with suppress(OSError):
        os.rename(temporary, place)
        return place
    return temporary if temporary.is_dir() else None


def kept_error(path: Path, error: OSError, place: Path | None, field: str = "out") -> OutputError:
    """What is said where a finished result could not get its name."""
    said = output_error(path, error, field)
    if place is None:
        return said
    return OutputError(field, path, said.rule, f"The finished result is kept as {place}; give it its name yourself.")


def _new_file(path: Path, mode: int) -> tuple[Path, int]:
    """A file that was not there, under a temporary name beside `path`, and its descriptor."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    for _ in range(_TRIES):
        temporary = temporary_name(path)
        with suppress(FileExistsError):
            return temporary, os.open(temporary, flags, mode)
    raise FileExistsError(errno.EBUSY, "no temporary name is free", str(path))
