"""What the trainings of the embedded networks share: mixed precision, a moving average of the weights, and mean losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wanimate.train.common import Budget, Log


def mixed(device: torch.device) -> torch.autocast:
    """bfloat16 products on a GPU; float32 on a processor, most of which are slow at bfloat16."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


class Ema:
    """Exponential moving average of a module's parameters and buffers, taken every few steps; short memory at the start."""

    def __init__(self, module: nn.Module, decay: float, every: int = 4) -> None:
        self.decay, self.every, self.count = decay**every, every, 0
        self.live = dict(module.state_dict())
        self.shadow = {k: v.detach().clone() for k, v in self.live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        if step % self.every:
            return
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        torch._foreach_lerp_(list(self.shadow.values()), list(self.live.values()), 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the module's weights and their average, in place."""
        for live, mean in zip(self.live.values(), self.shadow.values(), strict=True):
            kept = live.clone()
            live.copy_(mean)
            mean.copy_(kept)

    def restore(self, state: dict[str, torch.Tensor], step: int) -> None:
        for key, value in state.items():
            self.shadow[key].copy_(value)
        self.count = step // self.every


class Losses:
    """The mean loss of the steps since the last line of the log, which has one every 200 steps and at the end."""

    def __init__(self, log: Log, budget: Budget, device: torch.device) -> None:
        self.log, self.budget = log, budget
        self._total = torch.zeros((), device=device)

    def add(self, loss: Tensor, **more: Any) -> None:
        """The loss of a step that has ended; `more`: what else its line says."""
        budget = self.budget
        self._total += loss.detach()
        if budget.step % 200 == 0 or budget.over:
            mean = self._total.item() / (budget.step % 200 or 200)
            self.log.write(step=budget.step, seconds=budget.spent, loss=mean, **more)
            self._total.zero_()
