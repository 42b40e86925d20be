"""Files into the library and out of it: one, a folder, or what was exported before."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wanimate.errors import InputError, OutputError
from wanimate.library import places
from wanimate.library.entries import About, File, Library
from wanimate.library.look import look_at
from wanimate.library.names import Shelf
from wanimate.media.files import AtomicFile, json_bytes, output_error, read_marked, sha256
from wanimate.serve.content import sniff
from wanimate.serve.tables import LibraryEntry

LIST = "library.json"
FORMAT = "wanimate-library"
_TOLD = ("name", "title", "kind", "tags", "licence", "consent_ids")
"""What people have said of an entry; an approval stays where it was given."""


@dataclass(frozen=True)
class Imported:
    """A file of a folder. `entry`: None where it did not come into the library, for the reason `why`."""

    path: Path
    entry: LibraryEntry | None
    why: InputError | None = None


def add_file(library: Library, owner: str, path: Path, about: About = About()) -> LibraryEntry:
    """A new entry from a file, which is looked into.

    Raises:
        InputError: it is no clip and no picture that can be read; the library has it already; the name is taken.
    """
    try:
        kind = sniff(path)
    except OSError as error:
        raise InputError("file", path, f"it cannot be read ({error.strerror})", "Name a clip or a picture.") from error
    if kind is None:
        raise InputError("file", path, "it is no clip and no picture of a known kind", "Name an MP4, MOV, PNG or JPEG.")
    shelf: Shelf = "clip" if kind.family == "clip" else "character"
    content = sha256(path)
    same = library.having(content, owner)
    if same is not None:
        rule = f"the library has this very file, as {same.name}"
        raise InputError("file", path, rule, "Change that entry, or remove it first.")
    with tempfile.TemporaryDirectory(prefix="wanimate-library-") as folder:
        seen = look_at(shelf, path, Path(folder))
        file = File(shelf, path.name, kind.suffix, content, path.stat().st_size, path)
        entry = library.add(owner, file, about, seen.values())
        for made in Path(folder).iterdir():
            library.storage.put(places.beside(content, made.name), made)
    return entry


def add_folder(library: Library, owner: str, folder: Path, about: About = About()) -> Iterator[Imported]:
    """Every clip and picture below a folder, one after the other, in the order of their names. What an export has written
    beside them is said of them; `about` goes before it, and its tags come in addition.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError("folder", folder, "there is no such folder", "Name a folder of clips and pictures.")
    known = _listed(folder / LIST)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not path.is_file() or any(part.startswith(".") for part in name.parts) or path.name == LIST:
            continue
        try:
            if sniff(path) is not None:
                said = _both(known.get(name.as_posix(), {}), about)
                yield Imported(path, add_file(library, owner, path, said))
        except OSError as error:
            refused = InputError("file", path, f"it cannot be read ({error.strerror})", "Look at its permissions.")
            yield Imported(path, None, refused)
        except InputError as error:
            yield Imported(path, None, error)


def export(library: Library, entries: Sequence[LibraryEntry], folder: Path) -> None:
    """Write files by their entries' names, and beside them what is said of them.

    Raises:
        OutputError: the folder has something in it, or cannot be written.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputError("out", folder, "it has something in it", "Name a new folder.")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    listed = []
    taken: set[str] = set()
    for entry in entries:
        name = f"{entry.name}{entry.suffix}"
        name = name if name not in taken else f"{entry.name}-{entry.id}{entry.suffix}"  # of another owner
        taken.add(name)
        library.storage.fetch(places.file_of(entry.sha256, entry.suffix), folder / name)
        listed.append({"file": name, **described(entry)})
    with AtomicFile(folder / LIST) as file:
        file.write(json_bytes({"format": FORMAT, "version": 1, "entries": listed}, indent=1))


def described(entry: LibraryEntry) -> dict[str, Any]:
    """An entry as JSON tells it."""
    names = (
        "id", "owner", "shelf", *_TOLD, "sha256", "size", "width", "height", "seconds", "fps", "people", "loop", "camera",
        "status", "approved_by", "approved_at", "trouble", "created",
    )  # fmt: skip
    return {name: getattr(entry, name) for name in names} | {"loopable": entry.loop is not None}


def _listed(path: Path) -> dict[str, dict[str, Any]]:
    """What an export says of its files, by name; it may come from anybody."""
    entries = (read_marked(path, FORMAT) or {}).get("entries")
    found = [one for one in entries if isinstance(one, dict)] if isinstance(entries, list) else []
    return {one["file"]: one for one in found if isinstance(one.get("file"), str)}


def _both(told: dict[str, Any], about: About) -> About:
    """What a list tells of a file, and what is said of all. Raises InputError."""
    try:
        said = About(**{name: told[name] for name in _TOLD if told.get(name) is not None})
    except (TypeError, AttributeError) as error:
        raise InputError("file", LIST, "it is no list that an export wrote", "Remove it, or export again.") from error
    tags = [*(said.tags or ()), *(about.tags or ())]
    return replace(said, **(about.said() | ({"tags": tags} if tags else {})))
