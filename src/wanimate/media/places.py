"""Which names are one and the same file, and what may be written where: asked before any work.

A file is told by device and inode, so links, hard links and other spellings of its name are it, too. A name under which
nothing lies yet is told by the folder around it and its last part.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from wanimate.errors import OutputError, setting
from wanimate.media.files import output_error
from wanimate.media.names import lock_name, temporary_name

_LONGEST = 255
Key = tuple[object, ...]


def keys(path: Path) -> set[Key]:
    """What identifies a name: the file it leads to, the link itself, and its place. Two names with a key in common are one."""
    found: set[Key] = set()
    for look in (os.stat, os.lstat):
        try:
            at = look(path)
            found.add((at.st_dev, at.st_ino))
        except (OSError, ValueError):
            continue
    whole = Path(os.path.abspath(path))
    for place in (whole, _resolved(path)):
        found |= {_place(place)}
    return found


def is_within(path: Path, folder: Path) -> bool:
    """Whether `path`, itself or what it leads to, is `folder` or lies in it."""
    around = keys(folder)
    for place in {Path(os.path.abspath(path)), _resolved(path)}:
        if any(keys(above) & around for above in (place, *place.parents)):
            return True
    return False


def check_apart_from(field: str, targets: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse to write what is read. A folder among the inputs stands for itself and the files in it.

    Raises:
        OutputError: a target is an input, holds one (a folder that would be replaced), or lies in a folder that is read.
    """
    inputs = [path for path in inputs if path != Path()]
    read = {key: one for path in inputs for one in (path, *_files_in(path)) for key in keys(one)}
    for target in targets:
        same = next((read[key] for key in keys(target) if key in read), None)
        if same is not None:
            rule = "this is an input of the job" if same.name == target.name else f"this is {same}, an input of the job"
            raise OutputError(field, target, rule, "Choose another name.")
        for path in inputs:
            if target.is_dir() and is_within(path, target):
                raise OutputError(field, target, f"{path.name} in it is an input of the job", "Choose another folder.")
            if path.is_dir() and is_within(target, path):
                raise OutputError(field, target, f"it lies in {path}, which is read", "Choose a place outside of it.")


def check_names(field: str, out: Path, names: Iterable[Path]) -> None:
    """Refuse names that are too long for their folder, with what is added to them while they are written.

    Raises:
        OutputError: one of `names` has more bytes than the file system allows.
    """
    for name in names:
        most = _longest(name.parent)
        longest = max((name, lock_name(name), temporary_name(name)), key=lambda path: len(os.fsencode(path.name)))
        if (size := len(os.fsencode(longest.name))) > most:
            rule = f"the name is too long: {size} bytes with what is added while it is written, and the folder allows {most}"
            raise OutputError(field, out, rule, f"Choose a name that is {size - most} bytes shorter.")


def check_file(field: str, path: Path, ours: bool, overwrite: bool) -> None:
    """Refuse a name under which something lies that may not be replaced. Nothing is opened for writing that has to stay.

    Args:
        ours: what lies there was made by this program, provably.
        overwrite: the user allows to replace a plain file or a link.

    Raises:
        OutputError: a folder or a device lies there; a file or link that is not ours, without `overwrite`; a read-only file.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise output_error(path, error, field) from error
    if stat.S_ISDIR(found.st_mode):
        raise OutputError(field, path, "this is a folder", "Name a file.")
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISLNK(found.st_mode):
        raise OutputError(field, path, "this is a device or a pipe", "Name a file.")
    if not (ours or overwrite):
        what = "a link of this name is there" if stat.S_ISLNK(found.st_mode) else "a file of this name is there already"
        rule = f"{what}, and nothing proves that this program made it"
        raise OutputError(field, path, rule, f"Choose another name, or allow it with {setting('output.overwrite')}.")
    if stat.S_ISLNK(found.st_mode):
        return
    try:
        if not found.st_mode & 0o222:
            raise PermissionError(errno.EACCES, "read-only")
        os.close(os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        rule = (
            "the file of this name is read-only" if error.errno in (errno.EACCES, errno.EPERM) else str(error.strerror)
        )
        raise OutputError(field, path, rule, "Make it writable, or choose another name.") from error


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return Path(os.path.abspath(path))


def _place(path: Path) -> Key:
    """The folder around a name, by identity where it is there, and the name."""
    try:
        around = path.parent.stat()
        return (around.st_dev, around.st_ino, path.name)
    except (OSError, ValueError):
        return (str(path),)


def _files_in(path: Path) -> Iterator[Path]:
    try:
        yield from path.iterdir() if path.is_dir() else ()
    except OSError:
        return


def _longest(folder: Path) -> int:
    for place in (folder.absolute(), *folder.absolute().parents):
        try:
            return os.pathconf(place, "PC_NAME_MAX")
        except (OSError, ValueError):
            continue
    return _LONGEST
