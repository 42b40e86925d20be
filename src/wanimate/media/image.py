"""The character image: any ordinary picture file as 8-bit RGB, upright, without transparency.

A picture is brought to its final form a few rows at a time, so that memory holds it as it is decoded and as it is returned,
and nothing else of its size.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from wanimate.errors import InputError
from wanimate.media.container import check_file
from wanimate.types import Frame

# Pictures only: formats that start another program (EPS) or that are documents are left out.
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "TGA", "AVIF", "JPEG2000")
MAX_PIXELS = 100_000_000
MAX_SIDE = 32_766
"""Pixels; OpenCV resamples no longer picture."""
MIN_SIDE = 32
ORIENTATION = 0x0112
REMEDY = "Give a PNG, JPEG or WebP picture."
_ROWS = 64
"""Rows that are converted at once."""
_BYTES_SWAPPED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


def load_image(path: Path, background: tuple[int, int, int] = (255, 255, 255), field: str = "image") -> Frame:
    """The picture in `path` as uint8 RGB [H, W, 3].

    EXIF orientation is applied, transparency is flattened on `background`, 16-bit values are scaled (65535 becomes
    255), grayscale, palette and CMYK pictures become RGB; of an animation the first picture is taken.

    Raises:
        InputError: missing, unreadable, damaged, under 32 pixels a side, or over 100 megapixels (refused from the
            header, before anything is decoded).
    """
    path = Path(path)
    check_file(path, field, REMEDY)
    try:
        with warnings.catch_warnings():
            # Our own limit decides, below; what a plug-in finds odd about a file is nobody's concern.
            warnings.simplefilter("ignore")
            image = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError as e:
        raise _too_large(field, path, "") from e
    except MemoryError:
        raise
    except Exception as e:  # the plug-ins raise anything for what they cannot read
        remedy = "Convert HEIC to JPEG or PNG first." if path.suffix.lower() in (".heic", ".heif") else REMEDY
        raise InputError(field, path, "not a picture that can be read", remedy) from e
    with image, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise _too_large(field, path, f"{width}x{height} pixels, ")
        if max(width, height) > MAX_SIDE:
            rule = f"{width}x{height} pixels; the long side must be at most {MAX_SIDE}"
            raise InputError(field, path, rule, "Scale it down.")
        if min(width, height) < MIN_SIDE:
            rule = f"{width}x{height} pixels; the short side must be at least {MIN_SIDE}"
            raise InputError(field, path, rule, "Give a larger picture.")
        try:
            return _loaded(image, path, background)
        except MemoryError:
            raise
        except Exception as e:
            raise InputError(field, path, "the picture is damaged or cut off", "Export it again.") from e


def _too_large(field: str, path: Path, size: str) -> InputError:
    return InputError(field, path, f"{size}above the limit of {MAX_PIXELS // 10**6} megapixels", "Scale it down.")


Strip = Callable[[int, int], npt.NDArray[Any]]
"""(first row, row after the last) -> uint8 [rows, W, 3 or 4] of the picture as it is stored."""


def _loaded(image: Any, path: Path, background: tuple[int, int, int]) -> Frame:
    width, height = image.size
    strip = _decoded(image, path)
    orientation = int(image.getexif().get(ORIENTATION, 1))  # in PNG it may stand behind the pixels
    out = np.empty((width, height, 3) if orientation in (5, 6, 7, 8) else (height, width, 3), np.uint8)
    stored = _as_stored(out, orientation)
    for first, stop in _rows(height):
        stored[first:stop] = _flatten(strip(first, stop), background)
    return out


def _rows(height: int) -> Iterator[tuple[int, int]]:
    return ((first, min(first + _ROWS, height)) for first in range(0, height, _ROWS))


def _decoded(image: Any, path: Path) -> Strip:
    """Decode the picture; what is returned converts its rows."""
    if image.format == "WEBP" and not getattr(image, "is_animated", False):
        # Pillow decodes WebP as an animation, which takes three more pictures of memory.
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.ndim != 3 or pixels.shape[1::-1] != image.size:
            raise ValueError("not one picture of the size in its header")
        order = [2, 1, 0, 3][: pixels.shape[2]]
        return lambda first, stop: pixels[first:stop][..., order]
    swapped = _other_bytes(image)
    if swapped is not None:
        return _sixteen_bit_colours(image, path, *swapped)
    image.load()
    if image.mode.startswith("I"):
        return lambda first, stop: _scaled(_part(image, first, stop))[:, :, None].repeat(3, axis=2)
    if image.mode == "F":
        raise ValueError("floating-point values have no stated range")
    transparent = "A" in image.getbands() or "transparency" in image.info
    mode = "RGBA" if transparent else "RGB"
    width = image.size[0]
    return lambda first, stop: np.asarray(image.crop((0, first, width, stop)).convert(mode))


def _part(image: Any, first: int, stop: int) -> npt.NDArray[Any]:
    return np.asarray(image.crop((0, first, image.size[0], stop)))


def _other_bytes(image: Any) -> tuple[str, str] | None:
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


def _sixteen_bit_colours(image: Any, path: Path, form: str, swapped: str) -> Strip:
    if form == "LA;16B":
        _store_as(image, swapped)
        image.load()
        return lambda first, stop: _scaled(np.ascontiguousarray(_part(image, first, stop)).view(">u2"))[
            ..., [0, 0, 0, 1]
        ]
    with Image.open(path, formats=FORMATS) as low:
        _store_as(low, swapped)
        low.load()
    image.load()

    def strip(first: int, stop: int) -> npt.NDArray[Any]:
        return _scaled(_part(image, first, stop).astype(np.uint16) << 8 | _part(low, first, stop))

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


def _scaled(values: npt.NDArray[Any]) -> Frame:
    """16-bit values v as 8 bits: round(v / 257)."""
    return np.clip(np.rint(values / 257), 0, 255).astype(np.uint8)


def _flatten(pixels: npt.NDArray[Any], background: tuple[int, int, int]) -> Frame:
    if pixels.shape[2] == 3:
        return pixels
    alpha = pixels[:, :, 3:].astype(np.float32) / 255
    mixed = pixels[:, :, :3] * alpha + np.asarray(background, np.float32) * (1 - alpha)
    return np.rint(mixed).astype(np.uint8)


def _as_stored(upright: Frame, orientation: int) -> Frame:
    """A view of the upright picture in which rows and columns lie as in the file; EXIF orientation 1..8, others are upright."""
    if orientation in (3, 4, 7, 8):
        upright = upright[::-1]
    if orientation in (2, 3, 6, 7):
        upright = upright[:, ::-1]
    return upright.transpose(1, 0, 2) if orientation in (5, 6, 7, 8) else upright
