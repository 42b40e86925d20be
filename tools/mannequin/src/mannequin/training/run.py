"""Where a training runs and what it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from mannequin.options import REQUIRED, option

CUDA = torch.cuda.is_available()


@dataclass(frozen=True)
class Once:
    """What all trainings are told."""

    out: Path = option(REQUIRED, "folder for states, weights and the loss log")
    device: str = option("cuda" if CUDA else "cpu", "cuda or cpu")
    record: bool = option(CUDA, "record a step's kernels and launch them together (GPU only)")


@dataclass(frozen=True)
class Run(Once):
    """What trainings that can go on are told. `start` is a checkpoint folder, for relight a LoRA of the same targets."""

    start: Path | None = option(None, "what to begin with: see the command's description")
    resume: bool = option(False, "go on from state.pt in --out")
