"""GGUF files of the `wan` architecture, read with the `gguf` package one tensor at a time."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wanimate.errors import CheckpointError
from wanimate.weights.stored import Stored

MAGIC = b"GGUF"
ORIGINAL_SHAPE = "comfy.gguf.orig_shape."
"""Metadata key of tensors that were stored flat because GGUF knows four axes only."""


def is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def gguf_names(path: Path) -> list[str]:
    """Names of all tensors; nothing is expanded."""
    return [tensor.name for tensor in _open(path).tensors]


def gguf_kinds(path: Path) -> dict[str, int]:
    """Parameters by type (Q4_K, F32 ...), most first."""
    counts: Counter[str] = Counter()
    for tensor in _open(path).tensors:
        counts[tensor.tensor_type.name] += int(tensor.n_elements)
    return dict(counts.most_common())


def open_gguf(path: Path) -> dict[str, Stored]:
    """Every tensor, nothing expanded yet: quantised ones become float32, others are as they are stored.

    Raises:
        CheckpointError: the package is missing, the file is damaged, or it is of another architecture.
    """
    reader = _open(path)
    field = reader.get_field("general.architecture")
    architecture = "" if field is None else str(field.contents())
    if architecture != "wan":
        rule = f"its architecture is {architecture or 'not stated'}, not wan"
        raise CheckpointError("checkpoint", path, rule, "Use a GGUF file of Wan2.2-Animate.")
    out: dict[str, Stored] = {}
    for stored in reader.tensors:
        original = reader.get_field(ORIGINAL_SHAPE + stored.name)
        sizes = [int(n) for n in original.contents()] if original is not None else [int(n) for n in stored.shape[::-1]]
        packed = stored.data.dtype == np.uint8
        dtype = torch.float32 if packed else torch.from_numpy(np.empty(0, stored.data.dtype)).dtype
        shape = torch.Size(sizes)
        out[stored.name] = Stored(shape, dtype, partial(_expanded, stored, shape), packed)
    return out


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
        return GGUFReader(path)
    except Exception as error:  # the reader raises whatever a damaged file makes numpy raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            "checkpoint", path, f"not a readable GGUF file ({reason})", "Download it again."
        ) from error
