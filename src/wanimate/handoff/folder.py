"""The folder of a package: filled beside its final name, whole when it gets it; a hand-off that was killed goes on there."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256 as sha256_of
from pathlib import Path
from typing import Any, get_args

from wanimate.errors import OutputError
from wanimate.finish.lock import holds_nothing_finished
from wanimate.handoff.package import Item, Package, Role
from wanimate.media.files import AtomicFile, json_bytes, keep_folder, kept_error, output_error, read_marked, sha256
from wanimate.media.lock import NameLock
from wanimate.media.names import exchanged, is_real_folder, remove, remove_folder
from wanimate.media.places import check_names

FORMAT, WORK_FORMAT = "wanimate.handoff/1", "wanimate.handoff-work/1"
APPROVAL, CHECKSUMS = ".handoff.json", ".sha256"
"""Endings of the file that tells what a package is, and of that with the hashes of all others."""
_JOURNAL, _MAKING, _FILES = "journal.json", "making", "files"
_ROLES: tuple[str, ...] = get_args(Role)
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
TYPES = {
    ".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime", ".mkv": "video/x-matroska",
    ".jpg": "image/jpeg", ".png": "image/png",
    ".otio": "application/vnd.opentimelineio+json", ".fcpxml": "application/xml", ".edl": "text/plain",
    ".csv": "text/csv", ".xmp": "application/rdf+xml", ".json": "application/json", ".sha256": "text/plain",
}  # fmt: skip


def read_package(folder: Path) -> Package | None:
    """A package that is whole: every file is as it was written, and nothing else is there. None for any other folder."""
    found = _read(folder)
    return None if found is None else found[0]


def checksums(items: Iterator[Item] | tuple[Item, ...]) -> bytes:
    """The hashes of files as `sha256sum -c` reads them."""
    return "".join(f"{item.sha256}  {item.name}\n" for item in items).encode()


class Work:
    """A package on its way, in `.NAME.handoff` beside its final name. `holding` makes one.

    Args:
        place: the final name; its lock is held.
        older: a package of that name that is there, and the keys of its files.
    """

    def __init__(self, place: Path, older: tuple[Package, Mapping[str, str]] | None) -> None:
        self.place = place
        self._folder = work_path(place)
        self._older = older
        self._seen = None if older is None else _states(place)
        self._keys: dict[str, str] = {}
        self._items: dict[str, Item] = {}
        self._known = self._begun()

    @property
    def items(self) -> tuple[Item, ...]:
        """What is ready, in the order in which it came."""
        return tuple(self._items.values())

    @property
    def keys(self) -> Mapping[str, str]:
        """What decided each file."""
        return self._keys

    def path(self, name: str) -> Path:
        """Where a file is that is ready."""
        return self._folder / _FILES / name

    @property
    def making(self) -> Path:
        """A folder for files that are being made."""
        return self._folder / _MAKING

    def has(self, name: str, role: Role, key: str) -> bool:
        """Whether a file is there, made of the same, and whole. It is taken over then."""
        for known, place in self._places(name, key):
            if place.is_file() and not place.is_symlink() and sha256(place) == known.sha256:
                if place != self.path(name):
                    _linked(place, self.path(name))
                self._note(Item(name, role, known.sha256, known.size, known.media_type), key)
                return True
        return False

    def put(self, name: str, role: Role, key: str) -> None:
        """Take over a file that was made in `making` under this name."""
        made = self.making / name
        try:
            _settle(made)
            item = Item(name, role, sha256(made), made.stat().st_size, TYPES[made.suffix.lower()])
            os.replace(made, self.path(name))
        except OSError as error:
            raise output_error(self.place, error, "to") from error
        self._note(item, key)

    def write(self, name: str, role: Role, content: bytes) -> None:
        """A small file."""
        key = sha256_of(content).hexdigest()
        if not self.has(name, role, key):
            with AtomicFile(self.making / name, "to") as file:
                file.write(content)
            self.put(name, role, key)

    def unchanged(self) -> Package | None:
        """The older package, where it has the very same files."""
        if self._older is None or {(i.name, i.sha256) for i in self._older[0].files} != {
            (i.name, i.sha256) for i in self.items
        }:
            return None
        return self._older[0]

    def finish(self, output_sha256: str) -> Package:
        """Give the folder its name. An older package of this name, which is whole, gives way.

        Raises:
            OutputError: it cannot get the name; the folder is kept then, and the error tells where.
        """
        files = self._folder / _FILES
        _settle(files)
        try:
            if self._older is None:
                os.rename(files, self.place)  # an empty folder gives way, a filled one does not
            else:
                if _states(self.place) != self._seen:
                    raise FileExistsError(0, "its files have changed meanwhile")
                old = exchanged(files, self.place)
                if old != files:
                    remove(old)
        except OSError as error:
            raise kept_error(self.place, error, keep_folder(files, self.place), "to") from error
        self.discard()
        return Package(self.place, self.items, output_sha256)

    def discard(self) -> None:
        """Remove what is left of the work."""
        remove_folder(self._folder, self.place)

    def _places(self, name: str, key: str) -> Iterator[tuple[Item, Path]]:
        """Where a file of this key may be: in the work that was begun, or in the older package."""
        if name in self._known and self._known[name][1] == key:
            yield self._known[name][0], self.path(name)
        if self._older is not None and self._older[1].get(name) == key:
            package = self._older[0]
            yield next(item for item in package.files if item.name == name), package.folder / name

    def _note(self, item: Item, key: str) -> None:
        self._items[item.name], self._keys[item.name] = item, key
        self._known[item.name] = item, key
        self._write(self._known)

    def _begun(self) -> dict[str, tuple[Item, str]]:
        """What a hand-off that did not end has left; whatever its journal does not know is removed."""
        known: dict[str, tuple[Item, str]] = {}
        if os.path.lexists(self._folder):
            journal = read_marked(self._folder / _JOURNAL, WORK_FORMAT)
            if journal is None and not holds_nothing_finished(self._folder):
                rule = f"{self._folder.name} beside it is no folder of this program"
                raise OutputError("to", self.place, rule, "Remove it, or choose another name.")
            known = dict(_items_of(journal or {}))
        try:
            self._folder.mkdir(exist_ok=True)
            self._write(known)  # first of all: it tells whose folder this is
            for path in self._folder.iterdir():
                if path.name not in (_JOURNAL, _FILES):
                    remove(path)
            self.making.mkdir()
            (self._folder / _FILES).mkdir(exist_ok=True)
            for path in (self._folder / _FILES).iterdir():
                if path.name not in known:
                    remove(path)
        except OSError as error:
            raise output_error(self.place, error, "to") from error
        return known

    def _write(self, known: Mapping[str, tuple[Item, str]]) -> None:
        told = {name: vars(item) | {"key": key} for name, (item, key) in known.items()}
        with AtomicFile(self._folder / _JOURNAL, "to") as file:
            file.write(json_bytes({"format": WORK_FORMAT, "files": told}, 1))

    def leave_only_these(self) -> None:
        """Remove files that an earlier, other hand-off had made."""
        for path in (self._folder / _FILES).iterdir():
            if path.name not in self._items:
                remove(path)


def work_path(place: Path) -> Path:
    """Where a package is filled: out/S010 -> out/.S010.handoff."""
    return place.with_name(f".{place.name}.handoff")


@contextmanager
def holding(place: Path, output_sha256: str) -> Iterator[Work]:
    """Hold the name of a package of this result, and find what an earlier hand-off has left.

    Raises:
        OutputError: the name is taken by something that is no whole package of this result; somebody else is writing it; the
            folder around it cannot be written.
    """
    if not place.name:
        raise OutputError("to", place, "it names no folder", "Give the package a name.")
    check_names("to", place, (place, work_path(place)))
    with ExitStack() as stack:
        stack.enter_context(NameLock(place, "to"))
        older = _older(place)
        if older is not None and older[0].output_sha256 != output_sha256:
            rule = "it is the package of another result"
            raise OutputError("to", place, rule, "Name a new folder, or remove it.")
        yield Work(place, older)


def _older(place: Path) -> tuple[Package, dict[str, str]] | None:
    """The package of this name; None where there is nothing, or an empty folder."""
    if not os.path.lexists(place):
        return None
    remedy = "Name a new folder, DIR/{shot}_v{version:03} for instance."
    if not is_real_folder(place):
        raise OutputError("to", place, "the name is taken", remedy)
    try:
        if not any(place.iterdir()):
            return None
    except OSError as error:
        raise output_error(place, error, "to") from error
    found = _read(place)
    if found is None:
        rule = "files are in it, and nothing proves that they are a package as this program wrote it"
        raise OutputError("to", place, rule, remedy)
    return found


def _read(folder: Path) -> tuple[Package, dict[str, str]] | None:
    """A whole package, and what decided each of its files."""
    if not is_real_folder(folder):
        return None
    there = {path.name: path for path in folder.iterdir()}
    named = [name for name in there if name.endswith(APPROVAL)]
    sums = [name for name in there if name.endswith(CHECKSUMS)]
    if (
        len(named) != 1
        or len(sums) != 1
        or not all(path.is_file() and not path.is_symlink() for path in there.values())
    ):
        return None
    made = read_marked(there[named[0]], FORMAT)
    output = made.get("output_sha256") if made else None
    if made is None or not isinstance(output, str):
        return None
    known = dict(_items_of(made))
    for name, role in ((named[0], "approval"), (sums[0], "checksums")):
        size = there[name].stat().st_size
        known[name] = Item(name, role, sha256(there[name]), size, TYPES[there[name].suffix]), ""  # type: ignore[arg-type]
    if known.keys() != there.keys() or _listed(there[sums[0]]) != {
        (item.sha256, name) for name, (item, _) in known.items() if name != sums[0]
    }:
        return None
    if any(sha256(there[name]) != item.sha256 for name, (item, _) in known.items()):
        return None
    package = Package(folder, tuple(item for item, _ in known.values()), output)
    return package, {name: key for name, (_, key) in known.items()}


def _items_of(told: Mapping[str, Any]) -> Generator[tuple[str, tuple[Item, str]], None, None]:
    """Files with their keys, as a journal or a package tells of them; what is not well-formed is passed over."""
    files = told.get("files")
    for name, one in files.items() if isinstance(files, dict) else ():
        with suppress(TypeError, KeyError, ValueError):
            item = Item(name, one["role"], str(one["sha256"]), int(one["size"]), str(one["media_type"]))
            if item.role in _ROLES and name == Path(name).name:
                yield name, (item, str(one["key"]))


def _listed(path: Path) -> set[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return set()
    return {(found[1], found[2]) for line in lines if (found := _LINE.fullmatch(line))}


def _states(folder: Path) -> dict[str, tuple[int, int, int]]:
    """What the files of a folder show of themselves while nobody changes them."""
    found = ((path.name, path.lstat()) for path in folder.iterdir())
    return {name: (at.st_ino, at.st_size, at.st_mtime_ns) for name, at in found}


def _linked(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no hard links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        with AtomicFile(target, "to") as file, open(source, "rb") as given:
            while piece := given.read(1 << 20):
                file.write(piece)


def _settle(path: Path) -> None:
    """Bring a file or the names of a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def told(items: Iterator[Item], keys: Mapping[str, str]) -> dict[str, Any]:
    """Files as a package's own file tells of them."""
    return {item.name: vars(item) | {"key": keys[item.name]} for item in items}
