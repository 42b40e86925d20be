"""Muon: momentum whose matrix updates are made orthogonal (K. Jordan et al., 2024, with their scaling).

Matrices of one shape are updated together, so that a step is a few batched products instead of hundreds of small ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration: steepest at zero, singular values end between about 0.7 and 1.2."""


def orthogonalise(matrices: Tensor, rounds: int = 5) -> Tensor:
    """U V^T of each matrix U S V^T, roughly: [n, rows, columns] (bfloat16 on a GPU), by Newton-Schulz iteration."""
    a, b, c = COEFFICIENTS
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(rounds):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """For the 2-D weights of hidden layers. The update of a matrix has spectral norm near lr * sqrt(max(1, rows / columns))."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(list(params), {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    shapes.setdefault(weight.shape, []).append(weight)
            for shape, weights in shapes.items():
                self._update(weights, shape, group)

    def _update(self, weights: list[nn.Parameter], shape: torch.Size, group: dict[str, Any]) -> None:
        gradient = torch.stack([w.grad for w in weights if w.grad is not None])
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum"] = torch.zeros_like(weight)
        kept = [self.state[w]["momentum"] for w in weights]
        mean = torch.stack(kept).lerp_(gradient, 1 - group["momentum"])
        torch._foreach_copy_(kept, list(mean.unbind()))
        update = orthogonalise(gradient.lerp_(mean, group["momentum"])).to(gradient.dtype)
        size = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
        torch._foreach_add_(list[Tensor](weights), list(update.unbind()), alpha=-size)
