"""GGUF files of the networks here, read with the `gguf` package one tensor at a time."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wanimate.errors import CheckpointError
from wanimate.weights.families import NETWORKS, identify
from wanimate.weights.gguf_header import MAGIC, check_header
from wanimate.weights.stored import Stored

ORIGINAL_SHAPE = "comfy.gguf.orig_shape."
"""Metadata key of tensors that were stored flat because GGUF knows four axes only."""


def is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def gguf_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors; nothing is expanded."""
    reader = _open(path)
    return {tensor.name: tuple(_shape(reader, tensor)) for tensor in reader.tensors}


def gguf_kinds(path: Path) -> dict[str, int]:
    """Parameters by type (Q4_K, F32 ...), most first."""
    counts: Counter[str] = Counter()
    for tensor in _open(path).tensors:
        counts[tensor.tensor_type.name] += int(tensor.n_elements)
    return dict(counts.most_common())


def open_gguf(path: Path) -> dict[str, Stored]:
    """Every tensor, nothing expanded yet: quantised ones become float32, others are as they are stored.

    Raises:
        CheckpointError: the package is missing, the file is damaged, is of another network, or quantised in a way that the
            package cannot expand.
    """
    reader = _open(path)
    field = reader.get_field("general.architecture")
    architecture = "" if field is None else _text(field)
    if architecture != "wan" and identify(tensor.name for tensor in reader.tensors)[0] not in NETWORKS:
        rule = f"its architecture is {architecture or 'not stated'}, not wan"
        raise CheckpointError("checkpoint", path, rule, "Use a GGUF file of Wan2.2-Animate.")
    out: dict[str, Stored] = {}
    for stored in reader.tensors:
        sizes = _shape(reader, stored)
        if math.prod(sizes) != int(stored.n_elements) or min(sizes, default=1) < 1:
            raise _unreadable(path, f"the shape stated for {stored.name} is not that of its values")
        packed = stored.data.dtype == np.uint8
        if packed and not _can_expand(stored.tensor_type):
            rule = f"{stored.name} is {stored.tensor_type.name}, which is not read here"
            raise CheckpointError("checkpoint", path, rule, "Use a GGUF file of the types Q2_K to Q8_0.")
        dtype = torch.float32 if packed else torch.from_numpy(np.empty(0, stored.data.dtype)).dtype
        shape = torch.Size(sizes)
        out[stored.name] = Stored(shape, dtype, partial(_expanded, stored, shape), packed)
    return out


def _can_expand(kind: Any) -> bool:
    """Whether the package can; it tells by trying one block of zeros."""
    from gguf import GGML_QUANT_SIZES
    from gguf.quants import dequantize

    try:
        dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except (NotImplementedError, LookupError):
        return False
    return True


def _text(field: Any) -> str:
    try:
        return str(field.contents())
    except (ValueError, LookupError):  # bytes that are no text
        return ""


def _shape(reader: Any, stored: Any) -> list[int]:
    original = reader.get_field(ORIGINAL_SHAPE + stored.name)
    return [int(n) for n in stored.shape[::-1]] if original is None else _sizes(original.contents())


def _sizes(stated: Any) -> list[int]:
    return [int(n) for n in stated] if isinstance(stated, list) and len(stated) < 9 else [0]


def _expanded(stored: Any, shape: torch.Size) -> Tensor:
    from gguf.quants import dequantize

    values = dequantize(stored.data, stored.tensor_type) if stored.data.dtype == np.uint8 else stored.data
    return torch.from_numpy(np.array(values)).view(shape)


def _open(path: Path) -> Any:
    try:
        from gguf import GGUFReader
    except ImportError as error:
        rule = "GGUF files need the gguf package"
        raise CheckpointError("checkpoint", path, rule, "Install it with: pip install 'wanimate[gguf]'") from error
    try:
        check_header(path)
        reader = GGUFReader(path)
    except (OSError, ValueError) as error:
        reason = str(error) if isinstance(error, ValueError) and "\n" not in str(error) else "it cannot be read"
        raise _unreadable(path, reason) from error
    except Exception as error:  # the reader raises whatever a damaged file makes numpy raise
        raise _unreadable(path, "its header is damaged, or it is cut off") from error
    short = next((tensor.name for tensor in reader.tensors if tensor.data.nbytes < tensor.n_bytes), None)
    if short is not None:
        raise _unreadable(path, f"{short} lies behind its end, or it is cut off")
    return reader


def _unreadable(path: Path, reason: str) -> CheckpointError:
    return CheckpointError("checkpoint", path, f"not a readable GGUF file ({reason})", "Download it again.")
