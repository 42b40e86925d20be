"""Some frames of a file, whatever its form, for the reader of the watermark."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wanimate.media.probe import probe
from wanimate.media.video import iter_indices
from wanimate.provenance.forms import PNG, ZIP
from wanimate.types import Frame

FRAMES, AHEAD = 120, 3000
"""Frames that are looked at, among so many first ones."""
_LARGEST_PICTURE = 256 * 2**20
DAMAGED = (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, cv2.error)
"""What libraries raise where a file is not what it says."""


def sample(file: Path, form: str) -> Iterator[Frame]:
    """Some frames of a video, or all pictures of a folder or a zip; those of another size than the first are left out."""
    if form in (PNG, "image/jpeg", "image/webp", "image/tiff"):
        yield from _pictures([file.read_bytes()])
    elif file.is_dir():
        names = sorted(path for path in file.iterdir() if path.suffix.lower() == ".png")
        yield from _pictures(path.read_bytes() for path in _some(names))
    elif form == ZIP:
        with zipfile.ZipFile(file) as archive:
            inside = sorted(
                (one for one in archive.infolist() if one.filename.endswith(".png")), key=lambda one: one.filename
            )
            yield from _pictures(archive.read(one) for one in _some(inside) if one.file_size <= _LARGEST_PICTURE)
    else:
        clip = probe(file, limits=None, field="file")
        yield from iter_indices(clip, _some(range(min(clip.count, AHEAD))), "file")


def _some(every: Any) -> list[Any]:
    """At most `FRAMES`, at equal distances."""
    if len(every) <= FRAMES:
        return list(every)
    return [every[round(place)] for place in np.linspace(0, len(every) - 1, FRAMES)]


def _pictures(every: Any) -> Iterator[Frame]:
    shape = None
    for data in every:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        if picture is not None and picture.shape == (shape := shape or picture.shape):
            yield picture
