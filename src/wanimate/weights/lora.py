"""LoRA files (Hu et al., arXiv 2106.09685) and where their parts belong: W' = W + strength * alpha / rank * up down.

A file's dialect is told by its keys. What a LoRA makes of a transformer: `weights.lora_view`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from wanimate.errors import CheckpointError, InputError, setting
from wanimate.media.files import in_utf8
from wanimate.media.json_file import parse_json, read_json
from wanimate.model.transformer import AnimateTransformer
from wanimate.weights.formats import Tensors, read_tensors
from wanimate.weights.layouts import native_module

_PREFIXES = (
    "base_model_model_", "model_diffusion_model_", "diffusion_model_", "pipe_dit_", "transformer_", "lora_unet__", "lora_unet_",
    "lora_transformer_", "lycoris_", "unet_",
)  # fmt: skip
_KINDS = (
    (r"\.lora_A(?:\.[^.]+)?\.weight$|\.lora_down\.weight$|\.lora\.down\.weight$", "down"),
    (r"\.lora_B(?:\.[^.]+)?\.weight$|\.lora_up\.weight$|\.lora\.up\.weight$", "up"),
    (r"\.alpha$", "alpha"),
    (r"\.diff$", "weight"),
    (r"\.diff_b$", "bias"),
    (r"\.diff_m$", "modulation"),
)
_DIFFUSERS_OUTSIDE = (
    "condition_embedder.text_embedder.linear_1", "condition_embedder.text_embedder.linear_2",
    "condition_embedder.time_embedder.linear_1", "condition_embedder.time_embedder.linear_2", "condition_embedder.time_proj",
    "condition_embedder.image_embedder.norm1", "condition_embedder.image_embedder.ff.net.0.proj",
    "condition_embedder.image_embedder.ff.net.2", "condition_embedder.image_embedder.norm2", "proj_out",
)  # fmt: skip
_DIFFUSERS_BLOCK = ("norm2", "ffn.net.0.proj", "ffn.net.2") + tuple(
    f"{attention}.{part}"
    for attention in ("attn1", "attn2")
    for part in (
        "to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "add_v_proj", "norm_q", "norm_k", "norm_added_k",
    )
)  # fmt: skip
_DIFFUSERS_FUSER = ("to_q", "to_out", "norm_q", "norm_k")

_MOST_JSON = 2**20

Place = tuple[str, int | None]
"""A module, and which half of its output rows is meant: 0, 1, or None for all (diffusers splits keys and values of a fuser)."""


@dataclass(frozen=True)
class LowRank:
    """scale * up @ down for one module: down [rank, in, ...], up [out, rank, ...], as stored."""

    module: str
    half: int | None
    down: Tensor
    up: Tensor
    scale: float

    def delta(self, strength: float, shape: torch.Size, device: torch.device) -> Tensor:
        """The change of a weight of this shape, float32."""
        up, down = (x.to(device).float().flatten(1) for x in (self.up, self.down))
        change = (up * (self.scale * strength)) @ down
        if self.half is not None:
            change = F.pad(change, (0, 0, 0, len(change)) if self.half == 0 else (0, 0, len(change), 0))
        return change.view(shape)

    def branch(self, x: Tensor, strength: float) -> Tensor:
        """What it adds to the output of a linear with input x, float32."""
        low = F.linear(x.float(), self.down.to(x.device).float())
        return F.linear(low, self.up.to(x.device).float()) * (self.scale * strength)


@dataclass(frozen=True)
class Lora:
    """A file matched to one transformer. `full`: whole differences by parameter name; `unused`: keys that found no place."""

    path: Path
    dialect: str
    low_rank: tuple[LowRank, ...]
    full: Mapping[str, Tensor]
    unused: tuple[str, ...] = ()

    @property
    def targets(self) -> int:
        """How many tensors of the transformer it changes."""
        return len({r.module for r in self.low_rank}) + len(self.full)


@dataclass(frozen=True)
class LoraFile:
    """An opened file, not yet matched. `alpha` and `root` (rank-stabilised scaling) come from peft's configuration, if any."""

    path: Path
    tensors: Tensors
    alpha: float | None = None
    root: bool = False


def _finite(tensor: Tensor) -> bool:
    """In one pass: NaN comes out of it as NaN."""
    wide = tensor if tensor.is_floating_point() and tensor.element_size() > 1 else tensor.float()
    return not tensor.numel() or all(map(math.isfinite, torch.aminmax(wide)))


def read_lora(path: Path) -> LoraFile:
    """Open a .safetensors, .ckpt, .pt or .pth file; nothing in it is run.

    peft's `lora_alpha` and `use_rslora` are taken from the file's own metadata or from `adapter_config.json` beside it.

    Raises:
        InputError: the file is missing, unreadable, wants to run code, holds no LoRA or numbers that are not finite.
    """
    try:
        tensors = read_tensors(path)
    except CheckpointError as error:
        raise InputError("generate.lora", path, error.rule, error.remedy) from error
    if not any(found[1] != "alpha" for key in tensors if (found := _kind(key))):
        first = f" (its first key is {next(iter(tensors))})" if tensors else " (it is empty)"
        raise InputError(
            "generate.lora",
            path,
            f"the file holds no LoRA{first}",
            "Give a file with lora_A/lora_B or lora_down/lora_up.",
        )
    bad = [key for key, tensor in tensors.items() if not _finite(tensor)]
    if bad:
        raise InputError("generate.lora", path, f"{_few(bad)} is not finite", "Use another copy of the file.")
    config = _peft_config(path)
    alpha = config.get("lora_alpha")
    return LoraFile(
        path, tensors, float(alpha) if isinstance(alpha, (int, float)) else None, bool(config.get("use_rslora"))
    )


def match_lora(file: LoraFile, model: AnimateTransformer, partial: bool = False) -> Lora:
    """Find the place of every key in `model`, which may be on the meta device.

    alpha is the key's own, else peft's configured one, else the rank. `partial` lists keys without a place instead of refusing
    them.

    Raises:
        InputError: a key has no place, lacks its other half, or has another shape or rank than its place asks for.
    """
    parameters = dict(model.named_parameters())
    places = _places(model)
    parts: dict[Place, dict[str, str]] = {}
    lost: list[str] = []
    for key in file.tensors:
        found = _kind(key)
        place = _place(found[0], places) if found else None
        if (
            found is None
            or place is None
            or (found[1] in ("weight", "bias", "modulation") and not _parameter(place, found[1], parameters))
        ):
            lost.append(key)
            continue
        half = parts.setdefault(place, {})
        if found[1] in half:
            rule = f"{key} and {half[found[1]]} mean the same tensor"
            raise InputError("generate.lora", file.path, rule, "Give a file with one LoRA in it.")
        half[found[1]] = key
    low_rank: list[LowRank] = []
    full: Tensors = {}
    for place, keys in parts.items():
        if ("up" in keys) != ("down" in keys):
            lost.append(keys.get("up") or keys["down"])
        elif "up" in keys:
            low_rank.append(_low_rank(file, place, keys, parameters))
        elif "alpha" in keys and len(keys) == 1:
            lost.append(keys["alpha"])
        for kind in ("weight", "bias", "modulation"):
            if kind in keys:
                name, tensor = _parameter(place, kind, parameters), file.tensors[keys[kind]]
                assert name is not None
                _same_shape(file.path, keys[kind], tensor.shape, parameters[name].shape)
                full[name] = tensor
    if lost and not (partial and (low_rank or full)):
        rule = f"{_few(lost)} has no place in this transformer"
        remedy = "Use a LoRA made for Wan-Animate" + (
            "." if partial else f", or leave such keys out with {setting('generate.lora_partial')}."
        )
        raise InputError("generate.lora", file.path, rule, remedy)
    return Lora(file.path, _dialect(file.tensors), tuple(low_rank), full, tuple(lost))


def _low_rank(file: LoraFile, place: Place, keys: Mapping[str, str], parameters: Mapping[str, Tensor]) -> LowRank:
    down, up = file.tensors[keys["down"]], file.tensors[keys["up"]]
    weight = parameters[f"{place[0]}.weight"]
    rows = weight.shape[0] if place[1] is None else weight.shape[0] // 2
    _same_shape(file.path, keys["down"], down.shape, torch.Size((*down.shape[:1], *weight.shape[1:])))
    rank = down.shape[0]
    _same_shape(file.path, keys["up"], up.shape, torch.Size((rows, rank, *[1] * (up.ndim - 2))))
    alpha = file.alpha if file.alpha is not None else float(rank)
    root = file.root and file.alpha is not None
    if "alpha" in keys:
        value = file.tensors[keys["alpha"]]
        _same_shape(file.path, keys["alpha"], value.flatten().shape, torch.Size((1,)))
        alpha, root = float(value.float().flatten()[0]), False
    return LowRank(*place, down, up, alpha / (rank**0.5 if root else rank))


def _same_shape(path: Path, key: str, found: torch.Size, wanted: torch.Size) -> None:
    if found != wanted or not all(found):
        rule = f"{key} has the shape {list(found)}, this transformer needs {list(wanted)}"
        raise InputError("generate.lora", path, rule, "Use a LoRA made for this checkpoint's architecture.")


def _kind(key: str) -> tuple[str, str] | None:
    """(module, kind) of a key, or None if it is none of a LoRA's."""
    for pattern, kind in _KINDS:
        if m := re.search(pattern, key):
            return key[: m.start()], kind
    return None


def _places(model: nn.Module) -> dict[str, Place]:
    """Every module and lone parameter with weights, by its own name and by diffusers', dots written as underscores."""
    owners = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
    lone = {name for name, _ in model.named_parameters() if name.endswith("modulation")}
    names: dict[str, Place] = {name: (name, None) for name in owners | lone}
    blocks = {m[1] for name in owners if (m := re.match(r"(blocks\.\d+)\.", name))}
    fusers = {m[1] for name in owners if (m := re.match(r"face_adapter\.fuser_blocks\.(\d+)\.", name))}
    theirs = [*_DIFFUSERS_OUTSIDE, *(f"{block}.{part}" for block in blocks for part in _DIFFUSERS_BLOCK)]
    theirs += [f"face_adapter.{i}.{part}" for i in fusers for part in _DIFFUSERS_FUSER]
    names |= {name: (native, None) for name in theirs if (native := native_module(name)) in owners}
    names |= {
        f"face_adapter.{i}.to_{x}": (f"face_adapter.fuser_blocks.{i}.linear1_kv", h)
        for i in fusers
        for h, x in enumerate("kv")
    }
    return {name.replace(".", "_"): place for name, place in names.items()}


def _place(module: str, places: Mapping[str, Place]) -> Place | None:
    return next((places[name] for name in _without_prefixes(module.replace(".", "_")) if name in places), None)


def _without_prefixes(name: str) -> Iterator[str]:
    yield name
    while prefix := next((p for p in _PREFIXES if name.startswith(p)), None):
        name = name.removeprefix(prefix)
        yield name


def _parameter(place: Place, kind: str, parameters: Mapping[str, Tensor]) -> str | None:
    """The parameter that a whole difference changes; halves of one are not supported."""
    name, half = place
    options = (name, f"{name}.weight") if kind == "weight" else (f"{name}.{kind}",)
    return next((option for option in options if half is None and option in parameters), None)


def _dialect(tensors: Mapping[str, Tensor]) -> str:
    """What a file's keys are called by, for the record."""
    keys = list(tensors)
    found = []
    if any(re.match(r"lora_(unet|transformer)_|lycoris_", k) for k in keys):
        found.append("kohya")
    elif any(re.match(r"(model\.)?diffusion_model\.", k) for k in keys):
        found.append("diffusion_model")
    elif any(".attn1." in k or ".attn2." in k or "condition_embedder." in k or ".ffn.net." in k for k in keys):
        found.append("diffusers")
    elif any(".lora_A." in k for k in keys):
        found.append("peft")
    elif any(".lora_down." in k for k in keys):
        found.append("lora_down/lora_up")
    if any(re.search(r"\.diff(_[bm])?$", k) for k in keys):
        found.append("whole differences")
    return ", ".join(found)


def _peft_config(path: Path) -> dict[str, Any]:
    """peft's configuration of an adapter, from the file's metadata (diffusers' way) or beside it (peft's way)."""
    beside, text, config = path.with_name("adapter_config.json"), None, None
    if path.suffix == ".safetensors":
        with in_utf8(path) as name, safe_open(name, "pt") as file:
            text = (file.metadata() or {}).get("lora_adapter_metadata")
    try:
        if text:
            config = parse_json(text)
        elif text is None and path.stem == "adapter_model" and beside.is_file():
            config = read_json(beside, _MOST_JSON)
    except (OSError, ValueError) as error:
        rule = f"its adapter configuration is not readable ({error})"
        raise InputError("generate.lora", path, rule, "Remove it, or download the LoRA again.") from error
    config = (
        {key.removeprefix("transformer."): value for key, value in config.items()} if isinstance(config, dict) else {}
    )
    for unsupported in ("alpha_pattern", "use_dora"):
        if config.get(unsupported):
            rule = f"its adapter configuration uses {unsupported}"
            raise InputError(
                "generate.lora", path, rule, "Merge it with peft, or export it with an alpha for each key."
            )
    return config


def _few(keys: Sequence[str], limit: int = 4) -> str:
    return ", ".join(keys[:limit]) + (f" and {len(keys) - limit} more" if len(keys) > limit else "")
