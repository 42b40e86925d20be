"""The world on CUDA: the Triton z-buffer equals the torch one, and batches can be drawn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mannequin.world import raster
from mannequin.world.assets import load
from mannequin.world.world import World, WorldSettings

DATA = Path(__file__).parents[1] / "data" / "mannequins.npz"


@pytest.mark.gpu
def test_triton_equals_torch() -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    plane = torch.rand(3, 3000, 2, generator=generator, device="cuda") * 200 - 20
    plane[:, 300:] = plane[:, :300].repeat(1, 9, 1) + torch.rand(3, 2700, 2, generator=generator, device="cuda") * 6
    screen = torch.cat([plane, torch.rand(3, 3000, 1, generator=generator, device="cuda") + 0.2], dim=-1)
    triangles = torch.arange(3000, device="cuda").view(10, 300).T.reshape(1000, 3)
    both = torch.rand(1000, generator=generator, device="cuda") < 0.5
    shown = torch.rand(3, 1000, generator=generator, device="cuda") < 0.8
    plain = raster.rasterize(screen, triangles, both, shown, 150, 160, plain=True)
    fast = raster.rasterize(screen, triangles, both, shown, 150, 160)
    assert (plain >= 0).sum() > 1000
    assert (plain != fast).sum() <= 0.001 * plain.numel()


@pytest.mark.gpu
def test_batch_on_cuda() -> None:
    world = World(load(DATA, device="cuda"), WorldSettings())
    batch = world.sample_batch(4, 5, 128, 128, seed=0)
    assert batch.video.is_cuda
    assert ((batch.cover > 128).float().mean((1, 2, 3)) > 0.02).all()
    assert batch.skeleton.amax() > 0
