"""A name that one process writes at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from wanimate.errors import OutputError
from wanimate.media.files import missing_folders, output_error, remove_empty
from wanimate.media.names import Owner, lock_name, remove_leftovers

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.ENOTTY)
"""What `flock` says in a folder whose file system knows no locks: NFS, SMB, FUSE."""
_FRESH = 10.0
"""Seconds in which a lock file without content is one that is just being written."""


class HeldError(OutputError):
    """Another job holds the name."""


class NameLock:
    """Holds a name against other jobs, of this process or another, until `release` or the end of the `with` block.

    The operating system drops the lock of a process that dies, so a lock file left behind stops nobody. In a folder without
    locks the file itself is the lock: that of a dead process of this machine is taken over. Missing folders are made, and
    removed again where they stay empty. What dead processes have left of the name is removed (`names.remove_leftovers`).

    Args:
        path: the name. The lock lies beside it.
        field: what the name is called in errors.

    Attributes:
        notices: what the user should be told.

    Raises:
        HeldError: another job holds the name. OutputError: a file of somebody else lies where the lock goes; the folder cannot
            be written.
    """

    def __init__(self, path: Path, field: str = "out") -> None:
        self.path, self.field = Path(path), field
        self.notices: list[str] = []
        self._lock = lock_name(self.path)
        self._handle: int | None = None
        self._parents = missing_folders(self.path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = self._acquire()
            remove_leftovers(self.path)
        except OSError as e:
            self._undo()
            raise output_error(self.path, e, field) from e
        except BaseException:
            self._undo()
            raise

    def release(self) -> None:
        """Let others write the name. Does nothing the second time."""
        if self._handle is not None:
            self._undo()

    def _undo(self) -> None:
        if self._handle is not None:
            with suppress(OSError):
                if _is_at(self._handle, self._lock):
                    self._lock.unlink(missing_ok=True)
            os.close(self._handle)
            self._handle = None
        remove_empty(self._parents)

    def _acquire(self) -> int:
        while True:
            handle, created = self._opened()
            if handle is None:
                continue
            try:
                held = self._taken(handle, created)
            except BaseException:
                os.close(handle)
                raise
            if held:
                return handle
            os.close(handle)

    def _opened(self) -> tuple[int | None, bool]:
        """The lock file, and whether it has been made; None where somebody was quicker, either way."""
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        with suppress(FileExistsError):
            return os.open(self._lock, flags | os.O_CREAT | os.O_EXCL, 0o666), True
        try:
            return os.open(self._lock, flags), False
        except FileNotFoundError:
            return None, False
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
                raise self._strange() from error
            raise

    def _taken(self, handle: int, created: bool) -> bool:
        """Whether the open file is the lock of this job now. False: it is another file meanwhile, look again."""
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise self._strange()
        content = b"" if created else os.pread(handle, 1024, 0)
        owner = Owner.read(content)
        if content and owner is None:
            raise self._strange()
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise self._held(Owner.read(os.pread(handle, 1024, 0))) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            if not created:
                self._take_over(owner, found)
                return False
            self.notices = [f"the folder of {self.path.name} knows no locks; a file keeps other jobs off"]
        # The former holder may have removed the file between our open and our lock.
        if not _is_at(handle, self._lock):
            return False
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, Owner.this().written(), 0)
        except OSError:
            self._lock.unlink(missing_ok=True)
            raise
        return True

    def _take_over(self, owner: Owner | None, found: os.stat_result) -> None:
        """Put the lock file of a dead process out of the way, in a folder without locks."""
        if owner is None and time.time() - found.st_mtime < _FRESH:
            raise self._held(None)
        if owner is not None and owner.alive:
            raise self._held(owner)
        aside = self._lock.with_name(f"{self._lock.name}.{secrets.token_hex(3)}")
        with suppress(FileNotFoundError):
            self._lock.rename(aside)
            if os.path.samestat(aside.lstat(), found):
                aside.unlink()
            else:  # somebody else was quicker, and this is his
                aside.rename(self._lock)

    def _held(self, owner: Owner | None) -> HeldError:
        who, remedy = "", "Wait for it, or choose another name."
        if owner is not None:
            away = owner.host != Owner.this().host
            who = f" (process {owner.pid}{f' on {owner.host}' if away else ''})"
            if away:
                remedy = f"Wait for it, or remove {self._lock.name} if it has ended."
        return HeldError(self.field, self.path, f"another job{who} is writing it", remedy)

    def _strange(self) -> OutputError:
        rule = f"{self._lock.name} beside it is no lock of this program"
        return OutputError(self.field, self.path, rule, "Remove it, or choose another name.")

    def __enter__(self) -> NameLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.release()


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False
