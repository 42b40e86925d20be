"""LoRA files and where their parts belong. A file's dialect is told by its keys.

What a part does to a weight: `weights.changes`. What a LoRA makes of a transformer: `weights.lora_view`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from wanimate.errors import CheckpointError, InputError, setting
from wanimate.media.files import in_utf8
from wanimate.media.json_file import parse_json, read_json
from wanimate.model.transformer import AnimateTransformer
from wanimate.weights.changes import Change, Decomposed, LowRank, TwoFactors
from wanimate.weights.formats import Tensors, read_tensors
from wanimate.weights.layouts import native_module
from wanimate.weights.stored import UnreadFormat

_PREFIXES = (
    "base_model_model_", "model_diffusion_model_", "diffusion_model_", "pipe_dit_", "transformer_", "lora_unet__", "lora_unet_",
    "lora_transformer_", "lycoris_", "unet_",
)  # fmt: skip
_KINDS = (
    (r"\.lora_A(?:\.[^.]+)?\.weight$|\.lora_down\.weight$|\.lora\.down\.weight$", "down"),
    (r"\.lora_B(?:\.[^.]+)?\.weight$|\.lora_up\.weight$|\.lora\.up\.weight$", "up"),
    (r"\.alpha$", "alpha"),
    (r"\.dora_scale(?:\.weight)?$|\.lora_magnitude_vector(?:\.[^.]+)?(?:\.weight)?$", "magnitude"),
    (r"\.(lokr|hada)_(w[12](?:_[ab])?)(?:\.weight)?$", r"\1_\2"),
    (r"\.w_norm$", "weight"),
    (r"\.b_norm$", "bias"),
    (r"\.diff$", "weight"),
    (r"\.diff_b$", "bias"),
    (r"\.diff_m$", "modulation"),
)
_NOT_APPLIED = (
    (r"\.lora_mid\.weight$", "LoCon in Tucker form"),
    (r"\.lokr_t[12](\.weight)?$", "LoKr in Tucker form"),
    (r"\.hada_t[12](\.weight)?$", "LoHa in Tucker form"),
    (r"\.boft_", "BOFT"),
    (r"\.oft_", "OFT (Diag-OFT or BOFT)"),
    (r"\.[ab][12]\.weight$", "GLoRA"),
    (r"\.on_input$|\.ia3_l", "(IA)3"),
    (r"\bvera_(lambda|A|B)", "VeRA"),
    (r"\.lora_E\b", "AdaLoRA"),
)
"""Keys of other kinds of adapters; leaving them out would give another picture."""
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

_WHOLE = ("weight", "bias", "modulation")
"""Kinds of keys that are whole differences of a parameter."""
_MOST_JSON = 2**20

Place = tuple[str, int | None]
"""A module, and which half of its output rows is meant: 0, 1, or None for all (diffusers splits keys and values of a fuser)."""


@dataclass(frozen=True)
class Lora:
    """A file matched to one transformer. `full`: whole differences by parameter name; `unused`: keys that found no place;
    `changes`: those of weights that are no plain low-rank parts (DoRA, LoHa, LoKr)."""

    path: Path
    dialect: str
    low_rank: tuple[LowRank, ...]
    full: Mapping[str, Tensor]
    unused: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()

    @property
    def targets(self) -> int:
        """How many tensors of the transformer it changes."""
        return len({part.module for part in (*self.low_rank, *self.changes)}) + len(self.full)


@dataclass(frozen=True)
class LoraFile:
    """An opened file, not yet matched. From peft's configuration, if any, come `alpha`, `root` (rank-stabilised scaling), and
    for LoHa and LoKr the whole `scale`."""

    path: Path
    tensors: Tensors
    alpha: float | None = None
    root: bool = False
    scale: float | None = None


class _Misshapen(ValueError):
    """A key has another shape than its place asks for; the message says so."""


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
        quantised = isinstance(error.__cause__, UnreadFormat)
        remedy = "Use the LoRA in bf16, fp16 or fp32." if quantised else error.remedy
        raise InputError("generate.lora", path, error.rule, remedy) from error
    other = next((name for pattern, name in _NOT_APPLIED if any(re.search(pattern, key) for key in tensors)), None)
    if other is not None:
        rule, remedy = (
            f"it is {other}, which is not applied here",
            "Use a LoRA, DoRA, LoHa or LoKr, or merge it into the checkpoint.",
        )
        raise InputError("generate.lora", path, rule, remedy)
    if not any(found[1] not in ("alpha", "magnitude") for key in tensors if (found := _kind(key))):
        first = f" (its first key is {next(iter(tensors))})" if tensors else " (it is empty)"
        raise InputError(
            "generate.lora",
            path,
            f"the file holds no LoRA{first}",
            "Give a file with lora_A/lora_B or lora_down/lora_up, or a LoHa or LoKr.",
        )
    bad = [key for key, tensor in tensors.items() if not _finite(tensor)]
    if bad:
        raise InputError("generate.lora", path, f"{_few(bad)} is not finite", "Use another copy of the file.")
    config = _peft_config(path)
    if config.get("use_dora") and not any((found := _kind(key)) and found[1] == "magnitude" for key in tensors):
        rule = "its adapter configuration says DoRA, and it holds no magnitudes"
        raise InputError(
            "generate.lora", path, rule, "Export it with its lora_magnitude_vector keys, or merge it with peft."
        )
    if config.get("peft_type") in ("LOHA", "LOKR"):
        scaling = [_number(config.get(key)) for key in ("alpha", "r")]
        whole = scaling[0] / scaling[1] if scaling[0] is not None and scaling[1] else None
        return LoraFile(path, tensors, scale=whole)
    return LoraFile(path, tensors, _number(config.get("lora_alpha")), bool(config.get("use_rslora")))


def _number(found: Any) -> float | None:
    return float(found) if isinstance(found, (int, float)) else None


def match_lora(file: LoraFile, model: AnimateTransformer, partial: bool = False) -> Lora:
    """Find the place of every key in `model`, which may be on the meta device.

    alpha is the key's own, else peft's configured one, else the rank. `partial` lists keys without a place, or of a shape that
    does not fit theirs, instead of refusing them.

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
        if found is None or place is None or (found[1] in _WHOLE and not _parameter(place, found[1], parameters)):
            lost.append(key)
            continue
        half = parts.setdefault(place, {})
        if found[1] in half:
            rule = f"{key} and {half[found[1]]} mean the same tensor"
            raise InputError("generate.lora", file.path, rule, "Give a file with one LoRA in it.")
        half[found[1]] = key
    found_parts: list[Change] = []
    full: Tensors = {}
    for place, keys in parts.items():
        inside = {kind: key for kind, key in keys.items() if kind not in _WHOLE}
        paired = ("up" in keys) == ("down" in keys)
        try:
            if paired and set(inside) - {"alpha", "magnitude"}:
                found_parts.append(_change(file, place, inside, parameters))
            else:
                lost += inside.values()
        except _Misshapen as error:
            lost += _left_out(file.path, error, inside.values(), partial)
        for kind in (kind for kind in _WHOLE if kind in keys):
            name, tensor = _parameter(place, kind, parameters), file.tensors[keys[kind]]
            assert name is not None
            try:
                _same_shape(keys[kind], tensor.shape, parameters[name].shape)
                full[name] = tensor
            except _Misshapen as error:
                lost += _left_out(file.path, error, [keys[kind]], partial)
    if lost and not (partial and (found_parts or full)):
        rule = f"{_few(lost)} has no place in this transformer"
        remedy = "Use a LoRA made for Wan-Animate" + (
            "." if partial else f", or leave such keys out with {setting('generate.lora_partial')}."
        )
        raise InputError("generate.lora", file.path, rule, remedy)
    low_rank = tuple(part for part in found_parts if isinstance(part, LowRank))
    others = tuple(part for part in found_parts if not isinstance(part, LowRank))
    return Lora(file.path, _dialect(file.tensors), low_rank, full, tuple(lost), others)


def _left_out(path: Path, error: _Misshapen, keys: Iterable[str], partial: bool) -> list[str]:
    """The keys, where a misshapen one may be left out with all that belongs to it."""
    if partial:
        return list(keys)
    leave = f"or leave such keys out with {setting('generate.lora_partial')}"
    remedy = f"Use a LoRA made for this checkpoint's architecture, {leave}."
    raise InputError("generate.lora", path, str(error), remedy) from error


def _change(file: LoraFile, place: Place, keys: Mapping[str, str], parameters: Mapping[str, Tensor]) -> Change:
    """What the keys of one place do to its weight."""
    weight = parameters.get(f"{place[0]}.weight")
    if weight is None or weight.ndim < 2:
        raise _Misshapen(f"{next(iter(keys.values()))} is for {place[0]}, which has no matrix of weights")
    shape = torch.Size((weight.shape[0] // (1 if place[1] is None else 2), *weight.shape[1:]))
    kinds = sorted({kind.partition("_")[0] for kind in keys} - {"alpha", "magnitude"})
    if len(kinds) > 1 and kinds != ["down", "up"]:
        rule = f"{_few(list(keys.values()))} mean different changes of one tensor"
        raise InputError("generate.lora", file.path, rule, "Give a file with one LoRA in it.")
    change = _low_rank(file, place, keys, shape) if kinds[0] == "down" else _two_factors(file, place, keys, shape)
    if "magnitude" not in keys:
        return change
    key = keys["magnitude"]
    magnitude = file.tensors[key]
    rows, columns = [shape[0], *[1] * (len(shape) - 1)], [1, *shape[1:2], *[1] * (len(shape) - 2)]
    if list(magnitude.shape) not in (rows, rows[:1], columns):
        raise _Misshapen(f"{key} has the shape {list(magnitude.shape)}, this transformer needs {rows} or {columns}")
    return Decomposed(*place, change, magnitude)


def _low_rank(file: LoraFile, place: Place, keys: Mapping[str, str], shape: torch.Size) -> LowRank:
    down, up = file.tensors[keys["down"]], file.tensors[keys["up"]]
    empty = next((keys[kind] for kind in ("down", "up") if not file.tensors[keys[kind]].numel()), None)
    if empty is not None:
        raise _Misshapen(f"{empty} is empty")
    _same_shape(keys["down"], down.shape, torch.Size((*down.shape[:1], *shape[1:])))
    rank = down.shape[0]
    _same_shape(keys["up"], up.shape, torch.Size((shape[0], rank, *[1] * (up.ndim - 2))))
    alpha = file.alpha if file.alpha is not None else float(rank)
    root = file.root and file.alpha is not None
    if "alpha" in keys:
        alpha, root = _alpha(file, keys["alpha"]), False
    return LowRank(*place, down, up, alpha / (rank**0.5 if root else rank))


def _two_factors(file: LoraFile, place: Place, keys: Mapping[str, str], shape: torch.Size) -> TwoFactors:
    """LoKr or LoHa; LoKr's alpha counts where one of its factors is of low rank, as LyCORIS has it."""
    kind = "LoKr" if any(key.startswith("lokr") for key in keys) else "LoHa"
    start, rank = ("lokr" if kind == "LoKr" else "hada"), None
    factors: list[tuple[Tensor, ...]] = []
    for name in ("w1", "w2"):
        whole, low = f"{start}_{name}", (f"{start}_{name}_a", f"{start}_{name}_b")
        wanted = (whole,) if whole in keys and kind == "LoKr" else low
        if any(one not in keys for one in wanted) or (len(wanted) == 1 and any(one in keys for one in low)):
            raise _Misshapen(f"{_few(list(keys.values()))} are not all of a {kind}")
        tensors = tuple(file.tensors[keys[one]] for one in wanted)
        if any(t.ndim < 2 or not t.numel() for t in tensors):
            raise _Misshapen(f"{keys[wanted[0]]} has the shape {list(tensors[0].shape)}, and should have two axes")
        if len(tensors) == 2:
            rank = len(tensors[1])
            _same_shape(keys[wanted[0]], tensors[0].shape, torch.Size((len(tensors[0]), rank)))
        factors.append(tensors)
    sizes = [(len(part[0]), part[-1].numel() // len(part[-1])) for part in factors]
    made = [a * b for a, b in zip(*sizes, strict=True)] if kind == "LoKr" else list(sizes[0])
    if made != [shape[0], shape[1:].numel()] or (kind == "LoHa" and sizes[0] != sizes[1]):
        rule = f"{_few(list(keys.values()))} make a change of the shape {made}, this transformer needs {list(shape)}"
        raise _Misshapen(rule)
    scale = 1.0
    if file.scale is not None:
        scale = file.scale
    elif "alpha" in keys:
        alpha = _alpha(file, keys["alpha"])
        scale = alpha / rank if rank is not None else 1.0
    return TwoFactors(*place, kind, factors[0], factors[1], scale)


def _alpha(file: LoraFile, key: str) -> float:
    alpha = file.tensors[key]
    _same_shape(key, alpha.flatten().shape, torch.Size((1,)))
    return float(alpha.float().flatten()[0])


def _same_shape(key: str, found: torch.Size, wanted: torch.Size) -> None:
    if found != wanted or not all(found):
        raise _Misshapen(f"{key} has the shape {list(found)}, this transformer needs {list(wanted)}")


def _kind(key: str) -> tuple[str, str] | None:
    """(module, kind) of a key, or None if it is none of a LoRA's."""
    for pattern, kind in _KINDS:
        if m := re.search(pattern, key):
            return key[: m.start()], m.expand(kind)
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
    kinds = {kind[1].partition("_")[0] for k in keys if (kind := _kind(k))}
    found += [name for kind, name in (("magnitude", "DoRA"), ("lokr", "LoKr"), ("hada", "LoHa")) if kind in kinds]
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
    if config.get("alpha_pattern"):
        rule = "its adapter configuration uses alpha_pattern"
        raise InputError("generate.lora", path, rule, "Merge it with peft, or export it with an alpha for each key.")
    return config


def _few(keys: Sequence[str], limit: int = 4) -> str:
    return ", ".join(keys[:limit]) + (f" and {len(keys) - limit} more" if len(keys) > limit else "")
