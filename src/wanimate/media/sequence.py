"""Sequences: numbered pictures in a folder that gets its name when all are there."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt

from wanimate.errors import OutputError
from wanimate.media.files import keep_folder, kept_error, output_error
from wanimate.media.names import temporary_name

Picture = npt.NDArray[Any]
"""[H, W, 3 or 4] of R, G, B and opacity, in the numbers of the format."""


class SequenceWriter:
    """FIRST.ending and on, six digits: 000000.png, 000001.png, ...

    Args:
        write_file: writes a picture as a new file; may raise OSError.
        field: what the folder is called in errors.

    Attributes:
        digest: SHA-256 of the pictures' files on end.
    """

    def __init__(
        self, path: Path, ending: str, write_file: Callable[[Path, Picture], None], first: int = 0, field: str = "out"
    ) -> None:
        self.path, self.count, self.digest = path, 0, hashlib.sha256()
        self._ending, self._write_file, self._first, self._field = ending, write_file, first, field
        self.temporary: Path | None = temporary_name(path)
        try:
            self.temporary.mkdir(parents=True)
        except OSError as e:
            raise output_error(path, e, field) from e

    def write(self, picture: Picture) -> None:
        assert self.temporary is not None, "the folder has its name"
        file = self.temporary / f"{self._first + self.count:06d}{self._ending}"
        try:
            self._write_file(file, picture)
            with open(file, "rb") as written:
                while piece := written.read(1 << 20):
                    self.digest.update(piece)
        except OSError as e:
            raise output_error(self.path, e, self._field) from e
        self.count += 1

    def finish(self) -> None:
        """Bring the pictures to the disk; they are all there."""
        assert self.temporary is not None, "the folder has its name"
        try:
            for path in self.temporary.iterdir():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
        except OSError as e:
            raise output_error(self.path, e, self._field) from e

    def commit(self, keep: bool = False) -> None:
        assert self.temporary is not None, "the folder has its name"
        try:
            os.replace(self.temporary, self.path)
        except OSError as e:
            if not keep:
                raise output_error(self.path, e, self._field) from e
            raise self.keep(e) from e

    def keep(self, why: OSError) -> OutputError:
        assert self.temporary is not None, "the folder has its name"
        place, self.temporary = keep_folder(self.temporary, self.path), None
        return kept_error(self.path, why, place, self._field)

    def discard(self) -> None:
        if self.temporary is not None:
            shutil.rmtree(self.temporary, ignore_errors=True)
