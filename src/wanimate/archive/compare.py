"""Whether two results are the same: byte for byte, or frame for frame."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from wanimate.errors import InputError
from wanimate.media.files import sha256

Samples = npt.NDArray[Any]


@dataclass(frozen=True)
class Comparison:
    """frames: of the archived result. same_file: all bytes are equal. differing: frames that are not equal, missing and
    further ones included; first: number of the first of them; most: the largest difference of a sample, None where frames
    cannot be held against each other."""

    frames: int
    same_file: bool
    differing: int = 0
    first: int | None = None
    most: int | None = None

    @property
    def same(self) -> bool:
        return self.differing == 0

    @property
    def words(self) -> str:
        if self.same_file:
            return f"the same {self.frames} frames: the file is equal byte for byte"
        if self.same:
            return f"the same {self.frames} frames"
        by = "" if self.most is None else f", by {self.most} levels at most"
        return f"{self.differing} of {self.frames} frames differ, from frame {self.first} on{by}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "frames": self.frames, "same": self.same, "same_file": self.same_file, "differing": self.differing,
            "first": self.first, "most": self.most,
        }  # fmt: skip


def compare(archived: Path, made: Path) -> Comparison:
    """An archived result, a video, a folder of pictures or a zip of one, and what was made again.

    Raises:
        InputError: one of them cannot be decoded.
    """
    if archived.is_dir() or zipfile.is_zipfile(archived):
        return _pictures(_in_order(archived), _in_order(made))
    count = 0
    differing, first, most = 0, None, None
    for number, (one, other) in enumerate(zip_longest(_frames(archived), _frames(made))):
        count += one is not None
        if one is not None and other is not None and one.shape == other.shape:
            if (one == other).all():
                continue
            by = int(np.abs(one.astype(np.int64) - other.astype(np.int64)).max())
            most = max(by, most or 0)
        differing, first = differing + 1, number if first is None else first
    same_file = not differing and sha256(archived) == sha256(made)
    return Comparison(count, same_file, differing, first, most)


def _frames(path: Path) -> Iterator[Samples]:
    """Every frame's samples as they are stored; RGB of 16 bits where numpy has no form for them."""
    try:
        with av.open(str(path)) as file:
            for frame in file.decode(video=0):
                try:
                    yield frame.to_ndarray()
                except ValueError:
                    yield frame.to_ndarray(format="rgb48le")
    except (OSError, IndexError, av.FFmpegError) as error:
        raise InputError("result", path, f"it cannot be decoded ({error})", "Name another archive.") from error


def _in_order(place: Path) -> list[str]:
    """Hashes of the pictures of a sequence, by name."""
    if place.is_dir():
        return [sha256(path) for path in sorted(place.iterdir()) if path.is_file()]
    with zipfile.ZipFile(place) as file:
        inside = (one for one in file.infolist() if not one.is_dir() and not one.filename.endswith(".xmp"))
        return [hashlib.sha256(file.read(one)).hexdigest() for one in sorted(inside, key=lambda one: one.filename)]


def _pictures(archived: list[str], made: list[str]) -> Comparison:
    other = [number for number, (one, two) in enumerate(zip_longest(archived, made)) if one != two]
    return Comparison(len(archived), not other, len(other), other[0] if other else None)
