"""PNG files that say that their colours are sRGB."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2

from wanimate.media.files import AtomicFile
from wanimate.types import Frame

SRGB = (b"sRGB", b"\0")
"""Name and content of the chunk; 0 is the perceptual intent."""
_AFTER_HEADER = 33
"""Bytes of signature and header, behind which the chunk goes."""


def png_bytes(frame: Frame) -> bytes:
    """An RGB picture as PNG."""
    done, encoded = cv2.imencode(".png", frame[:, :, ::-1])
    assert done
    data, (name, content) = encoded.tobytes(), SRGB
    chunk = struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return data[:_AFTER_HEADER] + chunk + data[_AFTER_HEADER:]


def write_png(path: Path, frame: Frame, field: str = "out") -> None:
    """An RGB picture as a PNG file.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    with AtomicFile(path, field) as file:
        file.write(png_bytes(frame))
