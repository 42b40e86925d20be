"""What lies in a file or folder of weights, and whether it is whole. Told by content, never by a name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wanimate.errors import CheckpointError, InputError
from wanimate.weights.checkpoint import load_image_encoder, load_text_encoder, load_transformer, load_vae
from wanimate.weights.families import NETWORKS, Family, identify
from wanimate.weights.formats import is_finite, open_tensors
from wanimate.weights.gguf import gguf_kinds, is_gguf
from wanimate.weights.locate import (
    CheckpointConfig,
    check_unused,
    find_clip,
    find_text_encoder,
    find_vae,
    read_checkpoint_config,
    transformer_files,
    unnamed_config,
)
from wanimate.weights.stored import Scaled, Stored, Value, Values, type_name, value


@dataclass(frozen=True)
class Found:
    """One network: the files it lies in, what it is, how its keys are spelled, its values under their stored names."""

    files: tuple[Path, ...]
    family: Family
    layout: str
    values: Values

    @property
    def parameters(self) -> int:
        return sum(v.numel() for v in self.values.values())

    @property
    def bytes(self) -> int:
        return sum(f.stat().st_size for f in self.files)

    @property
    def types(self) -> dict[str, int]:
        """Parameters by type, most first; quantised ones with what scales them."""
        if is_gguf(self.files[0]):
            return gguf_kinds(self.files[0])
        counts: Counter[str] = Counter()
        for v in self.values.values():
            counts[_type(v)] += v.numel()
        return dict(counts.most_common())

    def described(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "files": [str(f) for f in self.files], "family": self.family, "layout": self.layout, "types": self.types,
            "tensors": len(self.values), "parameters": self.parameters, "bytes": self.bytes,
        }  # fmt: skip


def find_networks(path: Path) -> list[Found]:
    """Every network of a checkpoint folder, or the one in a file.

    Raises:
        InputError: there is nothing of the kind.
        CheckpointError: a file cannot be read, or holds another Wan's transformer.
    """
    if path.is_file():
        return [_found((path,), open_tensors(path))]
    if not path.is_dir():
        raise InputError(
            "path", path, "there is no such file or folder", "Give a checkpoint folder or a file of weights."
        )
    out = [_found(files, _merged(files)) for files in _places(path)]
    if not out:
        rule = "no network was found in this folder"
        raise InputError("path", path, rule, "Give a checkpoint folder or a file of weights.")
    return out


def _places(folder: Path) -> Iterator[tuple[Path, ...]]:
    text = find_text_encoder(folder)[0]
    places: dict[Family, tuple[Path, ...]] = {
        "transformer": tuple(transformer_files(folder)),
        "VAE": (find_vae(folder),),
        "image encoder": (find_clip(folder),),
        "text encoder": tuple(sorted(text.glob("model*.safetensors"))) if text.is_dir() else (text,),
    }
    for family, files in places.items():
        if any(file.is_file() for file in files):
            yield files
        else:
            check_unused(folder, family)


def _merged(files: tuple[Path, ...]) -> dict[str, Value]:
    return open_tensors(*files)


def _found(files: tuple[Path, ...], values: dict[str, Value]) -> Found:
    family, layout, prefix = identify(values)
    return Found(files, family, layout + (f", {prefix!r} before its keys" if prefix else ""), values)


def _type(v: Value) -> str:
    return v.form if isinstance(v, Stored) and v.form else type_name(v.dtype)


def verify(found: Found, config: CheckpointConfig | None = None) -> dict[str, list[str]]:
    """Every key and shape against the architecture, every number for NaN and infinity; nothing is kept in memory.

    Returns what is wrong with which keys; empty where all is well.

    Raises:
        CheckpointError: it is no network of this architecture at all.
    """
    broken: list[str] = []
    source, values = found.files[0], {k: _checked(k, v, broken) for k, v in found.values.items()}
    config = config or _card(found)
    try:
        if found.family == "transformer":
            load_transformer(values, config, source, torch.float32, "meta")
        elif found.family == "VAE":
            load_vae(values, config, source, "meta")
        elif found.family == "text encoder":
            load_text_encoder(values, None, source, "meta")
        elif found.family == "image encoder":
            load_image_encoder(values, source, device="meta")
        else:
            rule = f"this is a {found.family}; only {', '.join(NETWORKS)} can be verified"
            raise CheckpointError("path", source, rule, "Give a checkpoint.")
    except CheckpointError as error:
        if not error.problems:
            raise
        return {what: list(keys) for what, keys in error.problems.items()}
    return {"not finite": broken} if broken else {}


def _card(found: Found) -> CheckpointConfig:
    folder = found.files[0].parent
    return read_checkpoint_config(folder)[1] if (folder / "wanimate.json").is_file() else unnamed_config(folder)


def _checked(key: str, source: Value, broken: list[str]) -> Stored:
    """Reading it checks it, and leaves a tensor without values."""

    def read() -> Tensor:
        parts = (source.quantized, source.scale) if isinstance(source, Scaled) else (source,)
        if not all(is_finite(value(part)) for part in parts):
            broken.append(key)
        return torch.empty(source.shape, dtype=source.dtype, device="meta")

    return Stored(source.shape, source.dtype, read)
