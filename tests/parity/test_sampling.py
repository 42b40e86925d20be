"""Schedules and solvers against the published tables and trajectories."""

from __future__ import annotations

import detgen
import pytest
import torch

from golden import Golden, check, read_json
from wanimate.errors import InputError
from wanimate.sampling.denoise import denoise
from wanimate.sampling.schedule import make_schedule
from wanimate.sampling.solvers import make_solver

RUNS = [("dpm++", 4), ("dpm++", 20), ("unipc", 4), ("unipc", 20)]


def test_every_published_table() -> None:
    tables = read_json("model/sampler_tables.json")
    assert len(tables) == 84
    for name, table in tables.items():
        solver, steps, shift = name.replace("steps", "").replace("shift", "").split("/")
        ours = make_schedule(solver, int(steps), float(shift))  # type: ignore[arg-type]
        assert ours.timesteps.tolist() == table["timesteps"], name
        assert torch.allclose(ours.sigmas, torch.tensor(table["sigmas"]), rtol=0, atol=1e-7), name


@pytest.mark.parametrize(("solver", "steps"), RUNS)
def test_trajectories(solver: str, steps: int) -> None:
    golden, name = Golden("sampler"), f"{solver}_{steps}_5"
    schedule = make_schedule(solver, steps, 5.0)  # type: ignore[arg-type]
    assert schedule.timesteps.tolist() == golden[f"{name}.timesteps"].tolist()
    check("sigmas", schedule.sigmas, golden[f"{name}.sigmas"], 1e-5, 1e-5)
    start = detgen.randn("input/sampler/x", (16, 3, 4, 6))
    linear = [s.latents for s in denoise(lambda x, t: 0.3 * x + 0.1 * torch.sin(t / 1000), start, solver, steps, 5.0)]  # type: ignore[arg-type]
    kept = range(steps) if steps <= 8 else [0, 1, 2, steps // 2, steps - 2, steps - 1]
    check("linear", torch.stack([linear[i] for i in kept]), golden[f"{name}.x"], 1e-5, 1e-5)
    means = torch.stack([x.abs().mean() for x in linear])
    check("linear, every step", means, golden[f"{name}.x_mean_abs_all_steps"], 1e-5, 1e-5)

    def curved(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return 1.5 * torch.tanh(x) - 0.5 * x * torch.sin(t / 150)

    states = [s.latents for s in denoise(curved, start, solver, steps, 5.0)]  # type: ignore[arg-type]
    check("curved, middle", states[steps // 2], golden[f"{name}.y_mid"], 1e-5, 1e-5)
    check("curved, last", states[-1], golden[f"{name}.y_last"], 1e-5, 1e-5)


@pytest.mark.parametrize("solver", ["dpm++", "unipc", "euler"])
@pytest.mark.parametrize("steps", [1, 2, 3, 250])
def test_a_straight_flow_is_solved_exactly(solver: str, steps: int) -> None:
    """With v = x - x0 over sigma the clean estimate never changes, so every solver must land on it."""
    x0, noise = detgen.randn("straight/x0", (4, 3)), detgen.randn("straight/noise", (4, 3))
    schedule = make_schedule(solver, steps, 5.0)  # type: ignore[arg-type]
    x = (1 - schedule.sigmas[0]) * x0 + schedule.sigmas[0] * noise
    stepper = make_solver(solver, schedule)  # type: ignore[arg-type]
    for i in range(steps):
        x = stepper.step(x, (x - x0) / schedule.sigmas[i])
    assert torch.allclose(x, x0, atol=1e-4)


def test_bad_settings_are_named() -> None:
    with pytest.raises(InputError, match=r"steps = 0"):
        make_schedule("dpm++", 0, 5.0)
    with pytest.raises(InputError, match=r"solver = ddim.*dpm\+\+, unipc, euler"):
        make_solver("ddim", make_schedule("dpm++", 4, 5.0))  # type: ignore[arg-type]
