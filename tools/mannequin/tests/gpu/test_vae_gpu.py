"""The VAE of a training, made fast for a GPU."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mannequin.training.networks import VAE, initialise_vae
from mannequin.training.vae import speed_up
from wanimate.model.vae import VideoVae

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("shape", [(2, 3, 9, 32, 32), (1, 3, 5, 32, 48), (3, 3, 1, 32, 32)])
def test_it_computes_and_learns_the_same(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    plain = VideoVae(replace(VAE, base=8)).cuda()
    initialise_vae(plain)
    for weight in plain.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    fast = copy.deepcopy(plain)
    speed_up(fast)
    video = torch.randn(shape, device="cuda")
    found: list[list[Tensor]] = []
    for vae in (plain, fast):
        latents = vae.encode_piece(video, {})
        decoded = vae.decoder(vae.conv2(latents, {}), {})
        (decoded.square().mean() + latents.square().mean()).backward()
        found.append([latents, decoded, *(p.grad for p in vae.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1]) > 100
    for a, b in zip(*found, strict=True):
        assert (a - b).norm() <= 1e-4 * a.norm() + 1e-7
