"""What is sent, where it goes, and what became of it."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from wanimate.errors import InputError
from wanimate.media.files import sha256

REVIEW = "review"
"""Role of the file that people look at: its versions are stacked, and comments belong to it."""
_Value = TypeVar("_Value")
Steps = Generator[str, None, _Value]
"""Work that tells what happens, in sentences without a full stop, and returns what came of it. Closing it stops; the same work
goes on there."""


class Item(Protocol):
    """A file of a package: its name below the package's folder, role, SHA-256 in hex, bytes and media type."""

    @property
    def name(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def media_type(self) -> str: ...


class Package(Protocol):
    """A folder of files that belong together. `output_sha256`: of the result that it was made of."""

    @property
    def folder(self) -> Path: ...
    @property
    def files(self) -> Sequence[Item]: ...
    @property
    def output_sha256(self) -> str: ...


@dataclass(frozen=True)
class Shipment:
    """What a package is of.

    result: the finished file, with its record beside it. shot: an id that stays the same over versions. version: id of this
    version, the job's where there is one. label: what people call it. regions: where it will be shown. lead: frames of the
    review copy before the first frame of the version, a slate for instance.
    """

    result: Path
    shot: str
    version: str
    label: str = ""
    regions: tuple[str, ...] = ()
    lead: int = 0


@dataclass(frozen=True)
class Options:
    """How it is sent.

    roles: of the files that are sent; empty is all that the service takes. make_folders: make folders that are missing.
    fields: custom fields of Frame.io and their values. links: name of a file -> an address where the service gets it itself.
    until: what is waited for. patience: for how many seconds. journals: the folder of journals. token_file: holds the token.
    team: what others of the team may do with a new project of Descript; team_folder: where it lies.
    """

    roles: tuple[str, ...] = ()
    make_folders: bool = False
    fields: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    until: Literal["uploaded", "ready"] = "uploaded"
    patience: float = 3600.0
    journals: Path | None = None
    token_file: Path | None = None
    team: Literal["none", "view", "comment", "edit"] = "none"
    team_folder: str = ""


@dataclass(frozen=True)
class SentFile:
    """A file as the service has it. `url`: where people see it, "" where the service tells none."""

    name: str
    id: str
    url: str


@dataclass(frozen=True)
class Sent:
    """What became of a hand-off. `url`: of the project or folder. `decisions`: of the gate. `left_out`: names of files that
    the service does not take."""

    target: str
    url: str
    files: tuple[SentFile, ...]
    decisions: tuple[str, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """A place at a service. `path`: folders below the project, outermost first."""

    service: Literal["frameio", "descript"]
    project: str
    path: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return f"{self.service}:{'/'.join((self.project, *self.path))}"


_TARGET = re.compile(r"(frameio|descript):(.+)", re.DOTALL)


def parse_target(text: str) -> Target:
    """A place from `frameio:PROJECT/FOLDER` or `descript:PROJECT`. Names with a slash are given by their id.

    Raises:
        InputError: it is no such text.
    """
    found = _TARGET.fullmatch(text)
    parts = tuple(part.strip() for part in found[2].split("/")) if found else ()
    if found is None or not all(parts):
        rule = "it names no place of a service"
        raise InputError("to", text, rule, "Give a folder, frameio:PROJECT/FOLDER or descript:PROJECT.")
    if found[1] == "frameio":
        return Target("frameio", parts[0], parts[1:])
    return Target("descript", found[2].strip())


def place_of(package: Package, item: Item) -> Path:
    """Where a package's file lies.

    Raises:
        InputError: its name leads out of the package.
    """
    place = package.folder / item.name
    if not item.name or Path(item.name).is_absolute() or ".." in Path(item.name).parts:
        raise InputError("package", item.name, "its name leads out of the package", "Make the package again.")
    return place


def check_bytes(package: Package, items: Iterable[Item]) -> None:
    """Look whether each file has the very bytes that its package names; the gate was asked about these.

    Raises:
        InputError: one has not.
    """
    for item in items:
        place = place_of(package, item)
        try:
            same = os.stat(place).st_size == item.size and sha256(place) == item.sha256
        except OSError as error:
            rule = f"it cannot be read ({error.strerror})"
            raise InputError("package", place, rule, "Make the package again.") from error
        if not same:
            raise InputError("package", place, "it has changed since the package was made", "Make the package again.")
