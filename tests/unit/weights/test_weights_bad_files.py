"""What cannot be used as a checkpoint is refused, by name, with exit code 2, and no code in it runs."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import detgen
import pytest
import torch
from published_shapes import clip_shapes, t5_shapes
from safetensors.torch import load_file, save_file
from tiny_checkpoints import OWN, OWN_VAE, transformer_tensors, vae_tensors
from torch import Tensor

from wanimate.errors import CheckpointError
from wanimate.weights.checkpoint import (
    load_checkpoint,
    load_image_encoder,
    load_text_encoder,
    load_transformer,
    load_vae,
)
from wanimate.weights.formats import read_tensors
from wanimate.weights.locate import (
    CARD,
    CLIP,
    T5,
    TOKENIZER,
    TRANSFORMER,
    VAE,
    CheckpointConfig,
    read_checkpoint_config,
)

Copied = Callable[[Path], Path]
SOURCE = Path("model.safetensors")


def refused(action: Callable[[], object], *parts: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        action()
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def change(path: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


class Trap:
    """Unpickled the usual way, this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def plain_pickle(content: object) -> bytes:
    return pickle.dumps(content, protocol=2)


def older_pytorch(content: object) -> bytes:
    out = io.BytesIO()
    torch.save(content, out, _use_new_zipfile_serialization=False)
    return out.getvalue()


def zipped(content: object) -> bytes:
    out = io.BytesIO()
    torch.save(content, out)
    return out.getvalue()


@pytest.mark.parametrize("dump", [plain_pickle, older_pytorch, zipped])
@pytest.mark.parametrize("name", [VAE, "adapter.ckpt"])
def test_pickled_weights_that_run_code_are_refused(tmp_path: Path, dump: Callable[[object], bytes], name: str) -> None:
    sprung = tmp_path / "sprung"
    (tmp_path / name).write_bytes(dump({"conv1.weight": torch.zeros(2), "more": Trap(sprung)}))
    refused(lambda: read_tensors(tmp_path / name), str(tmp_path / name), "wants to run code", "safetensors")
    assert not sprung.exists()
    with suppress(RuntimeError):
        torch.load(tmp_path / name, weights_only=False)
    assert sprung.is_dir(), "the trap is no trap"


def test_a_trap_in_a_checkpoint_folder_stops_the_load(published: Path, copied: Copied, tmp_path: Path) -> None:
    folder = copied(published)
    (folder / VAE).write_bytes(zipped({"conv1.weight": Trap(tmp_path / "sprung")}))
    refused(lambda: load_checkpoint(folder, "cpu"), VAE, "wants to run code")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("dump", [older_pytorch, zipped])
@pytest.mark.parametrize("wrapped", [False, True])
def test_honest_pickled_weights_are_read(tmp_path: Path, dump: Callable[[object], bytes], wrapped: bool) -> None:
    weights = {"a": torch.arange(3.0)}
    (tmp_path / "x.pth").write_bytes(dump({"state_dict": weights, "epoch": 3} if wrapped else weights))
    assert torch.equal(read_tensors(tmp_path / "x.pth")["a"], weights["a"])


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"a": 1}, torch.zeros(1)])
def test_pickled_files_without_a_state_dictionary(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "x.pth")
    refused(lambda: read_tensors(tmp_path / "x.pth"), "it holds no dictionary of tensors")


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_damaged_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    tensors = {"a": torch.arange(1000.0)}
    torch.save(tensors, path) if name.endswith("pth") else save_file(tensors, path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:9], b"", b"not weights at all", b"\xff" * 64):
        path.write_bytes(damaged)
        refused(lambda: read_tensors(path), str(path))


def test_a_zip_that_is_no_pytorch_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("thesis.txt", "precious")
    refused(lambda: read_tensors(tmp_path / "x.pth"), "x.pth")


@pytest.mark.parametrize("name", [f"{TRANSFORMER}.safetensors", "vae.safetensors", "prompts.safetensors"])
def test_missing_files(own: Path, copied: Copied, name: str) -> None:
    folder = copied(own)
    (folder / name).unlink()
    refused(lambda: load_checkpoint(folder, "cpu"), name if "vae" not in name else VAE, "there is no such file")


@pytest.mark.parametrize("name", [f"{TRANSFORMER}-00002-of-00002.safetensors", VAE, T5, CLIP, str(TOKENIZER)])
def test_missing_published_files(published: Path, copied: Copied, name: str) -> None:
    folder = copied(published)
    (folder / name).rename(folder / "elsewhere")
    refused(lambda: load_checkpoint(folder, "cpu"), name)


def test_a_tokenizer_folder_without_a_tokenizer(published: Path, copied: Copied) -> None:
    folder = copied(published)
    for file in (folder / TOKENIZER).iterdir():
        file.unlink()
    refused(lambda: load_checkpoint(folder, "cpu").prompts.encode("a"), "umt5-xxl", "no readable tokenizer")


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": ["a"]}', '{"weight_map": {"a": 1}}', "{}"])
def test_an_unreadable_index(published: Path, copied: Copied, content: str) -> None:
    folder = copied(published)
    (folder / f"{TRANSFORMER}.safetensors.index.json").write_text(content)
    refused(lambda: load_checkpoint(folder, "cpu"), "index.json", "not a readable index")


def test_a_missing_folder(tmp_path: Path) -> None:
    refused(lambda: read_checkpoint_config(tmp_path / "nowhere"), str(tmp_path / "nowhere"), "there is no such folder")
    refused(lambda: load_checkpoint(tmp_path, "cpu"), f"{TRANSFORMER}.safetensors", "there is no such file")


@pytest.mark.parametrize(
    ("edit", "part"),
    [
        ({"name": None}, "name"), ({"latent_mean": "no"}, "latent_mean"), ({"wings": 2}, "wings"),
        ({"defaults": {"overlap": 3}}, "defaults.overlap"),
    ],
)  # fmt: skip
def test_an_invalid_card(own: Path, copied: Copied, edit: dict[str, object], part: str) -> None:
    folder = copied(own)
    config = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(config | edit))
    refused(lambda: read_checkpoint_config(folder), CARD, "not a valid config", part)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe{}", b""])
def test_an_unreadable_card(own: Path, copied: Copied, content: bytes) -> None:
    folder = copied(own)
    (folder / CARD).write_bytes(content)
    refused(lambda: read_checkpoint_config(folder), CARD, "not a valid config")


@pytest.mark.parametrize(
    ("edit", "parts"),
    [
        (
            lambda t: t["blocks.3.ffn.2.bias"].fill_(float("nan")),
            ("1 not finite: blocks.3.ffn.2.bias",),
        ),
        (
            lambda t: t["patch_embedding.weight"].view(-1)[5:6].fill_(float("inf")),
            ("1 not finite: patch_embedding.weight",),
        ),
        (
            lambda t: [t.pop(k) for k in list(t) if k.startswith("blocks.2.norm3")],
            ("2 missing: blocks.2.norm3.weight, blocks.2.norm3.bias",),
        ),
        (
            lambda t: t.update({"head.head.weight": t["head.head.weight"][:, :7].clone()}),
            ("1 of another shape: head.head.weight [64, 7] instead of [64, 32]",),
        ),
        (
            lambda t: t.update({"blocks.0.norm4.weight": torch.zeros(1)}),
            ("1 unexpected: blocks.0.norm4.weight",),
        ),
        (
            lambda t: t.update({"blocks.0.attn1.to_q.weight": t.pop("blocks.0.self_attn.q.weight")}),
            ("1 missing: blocks.0.self_attn.q.weight", "1 unexpected: blocks.0.attn1.to_q.weight"),
        ),
        (
            lambda t: [t.pop(k) for k in list(t) if k.startswith("blocks.1.self_attn")],
            ("missing: blocks.1.self_attn", "and 6 more"),
        ),
        (
            lambda t: t.update({"blocks.0.ffn.0.weight_scale": torch.ones(48, 1)}),
            ("blocks.0.ffn.0.weight_scale is not the scale of an int8 weight",),
        ),
    ],
)  # fmt: skip
def test_unusable_transformer_weights(
    own: Path, copied: Copied, edit: Callable[[dict[str, Tensor]], object], parts: tuple[str, ...]
) -> None:
    folder = copied(own)
    change(folder / f"{TRANSFORMER}.safetensors", edit)
    refused(lambda: load_checkpoint(folder, "cpu"), str(folder), *parts)


def test_not_a_number_in_the_vae_and_in_the_prompts(own: Path, copied: Copied) -> None:
    folder = copied(own)
    change(folder / "prompts.safetensors", lambda t: t["negative"].fill_(float("nan")))
    refused(lambda: load_checkpoint(folder, "cpu"), "prompts.safetensors", "negative is not finite")
    change(folder / "vae.safetensors", lambda t: t["conv2.bias"].fill_(float("nan")))
    refused(lambda: load_checkpoint(folder, "cpu"), "vae.safetensors", "1 not finite: conv2.bias")


def test_prompts_that_do_not_fit(own: Path, copied: Copied) -> None:
    folder = copied(own)
    path = folder / "prompts.safetensors"
    change(path, lambda t: t.update(positive=torch.zeros(4, 8)))
    refused(lambda: load_checkpoint(folder, "cpu"), "positive is of another shape: [4, 8] instead of [1..3, 8]")
    change(path, lambda t: t.pop("positive"))
    refused(lambda: load_checkpoint(folder, "cpu"), "positive is missing")


def test_a_card_whose_statistics_do_not_fit_the_vae(own: Path, copied: Copied) -> None:
    folder = copied(own)
    config = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(config | {"latent_mean": [0.0, 0.0]}))
    refused(lambda: load_checkpoint(folder, "cpu"), "16 latent channels, the config gives 2 means")


def damaged(key: str, tensors: dict[str, Tensor], turn: int) -> dict[str, Tensor]:
    """The checkpoint with one tensor gone, renamed or misshapen, by turns."""
    value = tensors[key]
    others = {k: v for k, v in tensors.items() if k != key}
    match turn % 5:
        case 0:
            return others
        case 1:
            return others | {f"model.{key}": value}
        case 2:
            return others | {key: value.reshape(-1)[0]}
        case 3:
            return others | {key: value.reshape(-1) if value.ndim > 1 else value[None]}
        case _:
            return others | {key: value[..., None]}


NETWORKS: dict[str, tuple[Callable[[], dict[str, Tensor]], Callable[[dict[str, Tensor]], object]]] = {
    "transformer": (
        lambda: transformer_tensors(OWN),
        lambda t: load_transformer(t, CheckpointConfig(name="x", head_dim=16, text_length=3), SOURCE, torch.float32),
    ),
    "vae": (lambda: vae_tensors(OWN_VAE), lambda t: load_vae(t, CheckpointConfig(name="x"), SOURCE)),
    "text encoder": (
        lambda: detgen.state_dict(t5_shapes(vocab=12, dim=16, inner=16, ffn=24, heads=2, layers=1)),
        lambda t: load_text_encoder(t, None, SOURCE),
    ),
    "image encoder": (lambda: detgen.state_dict(clip_shapes(32, 2)), lambda t: load_image_encoder(t, SOURCE)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_single_key_matters(name: str) -> None:
    """Whichever tensor is damaged, and however: an error that tells which file, never a crash, never silence."""
    make, load = NETWORKS[name]
    tensors = make()
    load(dict(tensors))
    unused = ("textual.", "visual.head", "visual.post_norm.", "visual.transformer.1.")
    answers: dict[tuple[str, int], str] = {}
    for i, key in enumerate(k for k in tensors if not k.startswith(unused)):
        for turn in (0, 1 + i % 4):
            answers[key, turn] = "accepted"
            try:
                load(damaged(key, tensors, turn))
            except CheckpointError as error:
                answers[key, turn] = str(error)
    assert len(answers) > 20
    assert {k: v for k, v in answers.items() if str(SOURCE) not in v} == {}
