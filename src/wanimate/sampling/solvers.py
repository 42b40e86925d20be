"""Solvers of the flow ODE. Each keeps what it needs of earlier steps; `step` takes them in order, one network call a step.

With alpha = 1 - sigma the clean estimate is x0 = x - sigma v and lambda = ln(alpha / sigma).
DPM-Solver++ 2M: arXiv 2211.01095, algorithm 2. UniPC (order 2, B2(h) = e^h - 1): arXiv 2302.04867. Model spec, section 9.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from wanimate.config import Solver
from wanimate.errors import InputError
from wanimate.sampling.schedule import Schedule


class FlowSolver(Protocol):
    def step(self, x: Tensor, v: Tensor) -> Tensor:
        """The state after this step, from the state x and the network's flow v at it."""
        ...


def make_solver(name: Solver, schedule: Schedule) -> FlowSolver:
    solvers: dict[str, type[Euler | DpmPlusPlus | UniPC]] = {"dpm++": DpmPlusPlus, "unipc": UniPC, "euler": Euler}
    if name not in solvers:
        raise InputError("generate.solver", name, "unknown solver", f"Choose one of {', '.join(solvers)}.")
    return solvers[name](schedule)


class _Stepper:
    def __init__(self, schedule: Schedule) -> None:
        self.sigma = schedule.sigmas
        self.lam = torch.log(1 - schedule.sigmas) - torch.log(schedule.sigmas)
        self.last = schedule.steps - 1
        self.i = 0


class Euler(_Stepper):
    """x' = x + (sigma' - sigma) v."""

    def step(self, x: Tensor, v: Tensor) -> Tensor:
        delta = self.sigma[self.i + 1] - self.sigma[self.i]
        self.i += 1
        return x + delta.to(x.device) * v


class DpmPlusPlus(_Stepper):
    """Second-order multistep in data prediction, midpoint form; first order in the first and the last step."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(schedule)
        self.before: Tensor | None = None

    def step(self, x: Tensor, v: Tensor) -> Tensor:
        i, sigma, lam = self.i, self.sigma, self.lam
        x0 = x - sigma[i] * v
        estimate = x0
        h = lam[i + 1] - lam[i]
        # At sigma_0 = 1 lambda is -inf and the correction of step 1 vanishes.
        if self.before is not None and i < self.last and torch.isfinite(lam[i - 1]):
            r = (lam[i] - lam[i - 1]) / h
            estimate = x0 + 0.5 * (x0 - self.before) / r
        self.before, self.i = x0, i + 1
        if i == self.last:
            return x0
        return (sigma[i + 1] / sigma[i]) * x + (1 - sigma[i + 1]) * (1 - torch.exp(-h)) * estimate


class UniPC(_Stepper):
    """Predictor and corrector of order 2 in data prediction; the order falls to 1 in the first and the last step."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(schedule)
        self.start: Tensor | None = None
        self.history: list[Tensor] = []
        self.order = 1

    def step(self, x: Tensor, v: Tensor) -> Tensor:
        x0 = x - self.sigma[self.i] * v
        if self.start is not None:
            x = self._correct(x0, self.start)
        self.order = min(2, self.last + 1 - self.i, self.i + 1)
        result = x0 if self.i == self.last else self._predict(x, x0)
        self.start, self.history = x, [x0, *self.history[:1]]
        self.i += 1
        return result

    def _predict(self, x: Tensor, x0: Tensor) -> Tensor:
        i, sigma, lam = self.i, self.sigma, self.lam
        h = lam[i + 1] - lam[i]
        b = torch.expm1(-h)
        out = (sigma[i + 1] / sigma[i]) * x - (1 - sigma[i + 1]) * b * x0
        if self.order == 2:
            rk = (lam[i - 1] - lam[i]) / h
            out = out - (1 - sigma[i + 1]) * b * 0.5 * (self.history[0] - x0) / rk
        return out

    def _correct(self, x0: Tensor, start: Tensor) -> Tensor:
        """The last prediction again, now that the clean estimate x0 at its end is known."""
        i, sigma, lam = self.i, self.sigma, self.lam
        m = self.history[0]
        h = lam[i] - lam[i - 1]
        b = torch.expm1(-h)
        base = (sigma[i] / sigma[i - 1]) * start - (1 - sigma[i]) * b * m
        if self.order == 1:
            return base - (1 - sigma[i]) * b * 0.5 * (x0 - m)
        rk = (lam[i - 2] - lam[i - 1]) / h
        g1 = b / -h - 1
        g2 = g1 / -h - 0.5
        b1, b2 = g1 / b, 2 * g2 / b
        rho1 = (b1 - b2) / (1 - rk)
        rho2 = b1 - rho1
        return base - (1 - sigma[i]) * b * (rho1 * (self.history[1] - m) / rk + rho2 * (x0 - m))
