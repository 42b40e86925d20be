"""What the training scripts share: a clock that ends a run on time, learning rate, checkpoints that resume, a loss log."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from wanimate.errors import InputError, setting

Device = Annotated[str, typer.Option(help="cuda or cpu.")]


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass
class Budget:
    """A run ends after `steps` or after `seconds`, whichever comes first; `progress` rises from 0 to 1 over it.

    Where several processes share a run, `agree` makes one of their clocks count; it is read every `every` steps.
    """

    steps: int
    seconds: float
    step: int = 0
    spent: float = 0.0
    every: int = 1
    agree: Callable[[float], float] = field(default=float, repr=False)
    _mark: float = field(default_factory=time.monotonic, repr=False)

    def tick(self) -> None:
        self.step += 1
        if self.step % self.every == 0:
            now = time.monotonic()
            self.spent = self.agree(self.spent + now - self._mark)
            self._mark = now

    def restart_clock(self) -> None:
        self._mark = time.monotonic()

    @property
    def progress(self) -> float:
        return min(1.0, max(self.step / self.steps, self.spent / self.seconds))

    @property
    def over(self) -> bool:
        return self.progress >= 1.0


def learning_share(step: int, progress: float, warmup: int = 200, decay_from: float = 0.6) -> float:
    """Linear warm-up, a plateau at 1, and a linear fall to zero over the last part of the run (arXiv 2405.18392)."""
    fall = (1 - progress) / (1 - decay_from) if progress > decay_from else 1.0
    return min(1.0, (step + 1) / warmup) * max(fall, 0.0)


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

    def restore(self, state: dict[str, torch.Tensor], step: int) -> None:
        for key, value in state.items():
            self.shadow[key].copy_(value)
        self.count = step // self.every


class Log:
    """Appends one JSON line a record and prints it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, **record: Any) -> None:
        line = json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in record.items()})
        with self.path.open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)


def save_state(path: Path, **state: Any) -> None:
    """Write a resumable training state whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    torch.save(state, temporary)
    os.replace(temporary, path)


def load_state(path: Path, shapes: dict[str, list[int]] | None = None) -> dict[str, Any]:
    """A training's state. With `shapes` it must be one of weights of these shapes.

    Raises:
        InputError: there is none, or it is of something else.
    """
    if not path.is_file():
        raise InputError(
            "resume", path, "there is no such training state", f"Leave {setting('resume')} out to start anew."
        )
    state = dict(torch.load(path, map_location="cpu", weights_only=True))
    if shapes is not None and state.get("shapes") != shapes:
        rule = "it is the state of other adapters (another network, rank or other targets)"
        raise InputError("resume", path, rule, f"Give the settings of that run, or another {setting('out')}.")
    return state
