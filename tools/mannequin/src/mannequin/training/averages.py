"""What both trainings of the embedded networks share: mixed precision, and a moving average of the weights."""

from __future__ import annotations

import torch
from torch import nn


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
