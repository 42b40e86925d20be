"""A folder for guides: it appears whole or not at all, and takes the place of nothing but older guides."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import TracebackType

from wanimate.errors import InputError, OutputError
from wanimate.media.files import (
    keep_folder,
    kept_error,
    kept_name,
    missing_folders,
    output_error,
    read_marked,
    remove_empty,
    sha256,
)
from wanimate.media.names import exchanged, remove, remove_leftovers, temporary_name
from wanimate.media.places import check_names

FORMAT = "wanimate-guides"
MANIFEST = "manifest.json"
State = tuple[int, ...]
"""What a file shows of itself while nobody changes it: inode, size, times."""


class NewFolder:
    """A folder under a temporary name beside `path`, renamed to it on a clean exit.

    On any exception it is removed, and so are parents of `path` that were made for it. A symbolic link is followed. Older
    guides and new ones change places in one step where the system can do that. If the new ones cannot get their name, they
    are kept under another one, which the error tells.

    Raises:
        OutputError: `path` holds something that is not a guides folder, or a file that is not of these guides; or it cannot be
            written.
    """

    def __init__(self, path: Path, field: str = "guides") -> None:
        self.path, self.field = Path(path), field
        self._parents: list[Path] = []
        self._whole = False

    def __enter__(self) -> Path:
        self._place = resolved_folder(self.path, self.field)
        try:
            check_names(self.field, self.path, (self._place,))
            self._older = self._replaced()
            self._temporary = temporary_name(self._place)
            self._parents = missing_folders(self._place)
            self._temporary.mkdir(parents=True)
            if self._older is not None:
                self._temporary.chmod(stat.S_IMODE(self._place.stat().st_mode))
        except OSError as error:
            remove_empty(self._parents)
            raise output_error(self.path, error, self.field) from error
        return self._temporary

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        committed = False
        try:
            if kind is None:
                self._commit()
                committed = True
        finally:
            if not self._whole:
                remove(self._temporary)
            if not committed:
                remove_empty(self._parents)
        if isinstance(error, OSError) and not isinstance(error, InputError):
            raise output_error(self.path, error, self.field) from error

    def _replaced(self) -> dict[str, State] | None:
        """The files that will be replaced; None where nothing has the name. Raises OutputError for what is not ours."""
        if not os.path.lexists(self._place):
            remove_leftovers(self._place)  # a process that was killed between two names has put the older guides aside
            if not os.path.lexists(self._place):
                return None
        if not self._place.is_dir():
            raise OutputError(self.field, self.path, "the name is taken", "Choose another folder or remove this one.")
        found = _states(self._place)
        if not found:
            return found
        manifest = read_marked(self._place / MANIFEST, FORMAT)
        if manifest is None:
            raise OutputError(self.field, self.path, "the name is taken", "Choose another folder or remove this one.")
        made = manifest.get("sha256")
        made = made if isinstance(made, dict) else {}
        for name, state in found.items():
            if name != MANIFEST and not (state and name in made and made[name] == _hash(self._place / name, state)):
                rule = f"{name} in it is not as these guides were written, and would be lost"
                raise OutputError(self.field, self.path, rule, "Move it, or choose another folder.")
        return found

    def _commit(self) -> None:
        try:
            self._whole = True
            if not self._older:
                os.rename(self._temporary, self._place)  # an empty folder gives way, a filled one does not
                return
            if _states(self._place) != self._older:
                raise FileExistsError(0, "its files have changed meanwhile")
            old = exchanged(self._temporary, self._place)
        except OSError as error:
            raise kept_error(self.path, error, keep_folder(self._temporary, self._place), self.field) from error
        if _states(old) == self._older:
            remove(old)
        else:  # somebody has put a file into it at the last moment
            os.rename(old, kept_name(self._place))


class _NotKept(Exception):
    pass


def check_folder(path: Path, field: str = "guides") -> None:
    """Refuse a folder that `NewFolder` could not make. Nothing is left behind.

    Raises:
        OutputError: the name is taken by something that is not a guides folder, or is too long; a file in it is not of these
            guides; the folder around it cannot be written.
    """
    with suppress(_NotKept), NewFolder(path, field):
        raise _NotKept


def resolved_folder(path: Path, field: str = "guides") -> Path:
    """The folder that a name leads to.

    Raises:
        OutputError: no folder can have the name, or links lead in a circle.
    """
    try:
        place = path.resolve()
    except OSError as error:
        raise output_error(path, error, field) from error
    except (ValueError, RuntimeError) as error:
        raise OutputError(field, path, f"this names no folder ({error})", "Choose another one.") from error
    if not place.name:
        raise OutputError(field, path, "the name is taken", "Choose another folder.")
    return place


def _states(folder: Path) -> dict[str, State]:
    """Files of a folder by name; the state of anything else, links too, is empty."""
    found: dict[str, State] = {}
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        at = entry.stat(follow_symlinks=False)
        plain = stat.S_ISREG(at.st_mode)
        found[entry.name] = (at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns) if plain else ()
    return found


@lru_cache(64)
def _hash(path: Path, state: State) -> str:
    return sha256(path)
