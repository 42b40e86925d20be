"""Noise levels and timesteps of the flow-matching samplers (model spec, section 9.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from wanimate.config import Solver
from wanimate.errors import InputError, setting

TRAIN_TIMESTEPS = 1000


@dataclass(frozen=True)
class Schedule:
    """sigmas: float32 [steps + 1], falling, the last one 0; timesteps: int64 [steps], what the network is told."""

    sigmas: torch.Tensor
    timesteps: torch.Tensor

    @property
    def steps(self) -> int:
        return len(self.timesteps)


def make_schedule(solver: Solver, steps: int, shift: float) -> Schedule:
    """The published table of `solver`; `euler` uses dpm++'s.

    u falls evenly to 0 and is shifted, sigma = s u / (1 + (s - 1) u) (Esser et al., arXiv 2403.03206, eq. 23).
    Timesteps truncate 1000 sigma, computed in float64.
    """
    if steps < 1:
        raise InputError(
            "generate.steps",
            steps,
            "at least one diffusion step is needed",
            f"Give {setting('generate.steps')} 1 or more.",
        )
    first = float(np.float32(1 - 1 / TRAIN_TIMESTEPS)) if solver == "unipc" else 1.0
    u = np.linspace(first, 0, steps + 1)[:-1]
    sigmas = shift * u / (1 + (shift - 1) * u)
    timesteps = torch.from_numpy((sigmas * TRAIN_TIMESTEPS).astype(np.int64))
    return Schedule(torch.from_numpy(np.append(sigmas, 0.0).astype(np.float32)), timesteps)
