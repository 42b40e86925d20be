"""Where a video stands still, layers whose results repeat are spared, and nothing else changes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2] / "parity"))
from golden import fill
from wanimate.model.params import VaeParams
from wanimate.model.vae import CausalConv3d, VideoVae
from wanimate.runtime.tiling import TiledVae


@pytest.fixture(scope="module")
def vae() -> VideoVae:
    return fill(VideoVae(VaeParams(base=8, res_blocks=1))).eval().requires_grad_(False)


def video(*moving: int, frames: int = 45) -> Tensor:
    """[1, 3, frames, 16, 24], another picture at every frame of `moving`, which stays until the next."""
    generator = torch.Generator().manual_seed(1)
    out = torch.zeros(1, 3, frames, 16, 24)
    for start in moving:
        out[:, :, start:] = torch.rand(1, 3, 1, 16, 24, generator=generator)
    return out


def convolutions(vae: VideoVae, x: Tensor, skip_static: bool) -> tuple[Tensor, int]:
    """The latents, and how many convolutions in time were computed."""
    count = 0

    def seen(*_: object) -> None:
        nonlocal count
        count += 1

    hooks = [m.register_forward_hook(seen) for m in vae.encoder.modules() if isinstance(m, CausalConv3d)]
    latents = vae.encode(x, skip_static=skip_static)
    for hook in hooks:
        hook.remove()
    return latents, count


@pytest.mark.parametrize("moving", [(), (0, 1, 2, 3, 4), (0, 22), (0, 20, 44), tuple(range(45))])
def test_a_still_video_costs_less_and_is_the_same(vae: VideoVae, moving: tuple[int, ...]) -> None:
    x = video(*moving)
    plain, all_of_them = convolutions(vae, x, skip_static=False)
    spared, fewer = convolutions(vae, x, skip_static=True)
    assert torch.equal(spared, plain)
    assert fewer == all_of_them if len(moving) == 45 else fewer < all_of_them


def test_tiles_are_spared_as_well(vae: VideoVae) -> None:
    x = video(0, 3)
    count = 0

    def seen(*_: object) -> None:
        nonlocal count
        count += 1

    hook = vae.encoder.conv1.register_forward_hook(seen)
    tiled = TiledVae(vae, 2).encode(x)
    hook.remove()
    assert 0 < count < 12  # of two tiles' 24 pieces
    torch.testing.assert_close(tiled, vae.encode(x, skip_static=False), rtol=1e-4, atol=1e-4)
