"""A tiny network and conditions for it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from golden import fill
from wanimate.model.params import MotionParams, TransformerParams
from wanimate.model.transformer import AnimateTransformer
from wanimate.types import Conditions

PARAMS = TransformerParams(
    dim=32, ffn_dim=48, num_heads=2, num_layers=4, time_width=32, text_width=8, text_length=3, image_width=16, face_width=16,
    face_slots=2, face_every=2, motion=MotionParams(channels=(8, 8), width=16, directions=4, layers=2),
)  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def model() -> AnimateTransformer:
    network = AnimateTransformer(PARAMS)
    fill(network)
    return network.eval().requires_grad_(False)


@pytest.fixture
def conditions() -> Conditions:
    face = torch.randn(3, 5, 8, 8).clamp(-1, 1)
    return Conditions(
        torch.randn(20, 3, 4, 6),
        torch.randn(16, 2, 4, 6),
        face,
        torch.randn(3, 8),
        torch.randn(2, 8),
        torch.randn(5, 16),
    )


@pytest.fixture
def noise() -> Tensor:
    return torch.randn(16, 3, 4, 6)
