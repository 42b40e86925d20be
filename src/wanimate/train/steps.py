"""Loss and gradients of one training step; on a GPU the step's kernels are recorded once and launched together.

The embedded networks are so small that launching a step's thousands of kernels one by one takes longer than running them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

WARM_UP = 3
"""Calls before recording: kernels are compiled and chosen in them."""


@dataclass(frozen=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    batch: tuple[Tensor, ...]
    results: tuple[Tensor, ...]
    gradients: tuple[Tensor | None, ...]


class Step:
    """Calling it with a batch leaves fresh gradients in `weights` and returns what `measure` returned, detached.

    `measure` takes the tensors of a batch and returns the loss first. With `record` (CUDA graphs) it must not
    wait for the device nor depend on anything but its tensors, the weights and the device's random numbers; results and
    gradients are overwritten by the next call with a batch of the same shapes.
    """

    def __init__(
        self, measure: Callable[..., tuple[Tensor, ...]], weights: Sequence[nn.Parameter], record: bool
    ) -> None:
        self.measure, self.weights, self.record = measure, tuple(weights), record
        self._recordings: dict[tuple[torch.Size, ...], _Recording] = {}
        self._pool: Any = None

    def __call__(self, *batch: Tensor) -> tuple[Tensor, ...]:
        if not self.record:
            return self._run(batch)
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

    def _run(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        for weight in self.weights:
            weight.grad = None
        results = self.measure(*batch)
        results[0].backward()
        return tuple(r.detach() for r in results)

    def _recorded(self, batch: tuple[Tensor, ...]) -> _Recording:
        mine = tuple(t.clone() for t in batch)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._run(mine)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Other threads may go on using the device meanwhile: the watchdog of a process group does.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            results = self._run(mine)
        self._pool = graph.pool()
        return _Recording(graph, mine, results, tuple(w.grad for w in self.weights))
