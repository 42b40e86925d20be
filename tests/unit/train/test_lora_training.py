"""Adapters: training lowers the loss, a killed run ends like one that was not, and the file does what the adapters did."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from wanimate.errors import InputError
from wanimate.model.params import MotionParams, TransformerParams
from wanimate.model.transformer import AnimateTransformer
from wanimate.train.adapters import ALL, AdapterSettings, adapter_state, attach, write_lora
from wanimate.train.examples import Encoders, find_sources, relit
from wanimate.train.flow import LossSettings, flow_loss, predict
from wanimate.train.latents import LatentClips
from wanimate.train.lora import LoraTraining, train_adapters
from wanimate.train.own import recompute_blocks
from wanimate.weights.checkpoint import load_checkpoint
from wanimate.weights.locate import embedded_path
from wanimate.weights.lora import match_lora, read_lora
from wanimate.weights.lora_view import with_loras
from wanimate.weights.relighting import find_relighting

SMALL = TransformerParams(
    dim=24, ffn_dim=32, num_heads=2, num_layers=5, time_width=16, text_width=8, text_length=2, image_width=None,
    face_width=8, face_slots=2, motion=MotionParams(channels=(4, 4, 4), width=8, directions=3),
)  # fmt: skip
SETTINGS = AdapterSettings(rank=4, alpha=4.0)


def network(seed: int = 0) -> AnimateTransformer:
    torch.manual_seed(seed)
    model = AnimateTransformer(SMALL)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    return model


def batch(number: int) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(number % 2)
    side = SMALL.motion.size
    clips = LatentClips(
        target=torch.randn(1, 16, 2, 4, 4, generator=g), pose=torch.randn(1, 16, 2, 4, 4, generator=g),
        known=torch.randn(1, 16, 2, 4, 4, generator=g), reference=torch.randn(1, 16, 1, 4, 4, generator=g),
        keep=torch.zeros(1, 4, 2, 4, 4), person=torch.zeros(1, 2, 4, 4),
        face=torch.randint(0, 255, (1, 5, side, side, 3), generator=g, dtype=torch.uint8),
    )  # fmt: skip
    return tuple(vars(clips).values())


def measured(model: AnimateTransformer, *fields: Tensor) -> tuple[Tensor]:
    text = torch.ones(1, 2, 8)

    def flow(x: Tensor, t: Tensor, clips: LatentClips, dropped: Tensor) -> Tensor:
        return predict(model, text, None, x, t, clips, dropped)

    return (flow_loss(flow, LatentClips(*fields), LossSettings(drop_face=0.0)),)


def trained(out: Path, steps: int, resume: bool = False, stop: int | None = None, plan: int = 20) -> dict[str, Tensor]:
    model = network()
    adapters = attach(model, SETTINGS)
    config = LoraTraining(steps=plan, rate=2e-2, warmup=2, accumulate=2, save_every=5)
    for done in train_adapters(config, adapters, lambda *f: measured(model, *f), batch, out, resume):
        if done == (stop or steps):
            break
    return adapter_state(adapters)


def fixed_loss(state: dict[str, Tensor] | None) -> float:
    model = network()
    if state is not None:
        for name, adapter in attach(model, SETTINGS).items():
            adapter.lora_A.data = state[f"base_model.model.{name}.lora_A.weight"]
            adapter.lora_B.data = state[f"base_model.model.{name}.lora_B.weight"]
    losses = []
    for seed in range(4):
        torch.manual_seed(seed)
        losses.append(measured(model, *batch(seed))[0].item())
    return sum(losses) / len(losses)


def test_the_loss_falls_on_a_fixed_batch(tmp_path: Path) -> None:
    state = trained(tmp_path, 20)
    assert fixed_loss(state) < 0.98 * fixed_loss(None)
    assert (tmp_path / "loss.png").stat().st_size > 1000
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 4


@pytest.mark.slow
def test_a_killed_run_ends_like_one_that_was_not(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", 20)
    trained(tmp_path / "killed", 20, stop=13)  # the last state is of step 10
    again = trained(tmp_path / "killed", 20, resume=True)
    for key, value in whole.items():
        assert torch.equal(value, again[key]), key


def test_a_state_of_other_adapters_is_refused(tmp_path: Path) -> None:
    trained(tmp_path, 5, stop=5)
    model = network()
    adapters = attach(model, AdapterSettings(rank=2, alpha=2.0))
    with pytest.raises(InputError, match="the state of other adapters"):
        next(train_adapters(LoraTraining(), adapters, lambda *f: measured(model, *f), batch, tmp_path, resume=True))


@torch.no_grad()
def test_the_written_file_does_what_the_adapters_did(tmp_path: Path) -> None:
    adapted = network()
    adapters = attach(adapted, AdapterSettings(rank=4, alpha=8.0))
    for adapter in adapters.values():
        torch.nn.init.normal_(adapter.lora_B, std=1.0)
    path = tmp_path / "own.safetensors"
    write_lora(adapter_state(adapters), AdapterSettings(rank=4, alpha=8.0), path, torch.float32, {"steps": "0"})
    base = network()
    lora = match_lora(read_lora(path), base)
    assert (lora.dialect, lora.targets, lora.unused) == ("peft", 5 * len(ALL), ())
    losses = []
    for model in (adapted, with_loras(base, [(lora, 1.0)]), base):
        torch.manual_seed(0)
        losses.append(measured(model, *batch(0))[0].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert abs(losses[0] - losses[2]) > 1e-3


def test_recomputed_blocks_give_the_same_gradients() -> None:
    gradients = []
    for recompute in (False, True):
        model = network()
        adapters = attach(model, SETTINGS)
        for adapter in adapters.values():
            adapter.lora_B.data.fill_(0.01)
        if recompute:
            recompute_blocks(model)
        torch.manual_seed(0)
        measured(model, *batch(0))[0].backward()
        gradients.append(adapters["blocks.0.ffn.2"].lora_A.grad)
    assert gradients[0] is not None
    assert torch.allclose(gradients[0], gradients[1])


def test_unknown_targets_are_named() -> None:
    with pytest.raises(InputError, match=r"targets = attn9: no linear of the blocks is called so"):
        attach(network(), AdapterSettings(targets=("self_attn.q", "attn9")))


def test_sources(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no clip in it"):
        find_sources(tmp_path)
    for name in ("b.mp4", "a.mov", "a.png", "notes.txt"):
        (tmp_path / name).touch()
    found = [(s.video.name, s.picture and s.picture.name) for s in find_sources(tmp_path)]
    assert found == [("a.mov", "a.png"), ("b.mp4", None)]


def test_encoded_examples_can_be_saved(tmp_path: Path) -> None:
    """The VAE answers channels-last; a file of tensors takes none that are."""
    base = load_checkpoint(embedded_path(), "cpu")
    encoders = Encoders("", base.vae, None, base.face_size, base.device)
    for frames, expected in ((1, (16, 1, 4, 6)), (5, (16, 2, 4, 6))):
        latents = encoders.encode(torch.zeros(3, frames, 32, 48))
        assert latents.shape == expected
        save_file({"x": latents}, tmp_path / "x.safetensors")


def test_relit_pictures_differ_and_keep_their_shape() -> None:
    import numpy as np

    picture = np.full((20, 30, 3), 128, np.uint8)
    one, two = (relit(picture, np.random.default_rng(seed)) for seed in (0, 1))
    assert one.shape == picture.shape
    assert not np.array_equal(one, two)


def test_the_relighting_lora_in_the_package_fits_its_checkpoint() -> None:
    base = load_checkpoint(device="cpu")
    file = find_relighting(embedded_path())
    assert file is not None
    lora = match_lora(read_lora(file), base.transformer)
    assert lora.targets > 0
    assert lora.unused == ()
