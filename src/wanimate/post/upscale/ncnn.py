"""Reading ncnn's files: a `.param` names layers, a `.bin` holds their tensors in the same order.

Only layers of kinds that the networks here have are known. Everything is little-endian.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_MAGIC, _HALF, _SINGLE = "7767517", 0x01306B47, 0


@dataclass(frozen=True)
class Layer:
    """One layer: ncnn's name of its kind, its `key=value` pairs, its tensors in the file's order (float32)."""

    kind: str
    values: Mapping[int, str]
    tensors: tuple[Tensor, ...]


def read_layers(param: bytes, data: bytes) -> list[Layer]:
    """The layers of a network in order, those without tensors, too.

    Raises:
        ValueError: the files are no such network, or do not belong together.
    """
    lines = param.decode("ascii").split("\n")
    if lines[0].strip() != _MAGIC:
        raise ValueError("not an ncnn network")
    words = [line.split() for line in lines[2:] if line.strip()]
    if len(words) != int(lines[1].split()[0]):
        raise ValueError("not as many layers as its header says")
    reader, layers = _Reader(data), []
    for kind, _, inputs, outputs, *rest in words:
        pairs = (pair.split("=", 1) for pair in rest[int(inputs) + int(outputs) :])
        values = {int(key): value for key, value in pairs}
        layers.append(Layer(kind, values, _tensors(kind, values, reader)))
    if reader.at != len(data):
        raise ValueError(f"{len(data) - reader.at} bytes are left over")
    return layers


def _tensors(kind: str, values: Mapping[int, str], reader: _Reader) -> tuple[Tensor, ...]:
    if kind == "Convolution":
        out, side, count = int(values[0]), int(values[1]), int(values[6])
        weight = reader.tagged(count).view(out, count // (out * side * side), side, side)
        return (weight, reader.floats(out)) if int(values.get(5, "0")) else (weight,)
    if kind == "PReLU":
        return (reader.floats(int(values[0])),)
    if kind == "MemoryData":
        sizes = [int(values[key]) for key in (0, 1, 2) if int(values.get(key, "0"))]
        return (reader.floats(int(np.prod(sizes))),)
    return ()


class _Reader:
    """Reads tensors one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def floats(self, count: int) -> Tensor:
        return torch.from_numpy(self._array("<f4", count).astype(np.float32))

    def tagged(self, count: int) -> Tensor:
        """Weights behind a tag that tells their type; halves are filled up to a multiple of four bytes."""
        tag = int(self._array("<u4", 1)[0])
        if tag == _SINGLE:
            return self.floats(count)
        if tag != _HALF:
            raise ValueError(f"weights of an unknown type {tag:#x}")
        halves = torch.from_numpy(self._array("<f2", count).astype(np.float32))
        self.at += -2 * count % 4
        return halves

    def _array(self, kind: str, count: int) -> np.ndarray[tuple[int], np.dtype[np.generic]]:
        size = count * np.dtype(kind).itemsize
        if self.at + size > len(self.data):
            raise ValueError("it ends too early")
        found = np.frombuffer(self.data, kind, count, self.at)
        self.at += size
        return found
