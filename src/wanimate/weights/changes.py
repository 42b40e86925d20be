"""What a LoRA or one of its relatives does to one weight. All products are float32.

LoRA (Hu et al., arXiv 2106.09685), DoRA (Liu et al., arXiv 2402.09353), LoHa (Hyeon-Woo et al., arXiv 2108.06098) and LoKr
(Yeh et al., arXiv 2309.14859). Letters: O rows (outputs), I columns (inputs, and the places of a kernel), R rank.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Change(ABC):
    """A change of one module's weight, or of one half of its rows: `half` 0 or 1, None for all."""

    module: str
    half: int | None

    @abstractmethod
    def product(self, factor: float, device: torch.device) -> Tensor:
        """factor * change, [O, I]."""

    def delta(self, strength: float, weight: Tensor) -> Tensor:
        """The change of a weight, float32 and of its shape and on its device; `weight` is float32."""
        return self._placed(self.product(strength, weight.device), weight)

    def _placed(self, change: Tensor, weight: Tensor) -> Tensor:
        if self.half is not None:
            change = F.pad(change, (0, 0, 0, len(change)) if self.half == 0 else (0, 0, len(change), 0))
        return change.view(weight.shape)


@dataclass(frozen=True)
class LowRank(Change):
    """scale * up @ down: down [R, in, ...], up [O, R, ...], as stored."""

    down: Tensor
    up: Tensor
    scale: float

    def product(self, factor: float, device: torch.device) -> Tensor:
        up, down = (x.to(device).float().flatten(1) for x in (self.up, self.down))
        return (up * (self.scale * factor)) @ down

    def branch(self, x: Tensor, strength: float) -> Tensor:
        """What it adds to the output of a linear with input x, float32."""
        low = F.linear(x.float(), self.down.to(x.device).float())
        return F.linear(low, self.up.to(x.device).float()) * (self.scale * strength)


@dataclass(frozen=True)
class TwoFactors(Change):
    """scale * the Kronecker product (LoKr) of `first` and `second`, or their product value by value (LoHa).

    Either is one matrix, or two whose matrix product it is.
    """

    kind: str
    first: tuple[Tensor, ...]
    second: tuple[Tensor, ...]
    scale: float

    def product(self, factor: float, device: torch.device) -> Tensor:
        first, second = (_multiplied(part, device) for part in (self.first, self.second))
        return (torch.kron(first, second) if self.kind == "LoKr" else first * second) * (self.scale * factor)


@dataclass(frozen=True)
class Decomposed(Change):
    """DoRA: the changed weight gets rows, or input columns, of the lengths `magnitude`.

    magnitude: [O] or [O, 1, ...] for rows, [1, in, ...] for input columns. A strength other than 1 lies on the line between
    the weight and the whole change.
    """

    change: Change
    magnitude: Tensor

    def product(self, factor: float, device: torch.device) -> Tensor:
        return self.change.product(factor, device)

    def delta(self, strength: float, weight: Tensor) -> Tensor:
        own = weight if self.half is None else weight.chunk(2)[self.half]
        changed = own + self.product(1.0, weight.device).view(own.shape)
        length = self.magnitude.to(weight.device).float()
        rows = self.magnitude.shape[0] == len(own)
        axes = [axis for axis in range(own.ndim) if axis != (0 if rows else 1)]
        length = length.view(*(len(own) if rows else 1, 1 if rows else own.shape[1], *[1] * (own.ndim - 2)))
        wanted = length * changed / torch.linalg.vector_norm(changed, dim=axes, keepdim=True).clamp_min(1e-12)
        return self._placed(((wanted - own) * strength).flatten(1), weight)


def _multiplied(parts: tuple[Tensor, ...], device: torch.device) -> Tensor:
    first, *second = (part.to(device).float().flatten(1) for part in parts)
    return first @ second[0] if second else first
