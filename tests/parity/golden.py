"""Reading the golden numbers and comparing with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import detgen
import torch
from safetensors import safe_open
from torch import Tensor, nn

FOLDER = Path(__file__).parent.parent / "golden" / "model"


class Golden:
    """One golden file: `tensor(name)` and its metadata, JSON values parsed."""

    def __init__(self, name: str) -> None:
        self.file = safe_open(FOLDER / f"{name}.safetensors", "pt")
        self.meta: dict[str, Any] = {}
        for key, value in (self.file.metadata() or {}).items():
            try:
                self.meta[key] = json.loads(value)
            except json.JSONDecodeError:
                self.meta[key] = value

    def __getitem__(self, name: str) -> Tensor:
        return self.file.get_tensor(name)

    def names(self) -> list[str]:
        return list(self.file.keys())


def fill(module: nn.Module, prefix: str = "", seed_prefix: str = "") -> nn.Module:
    """Give every parameter and buffer its deterministic golden value; `prefix` is the module's place in the published model."""
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            tensor.copy_(detgen.param(seed_prefix + prefix + key, tensor.shape))
    return module.eval()


def check(name: str, ours: Tensor, golden: Tensor, atol: float, rl2: float) -> None:
    """Fail, naming the tap, unless max error <= atol and relative L2 error <= rl2."""
    assert ours.shape == golden.shape, f"{name}: shape {tuple(ours.shape)}, golden {tuple(golden.shape)}"
    difference = ours.double() - golden.double()
    worst = difference.abs().max().item()
    relative = (difference.norm() / golden.double().norm().clamp_min(1e-30)).item()
    print(f"{name}: max {worst:.2e} (<= {atol:g}), rl2 {relative:.2e} (<= {rl2:g})")
    assert worst <= atol, f"{name}: max error {worst:.3e} > {atol:g}"
    assert relative <= rl2, f"{name}: relative L2 {relative:.3e} > {rl2:g}"
