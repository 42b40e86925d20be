"""The diffusion loop of one segment, as a generator: a caller may look at, store or leave it after any step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from wanimate.config import Solver
from wanimate.sampling.guidance import Network
from wanimate.sampling.schedule import make_schedule
from wanimate.sampling.solvers import make_solver


@dataclass(frozen=True)
class Denoised:
    """State after `step` of `steps` and the clean estimate it was made from, both [16, T+1, h, w] float32."""

    step: int
    steps: int
    latents: Tensor
    estimate: Tensor


@torch.inference_mode()
def denoise(network: Network, noise: Tensor, solver: Solver, steps: int, shift: float) -> Iterator[Denoised]:
    """Yields after every step; the last `latents` are the result. State and solver are float32."""
    schedule = make_schedule(solver, steps, shift)
    stepper = make_solver(solver, schedule)
    x = noise.float()
    for i, t in enumerate(schedule.timesteps.to(noise.device)):
        v = network(x, t)
        estimate = x - schedule.sigmas[i] * v
        x = stepper.step(x, v)
        yield Denoised(i + 1, steps, x, estimate)
