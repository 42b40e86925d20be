"""Both checkpoint layouts load strictly and animate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import (
    OWN,
    OWN_VAE,
    PUBLISHED,
    own_checkpoint,
    published_checkpoint,
    transformer_tensors,
    vae_tensors,
    write_guides,
)  # fmt: skip

from wanimate.api import Animator
from wanimate.config import Defaults, GenerateSettings, OutputSettings
from wanimate.events import Finished
from wanimate.media.video import VideoFrames
from wanimate.model.params import LATENT_MEAN
from wanimate.weights.checkpoint import load_checkpoint
from wanimate.weights.formats import dequantize, quantize_rows, read_tensors
from wanimate.weights.locate import CARD, TRANSFORMER, checkpoint_files, read_checkpoint_config


def animate(checkpoint: Path, guides: Path, out: Path) -> Finished:
    settings = GenerateSettings(steps=1, seed=3, prompt="a person dances")
    events = list(
        Animator.from_checkpoint(checkpoint, "cpu").generate(guides, out, settings, OutputSettings(codec="ffv1"))
    )
    assert isinstance(events[-1], Finished)
    return events[-1]


def test_own_layout(own: Path) -> None:
    checkpoint = load_checkpoint(own, "cpu")
    assert (checkpoint.transformer.params, checkpoint.vae.params) == (OWN, OWN_VAE)
    assert checkpoint.vae.mean.flatten().tolist() == pytest.approx([0.1] * 16)
    assert checkpoint.vae.std.flatten().tolist() == pytest.approx([0.8] * 16)
    assert checkpoint.image is None
    assert checkpoint.face_size == 8
    assert not any(p.requires_grad or p.is_meta for p in checkpoint.transformer.parameters())
    for key, tensor in transformer_tensors(OWN).items():
        assert torch.equal(checkpoint.transformer.state_dict()[key], tensor), key
    names = {file.name for file in checkpoint_files(own, checkpoint.config)}
    assert names == {CARD, f"{TRANSFORMER}.safetensors", "vae.safetensors", "prompts.safetensors"}


def test_published_layout(published: Path, tmp_path: Path) -> None:
    """Shards, .pth files and tokenizer as released, no config, no renaming; then one diffusion step."""
    checkpoint = load_checkpoint(published, "cpu")
    assert checkpoint.transformer.params == PUBLISHED
    assert checkpoint.config.defaults == Defaults()
    assert checkpoint.vae.mean.flatten().tolist() == pytest.approx(LATENT_MEAN)
    index = json.loads((published / f"{TRANSFORMER}.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(checkpoint.transformer.state_dict())
    assert checkpoint.image is not None
    assert checkpoint.image.encode(torch.zeros(3, 32, 32)).shape == (257, 32)
    assert checkpoint.prompts.encode("a person dances").shape == (4, 16)
    assert checkpoint.prompts.encode("").shape == checkpoint.prompts.encode("。").shape == (2, 16)
    done = animate(published, write_guides(tmp_path / "guides", 6), tmp_path / "out.mkv")
    assert (done.result.count, done.result.size) == (6, (32, 16))
    assert VideoFrames(tmp_path / "out.mkv").take(range(6)).std() > 1


def test_the_prompt_reaches_a_published_checkpoint(published: Path, tmp_path: Path) -> None:
    guides = write_guides(tmp_path / "guides", 1)
    animator = Animator.from_checkpoint(published, "cpu")
    frames = []
    for prompt in ("a person", "dances", "dances"):
        out = tmp_path / f"{len(frames)}.mkv"
        settings = GenerateSettings(steps=1, seed=3, prompt=prompt)
        list(animator.generate(guides, out, settings, OutputSettings(codec="ffv1")))
        frames.append(VideoFrames(out).take([0]))
    assert (frames[0] != frames[1]).any()
    assert (frames[1] == frames[2]).all()


def test_int8_rows_come_back_within_half_a_level() -> None:
    weight = torch.randn(40, 8, 3) * torch.logspace(-4, 3, 40).view(-1, 1, 1)
    weight[7] = 0
    levels, scale = quantize_rows(weight)
    assert levels.dtype == torch.int8
    assert (levels.shape, scale.shape) == (weight.shape, (40, 1))
    back = dequantize({"x.weight": levels, "x.weight_scale": scale, "x.bias": torch.ones(2)})
    assert set(back) == {"x.weight", "x.bias"}
    largest = weight.abs().amax((1, 2), keepdim=True)
    assert ((back["x.weight"] - weight).abs() <= largest / 127 * 0.5001).all()
    assert torch.equal(back["x.weight"][7], weight[7])
    assert torch.equal(levels.float().abs().amax((1, 2)) == 127, largest.flatten() > 0)


def test_an_int8_checkpoint_is_the_same_network(tmp_path: Path, own: Path) -> None:
    exact = load_checkpoint(own, "cpu").transformer.state_dict()
    rounded = load_checkpoint(own_checkpoint(tmp_path / "int8", quantized=True), "cpu").transformer.state_dict()
    different = 0
    for key, tensor in exact.items():
        bound = tensor.abs().amax() / 127 * 0.5001 if tensor.ndim == 2 else 0.0
        assert (rounded[key] - tensor).abs().max() <= bound, key
        different += not torch.equal(rounded[key], tensor)
    assert different > 20
    large, small = (f / f"{TRANSFORMER}.safetensors" for f in (own, tmp_path / "int8"))
    assert small.stat().st_size < large.stat().st_size


def test_one_file_or_shards_make_no_difference(published: Path, tmp_path: Path) -> None:
    tensors = read_tensors(published / f"{TRANSFORMER}-00001-of-00002.safetensors")
    tensors |= read_tensors(published / f"{TRANSFORMER}-00002-of-00002.safetensors")
    single = published_checkpoint(tmp_path / "single")
    for file in single.glob(f"{TRANSFORMER}*"):
        file.unlink()
    save_file(tensors, single / f"{TRANSFORMER}.safetensors")
    one, two = (load_checkpoint(f, "cpu").transformer.state_dict() for f in (single, published))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_types(own: Path) -> None:
    half = load_checkpoint(own, "cpu", torch.bfloat16)
    assert half.transformer.dtype == torch.bfloat16
    assert half.vae.dtype == torch.float32


def test_a_card_is_read_without_the_weights(own: Path, tmp_path: Path) -> None:
    (tmp_path / "wanimate.json").write_text((own / "wanimate.json").read_text())
    assert read_checkpoint_config(tmp_path)[1].defaults.clip_length == 9
    assert set(load_file(own / "vae.safetensors")) == set(vae_tensors(OWN_VAE))
