"""Quantised files: what is read is read exactly, whatever says more is refused by its format's name."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_checkpoints import PUBLISHED, transformer_tensors, vae_tensors
from torch import Tensor
from typer.testing import CliRunner

from wanimate.cli.main import app
from wanimate.errors import CheckpointError
from wanimate.model.params import VaeParams
from wanimate.runtime.planning.sizes import network_sizes
from wanimate.weights.checkpoint import load_transformer
from wanimate.weights.formats import dequantize, open_folder, open_tensors, read_tensors
from wanimate.weights.locate import CheckpointConfig
from wanimate.weights.stored import Scaled, Stored
from wanimate.weights.tools.inspect import find_networks, verify

NAME = "blocks.0.ffn.0"
Tensors = dict[str, Tensor]


@cache
def state_dict() -> Tensors:
    return transformer_tensors(PUBLISHED)


def marker(**facts: object) -> Tensor:
    return torch.tensor(list(json.dumps(facts).encode()), dtype=torch.uint8)


@cache
def rotation(size: int) -> Tensor:
    """+1 or -1 by the digits to base 4 of row and column, -1 for each pair of digits that add up to 3."""
    out, places = torch.ones(size, size), torch.arange(size)
    for _ in range(size.bit_length() // 2):
        digits, places = places % 4, places // 4
        out[digits[:, None] + digits[None] == 3] *= -1
    return out / size**0.5


def rows_of(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale = weight.abs().amax(1, keepdim=True) / 127
    return (weight / scale).round().to(torch.int8), scale


def convrot(name: str, weight: Tensor, group: int = 64, mark: bool = True) -> Tensors:
    turned = torch.stack([part @ rotation(group).T for part in weight.split(group, 1)], 1).flatten(1)
    levels, scale = rows_of(turned)
    facts = marker(format="int8_tensorwise", convrot=True, convrot_groupsize=group, per_row=True)
    return {f"{name}.weight": levels, f"{name}.weight_scale": scale} | ({f"{name}.comfy_quant": facts} if mark else {})


def block_fp8(name: str, weight: Tensor, edge: int = 32, scale_name: str = "weight_scale") -> Tensors:
    levels = torch.empty_like(weight, dtype=torch.float8_e4m3fn)
    columns = []
    for j in range(0, weight.shape[1], edge):
        parts = [weight[i : i + edge, j : j + edge] for i in range(0, len(weight), edge)]
        column = torch.stack([part.abs().max() / 448 for part in parts])
        for n, part in enumerate(parts):
            levels[n * edge : n * edge + edge, j : j + edge] = (part / column[n]).to(torch.float8_e4m3fn)
        columns.append(column)
    scale = torch.stack(columns, 1)
    return {f"{name}.weight": levels, f"{name}.{scale_name}": scale}


def quanto(name: str, weight: Tensor, kind: torch.dtype = torch.int8) -> Tensors:
    scale = weight.abs().amax(1, keepdim=True) / (127 if kind == torch.int8 else 448)
    levels = (weight / scale).round() if kind == torch.int8 else weight / scale
    return {
        f"{name}.weight._data": levels.to(kind), f"{name}.weight._scale": scale.bfloat16(),
        f"{name}.input_scale": torch.ones(()), f"{name}.output_scale": torch.ones(()),
    }  # fmt: skip


READ: dict[str, tuple[Callable[[str, Tensor], Tensors], float]] = {
    "int8, rotated": (convrot, 0.02),
    "fp8, blocks": (
        lambda n, w: block_fp8(n, w) | {f"{n}.comfy_quant": marker(format="float8_e4m3fn_blockwise", group_size=32)}, 0.07,
    ),
    "fp8, blocks, inverse": (lambda n, w: block_fp8(n, w, 64, "weight_scale_inv"), 0.07),
    "fp8 in bytes": (
        lambda n, w: {
            f"{n}.weight": (w * 64).to(torch.float8_e4m3fn).view(torch.uint8), f"{n}.weight_scale": torch.tensor(1 / 64),
            f"{n}.comfy_quant": marker(format="float8_e4m3fn", orig_shape=list(w.shape)),
        }, 0.07,
    ),
    "quanto int8": (quanto, 0.02),
    "quanto fp8": (lambda n, w: quanto(n, w, torch.float8_e4m3fn), 0.07),
}  # fmt: skip


def quantised(change: Callable[[str, Tensor], Tensors]) -> Tensors:
    """The tiny transformer with the matrices of its blocks in another form."""
    out: Tensors = {}
    for key, tensor in state_dict().items():
        matrix = (
            key.startswith("blocks.") and key.endswith(".weight") and tensor.ndim == 2 and tensor.shape[1] % 64 == 0
        )
        out |= change(key.removesuffix(".weight"), tensor) if matrix else {key: tensor.contiguous()}
    return out


@pytest.mark.parametrize("form", READ)
def test_what_is_read(form: str, tmp_path: Path) -> None:
    """Every weight as it was, within the format's own step; `verify` tells what the file is."""
    change, step = READ[form]
    path = tmp_path / "x.safetensors"
    save_file(quantised(change), path)
    state = state_dict()
    loaded = load_transformer(open_tensors(path), CheckpointConfig(name="x"), path, torch.float32).state_dict()
    assert sorted(loaded) == sorted(state)
    for key, tensor in state.items():
        assert (loaded[key] - tensor).norm() <= step * tensor.norm(), key
    found = find_networks(path)
    assert verify(found[0]) == {}
    told = next(iter(found[0].types))
    assert ("float8_e4m3fn" if "fp8" in form else "int8") in told
    assert ("rotated in groups of 64 (ConvRot)" in told) == ("rotated" in form)
    assert ("a scale for" in told) == ("blocks" in form)
    result = CliRunner().invoke(app, ["weights", "verify", str(path)])
    assert result.exit_code == 0
    assert told in " ".join(result.output.split())


@pytest.mark.parametrize("group", [4, 16, 256])
def test_a_rotation_is_turned_back_exactly(group: int) -> None:
    weight = torch.randn(6, 2 * group)
    stored = convrot("a", weight, group)
    levels, scale = stored["a.weight"].float(), stored["a.weight_scale"]
    expected = torch.cat([part @ rotation(group) for part in (levels * scale).split(group, 1)], 1)
    assert (dequantize(stored)["a.weight"] - expected).abs().max() < 1e-5


@pytest.mark.parametrize("shape", [(200, 130), (128, 128), (96, 256)])
def test_blocks_that_do_not_fill_the_weight(shape: tuple[int, int]) -> None:
    """Files with `weight_scale_inv` cut the last blocks off where 128 does not divide the weight."""
    weight = torch.randn(shape)
    stored = block_fp8("a", weight, 128, "weight_scale_inv")
    rows, columns = (torch.arange(n) // 128 for n in shape)
    expected = stored["a.weight"].float() * stored["a.weight_scale_inv"][rows[:, None], columns[None]]
    assert torch.equal(dequantize(stored)["a.weight"], expected)


def test_a_scale_a_row_stays_quantised(tmp_path: Path) -> None:
    """Such weights need not be expanded in memory; rotated ones and blocks are."""
    save_file(quanto("a", torch.randn(4, 64)) | convrot("b", torch.randn(4, 64)), tmp_path / "x.safetensors")
    opened = open_tensors(tmp_path / "x.safetensors")
    assert isinstance(opened["a.weight"], Scaled)
    rotated = opened["b.weight"]
    assert isinstance(rotated, Stored)
    assert not isinstance(rotated, Scaled)
    assert rotated.packed


@pytest.mark.parametrize("form", ["int8, rotated", "quanto int8"])
def test_a_plan_knows_that_expanded_weights_do_not_stay_in_their_file(form: str, tmp_path: Path) -> None:
    save_file(quantised(READ[form][0]), tmp_path / "x.safetensors")
    config, device = CheckpointConfig(name="x"), torch.device("cpu")
    sizes = [
        network_sizes(values, vae_tensors(VaeParams(base=8)), 0, config, "auto", device, tmp_path)
        for values in (open_tensors(tmp_path / "x.safetensors"), state_dict())
    ]
    assert [s.as_stored for s in sizes] == [False, True]
    assert sizes[0].blocks == sizes[1].blocks


def test_what_the_header_says_counts_as_much(tmp_path: Path) -> None:
    """`_quantization_metadata` instead of marker tensors, with names that lack the file's prefix."""
    weight = torch.randn(8, 64)
    path = tmp_path / "x.safetensors"
    stored = {f"model.diffusion_model.{k}": v for k, v in convrot(NAME, weight, mark=False).items()}
    facts = {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": 64}
    for name in (NAME, f"model.diffusion_model.{NAME}", f"diffusion_model.model.diffusion_model.{NAME}"):
        layers = {"format_version": "1.0", "layers": {name: facts}}
        save_file(stored, path, {"format": "pt", "_quantization_metadata": json.dumps(layers)})
        back = read_tensors(path)[f"model.diffusion_model.{NAME}.weight"]
        assert (back - weight).norm() < 0.02 * weight.norm()


def test_a_scale_in_another_shard(tmp_path: Path) -> None:
    stored = quanto("a", torch.randn(4, 64))
    for i, key in enumerate(stored):
        save_file({key: stored[key]}, tmp_path / f"m-{i}.safetensors")
    index = {"weight_map": {key: f"m-{i}.safetensors" for i, key in enumerate(stored)}}
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps(index))
    assert set(open_folder(tmp_path, "m")) == {"a.weight"}


BYTES, LEVELS, ONE = torch.zeros(8, 32, dtype=torch.uint8), torch.zeros(8, 64, dtype=torch.int8), torch.ones(8, 1)
PLAIN = {"a.weight": LEVELS, "a.weight_scale": ONE}
FLOAT8 = torch.zeros(8, 64, dtype=torch.float8_e4m3fn)
REFUSED: dict[str, tuple[Tensors, dict[str, str], str]] = {
    "nvfp4": ({
        "a.weight": BYTES, "a.weight_scale": torch.ones(8, 4).to(torch.float8_e4m3fn), "a.weight_scale_2": torch.tensor(0.1),
        "a.comfy_quant": marker(format="nvfp4"),
    }, {}, "NVFP4"),
    "nvfp4 unmarked": ({"a.weight": BYTES, "a.weight_scale": torch.ones(8, 4).to(torch.float8_e4m3fn)}, {}, "NVFP4"),
    "mxfp8": ({"a.weight": FLOAT8, "a.weight_scale": BYTES[:, :2]}, {}, "MXFP8"),
    "mxfp8 marked": ({"a.weight": FLOAT8, "a.weight_scale": ONE, "a.comfy_quant": marker(format="mxfp8")}, {}, "MXFP8"),
    "mxfp4": ({"a.weight": BYTES, "a.weight_scale": BYTES[:, :2]}, {}, "MXFP4"),
    "bitsandbytes nf4": ({
        "a.weight": BYTES.view(-1, 1), "a.weight.absmax": torch.ones(8), "a.weight.quant_map": torch.ones(16),
        "a.weight.quant_state.bitsandbytes__nf4": marker(quant_type="nf4"),
    }, {}, "bitsandbytes NF4"),
    "bitsandbytes int8": ({"a.weight": LEVELS, "a.SCB": torch.ones(8)}, {}, "bitsandbytes int8"),
    "quanto int4": (
        {"a.weight._data._data": BYTES, "a.weight._scale": ONE, "a.weight._shift": ONE}, {}, "quanto int4"),
    "gptq": ({"a.qweight": torch.zeros(8, 8, dtype=torch.int32), "a.scales": ONE, "a.qzeros": BYTES}, {}, "GPTQ or AWQ"),
    "svdquant": ({"a.qweight": LEVELS, "a.wscales": ONE, "a.smooth_factor": ONE}, {}, "SVDQuant"),
    "awq": ({**PLAIN, "a.pre_quant_scale": torch.ones(64)}, {}, "AWQ"),
    "zero points": ({**PLAIN, "a.weight_zero_point": ONE}, {}, "zero points"),
    "another format": ({**PLAIN, "a.comfy_quant": marker(format="int3_magic")}, {}, "in the format 'int3_magic'"),
    "another fact": (
        {**PLAIN, "a.comfy_quant": marker(format="int8_tensorwise", hadamard=True)}, {}, "int8_tensorwise with 'hadamard'"),
    "rotated, no size": ({**PLAIN, "a.comfy_quant": marker(convrot=True, per_row=True)}, {}, "ConvRot"),
    "no scale": ({"a.weight": LEVELS}, {}, "int8 without scales"),
    "unknown scale": ({"a.weight": LEVELS, "a.multiplier": ONE}, {}, "int8 without scales"),
    "rotated, another matrix": (
        {**PLAIN, "a.comfy_quant": marker(format="int8_tensorwise", convrot=True, convrot_groupsize=32)}, {},
        "rotated (ConvRot) in groups of 32"),
    "header, nvfp4": (PLAIN, {"_quantization_metadata": json.dumps({"layers": {"a": {"format": "nvfp4"}}})}, "NVFP4"),
    "header, rotated": (PLAIN, {"quantization_config": json.dumps({"convrot": True})}, "ConvRot"),
    "header, a word": (PLAIN, {"quantization": "torchao"}, "torchao"),
    "header, an unknown word": (PLAIN, {"quantization": "zip3"}, "in the format 'zip3'"),
}  # fmt: skip


@pytest.mark.parametrize("form", REFUSED)
def test_what_says_more_is_refused_by_name(form: str, tmp_path: Path) -> None:
    tensors, metadata, name = REFUSED[form]
    path = tmp_path / "x.safetensors"
    save_file({k: v.clone() for k, v in tensors.items()}, path, metadata)
    with pytest.raises(CheckpointError) as caught:
        open_tensors(path)
    said = str(caught.value)
    assert name in said
    assert "not read here" in said
    assert "bf16" in said
    assert "Download it again" not in said
    assert caught.value.exit_code == 2
    result = CliRunner().invoke(app, ["weights", "verify", str(path)])
    assert result.exit_code == 2
    assert name in " ".join(result.output.split())


@pytest.mark.parametrize(("kind", "name"), [("F8_E8M0", "MXFP8"), ("F4", "NVFP4 or MXFP4")])
def test_types_that_only_other_formats_use(kind: str, name: str, tmp_path: Path) -> None:
    header = json.dumps(
        {"a.weight": {"dtype": kind, "shape": [16], "data_offsets": [0, 16 if kind != "F4" else 8]}}
    ).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16 if kind != "F4" else 8))
    with pytest.raises(CheckpointError, match=f"{name}.*not read here"):
        open_tensors(path)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"a.comfy_quant": marker(format="float8_e4m3fn")}, "say float8_e4m3fn, and a.weight is int8"),
        ({"a.comfy_quant": torch.ones(3)}, "no marker"),
        ({"a.comfy_quant": torch.full((3,), 255, dtype=torch.uint8)}, "not readable"),
        ({"a.comfy_quant": marker(convrot=True, convrot_groupsize=48)}, "rotated in groups of 48"),
        ({"a.comfy_quant": marker(convrot=True, convrot_groupsize="x")}, "states \"x\""),
        ({"a.scale_weight": ONE}, "has two scales"),
        ({"b.weight_scale": ONE}, "b.weight is missing"),
        ({"a.weight_scale": torch.ones(3)}, "is not the scale of an int8 weight a.weight"),
        ({"a.weight_scale": torch.ones(5, 3)}, "is not the scale of an int8 weight a.weight"),
    ],
)  # fmt: skip
def test_markers_that_contradict_the_weights(change: Tensors, rule: str, tmp_path: Path) -> None:
    save_file({k: v.clone() for k, v in {**PLAIN, **change}.items()}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError) as caught:
        open_tensors(tmp_path / "x.safetensors")
    assert rule in str(caught.value)


def test_ordinary_files_say_nothing(tmp_path: Path) -> None:
    """Words in the header of a file without quantised weights, and what ComfyUI writes of its workflow."""
    path = tmp_path / "x.safetensors"
    save_file(
        {"a.weight": torch.ones(2)}, path, {"format": "pt", "quantization": "nf4", "workflow": '{"dtype": "nvfp4"}'}
    )
    assert set(open_tensors(path)) == {"a.weight"}
    save_file(PLAIN, path, {"format": "pt", "workflow": '{"a": "nvfp4 convrot"}', "quantization": "fp8_e4m3fn_scaled"})
    assert set(open_tensors(path)) == {"a.weight"}
