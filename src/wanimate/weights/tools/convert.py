"""Checkpoints from one layout or type to another, a tensor at a time, in shards; a run that was stopped can be gone on with."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from wanimate.errors import InputError, OutputError
from wanimate.media.files import AtomicFile, output_error, read_marked
from wanimate.media.lock import NameLock
from wanimate.media.names import is_real_folder, owner_pid
from wanimate.media.places import check_apart_from, check_names
from wanimate.weights.layouts import native_clip, native_transformer, native_umt5, native_vae
from wanimate.weights.locate import (
    CARD,
    CLIP,
    T5,
    TOKENIZER,
    TRANSFORMER,
    VAE,
    find_text_encoder,
    read_checkpoint_config,
)
from wanimate.weights.names import transformer_params, vae_params
from wanimate.weights.prompts import identity
from wanimate.weights.quantize import is_quantizable, quantize_fp8
from wanimate.weights.stored import Scaled, Stored, Value, Values, dtype_name, value
from wanimate.weights.tokenizer import SPIECE_FILE, spiece_bytes
from wanimate.weights.tools.inspect import Found, find_networks
from wanimate.weights.tools.to_diffusers import (
    diffusers_transformer,
    diffusers_vae,
    transformer_config,
    transformers_clip,
    transformers_umt5,
    vae_config,
)  # fmt: skip

Layout = Literal["published", "diffusers"]
Type = Literal["keep", "fp32", "bf16", "fp16", "fp8"]
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
GB = 10**9
Extra = Path | bytes | dict[str, Any]
FORMAT = "wanimate-conversion"


@dataclass(frozen=True)
class Shard:
    """One file to be written, by name in the output folder; `pickled` in PyTorch's own format."""

    name: str
    tensors: Values
    pickled: bool = False

    @property
    def bytes(self) -> int:
        """What its tensors take."""
        return sum(stored.numel() * stored.dtype.itemsize for stored in self.tensors.values())


def convert(
    source: Path, out: Path, layout: Layout = "published", dtype: Type = "keep", shard_bytes: int = 5 * GB
) -> Iterator[tuple[int, int, str]]:
    """Write the networks of `source` as the folder `out`; yields (files done, files in all, name of the last).

    `dtype` is for the transformer; `fp8` are the linear layers of its blocks, everything else of it is bfloat16. The others
    keep their types. Files are written into `.NAME.part` beside `out`, which gets its name when all are there. A second
    call with the same arguments goes on with the files that are still missing; one with others begins anew. What belongs to
    the conversion is written in `.NAME.conversion.json` until it is done.

    Raises:
        InputError: the source cannot be converted so, or there is something under the name already.
        OutputError: the disk is full, the folder cannot be written, another conversion is writing it, or something that is
            not of a conversion lies where the files go first.
    """
    if not out.name:
        raise OutputError("out", out, "it names no folder", "Give the converted checkpoint a name.")
    part, told = out.with_name(f".{out.name}.part"), out.with_name(f".{out.name}.conversion.json")
    check_names("out", out, (out, part, told))
    check_apart_from("out", (out, part), (source,))
    if os.path.lexists(out):
        raise InputError("out", out, "there is something of this name already", "Choose another name or remove it.")
    with NameLock(out):
        found = find_networks(source)
        shards, files = _laid_out(source, found, layout, dtype, shard_bytes)
        work = json.dumps([identity([f for n in found for f in n.files]), str(source), layout, dtype, shard_bytes])
        names = [*(shard.name for shard in shards), *files]
        journal = {"format": FORMAT, "work": hashlib.sha256(work.encode()).hexdigest(), "files": names}
        try:
            _clear(out, part, told, journal)
            part.parent.mkdir(parents=True, exist_ok=True)
            with AtomicFile(told) as file:
                file.write(json.dumps(journal).encode())
            part.mkdir(exist_ok=True)
            missing = [shard for shard in shards if not (part / shard.name).is_file()]
            _check_room(out, part, sum(shard.bytes for shard in missing))
            for i, shard in enumerate(shards):
                if shard in missing:
                    _write(part / shard.name, shard)
                yield i + 1, len(shards), shard.name
            for name, content in files.items():
                _add(part / name, content)
            _clear(out, part, told, journal)
            os.rename(part, out)
            told.unlink()
        except OSError as error:
            raise output_error(out, error) from error


def _clear(out: Path, part: Path, told: Path, journal: dict[str, Any]) -> None:
    """Remove half-written files of a conversion that was killed, and all files of one with other arguments. `told`: where an
    earlier one has written its journal.

    Raises:
        OutputError: something else is there, which would be lost or get among the weights.
    """
    older = read_marked(told, FORMAT)
    if older is None and os.path.lexists(told):
        raise _strange(out, told)
    if not os.path.lexists(part):
        return
    older = older if is_real_folder(part) else None
    known = None if older is None else older.get("files")
    if not isinstance(known, list) and not (is_real_folder(part) and not any(part.iterdir())):
        raise _strange(out, part)
    mine = [Path(name) for name in known or () if isinstance(name, str)]
    gone = []
    for path in part.rglob("*"):
        kind, name = path.lstat().st_mode, path.relative_to(part)
        if stat.S_ISDIR(kind):
            continue
        if not stat.S_ISREG(kind) or not (owner_pid(path) or any(one in (name, *name.parents) for one in mine)):
            raise _strange(out, path)
        if owner_pid(path) or older != journal:
            gone.append(path)
    for path in gone:
        path.unlink()


def _strange(out: Path, path: Path) -> OutputError:
    rule = f"{path} is in the way, and it is no part of a conversion"
    return OutputError("out", out, rule, "Move it, or choose another name.")


def _check_room(out: Path, part: Path, needed: int) -> None:
    free = shutil.disk_usage(part).free
    if free < needed:
        rule = f"the disk has {free / GB:.2f} GB free, and the files need {needed / GB:.2f} GB"
        raise OutputError("out", out, rule, "Free some space or choose another folder.")


def _add(target: Path, content: Extra) -> None:
    """A file or folder that is copied, bytes, or JSON."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, Path):
        with AtomicFile(target) as file:
            file.write(content if isinstance(content, bytes) else f"{json.dumps(content, indent=2)}\n".encode())
    elif content.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(content, target)
    else:
        shutil.copyfile(content, target, follow_symlinks=True)


def _laid_out(
    source: Path, found: list[Found], layout: Layout, dtype: Type, shard_bytes: int
) -> tuple[list[Shard], dict[str, Extra]]:
    """Files of tensors, and by name what else belongs beside them: a file or folder to copy, or JSON."""
    config = read_checkpoint_config(source)[1] if source.is_dir() else None
    shards: list[Shard] = []
    files: dict[str, Extra] = {}
    theirs = layout == "diffusers"
    for network in found:
        if network.family == "transformer":
            native = native_transformer(network.values)
            tensors = _typed(native, diffusers_transformer(native) if theirs else native, dtype, network)
            stem = f"transformer/{TRANSFORMER}" if theirs else TRANSFORMER
            shards += sharded(stem, tensors, shard_bytes, files)
            if theirs:
                sizes = (config.head_dim, config.text_length) if config else (128, 512)
                files["transformer/config.json"] = transformer_config(transformer_params(native, *sizes, source))
        elif network.family == "VAE":
            native = native_vae(network.values)
            constants = (config.latent_mean, config.latent_std) if config else ()
            params = vae_params(native, source, *constants)
            if theirs:
                shards.append(Shard(f"vae/{TRANSFORMER}.safetensors", diffusers_vae(native, params.res_blocks)))
                files["vae/config.json"] = vae_config(params)
            else:
                own = (source / CARD).is_file()
                shards.append(Shard("vae.safetensors", native) if own else Shard(VAE, native, pickled=True))
        elif network.family == "text encoder":
            native = native_umt5(network.values)
            if theirs:
                shards += sharded("text_encoder/model", transformers_umt5(native), shard_bytes, files)
            else:
                shards.append(Shard(T5, native, pickled=True))
        elif network.family == "image encoder":
            native = native_clip(network.values)
            if theirs:
                shards.append(Shard("image_encoder/model.safetensors", transformers_clip(native)))
            else:
                shards.append(Shard(CLIP, native, pickled=True))
        else:
            rule = f"{network.files[0].name} is a {network.family}"
            raise InputError("source", source, rule, "Give a checkpoint folder, or a file of one of its networks.")
    if source.is_dir():
        words = find_text_encoder(source)[1]
        target = "tokenizer" if theirs else str(TOKENIZER)
        if words.exists():
            spiece = spiece_bytes(words)
            files |= {target: words} if spiece is None else {f"{target}/{SPIECE_FILE}": spiece}
        for name in (CARD, "prompts.safetensors"):
            if (source / name).is_file():
                files[name] = source / name
    return shards, files


def _typed(native: Values, tensors: Values, dtype: Type, network: Found) -> dict[str, Value]:
    """Tensors in the types they are written in; a quantised weight becomes two."""
    out: dict[str, Value] = {}
    quantizable = {key for key in native if is_quantizable(key)} if tensors is native else _theirs(native)
    for key, stored in tensors.items():
        if dtype == "fp8" and key in quantizable and not isinstance(stored, Scaled):
            pair = _Pair(stored)
            out[key] = Stored(stored.shape, torch.float8_e4m3fn, pair.quantized)
            out[f"{key}_scale"] = Stored(torch.Size((len(stored), 1)), torch.float32, pair.scale)
        elif isinstance(stored, Scaled) and dtype in ("keep", "fp8"):
            out[key], out[f"{key}_scale"] = stored.quantized, stored.scale
        elif dtype == "keep":
            if isinstance(stored, Stored) and stored.packed:
                rule = f"{network.files[0].name} holds quantised weights that this layout has no form for"
                raise InputError("dtype", dtype, rule, "Give bf16, fp16 or fp8.")
            out[key] = stored
        else:
            out[key] = _cast(stored, TYPES.get(dtype, torch.bfloat16))
    return out


def _theirs(native: Values) -> set[str]:
    """The quantisable weights under diffusers' names."""
    names = {k: torch.empty(v.shape, device="meta") for k, v in native.items() if is_quantizable(k)}
    return set(diffusers_transformer(names))


class _Pair:
    """Levels and scales of one weight, which is read and quantised for either, so that nothing is held in between."""

    def __init__(self, stored: Value) -> None:
        self.stored = stored

    def quantized(self) -> Tensor:
        return quantize_fp8(value(self.stored))[0]

    def scale(self) -> Tensor:
        return quantize_fp8(value(self.stored))[1]


def _cast(stored: Value, dtype: torch.dtype) -> Stored:
    return Stored(stored.shape, dtype, lambda: value(stored).to(dtype))


def sharded(stem: str, tensors: Values, limit: int, files: dict[str, Extra]) -> list[Shard]:
    """Files of at most `limit` bytes, in the order of the tensors, and their index among `files`."""
    groups: list[dict[str, Value]] = [{}]
    size = 0
    for key, stored in tensors.items():
        more = stored.numel() * stored.dtype.itemsize
        if groups[-1] and size + more > limit:
            groups.append({})
            size = 0
        groups[-1][key] = stored
        size += more
    if len(groups) == 1:
        return [Shard(f"{stem}.safetensors", groups[0])]
    names = [f"{stem}-{i + 1:05}-of-{len(groups):05}.safetensors" for i in range(len(groups))]
    total = sum(t.numel() * t.dtype.itemsize for t in tensors.values())
    places = {key: Path(name).name for name, group in zip(names, groups, strict=True) for key in group}
    files[f"{stem}.safetensors.index.json"] = {"metadata": {"total_size": total}, "weight_map": places}
    return [Shard(name, group) for name, group in zip(names, groups, strict=True)]


def _write(path: Path, shard: Shard) -> None:
    if not shard.pickled:
        write_safetensors(path, shard.tensors)
        return
    with AtomicFile(path) as file:
        made = {key: _compact(value(stored)) for key, stored in shard.tensors.items()}  # mapped, not in memory
        torch.save(made, cast(Any, file))


def _compact(tensor: Tensor) -> Tensor:
    """A tensor of its own where it is a small part of something: PyTorch would save the whole."""
    return tensor.clone() if tensor.untyped_storage().nbytes() - tensor.nbytes > 1 << 16 else tensor


def write_safetensors(path: Path, tensors: Mapping[str, Value]) -> None:
    """Write a file, a tensor at a time, whole or not at all.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key, stored in tensors.items():
        start, end = end, end + stored.numel() * stored.dtype.itemsize
        header[key] = {"dtype": dtype_name(stored.dtype), "shape": list(stored.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with AtomicFile(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for stored in tensors.values():
            made = value(stored).contiguous()
            if made.numel():
                file.write(made.flatten().view(torch.uint8).numpy().data)
