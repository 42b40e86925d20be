"""Loss and gradients of one training step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

Measure = Callable[..., tuple[Tensor, ...]]
"""The tensors of a batch -> the loss, then whatever else is of interest."""


class Step:
    """Calling it with a batch leaves fresh gradients in `weights` and returns what `measure` returned, detached."""

    def __init__(self, measure: Measure, weights: Sequence[nn.Parameter]) -> None:
        self.measure, self.weights = measure, tuple(weights)

    def __call__(self, *batch: Tensor) -> tuple[Tensor, ...]:
        for weight in self.weights:
            weight.grad = None
        results = self.measure(*batch)
        results[0].backward()
        return tuple(r.detach() for r in results)
