"""What a file's markers say of its weights. This is the one place that decides how a weight is quantised: from marker tensors
and the header's metadata alike. Whatever says more than is understood here is refused by its format's name.

Facts about the formats: ComfyUI's QUANTIZATION.md, the safetensors of optimum-quanto and bitsandbytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from wanimate.media.json_file import parse_json
from wanimate.weights.scales import EIGHT_BITS, check_group, is_group, unscaled
from wanimate.weights.stored import Stored, UnreadFormat, Value, Values, defer, type_name, value

LAYERS = "_quantization_metadata"
"""Key of the header's metadata that says of each layer what a `.comfy_quant` tensor says beside it."""
_MARK = ".comfy_quant"
_SCALES = (".weight_scale", ".scale_weight", ".weight_scale_inv")
_QUANTO = (".weight._data", ".weight._scale")
_ASIDE = ("scaled_fp8", ".scale_input", ".input_scale", ".output_scale", _MARK)
"""Markers, and scales of activations, which are not quantised here."""
_FOREIGN_KEYS = (
    (r"\.quant_state\.bitsandbytes__nf4$", "bitsandbytes NF4"),
    (r"\.quant_state\.bitsandbytes__fp4$", "bitsandbytes FP4"),
    (r"\.(SCB|weight_format)$", "bitsandbytes int8"),
    (r"\.(nested_)?(absmax|quant_map)$", "bitsandbytes (4 bits)"),
    (r"\.weight_scale_2$", "NVFP4 (4 bits with two scales)"),
    (r"\._data\._data$|\._shift$", "quanto int4 or int2"),
    (r"\.(wscales|wcscales|wtscale|smooth_factor)$", "SVDQuant (Nunchaku)"),
    (r"\.(svd_up|svd_down)$", "SDNQ with SVD"),
    (r"\.(qweight|qzeros|g_idx)$", "GPTQ or AWQ"),
    (r"\.(weight_packed|weight_global_scale)$", "compressed-tensors"),
    (r"\.(weight|input)_quantizer\.", "NVIDIA ModelOpt"),
    (r"\.(pre_quant_scale|smooth_scale)$", "AWQ (inputs are scaled before the product)"),
    (r"\.weight_(zero_point|zp)$", "integers with zero points"),
    (r"\.weight_(codebook|s_rel|s_channel)$", "W4A8 (4 bits with a codebook)"),
    (r"weight_qdata$", "torchao"),
    (r"\.W_q$", "HQQ"),
)  # fmt: skip
_NAMES = {
    "nvfp4": "NVFP4", "mxfp4": "MXFP4", "mxfp6": "MXFP6", "mxfp8": "MXFP8", "bitsandbytes": "bitsandbytes",
    "bnb": "bitsandbytes", "nf4": "NF4 (bitsandbytes)", "fp4": "FP4", "int4": "int4", "svdquant": "SVDQuant",
    "nunchaku": "SVDQuant (Nunchaku)", "awq": "AWQ", "gptq": "GPTQ", "torchao": "torchao", "hqq": "HQQ",
    "modelopt": "NVIDIA ModelOpt", "sdnq": "SDNQ",
}  # fmt: skip
"""Words of metadata that name a format that is not read here; the first that fits counts."""
_ROTATION = re.compile(r"convrot|hadamard|quarot|rotat")
_READ = re.compile(r"(float8_e4m3fn|float8_e5m2|int8)(_scaled|_tensorwise|_rowwise|_blockwise|_block3d)?")
_TYPES = {"float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2, "int8": torch.int8}
_UNDERSTOOD = (
    "format", "convrot", "convrot_groupsize", "group_size", "block_size", "orig_dtype", "orig_shape", "per_row",
    "full_precision_matrix_mult",
)  # fmt: skip
_PLAIN_WORDS = re.compile(
    r"f(loat|p)?8|e4m3|e5m2|int8|i8|w8a|8.?bit|b?f(loat|p)?(16|32)|16|32|none|null|true|false|scaled|^pt$|^\d*$"
)
_LONGEST_MARK = 2**16
_MOST_WORDS = 16
"""Words of a name, of which some at the front may be a prefix."""
_DEEPSEEK_BLOCK = 128
"""Edge of a block of files that call their scales `weight_scale_inv`, where they have more than one."""


@dataclass(frozen=True)
class Layer:
    """What is said of one layer: its type, the edge of a block of scales, the size of a group of its rotated input axis."""

    kind: torch.dtype | None = None
    block: int | None = None
    group: int | None = None
    shape: tuple[int, ...] | None = None


def understood(values: Values, metadata: Mapping[str, str] | None = None) -> dict[str, Value]:
    """Weights joined with what quantised them; markers and scales of activations are left out.

    Raises:
        UnreadFormat: a marker says more than is understood here.
        ValueError: markers, scales and weights do not belong together.
    """
    layers = {**_layers_of_header(values, metadata or {})}
    for key in values:
        if key.endswith(_MARK):
            module, layer = key.removesuffix(_MARK), _layer(_facts(key, values[key]))
            if layers.setdefault(module, layer) != layer:
                raise ValueError(f"{key} and {LAYERS} say different things of {module}")
    for pattern, name in _FOREIGN_KEYS:
        if any(re.search(pattern, key) for key in values):
            raise UnreadFormat(name)
    if any(v.dtype.itemsize == 1 for v in values.values()):
        _check_header(metadata or {}, any(layer.group is not None for layer in layers.values()))
    scales = dict(_scales(values))
    used = {key for pair in scales.values() for key in pair}
    out = {k: v for k, v in values.items() if k not in used and not k.endswith(_ASIDE)}
    for name, (source, scale) in scales.items():
        out[name] = _joined(source, scale, values, layers.get(name.removesuffix(".weight"), Layer()))
    for module, layer in layers.items():
        name = f"{module}.weight"
        if name in values and name not in scales and (layer.group is not None or layer.kind != values[name].dtype):
            raise ValueError(f"its markers say more of {module} than its weight shows, and no scale is beside it")
    for name, v in out.items():
        if name.endswith(".weight") and not v.dtype.is_floating_point:
            raise UnreadFormat(f"{type_name(v.dtype)} without scales that are known here ({name})")
    return out


def _scales(values: Values) -> Iterator[tuple[str, tuple[str, str]]]:
    """(name of a weight, (key of its quantised values, key of its scale))."""
    found: set[str] = set()
    for key in values:
        end = next((end for end in (*_SCALES, _QUANTO[1]) if key.endswith(end)), None)
        if end is None:
            continue
        name = f"{key.removesuffix(end)}.weight"
        source = name if end != _QUANTO[1] else f"{key.removesuffix(end)}{_QUANTO[0]}"
        if source not in values:
            raise ValueError(f"{key} is not the scale of a weight: {source} is missing")
        if name in found:
            raise ValueError(f"{name} has two scales")
        found.add(name)
        yield name, (source, key)


def _joined(source: str, key: str, values: Values, layer: Layer) -> Stored:
    weight, scale = values[source], values[key]
    if weight.dtype == torch.uint8 and layer.kind in EIGHT_BITS and layer.kind != torch.int8:
        weight = defer(lambda t: t.view(layer.kind), weight)
    foreign = {(torch.uint8, torch.float8_e4m3fn): "NVFP4", (torch.uint8, torch.uint8): "MXFP4"}
    if weight.dtype == torch.uint8 and scale.ndim == 2:
        raise UnreadFormat(foreign.get((weight.dtype, scale.dtype), f"packed bytes ({source})"))
    if weight.dtype in EIGHT_BITS and scale.dtype == torch.uint8:
        raise UnreadFormat("MXFP8")
    block = layer.block
    if block is None and key.endswith("_inv") and weight.ndim == scale.ndim == 2:
        edges = [-(-n // _DEEPSEEK_BLOCK) for n in weight.shape]
        block = _DEEPSEEK_BLOCK if edges == list(scale.shape) else None
    if (layer.kind or weight.dtype) != weight.dtype:
        raise ValueError(
            f"its markers say {type_name(layer.kind or weight.dtype)}, and {source} is {type_name(weight.dtype)}"
        )
    if layer.shape is not None and layer.shape != tuple(weight.shape):
        raise UnreadFormat(f"padded {type_name(weight.dtype)} ({source})")
    if layer.group is not None:
        if layer.group & (layer.group - 1) == 0 and not weight.shape[-1] % layer.group and not is_group(layer.group):
            raise UnreadFormat(f"rotated (ConvRot) in groups of {layer.group}")
        try:
            check_group(weight, layer.group)
        except ValueError as error:
            rule = f"{source} cannot have been rotated in groups of {layer.group}, as its marker says"
            raise ValueError(rule) from error
    try:
        return unscaled(weight, scale, block, layer.group)
    except ValueError as error:
        raise ValueError(f"{key} is not the scale of an int8 weight {source} nor of a float8 one") from error


def _facts(key: str, mark: Value) -> dict[str, Any]:
    """The JSON that a marker tensor holds as bytes."""
    if mark.dtype != torch.uint8 or mark.numel() > _LONGEST_MARK:
        raise ValueError(f"{key} is no marker of a format")
    try:
        found = parse_json(bytes(value(mark).flatten().tolist()))
    except ValueError as error:
        raise ValueError(f"{key} is not readable ({error})") from error
    return _table(key, found)


def _table(key: str, found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ValueError(f"{key} is not readable (it is no table)")
    return found


def _layer(facts: dict[str, Any]) -> Layer:
    """What one layer's marker says."""
    kind = str(facts.get("format") or "")
    read = _READ.fullmatch(kind)
    if kind and read is None:
        raise UnreadFormat(
            next((name for word, name in _NAMES.items() if word in kind), f"in the format {kind[:100]!r}")
        )
    more = [str(key) for key, said in facts.items() if key not in _UNDERSTOOD and said not in (None, False, "", 0)]
    if more:
        raise UnreadFormat(f"{kind or 'quantised'} with {more[0][:100]!r}")
    group = None
    if facts.get("convrot"):
        group = _count(facts, "convrot_groupsize")
        if group is None:
            raise UnreadFormat("rotated int8 (ConvRot) without the size of its groups")
    shape = facts.get("orig_shape")
    return Layer(
        _TYPES[read[1]] if read else None, _count(facts, "group_size") or _count(facts, "block_size"), group,
        tuple(shape) if isinstance(shape, list) and all(type(n) is int for n in shape) else None,
    )  # fmt: skip


def _count(facts: dict[str, Any], key: str) -> int | None:
    found = facts.get(key)
    if found is None:
        return None
    if type(found) is not int or not 1 <= found <= 2**20:
        raise ValueError(f"a marker states {json.dumps(found)[:100]} as {key}")
    return found


def _layers_of_header(values: Values, metadata: Mapping[str, str]) -> dict[str, Layer]:
    """What the header says, by the names that its layers have among the tensors."""
    if LAYERS not in metadata:
        return {}
    try:
        stated = _table(LAYERS, parse_json(metadata[LAYERS]))
    except ValueError as error:
        raise ValueError(f"{LAYERS} is not readable ({error})") from error
    layers = _table(LAYERS, stated.get("layers", {}))
    modules = {key.rpartition(".")[0] for key in values}
    endings: dict[str, set[str]] = {}
    for module in modules:
        words = module.split(".", _MOST_WORDS)
        for i in range(len(words)):
            endings.setdefault(".".join(words[i:]), set()).add(module)
    found: dict[str, Layer] = {}
    for name, facts in layers.items():
        layer = _layer(_table(name, facts))
        words = name.split(".", _MOST_WORDS)
        inside = next((m for i in range(len(words)) if (m := ".".join(words[i:])) in modules), None)
        at = {name} & modules or endings.get(name, {inside} if inside else set())
        found |= dict.fromkeys(at, layer)
    return found


def _check_header(metadata: Mapping[str, str], told: bool) -> None:
    """Other entries of the header must name no format that is not read, and no rotation that no layer's marker tells of."""
    for key, said in metadata.items():
        if key == LAYERS or not re.search(r"quant|rotat|convrot|^format$|^dtype$", key.lower()):
            continue
        text = f"{key} {said}".lower()[:_LONGEST_MARK]
        for word, name in _NAMES.items():
            if re.search(rf"(?<![a-z]){word}", text):
                raise UnreadFormat(name)
        if "quant" in key.lower() and re.fullmatch(r"[\w.+-]{1,60}", said) and not _PLAIN_WORDS.search(said.lower()):
            raise UnreadFormat(f"in the format {said!r}")
        if _ROTATION.search(text) and not told and not re.search(r"convrot\W+(false|none|null|0)", text):
            raise UnreadFormat("rotated (ConvRot) without a marker for each layer")
