"""Trainable low-rank adapters (Hu et al., arXiv 2106.09685) on a transformer's linears, and the file they are written to."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from wanimate.errors import InputError
from wanimate.media.files import AtomicFile
from wanimate.model.transformer import AnimateTransformer

ALL = (
    "self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "cross_attn.q", "cross_attn.k", "cross_attn.v",
    "cross_attn.o", "ffn.0", "ffn.2",
)  # fmt: skip
ATTENTION = ALL[:8]
LOOKING = (*ALL[:4], *ALL[8:])
TARGETS = {
    "all": ALL, "attention": ATTENTION, "self-attention": ALL[:4], "feed-forward": ALL[8:], "no-cross-attention": LOOKING,
}  # fmt: skip
"""Linears of every block that get an adapter, by the name a user gives."""


@dataclass(frozen=True)
class AdapterSettings:
    """W' = W + alpha / rank * B A with A [rank, in] and B [out, rank]; `targets` are ends of module names in the blocks."""

    rank: int = 32
    alpha: float = 32.0
    targets: tuple[str, ...] = ALL


class AdaptedLinear(nn.Linear):
    """A linear with a low-rank branch; a linear becomes one in place, so that its weight keeps its name."""

    lora_A: nn.Parameter
    lora_B: nn.Parameter
    lora_scale: float

    @staticmethod
    def of(linear: nn.Linear, rank: int, alpha: float, generator: torch.Generator) -> AdaptedLinear:
        linear.__class__ = AdaptedLinear
        assert isinstance(linear, AdaptedLinear)
        device = linear.weight.device
        bound = 1 / math.sqrt(linear.in_features)  # peft's: Kaiming uniform with a = sqrt(5)
        down = (torch.rand(rank, linear.in_features, generator=generator) * 2 - 1) * bound
        linear.lora_A = nn.Parameter(down.to(device))
        linear.lora_B = nn.Parameter(torch.zeros(linear.out_features, rank, device=device))
        linear.lora_scale = alpha / rank
        return linear

    def forward(self, x: Tensor) -> Tensor:
        low = F.linear(x, self.lora_A.to(x.dtype))
        return super().forward(x) + F.linear(low, self.lora_B.to(x.dtype)) * self.lora_scale


def attach(model: AnimateTransformer, settings: AdapterSettings, seed: int = 0) -> dict[str, AdaptedLinear]:
    """Freeze `model` and give it adapters, in place; they change nothing until they are trained. By module name.

    Raises:
        InputError: no linear of the blocks ends in one of the targets.
    """
    model.requires_grad_(False)
    generator = torch.Generator("cpu").manual_seed(seed)
    found: dict[str, AdaptedLinear] = {}
    for name, module in model.named_modules():
        if name.startswith("blocks.") and name.endswith(settings.targets) and isinstance(module, nn.Linear):
            found[name] = AdaptedLinear.of(module, settings.rank, settings.alpha, generator)
    missing = [t for t in settings.targets if not any(name.endswith(t) for name in found)]
    if missing:
        names = ", ".join(TARGETS)
        raise InputError("targets", ",".join(missing), "no linear of the blocks is called so", f"Give one of {names}.")
    return found


def adapter_state(adapters: dict[str, AdaptedLinear]) -> dict[str, Tensor]:
    """peft's names: base_model.model.<module>.lora_A.weight [rank, in] and .lora_B.weight [out, rank], float32 on the CPU."""
    state: dict[str, Tensor] = {}
    for name, adapter in adapters.items():
        state[f"base_model.model.{name}.lora_A.weight"] = adapter.lora_A.detach().float().cpu().contiguous()
        state[f"base_model.model.{name}.lora_B.weight"] = adapter.lora_B.detach().float().cpu().contiguous()
    return state


def write_lora(
    state: dict[str, Tensor], settings: AdapterSettings, path: Path, dtype: torch.dtype, about: dict[str, str]
) -> None:
    """Write a LoRA file whole or not at all, with peft's configuration and `about` in its metadata."""
    config = {
        "peft_type": "LORA", "r": settings.rank, "lora_alpha": settings.alpha, "target_modules": list(settings.targets),
        "lora_dropout": 0.0, "bias": "none",
    }  # fmt: skip
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(config)} | about
    with AtomicFile(path) as file:
        file.write(save({k: v.to(dtype) for k, v in state.items()}, metadata))
