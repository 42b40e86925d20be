"""GGUF files of the `wan` architecture, read with the `gguf` package one tensor at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wanimate.errors import CheckpointError

MAGIC = b"GGUF"
ORIGINAL_SHAPE = "comfy.gguf.orig_shape."
"""Metadata key of tensors that were stored flat because GGUF knows four axes only."""


def is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def gguf_names(path: Path) -> list[str]:
    """Names of all tensors; nothing is expanded."""
    return [tensor.name for tensor in _open(path).tensors]


def read_gguf(path: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """All tensors: quantised ones expanded to `dtype`, others as they are stored.

    Raises:
        CheckpointError: the package is missing, the file is damaged, or it is of another architecture.
    """
    reader = _open(path)
    from gguf.quants import dequantize

    field = reader.get_field("general.architecture")
    architecture = "" if field is None else str(field.contents())
    if architecture != "wan":
        rule = f"its architecture is {architecture or 'not stated'}, not wan"
        raise CheckpointError("checkpoint", path, rule, "Use a GGUF file of Wan2.2-Animate.")
    out: dict[str, Tensor] = {}
    for stored in reader.tensors:
        plain = stored.data.dtype != np.uint8
        values = stored.data if plain else dequantize(stored.data, stored.tensor_type)
        tensor = torch.from_numpy(np.array(values))
        shape = reader.get_field(ORIGINAL_SHAPE + stored.name)
        if shape is not None:
            tensor = tensor.view([int(n) for n in shape.contents()])
        out[stored.name] = tensor if plain else tensor.to(dtype)
    return out


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
