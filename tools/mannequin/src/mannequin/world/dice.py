"""Random draws for a batch of clips from one generator, so that a seed decides everything."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Dice:
    """Draws of shape [count, ...] on the generator's device."""

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.count, self.generator = count, generator
        self.device = generator.device

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return torch.rand((self.count, *shape), generator=self.generator, device=self.device) * (high - low) + low

    def normal(self, scale: float, *shape: int) -> Tensor:
        return torch.randn((self.count, *shape), generator=self.generator, device=self.device) * scale

    def chance(self, probability: float, *shape: int) -> Tensor:
        """Bool, True with the given probability."""
        return torch.rand((self.count, *shape), generator=self.generator, device=self.device) < probability

    def integer(self, low: int, high: int, *shape: int) -> Tensor:
        """Integers in low..high-1."""
        return torch.randint(low, high, (self.count, *shape), generator=self.generator, device=self.device)

    def pick(self, weights: list[float], *shape: int) -> Tensor:
        """Indices into `weights`, drawn in proportion to them."""
        table = torch.tensor(weights, dtype=torch.float32, device=self.device)
        flat = torch.multinomial(table, self.count * math.prod(shape), replacement=True, generator=self.generator)
        return flat.view(self.count, *shape)

    def colour(self, *shape: int) -> Tensor:
        """RGB in 0..1, [count, *shape, 3]: every hue, some grey, some vivid, some dark."""
        hue = self.uniform(0, 1, *shape)
        grey = self.chance(0.25, *shape)
        saturation = torch.where(grey, self.uniform(0, 0.12, *shape), self.uniform(0.25, 0.9, *shape))
        value = self.uniform(0.12, 1.0, *shape)
        return hsv(hue, saturation, value)


def hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """RGB [..., 3] of hue, saturation and value, all 0..1."""
    offset = hue.new_tensor([5.0, 3.0, 1.0])
    k = (offset + hue.unsqueeze(-1) * 6) % 6
    ramp = torch.minimum(k, 4 - k).clamp(0, 1)
    return value.unsqueeze(-1) * (1 - saturation.unsqueeze(-1) * ramp)
