"""Training steps: fresh gradients every time."""

from __future__ import annotations

import torch
from torch import nn

from wanimate.train.steps import Step


def test_a_step_leaves_the_gradients_of_its_own_batch_alone() -> None:
    layer = nn.Linear(3, 2)
    step = Step(lambda x: (layer(x).square().mean(), x.mean()), list(layer.parameters()))
    batches = [torch.randn(4, 3) for _ in range(2)]
    for batch in batches:
        loss, mean = step(batch)
        wanted = torch.autograd.grad(layer(batch).square().mean(), list(layer.parameters()))
        assert not loss.requires_grad
        assert torch.equal(mean, batch.mean())
        for weight, gradient in zip(layer.parameters(), wanted, strict=True):
            assert weight.grad is not None
            assert torch.allclose(weight.grad, gradient)
