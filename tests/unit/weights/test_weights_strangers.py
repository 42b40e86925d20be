"""Weights of strangers: numbers in headers are checked before they are believed, and no message tells to switch safety off."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_weights_layouts import write_gguf
from tiny_checkpoints import PUBLISHED, transformer_tensors
from torch import Tensor

from wanimate.errors import CheckpointError, InputError
from wanimate.weights.checkpoint import load_checkpoint, load_image_encoder
from wanimate.weights.formats import open_tensors, read_tensors
from wanimate.weights.gguf_header import check_header
from wanimate.weights.layouts import native_clip, native_transformer, native_vae
from wanimate.weights.locate import CARD, TOKENIZER, TRANSFORMER, read_checkpoint_config
from wanimate.weights.lora import read_lora


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    assert not any(word in text for word in ("weights_only", "allow_pickle", "trust_remote_code"))
    return text


def safetensors(path: Path, header: object) -> Path:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))
    return path


ENTRY = {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}


@pytest.mark.parametrize(
    "header",
    [
        {"a": ENTRY | {"data_offsets": [0, 2**40]}}, {"a": ENTRY | {"data_offsets": [64, 0]}}, {"a": ENTRY | {"shape": [-16]}},
        {"a": ENTRY | {"shape": [2**62, 4]}}, {"a": ENTRY | {"dtype": "F99"}}, {"a": ENTRY, "b": ENTRY}, {"a": 1}, [],
        "[" * 10_000,
        {"a": ENTRY | {"shape": [0, 2**40], "data_offsets": [0, 0]}}, {"a\ud800": ENTRY},
    ],
    ids=range(11),
)  # fmt: skip
def test_headers_of_safetensors(tmp_path: Path, header: object) -> None:
    path = safetensors(tmp_path / "x.safetensors", header)
    assert "not a readable safetensors file" in refusal(lambda: open_tensors(path))


def test_a_header_that_claims_more_than_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes((2**62).to_bytes(8, "little") + bytes(100))
    assert "not a safetensors file" in refusal(lambda: open_tensors(tmp_path / "x.safetensors"))


def test_names_that_steer_a_terminal_are_shown_as_letters(tmp_path: Path) -> None:
    save_file({"\x1b[2Jnew\nline.weight": torch.zeros(2)}, tmp_path / "x.safetensors")
    said = refusal(lambda: read_lora(tmp_path / "x.safetensors"))
    assert "\x1b" not in said
    assert "\\x1b[2Jnew\\nline" in said


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "x.gguf"
    write_gguf(path, dict(list(transformer_tensors(PUBLISHED).items())[:12]), "Q8_0")
    return path


def test_a_sound_header(packed: Path) -> None:
    check_header(packed)


@pytest.mark.parametrize(
    ("at", "form", "number"), [(4, "<I", 0), (8, "<Q", 2**62), (16, "<Q", 2**62), (24, "<Q", 2**63), (8, "<Q", 10**5)]
)
def test_numbers_in_the_header_of_gguf(tmp_path: Path, packed: Path, at: int, form: str, number: int) -> None:
    data = bytearray(packed.read_bytes())
    data[at : at + struct.calcsize(form)] = struct.pack(form, number)
    (tmp_path / "x.gguf").write_bytes(data)
    assert "not a readable GGUF file" in refusal(lambda: open_tensors(tmp_path / "x.gguf"))


@pytest.mark.timeout(20)
def test_a_list_of_gguf_that_never_ends(tmp_path: Path) -> None:
    key = b"general.architecture"
    header = (
        struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<Q", len(key)) + key + struct.pack("<IIQ", 9, 4, 2**60)
    )
    (tmp_path / "x.gguf").write_bytes(header + bytes(64))
    assert "too long" in refusal(lambda: open_tensors(tmp_path / "x.gguf"))


def test_a_shape_that_is_not_that_of_the_values(tmp_path: Path) -> None:
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "wan")
    writer.add_array("comfy.gguf.orig_shape.a", [2**30, 2])
    writer.add_tensor("a", torch.zeros(4, 2).numpy())
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    assert "shape stated for a" in refusal(lambda: open_tensors(tmp_path / "x.gguf"))


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "odd",
    [
        torch.zeros(1).expand(2**40), torch.zeros(4).to_sparse(), torch.zeros(2, device="meta"),
        torch.zeros(2, dtype=torch.complex64),
    ],
    ids=["larger than its bytes", "sparse", "meta", "complex"],
)  # fmt: skip
def test_tensors_that_are_none(tmp_path: Path, odd: Tensor) -> None:
    torch.save({"a.weight": odd}, tmp_path / "x.pth")
    assert "a.weight is no ordinary tensor" in refusal(lambda: read_tensors(tmp_path / "x.pth"))


def test_a_compressed_file_of_pytorch(tmp_path: Path) -> None:
    """PyTorch compresses nothing, so what is compressed was made to unpack to more than it is."""
    out = io.BytesIO()
    torch.save({"a": torch.zeros(10)}, out)
    with zipfile.ZipFile(out) as made, zipfile.ZipFile(tmp_path / "x.pth", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in made.namelist():
            packed.writestr(name, made.read(name))
    assert "it is compressed" in refusal(lambda: read_tensors(tmp_path / "x.pth"))


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a\0b", "", 7, ["a"]])
def test_an_index_that_names_files_elsewhere(published: Path, copied: Callable[[Path], Path], name: object) -> None:
    folder = copied(published)
    (folder / f"{TRANSFORMER}.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert "not a readable index" in refusal(lambda: load_checkpoint(folder, "cpu"))


@pytest.mark.parametrize(
    "change", [{"head_dim": 0}, {"text_length": 10**12}, {"latent_std": [0.0] * 16}, {"defaults": {"area": 10**15}}]
)
def test_numbers_of_a_card(own: Path, copied: Callable[[Path], Path], change: dict[str, object]) -> None:
    folder = copied(own)
    (folder / CARD).write_text(json.dumps(json.loads((folder / CARD).read_text()) | change))
    assert "not a valid config" in refusal(lambda: read_checkpoint_config(folder))


@pytest.mark.parametrize(
    "content", ["{", "[" * 100_000, '{"model": 1}', '{"auto_map": {"AutoTokenizer": ["x.Y", null]}}']
)
def test_tokenizers_that_are_damaged_or_want_to_run_code(
    published: Path, copied: Callable[[Path], Path], content: str
) -> None:
    folder = copied(published)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / TOKENIZER / name).write_text(content)
    with pytest.raises(CheckpointError, match="no readable tokenizer"):
        load_checkpoint(folder, "cpu").prompts.encode("dances")


@pytest.mark.parametrize("config", ["{", '{"lora_alpha": NaN}', "[" * 50_000])
def test_adapter_configurations(tmp_path: Path, config: str) -> None:
    save_file({"blocks.0.ffn.0.lora_A.weight": torch.zeros(2, 2)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(config)
    assert "adapter configuration" in refusal(lambda: read_lora(tmp_path / "adapter_model.safetensors"))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("number", ["999999999", "9" * 5000])
def test_numbers_in_keys_make_no_tensors(number: str) -> None:
    value = torch.zeros(2, 2)
    keys = {"condition_embedder.time_proj.weight": value, f"motion_encoder.res_blocks.{number}.conv1.weight": value}
    assert len(native_transformer(keys)) < 10
    vae = {"post_quant_conv.weight": value, f"decoder.up_blocks.0.resnets.{number}.conv1.weight": value}
    assert len(native_vae(vae)) == 2
    with pytest.raises(CheckpointError) as caught:
        load_image_encoder(
            {
                "visual.patch_embedding.weight": torch.zeros(4, 3, 2, 2),
                f"visual.transformer.{number}.mlp.0.weight": value,
            },
            Path("clip.pth"),
        )
    assert "set_int_max_str_digits" not in str(caught.value)


def test_halves_that_do_not_fit_are_named_as_missing() -> None:
    head = "condition_embedder.time_proj.weight"
    keys = {
        head: torch.zeros(2),
        "face_adapter.0.to_k.weight": torch.zeros(4, 2),
        "face_adapter.0.to_v.weight": torch.zeros(4, 3),
    }
    assert not any("linear1_kv" in key for key in native_transformer(keys))
    parts = {f"encoder.layers.0.self_attn.{part}_proj.weight": torch.zeros(4, 2 + (part == "v")) for part in "qkv"}
    assert set(native_clip({"embeddings.class_embedding": torch.zeros(4)} | parts)) == {"visual.cls_embedding"}
