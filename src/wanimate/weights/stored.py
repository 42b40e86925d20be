"""Tensors that are still in their files: shape and type are known, values are read when they are needed, one at a time.

Layouts are sorted out on such values, so that a checkpoint of any size goes to its device without a second copy in memory.
"""

from __future__ import annotations

import math
import mmap
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wanimate.media.files import in_utf8
from wanimate.media.json_file import parse_json

TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2, "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """A tensor in a file. `make` reads it; what it returns may be a view of the mapped file, so nobody writes to it.

    packed: the file holds it quantised, and `make` expands it to float32. form: what the file holds, in words, where the
    type does not tell.
    """

    shape: torch.Size
    dtype: torch.dtype
    make: Callable[[], Tensor]
    packed: bool = False
    form: str = ""

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def numel(self) -> int:
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]


@dataclass(frozen=True, kw_only=True)
class Scaled(Stored):
    """An int8 or float8 weight: its value is quantized * scale, float32; scale is one number, or one for each row."""

    quantized: Value
    scale: Value


Value = Tensor | Stored
Values = Mapping[str, Value]
V = TypeVar("V", Tensor, Value)


def value(source: Value) -> Tensor:
    """The tensor itself."""
    return source if isinstance(source, Tensor) else source.make()


def defer(change: Callable[..., Tensor], *parts: V) -> V:
    """change(*parts): at once for tensors, when it is read if any of them is still in a file."""
    if all(isinstance(part, Tensor) for part in parts):
        return change(*parts)
    seen = change(*(torch.empty(part.shape, dtype=part.dtype, device="meta") for part in parts))
    packed = any(isinstance(part, Stored) and part.packed for part in parts)
    form = next((part.form for part in parts if isinstance(part, Stored) and part.form), "")
    return Stored(seen.shape, seen.dtype, lambda: change(*map(value, parts)), packed, form)  # type: ignore[return-value]


def defer_rows(change: Callable[..., Tensor], *parts: V) -> V:
    """The same for a change that only moves whole rows; weights with scales keep them, one a row then."""
    if not all(isinstance(part, Scaled) for part in parts):
        return defer(change, *parts)
    pieces = [part for part in parts if isinstance(part, Scaled)]
    scales = [defer(partial(_by_row, len(piece)), piece.scale) for piece in pieces]
    return scaled(defer(change, *(piece.quantized for piece in pieces)), defer(change, *scales))  # type: ignore[return-value]


def _by_row(rows: int, scale: Tensor) -> Tensor:
    return scale.float().view(-1, 1).expand(rows, 1)


def scaled(quantized: Value, scale: Value) -> Scaled:
    """quantized [rows, ...] with one scale, or one a row.

    Raises:
        ValueError: they do not belong together.
    """
    if quantized.dtype not in (torch.int8, torch.float8_e4m3fn, torch.float8_e5m2) or scale.numel() not in (
        1,
        len(quantized),
    ):
        raise ValueError
    one = "one scale" if scale.numel() == 1 else "a scale a row"
    return Scaled(
        quantized.shape,
        torch.float32,
        lambda: expand(value(quantized), value(scale)),
        True,
        f"{type_name(quantized.dtype)}, {one}",
        quantized=quantized,
        scale=scale,
    )


def expand(quantized: Tensor, scale: Tensor) -> Tensor:
    """quantized * scale in float32."""
    return quantized.float() * scale.float().view(-1, *[1] * (quantized.ndim - 1))


def type_name(dtype: torch.dtype) -> str:
    """What PyTorch calls a type."""
    return str(dtype).removeprefix("torch.")


def dtype_name(dtype: torch.dtype) -> str:
    """What safetensors calls a type."""
    return next(name for name, known in TYPES.items() if known == dtype)


class UnreadFormat(ValueError):
    """A file is sound, and quantised in a way that is not read here; the message is the format's name."""


_FOREIGN_TYPES = {
    "F4": "NVFP4 or MXFP4 (4 bits)", "F6_E2M3": "MXFP6", "F6_E3M2": "MXFP6",
    "F8_E8M0": "MXFP8 or MXFP4 (scales that are powers of 2)",
}  # fmt: skip
"""Types of safetensors that only formats use that are not read here."""
_LONGEST_HEADER = 2**25
_LONGEST_AXIS = 2**30
"""A tensor without values can have axes of any length, which nobody would pay for in bytes."""


def is_safetensors(path: Path) -> bool:
    """Whether a file is one by its name or by how it begins."""
    if path.suffix in (".safetensors", ".sft"):
        return True
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= _LONGEST_HEADER


def open_safetensors(path: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """Every tensor of a file and the header's metadata.

    The file is mapped once, by the first tensor that is read, and stays so as long as one is in use.

    Raises:
        OSError: it cannot be opened. ValueError: it is no safetensors file, is cut off, or its header breaks a rule.
        UnreadFormat: it has tensors of a type that is not read here.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= _LONGEST_HEADER:
            raise ValueError("it is not a safetensors file, or cut off")
        header = parse_json(file.read(length))
    try:
        with (
            in_utf8(path) as name,
            safe_open(name, "pt"),
        ):  # it checks that the places of all tensors fit together and fill the file
            pass
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        mapped = _MappedFile(path)
        found = {}
        for name, entry in entries.items():
            first, last = (8 + length + offset for offset in entry["data_offsets"])
            if entry["dtype"] in _FOREIGN_TYPES:
                raise UnreadFormat(_FOREIGN_TYPES[entry["dtype"]])
            if entry["dtype"] not in TYPES:
                raise ValueError(f"{name} is of the type {entry['dtype']}, which is not known here")
            if max(entry["shape"], default=0) > _LONGEST_AXIS:
                raise ValueError(f"{name} has an axis of {max(entry['shape'])}")
            shape, dtype = torch.Size(entry["shape"]), TYPES[entry["dtype"]]
            found[name] = Stored(shape, dtype, partial(mapped.tensor, shape, dtype, first, last))
    except (SafetensorError, LookupError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
        raise ValueError("its header is damaged, or it is cut off") from error
    return found, dict(header.get("__metadata__") or {})


class _MappedFile:
    """A file in memory, for all of its tensors: one descriptor and one mapping, however many there are."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._map: mmap.mmap | None = None

    def tensor(self, shape: torch.Size, dtype: torch.dtype, first: int, last: int) -> Tensor:
        """The bytes from `first` on and before `last`; a view of the file where they are aligned."""
        if first == last:
            return torch.empty(shape, dtype=dtype)
        raw = torch.frombuffer(self._bytes()[first:last], dtype=torch.uint8)
        # What has been read is not the process's memory any more once the tensor is gone.
        weakref.finalize(raw.untyped_storage(), self._forget, first, last).atexit = False
        aligned = raw if first % dtype.itemsize == 0 else raw.clone()
        return aligned.view(dtype).view(shape)

    def _forget(self, first: int, last: int) -> None:
        """Take the whole pages of a range out of the process's memory; the next tensor there reads them anew."""
        page = mmap.PAGESIZE
        start, stop = -(-first // page) * page, last // page * page
        if self._map is not None and stop > start and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, start, stop - start)

    def _bytes(self) -> memoryview:
        with self._lock:
            if self._map is None:
                # Private and writable, as torch wants it; without reserve, so that a file larger than memory can be mapped.
                flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0)
                with self.path.open("rb") as file:
                    self._map = mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
            return memoryview(self._map)
