"""The relighting LoRA's loss, and adapters that begin where another file ended."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mannequin.training.clip_latents import WorldClips
from mannequin.training.faces import KnownFaces
from mannequin.training.feed import Feed
from mannequin.training.relight import (
    CELL,
    LightLoss,
    RelightSettings,
    begin_with,
    coarse_error,
    light_loss,
    train_relighting,
)
from mannequin.training.run import Run
from mannequin.training.supply import ClipSettings, SupplySettings
from wanimate.errors import InputError
from wanimate.model.params import MotionParams, TransformerParams
from wanimate.model.transformer import AnimateTransformer
from wanimate.train.adapters import TARGETS, AdapterSettings, adapter_state, attach, write_lora
from wanimate.train.latents import LatentClips
from wanimate.weights.checkpoint import load_checkpoint
from wanimate.weights.formats import read_tensors
from wanimate.weights.locate import embedded_path

SMALL = TransformerParams(
    dim=24, ffn_dim=32, num_heads=2, num_layers=5, time_width=16, text_width=8, text_length=2, image_width=None,
    face_width=8, face_slots=2, motion=MotionParams(channels=(4, 4, 4), width=8, directions=3),
)  # fmt: skip


def network() -> AnimateTransformer:
    return AnimateTransformer(SMALL)


def test_adapters_begin_with_those_of_a_file_of_less_rank(tmp_path: Path) -> None:
    adapters = attach(network(), AdapterSettings(rank=2, alpha=4.0))
    for adapter in adapters.values():
        torch.nn.init.normal_(adapter.lora_B)
    path = tmp_path / "known.safetensors"
    write_lora(adapter_state(adapters), AdapterSettings(rank=2, alpha=4.0), path, torch.float32, {})
    wider = attach(network(), AdapterSettings(rank=4, alpha=4.0), seed=1)
    begin_with(wider, path)
    for name, adapter in adapters.items():
        change = adapter.lora_B @ adapter.lora_A * adapter.lora_scale
        assert torch.allclose(wider[name].lora_B @ wider[name].lora_A * wider[name].lora_scale, change, atol=1e-6)
    with pytest.raises(InputError, match=r"--start = .* its shapes for blocks.0.self_attn.q do not fit"):
        begin_with(attach(network(), AdapterSettings(rank=1, alpha=1.0)), path)
    few = attach(network(), AdapterSettings(rank=2, alpha=2.0, targets=TARGETS["feed-forward"]))
    write_lora(adapter_state(few), AdapterSettings(rank=2, alpha=2.0), path, torch.float32, {})
    with pytest.raises(InputError, match=r"it has nothing for blocks.0.self_attn.q"):
        begin_with(wider, path)


def test_a_lora_is_trained_on_clips_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long clips and short ones; each face is looked at once."""
    settings, feed = ClipSettings().relighting, Feed(tmp_path / "feed")
    size = load_checkpoint(embedded_path(), "cpu").face_size
    clips = []
    for kind in range(len(settings.kinds)):
        frames = min(settings.kinds[kind].frames, 5 if kind < 3 else 1)
        t = (frames + 3) // 4
        of = [torch.rand(2, channels, n, 4, 4).half() for channels, n in ((16, t), (16, t), (16, t), (16, 1), (4, t))]
        faces = torch.full((2, frames, size, size, 3), 40 * kind, dtype=torch.uint8)
        clips.append(WorldClips(*of, torch.rand(2, t, 4, 4).half(), faces, torch.zeros(2, frames, 4).half()))
        feed.put(kind, clips[-1])
    looked = []
    told = KnownFaces.told
    monkeypatch.setattr(KnownFaces, "told", lambda self, part: looked.append(len(part)) or told(self, part))
    sizes = RelightSettings(steps=3, seconds=1e9, batch=2, short_batch=3, rank=2)
    run = Run(out=tmp_path / "out", device="cpu", record=False)
    supply = SupplySettings(render_seconds=0.0, feed=feed.folder)
    train_relighting(sizes, LightLoss(), embedded_path(), settings, supply, run)
    assert looked == [2] * len(settings.kinds)
    tensors = read_tensors(tmp_path / "out" / "relighting_lora.safetensors")
    assert any(t.abs().max() > 0 for name, t in tensors.items() if "lora_B" in name)


def test_the_coarse_error_is_what_is_even_over_the_person() -> None:
    torch.manual_seed(0)
    person = torch.zeros(2, 3, 12, 15)
    person[:, :, 2:11, 3:14] = 1.5
    even = torch.full((2, 16, 3, 12, 15), 0.3)
    assert coarse_error(even, person).item() == pytest.approx(0.09, rel=1e-4)
    assert coarse_error(even * (person == 0).unsqueeze(1), person).item() == 0
    noise = torch.randn(2, 16, 3, 12, 15)
    assert coarse_error(noise, person).item() < 3 / (3 * CELL**2)


def test_offset_and_coarse_weight_change_the_loss_of_the_person_alone() -> None:
    target = torch.randn(1, 16, 2, 4, 4)

    def flow(x: Tensor, t: Tensor, clips: LatentClips, dropped: Tensor) -> Tensor:
        return 0.5 * x

    def loss(person: float, coarse_weight: float, offset: float) -> float:
        clips = LatentClips(
            target=target, pose=target, known=target, reference=target[:, :, :1], keep=torch.zeros(1, 4, 2, 4, 4),
            person=torch.full((1, 2, 4, 4), person), face=torch.zeros(1, 5, 8, 8, 3, dtype=torch.uint8),
        )  # fmt: skip
        torch.manual_seed(0)
        return light_loss(flow, clips, LightLoss(coarse_weight=coarse_weight, offset=offset)).item()

    assert loss(0.0, 5.0, 2.0) == loss(0.0, 0.0, 0.0)
    assert loss(1.0, 5.0, 0.0) > loss(1.0, 0.0, 0.0)
    assert abs(loss(1.0, 0.0, 2.0) - loss(1.0, 0.0, 0.0)) > 0.1
