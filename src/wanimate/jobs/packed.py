"""Tensors as bytes with a hash of their own, for files that outlive their process."""

from __future__ import annotations

import hashlib
import json

import safetensors.torch
from torch import Tensor

_UNKNOWN = "0" * 64
"""In place of a hash until it is known."""


def packed(tensors: dict[str, Tensor]) -> tuple[bytes, memoryview]:
    """A .safetensors file with a hash of its own tensors: its header, and the rest."""
    data = safetensors.torch.save(tensors, {"sha256": _UNKNOWN})
    start = _start(data)
    tensor_bytes = memoryview(data)[start:]
    return data[:start].replace(_UNKNOWN.encode(), hashlib.sha256(tensor_bytes).hexdigest().encode()), tensor_bytes


def unpacked(data: bytes) -> dict[str, Tensor]:
    """The tensors of `packed`. Raises ValueError, KeyError or SafetensorError where they are not those that were written."""
    start = _start(data)
    if json.loads(data[8:start])["__metadata__"]["sha256"] != hashlib.sha256(data[start:]).hexdigest():
        raise ValueError("damaged")
    return safetensors.torch.load(data)


def _start(data: bytes) -> int:
    """Where the numbers of a .safetensors file begin."""
    return 8 + int.from_bytes(data[:8], "little")
