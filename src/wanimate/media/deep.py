"""Pictures that Pillow opens with fewer bits than they have, or slowly, or in much memory; a few rows at a time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from wanimate.types import Frame

Strip = Callable[[int, int], npt.NDArray[Any]]
"""(first row, row after the last) -> uint8 [rows, W, 3 or 4] of the picture as it is stored."""
_BYTES_SWAPPED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_JPEG2000_BYTES = 1.4 * 2**30
"""What decoding a JPEG 2000 picture may take."""


def part(image: Any, first: int, stop: int) -> npt.NDArray[Any]:
    return np.asarray(image.crop((0, first, image.size[0], stop)))


def other_bytes(image: Any) -> tuple[str, str] | None:
    """How the tiles of a colour picture of 16 bits are stored, and a form with its bytes swapped; None for other pictures.

    Pillow opens such a picture with 8 bits and keeps the high bytes. Told that the bytes lie the other way round, it keeps
    the low ones.
    """
    forms = {_form(tile) for tile in image.tile}
    form = forms.pop() if len(forms) == 1 else ""
    if form == "LA;16B":
        return form, "RGBA"  # its four bytes, as if they were four channels
    name, _, depth = form.partition(";16")
    if name not in ("RGB", "RGBA", "RGBX") or depth not in _BYTES_SWAPPED:
        return None
    return form, f"{name};16{_BYTES_SWAPPED[depth]}"


def sixteen_bit_colours(image: Any, path: Path, form: str, swapped: str) -> Strip:
    if form == "LA;16B":
        _store_as(image, swapped)
        image.load()
        return lambda first, stop: scaled(np.ascontiguousarray(part(image, first, stop)).view(">u2"))[..., [0, 0, 0, 1]]
    with Image.open(path, formats=[image.format]) as low:
        _store_as(low, swapped)
        low.load()
    image.load()

    def strip(first: int, stop: int) -> npt.NDArray[Any]:
        return scaled(part(image, first, stop).astype(np.uint16) << 8 | part(low, first, stop))

    return strip


def _form(tile: Any) -> str:
    """How the values of a tile are stored, in Pillow's words."""
    if isinstance(tile.args, tuple):
        return str(tile.args[0]) if tile.args else ""
    return str(tile.args)


def _store_as(image: Any, form: str) -> None:
    image.tile = [
        tile._replace(args=(form, *tile.args[1:]) if isinstance(tile.args, tuple) else form) for tile in image.tile
    ]


def scaled(values: npt.NDArray[Any]) -> Frame:
    """16-bit values v as 8 bits: round(v / 257)."""
    return np.clip(np.rint(values / 257), 0, 255).astype(np.uint8)


def plain_values(image: Any, path: Path) -> Strip | None:
    """The rows of a PPM picture whose values do not end at 255, which Pillow reads one by one; None for other pictures."""
    if not image.tile or image.tile[0].codec_name != "ppm":
        return None
    most, offset = int(image.tile[0].args[-1]), image.tile[0].offset
    shape = (image.size[1], image.size[0], len(image.getbands()))
    values = np.memmap(path, ">u2" if most > 255 else "u1", "r", offset, shape)

    def strip(first: int, stop: int) -> npt.NDArray[Any]:
        rows = np.minimum(np.rint(values[first:stop] * (255 / most)), 255).astype(np.uint8)
        return rows.repeat(3, axis=2) if shape[2] == 1 else rows

    return strip


def halve_jpeg2000(image: Any) -> bool:
    """Have a JPEG 2000 picture decoded at a half or a quarter of its size, where its own would take too much memory.

    Returns whether that is so.
    """
    if image.format != "JPEG2000":
        return False
    pixels, halvings = image.size[0] * image.size[1], 0
    bytes_a_pixel = 7 * len(image.getbands()) + 2  # measured: benchmarks/memory.py
    while (pixels >> 2 * halvings) * bytes_a_pixel > _JPEG2000_BYTES:
        halvings += 1
    if halvings:
        image.reduce = halvings
    return halvings > 0
