"""The character image: any ordinary picture file as 8-bit RGB, upright, without transparency.

A picture is brought to its final form a few rows at a time, so that memory holds it as it is decoded and as it is returned,
and nothing else of its size.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

try:
    import pi_heif
except ImportError:  # no wheel for this Python or machine; HEIC is told by its content then
    pi_heif = None

from wanimate.errors import Fault, InputError
from wanimate.media.colour import flattened
from wanimate.media.container import check_file
from wanimate.media.deep import Strip, halve_jpeg2000, other_bytes, part, plain_values, scaled, sixteen_bit_colours
from wanimate.media.icc import ProfileError, ToSrgb, to_srgb
from wanimate.media.kinds import HEIC, kind_of
from wanimate.media.orientation import as_stored, shown_size
from wanimate.types import Frame

# Pictures only: formats that start another program (EPS) or that are documents are left out.
FORMATS = ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "TGA", "AVIF", "JPEG2000"]
if pi_heif is not None:
    pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
    FORMATS.append("HEIF")
MAX_PIXELS = 100_000_000
MAX_SIDE = 32_766
"""Pixels; OpenCV resamples no longer picture."""
MIN_SIDE = 32
ORIENTATION = 0x0112
REMEDY = "Give a PNG, JPEG or WebP picture."
_ROWS = 64
"""Rows that are converted at once."""
_PRINTED = ("CMYK", "LAB")
"""Modes whose four or three values are no RGB."""
AGAIN = "Export it again."
_CONVERT_HEIC = "Convert HEIC to JPEG or PNG: open it where it comes from and export it as JPEG."
_AGAIN = {"HEIF": _CONVERT_HEIC}


def load_image(
    path: Path,
    background: tuple[int, int, int] = (255, 255, 255),
    field: str = "image",
    notices: list[str] | None = None,
) -> Frame:
    """The picture in `path` as uint8 sRGB [H, W, 3].

    EXIF orientation is applied, colour profiles are converted, transparency is flattened on `background`, 16-bit values are
    scaled (65535 becomes 255), grayscale, palette and CMYK pictures become RGB; of an animation the first picture is taken.

    Args:
        notices: gets what the user should be told of the picture.

    Raises:
        InputError: missing, unreadable, damaged, under 32 pixels a side, or over 100 megapixels (refused from the
            header, before anything is decoded).
    """
    path = Path(path)
    with _opened(path, field) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise _too_large(field, path, f"{width}x{height} pixels, ")
        if max(width, height) > MAX_SIDE:
            rule = f"{width}x{height} pixels; the long side must be at most {MAX_SIDE}"
            raise InputError(field, path, rule, "Scale it down.", Fault.SIZE)
        if min(width, height) < MIN_SIDE:
            rule = f"{width}x{height} pixels; the short side must be at least {MIN_SIDE}"
            raise InputError(field, path, rule, "Give a larger picture.", Fault.SIZE)
        try:
            return _loaded(image, path, background, [] if notices is None else notices)
        except MemoryError:
            raise
        except Exception as e:
            rule, remedy = "the picture is damaged or cut off", _AGAIN.get(image.format, AGAIN)
            raise InputError(field, path, rule, remedy, Fault.UNREADABLE) from e


@dataclass(frozen=True)
class Header:
    """What a picture's header says: Pillow's name of its format ("JPEG"), and its stored width and height in pixels."""

    format: str
    width: int
    height: int


def read_header(path: Path, field: str = "image") -> Header:
    """The header of a picture; nothing is decoded.

    Raises:
        InputError: missing, or not a picture that can be read.
    """
    with _opened(Path(path), field) as image:
        return Header(image.format, *image.size)


@contextmanager
def _opened(path: Path, field: str) -> Iterator[Any]:
    """The picture as Pillow opens it. Its warnings are kept silent: our own limits decide, and what a plug-in finds odd about a
    file is nobody's concern."""
    check_file(path, field, REMEDY)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(path, formats=FORMATS)
        except Image.DecompressionBombError as e:
            raise _too_large(field, path, "") from e
        except MemoryError:
            raise
        except Exception as e:  # the plug-ins raise anything for what they cannot read
            raise _unreadable(field, path) from e
        with image:
            yield image


def _too_large(field: str, path: Path, size: str) -> InputError:
    rule = f"{size}above the limit of {MAX_PIXELS // 10**6} megapixels"
    return InputError(field, path, rule, "Scale it down.", Fault.SIZE)


def _unreadable(field: str, path: Path) -> InputError:
    kind = kind_of(path)
    if kind is None:
        return InputError(field, path, "not a picture that can be read", REMEDY, Fault.KIND)
    if kind != HEIC:
        rule = f"not a picture that can be read: it is {kind} by its content"
        return InputError(field, path, rule, REMEDY, Fault.KIND)
    if "HEIF" not in FORMATS:
        remedy = f"Install a reader (pip install pi-heif), or {_CONVERT_HEIC[0].lower()}{_CONVERT_HEIC[1:]}"
        return InputError(field, path, "it is a HEIC picture by its content", remedy, Fault.KIND)
    rule = "it is a HEIC picture by its content, damaged or cut off"
    return InputError(field, path, rule, _CONVERT_HEIC, Fault.UNREADABLE)


def _loaded(image: Any, path: Path, background: tuple[int, int, int], notices: list[str]) -> Frame:
    if halve_jpeg2000(image):
        notices.append(f"{path.name} is read at a part of its size, since JPEG 2000 takes much memory")
    strip = _decoded(image, path)
    try:
        convert = to_srgb(image, path)
    except ProfileError as error:
        notices.append(f"the colour profile of {path.name} cannot be used ({error}); its colours are taken as sRGB")
        convert = None
    width, height = image.size
    orientation = int(image.getexif().get(ORIENTATION, 1))  # in PNG it may stand behind the pixels
    columns, rows = shown_size(width, height, orientation)
    out = np.empty((rows, columns, 3), np.uint8)
    stored = as_stored(out, orientation)
    for first, stop in _rows(height):
        stored[first:stop] = _shown(strip(first, stop), image.mode, convert, background)
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
    values = plain_values(image, path)
    if values is not None:
        return values
    swapped = other_bytes(image)
    if swapped is not None:
        return sixteen_bit_colours(image, path, *swapped)
    image.load()
    if image.mode.startswith("I"):
        return lambda first, stop: scaled(part(image, first, stop))[:, :, None].repeat(3, axis=2)
    if image.mode == "F":
        raise ValueError("floating-point values have no stated range")
    width = image.size[0]
    if image.mode in _PRINTED:
        return lambda first, stop: part(image, first, stop)
    transparent = "A" in image.getbands() or "transparency" in image.info
    mode = "RGBA" if transparent else "RGB"
    return lambda first, stop: np.asarray(image.crop((0, first, width, stop)).convert(mode))


def _shown(pixels: npt.NDArray[np.uint8], mode: str, convert: ToSrgb | None, background: tuple[int, int, int]) -> Frame:
    """Rows of the picture as sRGB without transparency."""
    if mode in _PRINTED:
        if convert is not None:
            return convert(pixels)
        return np.asarray(Image.frombytes(mode, pixels.shape[1::-1], pixels.tobytes()).convert("RGB"))
    if convert is not None:
        pixels = np.concatenate([convert(pixels), pixels[..., 3:]], axis=2)
    return pixels if pixels.shape[2] == 3 else flattened(pixels[..., :3], pixels[..., 3], background)
