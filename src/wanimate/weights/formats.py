"""Reading tensors from files, safely: no pickled code runs, and what is unusable is named."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wanimate.errors import CheckpointError
from wanimate.media.files import in_utf8
from wanimate.media.json_file import read_json
from wanimate.weights.gguf import is_gguf, open_gguf
from wanimate.weights.markers import understood
from wanimate.weights.staging import Wanted, arriving
from wanimate.weights.stored import (
    TYPES,
    Scaled,
    Stored,
    UnreadFormat,
    Value,
    Values,
    is_safetensors,
    open_safetensors,
    value,
)

Tensors = dict[str, Tensor]
GoesTo = Callable[[str], torch.device | None]
Place = Callable[[str, Value], Tensors]
"""Where a tensor goes: its name in the module and its value -> what the module gets for it, under one or more names."""

_SHARD = re.compile(r"[^/\\\x00-\x1f]{1,240}")
_INSTEAD = "Use the checkpoint in bf16, fp16, fp8 or int8, the latter two with scales, or as GGUF."


def read_tensors(path: Path, dtype: torch.dtype = torch.float32) -> Tensors:
    """All tensors of a .safetensors or GGUF file or of a .pth/.ckpt state dictionary.

    `dtype`: what quantised weights are expanded to, one after the other. The others stay as they are stored.
    """
    return {name: _read(v, dtype) for name, v in open_tensors(path).items()}


def _read(source: Value, dtype: torch.dtype) -> Tensor:
    tensor = value(source)
    return tensor.to(dtype) if isinstance(source, Stored) and source.packed else tensor


def open_tensors(*paths: Path) -> dict[str, Value]:
    """The same of all these files together, nothing read yet.

    What the files' markers say is in the values: weights with one scale or one a row become `Scaled`, others are expanded
    when they are read. Scales of activations and markers are left out.

    Raises:
        CheckpointError: a file is missing or damaged, or in a format that is not read here.
    """
    values: dict[str, Value] = {}
    metadata: dict[str, str] = {}
    path = paths[0]
    try:
        for path in paths:
            stored, said = _open_one(path)
            values |= stored
            metadata |= said
        return understood(values, metadata) if not is_gguf(path) else values
    except UnreadFormat as error:
        raise CheckpointError(
            "checkpoint", path, f"its weights are {error}, which is not read here", _INSTEAD
        ) from error
    except ValueError as error:
        raise CheckpointError("checkpoint", path, str(error), "Download it again.") from error


def _open_one(path: Path) -> tuple[Values, dict[str, str]]:
    """A file's tensors as they are stored, and its header's metadata."""
    if not path.is_file():
        raise CheckpointError("checkpoint", path, "there is no such file", "Check the path or download it again.")
    if is_gguf(path):
        return open_gguf(path), {}
    if not is_safetensors(path):
        return _read_pickle(path), {}
    try:
        return open_safetensors(path)
    except UnreadFormat:
        raise
    except (OSError, ValueError) as error:
        rule = f"not a readable safetensors file ({error})"
        raise CheckpointError("checkpoint", path, rule, "Download it again.") from error


def _read_pickle(path: Path) -> Tensors:
    loaded = read_pickle(path)
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in loaded.items()):
        raise CheckpointError("checkpoint", path, "it holds no dictionary of tensors", "Give a state dictionary.")
    odd = next((name for name, tensor in loaded.items() if not is_plain(tensor)), None)
    if odd is not None:
        rule = f"{odd} is no ordinary tensor, or claims more values than the file holds"
        raise CheckpointError("checkpoint", path, rule, "Use another copy of the file.")
    return loaded


def read_pickle(path: Path, field: str = "checkpoint") -> Any:
    """What `torch.save` wrote: tensors, numbers, texts, and lists and tables of them. Nothing in it is run.

    Raises:
        CheckpointError: it is no such file, is damaged, wants to run code, or unpacks to more than it is.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"  # files of older PyTorch are not, and cannot be mapped
        if zipped and any(entry.compress_type != zipfile.ZIP_STORED for entry in zipfile.ZipFile(path).infolist()):
            raise CheckpointError(field, path, "it is compressed, as PyTorch writes no file", "Use another copy of it.")
        with warnings.catch_warnings(), in_utf8(path) as name:
            warnings.simplefilter("ignore")
            return torch.load(name, map_location="cpu", weights_only=True, mmap=zipped)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        rule = "the file wants to run code while it is opened, or is not a PyTorch file"
        raise CheckpointError(field, path, rule, "Use a .safetensors file from a source you trust.") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise CheckpointError(field, path, "not readable as a PyTorch file", "Download it again.") from error


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is dense, on the processor, and backed by as many bytes as its shape says."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested or tensor.device.type != "cpu":
        return False
    return tensor.dtype in TYPES.values() and tensor.nbytes <= tensor.untyped_storage().nbytes()


def read_folder(folder: Path, stem: str, dtype: torch.dtype = torch.float32) -> Tensors:
    """Tensors of `stem`.safetensors or of its shards `stem`-00001-of-0000N.safetensors; every shard has to be there."""
    return {name: _read(v, dtype) for name, v in open_folder(folder, stem).items()}


def open_folder(folder: Path, stem: str) -> dict[str, Value]:
    """The same, nothing read yet."""
    return open_tensors(*shards(folder, stem))


def shards(folder: Path, stem: str) -> list[Path]:
    """`stem`.safetensors, or the files that its index names."""
    index = folder / f"{stem}.safetensors.index.json"
    if not index.is_file():
        return [folder / f"{stem}.safetensors"]
    try:
        named = read_json(index)["weight_map"].values()
        if not named or not all(isinstance(name, str) and _SHARD.fullmatch(name) for name in named):
            raise ValueError("it has to name files of its folder")
        return [folder / shard for shard in sorted(set(named))]
    except (OSError, ValueError) as error:
        rule = f"not a readable index of shards ({error})"
        raise CheckpointError("checkpoint", index, rule, "Download it again.") from error
    except (LookupError, TypeError, AttributeError) as error:
        rule = "not a readable index of shards (it has no weight_map)"
        raise CheckpointError("checkpoint", index, rule, "Download it again.") from error


def dequantize(tensors: Tensors, dtype: torch.dtype = torch.float32) -> Tensors:
    """Expand quantised weights by what is beside them (`weights.markers`).

    Raises:
        ValueError: a weight and its scale do not belong together.
    """
    return {name: _read(v, dtype) for name, v in understood(tensors).items()}


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """float [out, ...] -> int8 of the same shape and float32 scales [out, 1]; the largest value of a row becomes 127."""
    rows = weight.float().flatten(1)
    scale = rows.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
    return (rows / scale).round().to(torch.int8).view(weight.shape), scale


def load_strict(
    module: nn.Module, tensors: Values, source: Path, place: Place | None = None, first: GoesTo | None = None
) -> None:
    """Put tensors into a module; missing, unexpected and misshapen keys and values that are not numbers are errors.

    `place` makes of each value what the module gets, one after the other: on the module's device, in its type. A module on
    the meta device takes these tensors as they are, without a copy. `first`: the GPU that a value's bytes are brought to
    before that (`weights.staging`).
    """
    for _ in loading(module, tensors, source, place, first):
        pass


def loading(
    module: nn.Module, tensors: Values, source: Path, place: Place | None = None, first: GoesTo | None = None
) -> Iterator[int]:
    """`load_strict`, tensor by tensor: yields the bytes of each one's stored values. The module changes after the last one."""
    wanted = module.state_dict()
    problems = {
        "missing": [k for k in wanted if k not in tensors],
        "unexpected": [k for k in tensors if k not in wanted],
        "of another shape": [
            f"{k} {list(tensors[k].shape)} instead of {list(v.shape)}"
            for k, v in wanted.items()
            if k in tensors and tensors[k].shape != v.shape
        ],
    }
    placed: Tensors = {}
    wrong = problems["unexpected"] + problems["of another shape"]
    problems["not finite"] = []
    read = (
        Wanted(key, stored, None if first is None else first(key))
        for key, stored in tensors.items()
        if key in wanted and not (wrong and not isinstance(stored, Tensor))
    )
    with closing(arriving(read)) as arrivals:
        for one, there in arrivals:
            made = {one.key: value(there)} if place is None else place(one.key, there)
            problems["not finite"] += [one.key for tensor in made.values() if not is_finite(tensor)]
            placed |= made
            yield stored_bytes(one.stored)
    found = [f"{len(keys)} {what}: {_few(keys)}" for what, keys in problems.items() if keys]
    if found:
        error = CheckpointError("checkpoint", source, "; ".join(found), "Use a checkpoint of this architecture.")
        error.problems = {what: keys for what, keys in problems.items() if keys}
        raise error
    module.load_state_dict(placed, strict=True, assign=any(v.is_meta for v in wanted.values()))


def stored_bytes(stored: Value) -> int:
    """Bytes of a value as it is stored; those of its scales are not counted."""
    quantized = stored.quantized if isinstance(stored, Scaled) else stored
    return quantized.numel() * quantized.dtype.itemsize


def is_finite(tensor: Tensor) -> bool:
    """Whether it holds neither NaN nor infinity."""
    if not tensor.is_floating_point() or tensor.is_meta or not tensor.numel():
        return True
    ends = torch.aminmax(
        tensor if tensor.dtype.itemsize > 1 else tensor.half()
    )  # NaN is both ends; much faster than isfinite
    return bool(torch.isfinite(ends.min) and torch.isfinite(ends.max))


def _few(keys: list[str], limit: int = 4) -> str:
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + more
