"""The loop that trains adapters: `measure` is flow matching on whatever `draw` gives, the rest stands here.

Every step's random numbers follow from the seed and the step's number alone, so a run that was killed and resumed ends with
the very weights of one that was not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from wanimate.train.adapters import AdaptedLinear
from wanimate.train.common import ALONE, Budget, Log, Process, learning_share, load_adapters, save_state, set_rate
from wanimate.train.curve import draw_curve
from wanimate.train.steps import Measure, Step

Draw = Callable[[int], tuple[Tensor, ...]]
"""Number of a batch -> its tensors; the same number gives the same batch."""


@dataclass(frozen=True)
class LoraTraining:
    """`rate`: AdamW's peak, reached after `warmup` steps, falling to zero over the last 40 %. `accumulate` batches make a step.

    State, log and curve are written every `save_every` steps.
    """

    steps: int = 1000
    seconds: float = float("inf")
    rate: float = 1e-4
    weight_decay: float = 0.01
    warmup: int = 50
    accumulate: int = 1
    save_every: int = 100
    seed: int = 0


def train_adapters(
    config: LoraTraining,
    adapters: dict[str, AdaptedLinear],
    measure: Measure,
    draw: Draw,
    out: Path,
    resume: bool = False,
    kind: type[Step] = Step,
    process: Process = ALONE,
) -> Iterator[int]:
    """Train in place; yields the number of steps done after each. `out` gets state.pt, log.jsonl and loss.png.

    Args:
        measure: a batch's tensors -> the loss first; random numbers from PyTorch's default generators.
        kind: how a step computes its gradients. process: this one among those that share the run.

    Raises:
        InputError: there is no state to resume, or it is of other adapters.
    """
    weights: list[nn.Parameter] = [w for a in adapters.values() for w in (a.lora_A, a.lora_B)]
    device = weights[0].device
    optimizer = torch.optim.AdamW(weights, lr=config.rate, betas=(0.9, 0.99), weight_decay=config.weight_decay)
    budget = Budget(config.steps, config.seconds, every=process.pace, agree=process.agree)
    losses: list[tuple[int, float]] = []
    if resume:
        state = load_adapters(out / "state.pt", {name: list(a.lora_A.shape) for name, a in adapters.items()}, weights)
        for weight, stored in zip(weights, state.weights, strict=True):
            weight.data.copy_(stored)
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state.optimizer, "param_groups": groups})
        budget.step, budget.spent, losses = state.step, state.spent, state.losses
    log = Log(out / "log.jsonl")
    step = kind(measure, weights)
    total, count = torch.zeros((), device=device), 0
    budget.restart_clock()
    while not budget.over:
        share = learning_share(budget.step, budget.progress, config.warmup)
        set_rate(optimizer, config.rate * share)
        sums: list[Tensor] = []
        for part in range(config.accumulate):
            number = (budget.step * config.accumulate + part) * process.count + process.rank
            batch = draw(number)
            torch.manual_seed(config.seed * 1_000_003 + number)
            loss = step(*batch)[0]
            gradients = [w.grad for w in weights if w.grad is not None]
            if part == 0:
                sums = list(torch._foreach_mul(gradients, 1 / config.accumulate))
            else:
                torch._foreach_add_(sums, gradients, alpha=1 / config.accumulate)
            total += loss / config.accumulate
        for weight, gradient in zip(weights, sums, strict=True):
            weight.grad = gradient
        process.average(weights)
        clip_grad_norm_(weights, 1.0)
        optimizer.step()
        count += 1
        budget.tick()
        if process.first and (budget.step % config.save_every == 0 or budget.over):
            losses.append((budget.step, total.item() / count))
            total.zero_()
            count = 0
            log.write(step=budget.step, seconds=budget.spent, loss=losses[-1][1], rate=config.rate * share)
            draw_curve(losses, out / "loss.png")
            save_state(
                out / "state.pt", weights=[w.detach().cpu() for w in weights], optimizer=optimizer.state_dict(),
                step=budget.step, spent=budget.spent, losses=losses,
                shapes={name: list(a.lora_A.shape) for name, a in adapters.items()},
            )  # fmt: skip
        yield budget.step
