"""Some frames of a file, whatever its form, for the reader of the watermark."""

from __future__ import annotations

import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wanimate.media.master import read_picture
from wanimate.media.probe import probe
from wanimate.media.video import iter_indices
from wanimate.provenance.forms import EXR, PNG, ZIP
from wanimate.types import Frame

FRAMES, AHEAD = 120, 3000
"""Frames that are looked at, among so many first ones."""
_LARGEST_PICTURE = 256 * 2**20
_SEQUENCES, _EXR_START = (".png", ".exr"), b"v/1\x01"
DAMAGED = (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, cv2.error)
"""What libraries raise where a file is not what it says."""


def sample(file: Path, form: str) -> Iterator[Frame]:
    """Some frames of a video, or some pictures of a folder or a zip; those of another size than the first are left out."""
    if form in (PNG, EXR, "image/jpeg", "image/webp", "image/tiff"):
        yield from _alike([_picture(file)])
    elif file.is_dir():
        names = sorted(path for path in file.iterdir() if path.suffix.lower() in _SEQUENCES)
        yield from _alike(map(_picture, _some(names)))
    elif form == ZIP:
        yield from _alike(_zipped(file))
    else:
        clip = probe(file, limits=None, field="file")
        yield from iter_indices(clip, _some(range(min(clip.count, AHEAD))), "file")


def _some(every: Any) -> list[Any]:
    """At most `FRAMES`, at equal distances."""
    if len(every) <= FRAMES:
        return list(every)
    return [every[round(place)] for place in np.linspace(0, len(every) - 1, FRAMES)]


def _zipped(file: Path) -> Iterator[Frame | None]:
    with zipfile.ZipFile(file) as archive, tempfile.TemporaryDirectory() as folder:
        every = (one for one in archive.infolist() if Path(one.filename).suffix.lower() in _SEQUENCES)
        for number, one in enumerate(_some(sorted(every, key=lambda one: one.filename))):
            if one.file_size <= _LARGEST_PICTURE:
                place = Path(folder) / f"{number}{Path(one.filename).suffix.lower()}"
                place.write_bytes(archive.read(one))
                yield _picture(place)
                place.unlink()


def _picture(path: Path) -> Frame | None:
    """None where it cannot be read."""
    with open(path, "rb") as file:
        head = file.read(4)
    if head == _EXR_START:
        colours = read_picture(path)[0, :3].clamp(0, 1).mul(255).round().byte()
        return colours.permute(1, 2, 0).contiguous().numpy()
    data = np.fromfile(path, np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if len(data) else None


def _alike(every: Iterable[Frame | None]) -> Iterator[Frame]:
    shape = None
    for picture in every:
        if picture is not None and picture.shape == (shape := shape or picture.shape):
            yield picture
