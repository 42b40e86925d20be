"""The smallest ONNX networks: a constant answer whatever the picture. Written by hand, since no library at hand writes ONNX."""

from __future__ import annotations

import math
import struct

FLOAT = 1


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, value: int | str | bytes) -> bytes:
    """One field of protobuf's wire format."""
    if isinstance(value, int):
        return _number(number << 3) + _number(value)
    data = value.encode() if isinstance(value, str) else value
    return _number(number << 3 | 2) + _number(len(data)) + data


def _value(name: str, shape: tuple[int, ...]) -> bytes:
    axes = b"".join(_field(1, _field(1, side)) for side in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, FLOAT) + _field(2, axes)))


def answering(taken: tuple[int, ...], given: tuple[int, ...]) -> bytes:
    """A network that takes float32 of one shape and answers 0.1, 0.2 ... in another."""
    count = math.prod(given)
    values = struct.pack(f"<{count}f", *(i / 10 % 1 for i in range(count)))
    tensor = b"".join(_field(1, side) for side in given) + _field(2, FLOAT) + _field(8, "answer") + _field(9, values)
    node = _field(1, "answer") + _field(2, "out") + _field(4, "Identity")
    graph = (
        _field(1, node)
        + _field(2, "g")
        + _field(5, tensor)
        + _field(11, _value("in", taken))
        + _field(12, _value("out", given))
    )
    return _field(1, 8) + _field(7, graph) + _field(8, _field(1, "") + _field(2, 13))
