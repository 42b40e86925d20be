"""Training steps whose kernels are recorded once and launched together, on a GPU.

The embedded networks are so small that launching a step's thousands of kernels one by one takes longer than running them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wanimate.train.steps import Measure, Step

WARM_UP = 3
"""Calls before recording: kernels are compiled and chosen in them."""


@dataclass(frozen=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    batch: tuple[Tensor, ...]
    results: tuple[Tensor, ...]
    gradients: tuple[Tensor | None, ...]


class RecordedStep(Step):
    """A `Step` of CUDA graphs, one for each batch shape.

    `measure` must not wait for the device nor depend on anything but its tensors, the weights and the device's random
    numbers. Results and gradients are overwritten by the next call with a batch of the same shapes.
    """

    def __init__(self, measure: Measure, weights: Sequence[nn.Parameter]) -> None:
        super().__init__(measure, weights)
        self._recordings: dict[tuple[torch.Size, ...], _Recording] = {}
        self._pool: Any = None

    def __call__(self, *batch: Tensor) -> tuple[Tensor, ...]:
        shapes = tuple(t.shape for t in batch)
        if shapes not in self._recordings:
            self._recordings[shapes] = self._recorded(batch)
        known = self._recordings[shapes]
        for mine, given in zip(known.batch, batch, strict=True):
            mine.copy_(given)
        known.graph.replay()
        for weight, gradient in zip(self.weights, known.gradients, strict=True):
            weight.grad = gradient
        return known.results

    def _recorded(self, batch: tuple[Tensor, ...]) -> _Recording:
        mine = tuple(t.clone() for t in batch)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                super().__call__(*mine)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Other threads may go on using the device meanwhile: the watchdog of a process group does.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            results = super().__call__(*mine)
        self._pool = graph.pool()
        return _Recording(graph, mine, results, tuple(w.grad for w in self.weights))


def step_for(record: bool) -> type[Step]:
    """The kind of step to train with; `record` needs a GPU and small networks."""
    return RecordedStep if record else Step
