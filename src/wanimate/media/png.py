"""PNG files that say that their colours are sRGB."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wanimate.media.files import AtomicFile
from wanimate.types import Frame

SRGB = (b"sRGB", b"\0")
"""Name and content of the chunk; 0 is the perceptual intent."""
_AFTER_HEADER = 33
"""Bytes of signature and header, behind which the chunk goes."""


def png_bytes(frame: Frame | npt.NDArray[np.uint16]) -> bytes:
    """An RGB picture of 8 or 16 bits [H, W, 3], with opacity [H, W, 4], as PNG."""
    order = [2, 1, 0] if frame.shape[2] == 3 else [2, 1, 0, 3]
    done, encoded = cv2.imencode(".png", frame[:, :, order])
    assert done
    data, (name, content) = encoded.tobytes(), SRGB
    chunk = struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return data[:_AFTER_HEADER] + chunk + data[_AFTER_HEADER:]


def write_new_png(path: Path, picture: npt.NDArray[Any]) -> None:
    """A picture as a new PNG file. Raises OSError."""
    with open(path, "xb") as file:
        file.write(png_bytes(picture))


def write_png(path: Path, frame: Frame, field: str = "out") -> None:
    """An RGB picture as a PNG file.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    with AtomicFile(path, field) as file:
        file.write(png_bytes(frame))
