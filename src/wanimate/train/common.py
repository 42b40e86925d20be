"""What a training run needs beside its network: a clock, a learning rate, a state to resume from, a loss log."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from wanimate.errors import InputError, setting
from wanimate.media.files import AtomicFile


class Process:
    """This process's part in a run, which is all of it; where several processes share a run, they override what is here."""

    rank = 0
    count = 1
    pace = 1
    """How many steps apart the processes agree on the time."""

    @property
    def first(self) -> bool:
        """Whether this one keeps the clock, the log and the files."""
        return self.rank == 0

    def average(self, weights: Sequence[Tensor]) -> None:
        """Replace the gradients of `weights` by their mean over the processes."""

    def agree(self, value: float) -> float:
        """The first process's value."""
        return value


ALONE = Process()


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
    with AtomicFile(path, "work") as file:
        torch.save(state, cast(Any, file))


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
