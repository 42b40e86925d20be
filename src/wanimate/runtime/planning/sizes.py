"""Sizes of a checkpoint's networks in memory, read off the headers of its files, and the types they are kept in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from wanimate.config import RuntimeSettings, WeightsType
from wanimate.model.fp8 import FP8
from wanimate.model.params import TransformerParams, VaeParams
from wanimate.runtime.optimize import multiplied_type
from wanimate.runtime.processor import has_bf16
from wanimate.weights.checkpoint import Compress, text_bytes
from wanimate.weights.formats import open_tensors
from wanimate.weights.layouts import native_transformer, native_vae
from wanimate.weights.locate import CheckpointConfig, find_vae, needed, open_transformer, text_files, transformer_files
from wanimate.weights.names import transformer_params, vae_params
from wanimate.weights.peek import PICKLED
from wanimate.weights.quantize import is_quantizable
from wanimate.weights.stored import Scaled, Stored, Values

GIB = 2**30
BIG = 2 * GIB
"""Transformers above this get a plan; smaller ones run anywhere."""


@dataclass(frozen=True)
class Networks:
    """Sizes of a checkpoint's networks in memory, in bytes: all blocks, the largest one, what else the transformer has, VAE
    and text encoder. `as_stored`: the blocks need no conversion, so that the mapped file can be their home."""

    params: TransformerParams
    vae_params: VaeParams
    dtype: torch.dtype
    quantized: bool
    blocks: int
    block: int
    rest: int
    vae: int
    text: int
    as_stored: bool

    @property
    def weights(self) -> str:
        name = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}[self.dtype]
        return f"8-bit blocks, {name}" if self.quantized else name


def is_big(folder: Path) -> bool:
    """Whether a checkpoint's transformer is large enough for a plan."""
    return sum(f.stat().st_size for f in transformer_files(folder) if f.is_file()) >= BIG


def wanted_weights(settings: RuntimeSettings, device: torch.device) -> WeightsType:
    """The weights' type that the settings come to: products in a smaller type need weights of that type."""
    if settings.speed == "exact" or settings.weights_dtype != "auto":
        return settings.weights_dtype
    kind = multiplied_type(device)
    if kind is not None:
        return "fp8" if kind == FP8 else "int8"
    return "bf16" if has_bf16(device) else "auto"


def weights_type(setting: WeightsType, device: torch.device, sharded: bool = False) -> tuple[torch.dtype, Compress]:
    """The type the transformer computes in, and which of its weights stay quantised: of sharded ones none."""
    usual = torch.bfloat16 if device.type == "cuda" else torch.float32
    types: dict[str, tuple[torch.dtype, Compress]] = {
        "auto": (usual, "stored" if device.type == "cuda" else "never"), "fp8": (usual, "all"),
        "int8": (usual, "int8"), "bf16": (torch.bfloat16, "never"), "fp16": (torch.float16, "never"),
    }  # fmt: skip
    dtype, compress = types[setting]
    return dtype, "never" if sharded else compress


def networks(
    folder: Path, config: CheckpointConfig, setting: WeightsType, device: torch.device, sharded: bool = False
) -> Networks:
    """Sizes in memory, read off the headers of the files.

    Raises:
        CheckpointError: the files are not there, or not those of the architecture.
    """
    text = 0
    if not config.fixed_prompt:
        files = [needed(file, "text encoder", folder) for file in text_files(folder)]
        pickled = any(file.suffix in PICKLED for file in files)  # those are published in their own type
        text = sum(f.stat().st_size for f in files) if pickled or not files else text_bytes(open_tensors(*files))
    transformer, vae = open_transformer(folder), open_tensors(needed(find_vae(folder), "VAE", folder))
    return network_sizes(transformer, vae, text, config, setting, device, folder, sharded)


def network_sizes(
    transformer: Values, vae: Values, text: int, config: CheckpointConfig, setting: WeightsType, device: torch.device,
    source: Path, sharded: bool = False,
) -> Networks:  # fmt: skip
    """The same from the tensors of the files, which are not read; `text` is the text encoder's size in bytes."""
    dtype, compress = weights_type(setting, device, sharded)
    tensors, vae = native_transformer(transformer), native_vae(vae)

    def small(key: str) -> bool:
        stays = compress in ("all", "int8") or (compress == "stored" and isinstance(tensors[key], Scaled))
        return stays and is_quantizable(key)

    sizes = {
        key: stored.numel() + 4 * len(stored) if small(key) else stored.numel() * dtype.itemsize
        for key, stored in tensors.items()
    }
    by_block: dict[str, int] = {}
    for key, size in sizes.items():
        if key.startswith("blocks."):
            block = key.split(".")[1]
            by_block[block] = by_block.get(block, 0) + size
    blocks = sum(by_block.values())
    return Networks(
        transformer_params(tensors, config.head_dim, config.text_length, source),
        vae_params(vae, source, config.latent_mean, config.latent_std), dtype, quantized=any(map(small, tensors)),
        blocks=blocks, block=max(by_block.values(), default=0), rest=sum(sizes.values()) - blocks,
        vae=4 * sum(v.numel() for v in vae.values()), text=text,
        as_stored=all(
            stored.dtype == dtype and not small(key) and not (isinstance(stored, Stored) and stored.packed)
            for key, stored in tensors.items() if key.startswith("blocks.")
        ),
    )  # fmt: skip
