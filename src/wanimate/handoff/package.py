"""What is handed off: a folder of files, each with its role and its hash."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Role = Literal[
    "review", "mezzanine", "matte", "thumbnail", "otio", "fcpxml", "edl", "markers", "xmp", "approval", "checksums",
    "record",
]  # fmt: skip
"""What a file of a package is for."""


@dataclass(frozen=True)
class Item:
    """A file of a package. name: within the folder. sha256: of all its bytes, 64 hexadecimal digits. size: in bytes."""

    name: str
    role: Role
    sha256: str
    size: int
    media_type: str


@dataclass(frozen=True)
class Package:
    """A finished package.

    folder: where it lies, whole, under its final name. files: everything in it. output_sha256: of the result that it was made
    of, which is what was approved.
    """

    folder: Path
    files: tuple[Item, ...]
    output_sha256: str = ""

    def of(self, *roles: Role) -> Iterator[Item]:
        """The files of these roles, in the package's order."""
        return (item for item in self.files if item.role in roles)

    def path(self, item: Item) -> Path:
        """Where a file of it lies."""
        return self.folder / item.name
