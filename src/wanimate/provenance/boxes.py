"""Where XMP lies: a box of its own in mp4 and mov, a chunk in PNG, a file beside all others."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

XMP_BOX = bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC")
C2PA_BOX = bytes.fromhex("D8FEC3D61B0E483C92975828877EC481")
PNG_KEY = b"XML:com.adobe.xmp"
LARGEST = 1 << 20
"""Bytes of a packet that is read."""
_PNG = b"\x89PNG\r\n\x1a\n"
_MOST = 100_000
"""Boxes and chunks that are looked at in one file."""

Box = tuple[bytes, int, int, int]
"""Kind (a `uuid` box's is its 16 bytes), where it begins, where its content begins, where it ends."""


def boxes(file: BinaryIO) -> Iterator[Box]:
    """The boxes of an mp4's top level.

    Raises:
        ValueError: one of them does not end where the file does, or is too short. The message is a phrase.
    """
    whole, at = file.seek(0, os.SEEK_END), 0
    for _ in range(_MOST):
        if at == whole:
            return
        file.seek(at)
        head = file.read(32)
        if len(head) < 8:
            raise ValueError("its last box is cut off")
        size, kind, content = int.from_bytes(head[:4], "big"), head[4:8], 8
        if size == 1:
            size, content = int.from_bytes(head[8:16], "big"), 16
        elif size == 0:
            size = whole - at
        if kind == b"uuid":
            kind, content = head[content : content + 16], content + 16
        if size < content or at + size > whole:
            raise ValueError("one of its boxes is longer than the file")
        yield kind, at, at + content, at + size
        at += size
    raise ValueError("it has too many boxes")


def read_bmff(path: Path) -> bytes | None:
    """The XMP of an mp4 or mov; None where there is none. Raises ValueError as `boxes`."""
    with open(path, "rb") as file:
        for kind, _, content, end in boxes(file):
            if kind == XMP_BOX:
                file.seek(content)
                return file.read(min(end - content, LARGEST + 1))
    return None


def write_bmff(source: Path, target: Path, packet: bytes) -> None:
    """A copy of an mp4 or mov with this XMP, and no other, at its end. No other byte moves.

    Raises:
        ValueError: the file is damaged, or its last box is open to the end.
    """
    with open(source, "rb") as file:
        found = list(boxes(file))
        file.seek(found[-1][1])
        if file.read(4) == bytes(4):
            raise ValueError("its last box is open to the end")
        shutil.copyfile(source, target)
    with open(target, "r+b") as file:
        for kind, start, _, end in found:
            if kind != XMP_BOX:
                continue
            if end == found[-1][3]:
                file.truncate(start)
            else:  # space that readers pass over
                file.seek(start + 4)
                file.write(b"free")
        file.seek(0, os.SEEK_END)
        file.write(struct.pack(">I", 24 + len(packet)) + b"uuid" + XMP_BOX + packet)


def read_png(path: Path) -> bytes | None:
    """The XMP of a PNG; None where there is none. Raises ValueError where it is damaged."""
    return next((data for name, data in _texts(path.read_bytes()) if name == PNG_KEY), None)


def write_png(source: Path, target: Path, packet: bytes) -> None:
    """A copy of a PNG with this XMP, and no other. Raises ValueError where it is damaged."""
    data = source.read_bytes()
    made = PNG_KEY + bytes(5) + packet
    chunk = struct.pack(">I", len(made)) + b"iTXt" + made + struct.pack(">I", zlib.crc32(b"iTXt" + made))
    old = b"iTXt" + PNG_KEY + b"\0"
    parts = [data[start:end] for _, start, end in _chunks(data) if not data.startswith(old, start + 4)]
    target.write_bytes(b"".join([_PNG, parts[0], chunk, *parts[1:]]))


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    at = len(_PNG)
    for _ in range(_MOST):
        if at == len(data):
            return
        if at + 12 > len(data):
            break
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            break
        yield data[at + 4 : at + 8], at, end
        at = end
    raise ValueError("one of its chunks is longer than the file")


def _texts(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Key and text of international text chunks that are not compressed."""
    for name, start, end in _chunks(data):
        content = data[start + 8 : end - 4]
        key, _, rest = content.partition(b"\0")
        if name == b"iTXt" and len(rest) >= 2 and rest[0] == 0:
            yield key, rest[2:].split(b"\0", 2)[-1]
