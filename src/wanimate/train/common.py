"""What a training run needs beside its network: a clock, a learning rate, a state to resume from, a loss log."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from wanimate.errors import InputError, setting
from wanimate.media.files import AtomicFile
from wanimate.weights.formats import is_finite, is_plain, read_pickle


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


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of all weights."""
    for group in optimizer.param_groups:
        group["lr"] = rate


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


@dataclass(frozen=True)
class State:
    """What a run goes on from. `optimizer`: AdamW's table of each weight, by number."""

    weights: list[Tensor]
    optimizer: dict[int, dict[str, Tensor]]
    step: int
    spent: float
    losses: list[tuple[int, float]]


def load_state(path: Path) -> dict[str, Any]:
    """What `save_state` wrote; nothing in the file is run.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    if not path.is_file():
        raise InputError(
            "resume", path, "there is no such training state", f"Leave {setting('resume')} out to start anew."
        )
    found = read_pickle(path, "resume")
    if not isinstance(found, dict):
        raise InputError("resume", path, "it is no training state", f"Leave {setting('resume')} out to start anew.")
    return found


def load_adapters(path: Path, shapes: dict[str, list[int]], weights: Sequence[Tensor]) -> State:
    """The state of a training of adapters; `shapes` of the adapters by name, `weights` in order.

    Raises:
        InputError: there is none, it is of other adapters, or it is damaged.
    """
    found = load_state(path)
    if not _are(found.get("shapes"), shapes):
        rule = "it is the state of other adapters (another network, rank or other targets)"
        raise InputError("resume", path, rule, f"Give the settings of that run, or another {setting('out')}.")
    try:
        return _checked(found, weights)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        rule = "the training state is damaged"
        raise InputError("resume", path, rule, f"Remove it and leave {setting('resume')} out to start anew.") from error


def _checked(found: dict[str, Any], weights: Sequence[Tensor]) -> State:
    """Raises ValueError, or what comes of another form, where a part is not what `save_state` writes."""
    stored, tables = found["weights"], found["optimizer"]["state"]
    numbers = set(range(len(weights)))
    _hold(type(stored) is list and type(tables) is dict and all(type(table) is dict for table in tables.values()))
    _hold(len(stored) == len(weights) and set(tables) in (numbers, set()))
    for number, weight in enumerate(weights):
        table = tables.get(number, {})
        alike = [stored[number], *(table[name] for name in ("exp_avg", "exp_avg_sq") if table)]
        _hold(all(isinstance(t, Tensor) and t.shape == weight.shape and t.is_floating_point() for t in alike))
        alike += [table["step"]] if table else []
        _hold(all(isinstance(t, Tensor) and is_plain(t) and is_finite(t) for t in alike))
        _hold(not table or (set(table) == {"step", "exp_avg", "exp_avg_sq"} and table["step"].numel() == 1))
    step, spent, losses = found["step"], found["spent"], found["losses"]
    _hold(type(step) is int and 0 <= step < 2**40 and type(spent) is float and 0 <= spent < float("inf"))
    _hold(type(losses) is list and len(losses) <= step)
    for pair in losses:
        _hold(type(pair) in (list, tuple) and len(pair) == 2)
        at, loss = pair
        _hold(type(at) is int and 0 <= at <= step and type(loss) is float and math.isfinite(loss))
    return State(stored, tables, step, spent, [(at, loss) for at, loss in losses])


def _are(found: Any, shapes: dict[str, list[int]]) -> bool:
    """Whether they are equal; nothing of another kind is asked whether it is."""
    if type(found) is not dict or found.keys() != shapes.keys() or not all(type(s) is list for s in found.values()):
        return False
    return all(type(n) is int for shape in found.values() for n in shape) and found == shapes


def _hold(rule: bool) -> None:
    if not rule:
        raise ValueError
