"""The character image: any ordinary picture file as 8-bit RGB, upright, without transparency."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from wanimate.errors import InputError
from wanimate.media.container import check_file
from wanimate.types import Frame

# Pictures only: formats that start another program (EPS) or that are documents are left out.
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "TGA", "AVIF", "JPEG2000")
MAX_PIXELS = 100_000_000
MIN_SIDE = 32
ORIENTATION = 0x0112
REMEDY = "Give a PNG, JPEG or WebP picture."


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
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit decides, below
            image = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError as e:
        raise _too_large(field, path, "") from e
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as e:
        remedy = "Convert HEIC to JPEG or PNG first." if path.suffix.lower() in (".heic", ".heif") else REMEDY
        raise InputError(field, path, "not a picture that can be read", remedy) from e
    with image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise _too_large(field, path, f"{width}x{height} pixels, ")
        if min(width, height) < MIN_SIDE:
            rule = f"{width}x{height} pixels; the short side must be at least {MIN_SIDE}"
            raise InputError(field, path, rule, "Give a larger picture.")
        try:
            pixels = _sixteen_bit(image, path) if _is_sixteen_bit(image) else _eight_bit(image)
            orientation = int(image.getexif().get(ORIENTATION, 1))
        except (OSError, ValueError, SyntaxError, cv2.error) as e:
            raise InputError(field, path, "the picture is damaged or cut off", "Export it again.") from e
    return _upright(_flatten(pixels, background), orientation)


def _too_large(field: str, path: Path, size: str) -> InputError:
    return InputError(field, path, f"{size}above the limit of {MAX_PIXELS // 10**6} megapixels", "Scale it down.")


def _is_sixteen_bit(image: Any) -> bool:
    if image.mode.startswith("I"):
        return True
    # Colour pictures of 16 bits are opened as mode RGB; only the stored form of their first tile tells.
    stored = str(image.tile[0][3]) if image.tile else ""
    return ";16" in stored


def _eight_bit(image: Any) -> Frame:
    """uint8 [H, W, 3], or [H, W, 4] where the picture has transparency."""
    if image.mode == "F":
        raise ValueError("floating-point values have no stated range")
    transparent = "A" in image.getbands() or "transparency" in image.info
    return np.asarray(image.convert("RGBA" if transparent else "RGB"))


def _sixteen_bit(image: Any, path: Path) -> Frame:
    """The same for 16-bit values v: round(v / 257)."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float64)[:, :, None].repeat(3, axis=2)
    else:
        stored = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
        if stored is None or stored.dtype != np.uint16 or stored.ndim != 3:
            return _eight_bit(image)
        order = [2, 1, 0, 3][: stored.shape[2]]
        values = stored[:, :, order].astype(np.float64)
    return np.clip(np.rint(values / 257), 0, 255).astype(np.uint8)


def _flatten(pixels: Frame, background: tuple[int, int, int]) -> Frame:
    if pixels.shape[2] == 3:
        return pixels
    alpha = pixels[:, :, 3:].astype(np.float32) / 255
    mixed = pixels[:, :, :3] * alpha + np.asarray(background, np.float32) * (1 - alpha)
    return np.rint(mixed).astype(np.uint8)


def _upright(pixels: Frame, orientation: int) -> Frame:
    """Undo the EXIF orientation, 1..8; other values mean upright."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
