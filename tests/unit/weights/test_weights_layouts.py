"""Weights in other libraries' layouts load as the same networks."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import detgen
import gguf
import gguf.quants
import numpy as np
import pytest
import torch
from published_shapes import clip_shapes, t5_shapes
from safetensors.torch import save_file
from tiny_checkpoints import PUBLISHED, transformer_tensors, vae_tensors
from torch import Tensor

from wanimate.errors import CheckpointError
from wanimate.model.params import MotionParams, TransformerParams, VaeParams
from wanimate.model.transformer import AnimateTransformer
from wanimate.model.vae import VideoVae
from wanimate.weights.checkpoint import load_checkpoint
from wanimate.weights.formats import dequantize, open_tensors, read_tensors
from wanimate.weights.layouts import native_clip, native_transformer, native_umt5, native_vae
from wanimate.weights.locate import CLIP, T5, TOKENIZER, TRANSFORMER, VAE
from wanimate.weights.names import clip_to_transformers, umt5_to_transformers

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "parity"))
from published_names import transformer_to_diffusers, vae_to_diffusers  # noqa: E402

SMALL = TransformerParams(
    dim=32, ffn_dim=48, num_heads=2, num_layers=4, time_width=16, text_width=8, text_length=3, image_width=12,
    face_width=8, face_slots=2, face_every=2, motion=MotionParams(channels=(4, 8, 8), width=12, directions=4, layers=2),
)  # fmt: skip


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert sorted(left) == sorted(right)
    for key, value in right.items():
        assert torch.equal(left[key], value), key


def full_size(name: str) -> dict[str, Tensor]:
    shapes: dict[str, list[int]] = json.loads((ROOT / "golden" / "keys" / f"{name}.json").read_text())
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def test_a_transformer_from_diffusers_is_the_published_one() -> None:
    state = AnimateTransformer(SMALL).state_dict()
    same(native_transformer(transformer_to_diffusers(state)), state)


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_vae_from_diffusers_is_the_published_one(blocks: int) -> None:
    state = VideoVae(VaeParams(base=8, res_blocks=blocks)).state_dict()
    same(native_vae(vae_to_diffusers(state, blocks)), state)


def test_full_size_keys_and_shapes_come_back() -> None:
    for name, away, back in (
        ("transformer", transformer_to_diffusers, native_transformer), ("vae", vae_to_diffusers, native_vae),
    ):  # fmt: skip
        published = full_size(name)
        returned = back(away(published))
        assert {k: v.shape for k, v in returned.items()} == {k: v.shape for k, v in published.items()}


PREFIXES = (
    "", "model.diffusion_model.", "diffusion_model.", "model.", "transformer.", "module.", "_orig_mod.", "net.", "dit.",
    "unet.", "module._orig_mod.", "pipe.dit.model.", "_fsdp_wrapped_module.",
)  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_of_single_files(prefix: str) -> None:
    """Any prefix, told by the keys, of each network in each layout."""
    state = AnimateTransformer(SMALL).state_dict()
    vae = VideoVae(VaeParams(base=8)).state_dict()
    text, clip = (detgen.state_dict(shapes) for shapes in (t5_shapes(12, 16, 16, 24, 2, 2), clip_shapes(32, 2)))
    for native, published, layouts in (
        (native_transformer, state, (state, transformer_to_diffusers(state))),
        (native_vae, vae, (vae, vae_to_diffusers(vae, 2))),
        (native_umt5, text, (text, umt5_to_transformers(text))),
        (native_clip, clip, (clip,)),
    ):
        for layout in layouts:
            same(native({prefix + k: v for k, v in layout.items()}), published)


def test_names_of_wrappers_inside_keys() -> None:
    """Blocks compiled one by one, or sharded and checkpointed."""
    state = AnimateTransformer(SMALL).state_dict()
    for wrapper in ("_orig_mod", "_fsdp_wrapped_module._checkpoint_wrapped_module"):
        wrapped = {re.sub(r"^(blocks\.\d+)\.", rf"\1.{wrapper}.", k): v for k, v in state.items()}
        same(native_transformer({f"module.{k}": v for k, v in wrapped.items()}), state)


def test_two_networks_under_two_prefixes_stay_two() -> None:
    """An average beside the weights: nothing is mixed or dropped, so that strict loading names it."""
    state = AnimateTransformer(SMALL).state_dict()
    both = native_transformer({**{f"m.{k}": v for k, v in state.items()}, **{f"ema.{k}": v for k, v in state.items()}})
    assert len(both) == 2 * len(state)
    assert state.keys() < both.keys()


def test_what_no_layout_knows_keeps_its_name() -> None:
    state = AnimateTransformer(SMALL).state_dict()
    assert "blocks.0.surprise" in native_transformer(state | {"blocks.0.surprise": torch.zeros(1)})
    assert "blocks.0.surprise" in native_transformer(
        transformer_to_diffusers(state) | {"blocks.0.surprise": torch.zeros(1)}
    )


def without_transformer(folder: Path) -> Path:
    for file in folder.glob(f"{TRANSFORMER}*"):
        file.unlink()
    return folder


@pytest.mark.parametrize("ending", ["weight_scale", "scale_weight"])
def test_a_scaled_fp8_file_of_any_name(ending: str, published: Path, copied: Callable[[Path], Path]) -> None:
    """One scale a matrix, a prefix, scales of activations and markers: what the packagers of single files write."""
    folder = without_transformer(copied(published))
    state = transformer_tensors(PUBLISHED)
    stored = {k: v.contiguous() for k, v in state.items()}
    matrices = [k for k, v in state.items() if k.startswith("blocks.") and v.ndim == 2]
    for key in matrices:
        scale = state[key].abs().max() / 448
        stored[key] = (state[key] / scale).to(torch.float8_e4m3fn)
        stored[key.replace(".weight", f".{ending}")] = scale
        stored[key.replace(".weight", ".input_scale")] = torch.ones(())
    stored["scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    save_file({f"model.diffusion_model.{k}": v for k, v in stored.items()}, folder / "animate_14B_fp8.safetensors")
    loaded = load_checkpoint(folder, "cpu").transformer.state_dict()
    assert len(matrices) > 20
    for key, value in state.items():
        step = value.abs() / 16 + value.abs().max() / 448 / 512 if key in matrices else 0
        assert ((loaded[key] - value).abs() <= step).all(), key


def test_a_folder_of_diffusers(published: Path, copied: Callable[[Path], Path]) -> None:
    """All four networks and the tokenizer, as `save_pretrained` lays them out."""
    expected = load_checkpoint(published, "cpu")
    folder = without_transformer(copied(published))
    assert expected.image is not None
    clip = transformers_clip(read_tensors(folder / CLIP))
    parts = {
        f"transformer/{TRANSFORMER}": transformer_to_diffusers(transformer_tensors(PUBLISHED)),
        f"vae/{TRANSFORMER}": vae_to_diffusers(vae_tensors(VaeParams(base=8))),
        "text_encoder/model": umt5_to_transformers(read_tensors(folder / T5)),
        "image_encoder/model": clip,
    }
    for name, tensors in parts.items():
        file = folder / f"{name}.safetensors"
        file.parent.mkdir()
        save_file({k: v.clone() for k, v in tensors.items()}, file)
    (folder / TOKENIZER).rename(folder / "tokenizer")
    for name in (VAE, T5, CLIP):
        (folder / name).unlink()
    loaded = load_checkpoint(folder, "cpu")
    same(dict(loaded.transformer.state_dict()), dict(expected.transformer.state_dict()))
    same(dict(loaded.vae.state_dict()), dict(expected.vae.state_dict()))
    picture = torch.rand(3, 40, 30) * 2 - 1
    assert loaded.image is not None
    assert torch.equal(loaded.image.encode(picture), expected.image.encode(picture))
    assert torch.equal(loaded.prompts.encode("a person dances"), expected.prompts.encode("a person dances"))


def transformers_clip(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The whole tower: `clip_to_transformers` leaves out the last block, so one more is put behind it for the time."""
    last = 1 + max(int(k.split(".")[2]) for k in published if k.startswith("visual.transformer."))
    more = {k.replace(f".{last - 1}.", f".{last}."): v for k, v in published.items() if f"former.{last - 1}." in k}
    return {f"vision_model.{k}": v for k, v in clip_to_transformers(published | more).items()}


def test_two_candidates_are_named(published: Path, copied: Callable[[Path], Path]) -> None:
    folder = without_transformer(copied(published))
    for name in ("a.safetensors", "b.safetensors"):
        save_file({"pose_patch_embedding.weight": torch.zeros(1)}, folder / name)
    (folder / "c.safetensors").write_text("not one")
    with pytest.raises(CheckpointError, match=r"several files hold a transformer \(a\.safetensors, b\.safetensors\)"):
        load_checkpoint(folder, "cpu")


def test_scales_must_fit_their_weights() -> None:
    weight = torch.zeros(4, 2, dtype=torch.float8_e4m3fn)
    for scale in (torch.ones(3), torch.ones(2, 4)):
        with pytest.raises(ValueError, match=r"a\.weight_scale is not the scale of an int8 weight a\.weight"):
            dequantize({"a.weight": weight, "a.weight_scale": scale})
    with pytest.raises(ValueError, match="is not the scale"):
        dequantize({"a.weight": weight.float(), "a.scale_weight": torch.ones(1)})


QUANTISED = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
K_BLOCKS = {"Q2_K": 84, "Q3_K": 110, "Q4_K": 144, "Q5_K": 176, "Q6_K": 210}
"""Bytes of 256 weights."""


def write_gguf(path: Path, tensors: dict[str, Tensor], kind: str, architecture: str = "wan") -> dict[str, Tensor]:
    """As packagers write it: matrices of the blocks quantised, five axes stored flat. Returns what was stored."""
    writer, stored = gguf.GGUFWriter(path, architecture), dict(tensors)
    raw = gguf.GGMLQuantizationType[kind]
    for key, tensor in tensors.items():
        value = tensor.float().numpy()
        if key.startswith("blocks.") and value.ndim == 2 and value.shape[1] % 32 == 0:
            packed = gguf.quants.quantize(value, raw)
            writer.add_tensor(key, packed, raw_dtype=raw)
            stored[key] = torch.from_numpy(gguf.quants.dequantize(packed, raw))
        elif value.ndim == 5:
            writer.add_array(f"comfy.gguf.orig_shape.{key}", list(value.shape))
            writer.add_tensor(key, value.reshape(len(value), -1))
        else:
            writer.add_tensor(key, value)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return stored


@pytest.mark.parametrize("kind", QUANTISED)
def test_gguf(kind: str, published: Path, copied: Callable[[Path], Path]) -> None:
    folder = without_transformer(copied(published))
    state = transformer_tensors(PUBLISHED)
    stored = write_gguf(folder / "animate.gguf", state, kind)
    changed = [k for k in state if not torch.equal(stored[k], state[k])]
    assert len(changed) > 20
    same(dict(load_checkpoint(folder, "cpu").transformer.state_dict()), stored)
    halved = read_tensors(folder / "animate.gguf", torch.bfloat16)
    assert all(torch.equal(halved[k], stored[k].bfloat16()) for k in changed)


@pytest.mark.parametrize("kind", K_BLOCKS)
def test_gguf_k_quants_are_expanded(kind: str, tmp_path: Path) -> None:
    raw = gguf.GGMLQuantizationType[kind]
    scales = np.full((6, K_BLOCKS[kind]), 60, dtype=np.uint8)  # 0x3c3c: half floats a little over 1
    scales[:, ::3] = np.arange(K_BLOCKS[kind], dtype=np.uint8)[::3] % 60
    writer = gguf.GGUFWriter(tmp_path / "k.gguf", "wan")
    writer.add_tensor("blocks.0.ffn.0.weight", scales, raw_dtype=raw)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    tensor = read_tensors(tmp_path / "k.gguf")["blocks.0.ffn.0.weight"]
    assert tensor.shape == (6, 256)
    assert torch.isfinite(tensor).all()
    assert tensor.std() > 0


def q2_k(block: bytes) -> list[float]:
    """256 weights: sixteen times a nibble of scale and one of minimum, 2 bits a weight, two half floats for all."""
    scales, bits = block[:16], block[16:80]
    d, least = (float(x) for x in np.frombuffer(block[80:84], np.float16))
    out = []
    for n in range(256):
        level = bits[32 * (n // 128) + n % 32] >> 2 * (n % 128 // 32) & 3
        out.append(d * (scales[n // 16] & 15) * level - least * (scales[n // 16] >> 4))
    return out


def q3_k(block: bytes) -> list[float]:
    """256 weights: a high bit, then two low ones each, sixteen scales of 6 bits, a half float for all."""
    high, low, packed = block[:32], block[32:96], block[96:108]
    d = float(np.frombuffer(block[108:110], np.float16)[0])
    out = []
    for n in range(256):
        i = n // 16
        scale = (packed[i % 8] >> 4 * (i // 8) & 15) | (packed[8 + i % 4] >> 2 * (i // 4) & 3) << 4
        level = low[32 * (n // 128) + n % 32] >> 2 * (n % 128 // 32) & 3
        out.append(d * (scale - 32) * (level - (0 if high[n % 32] >> n // 32 & 1 else 4)))
    return out


@pytest.mark.parametrize(("kind", "formula", "halves"), [("Q2_K", q2_k, 80), ("Q3_K", q3_k, 108)])
def test_small_k_quants_are_expanded_exactly(
    kind: str, formula: Callable[[bytes], list[float]], halves: int, tmp_path: Path
) -> None:
    raw = gguf.GGMLQuantizationType[kind]
    blocks = np.random.default_rng(1).integers(0, 256, (6, K_BLOCKS[kind]), dtype=np.uint8)
    count = (K_BLOCKS[kind] - halves) // 2
    blocks[:, halves:] = np.random.default_rng(2).uniform(-2, 2, (6, count)).astype(np.float16).view(np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "k.gguf", "wan")
    writer.add_tensor("blocks.0.ffn.0.weight", blocks, raw_dtype=raw)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    found = read_tensors(tmp_path / "k.gguf")["blocks.0.ffn.0.weight"]
    expected = torch.tensor([formula(bytes(block)) for block in blocks])
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.parametrize("architecture", ["wan2.2", "pig", ""])
def test_gguf_of_another_architecture_with_these_tensors(
    architecture: str, published: Path, copied: Callable[[Path], Path]
) -> None:
    """Packagers write other names; the tensors tell."""
    folder = without_transformer(copied(published))
    prefixed = {f"model.diffusion_model.{k}": v for k, v in transformer_tensors(PUBLISHED).items()}
    write_gguf(folder / "animate.gguf", prefixed, "Q8_0", architecture)
    assert load_checkpoint(folder, "cpu").transformer.params == PUBLISHED


def test_gguf_types_that_cannot_be_expanded_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "x.gguf", {"blocks.0.ffn.0.weight": torch.zeros(4, 32)}, "Q8_0")
    monkeypatch.delitem(gguf.quants._type_traits, gguf.GGMLQuantizationType.Q8_0)
    with pytest.raises(CheckpointError, match=r"blocks\.0\.ffn\.0\.weight is Q8_0, which is not read here"):
        open_tensors(tmp_path / "x.gguf")


def test_unusable_gguf_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "llama.gguf", {"a": torch.zeros(4)}, "Q8_0", "llama")
    with pytest.raises(CheckpointError, match="its architecture is llama, not wan"):
        read_tensors(tmp_path / "llama.gguf")
    (tmp_path / "cut.gguf").write_bytes((tmp_path / "llama.gguf").read_bytes()[:40])
    with pytest.raises(CheckpointError, match="not a readable GGUF file"):
        read_tensors(tmp_path / "cut.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(CheckpointError, match=r"GGUF files need the gguf package.*wanimate\[gguf\]"):
        read_tensors(tmp_path / "llama.gguf")
