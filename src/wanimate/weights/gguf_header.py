"""The header of a GGUF file, walked through before the `gguf` package reads it: that package believes every number it finds."""

from __future__ import annotations

import math
import struct
from pathlib import Path

from wanimate.media.json_file import open_plain

MAGIC = b"GGUF"
_MOST_KEYS, _MOST_TENSORS, _MOST_ELEMENTS, _LONGEST_NAME = 2**16, 2**17, 2**20, 2**12
_STRING, _ARRAY = 8, 9
_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value by its type."""
_AXES = 4
_MOST_HEADER = 2**24


def check_header(path: Path) -> None:
    """Whether every count, length and place in the header fits the file.

    Raises:
        OSError: it cannot be opened. ValueError: one of them does not; the message is a phrase about the file.
    """
    with open(open_plain(path), "rb") as file:
        size = path.stat().st_size
        _Header(file.read(_MOST_HEADER), size).check()


class _Header:
    def __init__(self, data: bytes, size: int) -> None:
        self._data, self._size, self._at = data, size, 0
        self._alignment = 32

    def check(self) -> None:
        magic, version, tensors, keys = self._take("<IIQQ")
        if magic != int.from_bytes(MAGIC, "little") or version not in (2, 3):
            raise ValueError("it is not a little-endian GGUF file of version 2 or 3")
        if keys > _MOST_KEYS or tensors > _MOST_TENSORS:
            raise ValueError(f"it claims {tensors} tensors and {keys} keys")
        for _ in range(keys):
            name = self._text(_LONGEST_NAME)
            (kind,) = self._take("<I")
            self._value(kind, name)
        found = [self._tensor() for _ in range(tensors)]
        if len({name for name, _ in found}) < len(found):
            raise ValueError("two of its tensors have one name")
        start = -(-self._at // self._alignment) * self._alignment
        if any(start + offset > self._size for _, offset in found):
            raise ValueError("a tensor lies behind its end, or it is cut off")

    def _take(self, form: str) -> tuple[int, ...]:
        self._skip(struct.calcsize(form))
        return struct.unpack_from(form, self._data, self._at - struct.calcsize(form))

    def _skip(self, count: int) -> None:
        if count > len(self._data) - self._at:
            raise ValueError("it is cut off, or a length in its header is wrong")
        self._at += count

    def _text(self, longest: int) -> bytes:
        (length,) = self._take("<Q")
        if length > longest:
            raise ValueError("a length in its header is wrong")
        self._skip(length)
        return self._data[self._at - length : self._at]

    def _value(self, kind: int, name: bytes) -> None:
        if kind == _STRING:
            self._text(_MOST_HEADER)
        elif kind == _ARRAY:
            kind, count = self._take("<IQ")
            if count > _MOST_ELEMENTS or (kind != _STRING and kind not in _SCALARS):
                raise ValueError("a list in its header is too long, or of an unknown type")
            if kind == _STRING:
                for _ in range(count):
                    self._text(_MOST_HEADER)
            else:
                self._skip(count * _SCALARS[kind])
        elif kind in _SCALARS:
            self._skip(_SCALARS[kind])
            if name == b"general.alignment":
                self._set_alignment(kind)
        else:
            raise ValueError("a value in its header is of an unknown type")

    def _set_alignment(self, kind: int) -> None:
        self._alignment = int.from_bytes(self._data[self._at - 4 : self._at], "little")
        if kind != 4 or self._alignment not in [2**n for n in range(17)]:
            raise ValueError("its alignment is wrong")

    def _tensor(self) -> tuple[bytes, int]:
        """Name and offset."""
        name = self._text(_LONGEST_NAME)
        (axes,) = self._take("<I")
        if axes > _AXES:
            raise ValueError(f"a tensor has {axes} axes")
        shape = self._take(f"<{axes}Q")
        # A quantised value takes less than a bit at the least.
        if math.prod(shape) > 16 * self._size or not all(shape):
            raise ValueError("a tensor is larger than the file")
        _, offset = self._take("<IQ")
        return name, offset
