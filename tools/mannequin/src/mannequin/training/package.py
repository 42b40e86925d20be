"""Trained networks -> the checkpoint folder that ships: int8 rows for large weights, float16 for the rest."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from mannequin.training.networks import TRANSFORMER
from wanimate.config import Defaults
from wanimate.train.common import load_state
from wanimate.weights.formats import Tensors, quantize_rows
from wanimate.weights.locate import CARD, CheckpointConfig
from wanimate.weights.locate import TRANSFORMER as STEM

LEAST_QUANTIZED = 4096
"""Weights with fewer elements stay in float16."""


def package(vae: Path, statistics: Path, transformer: Path, out: Path, defaults: Defaults, note: str) -> None:
    """Write the folder `out`. `vae`, `statistics` and `transformer` are files the training scripts wrote."""
    out.mkdir(parents=True, exist_ok=True)
    save_file(_packed(load_state(vae)), out / "vae.safetensors")
    trained = load_state(transformer)
    positive, negative = trained.pop("prompts").half()
    save_file({"positive": positive.clone(), "negative": negative.clone()}, out / "prompts.safetensors")
    network = {k.removeprefix("transformer."): v for k, v in trained.items()}
    save_file(_packed(network), out / f"{STEM}.safetensors")
    numbers = torch.load(statistics, weights_only=True)
    config = CheckpointConfig(
        name=out.name,
        head_dim=TRANSFORMER.head_dim,
        text_length=TRANSFORMER.text_length,
        latent_mean=tuple(round(x, 5) for x in numbers["mean"]),
        latent_std=tuple(round(x, 5) for x in numbers["std"]),
        fixed_prompt=True,
        note=note,
        defaults=defaults,
    )
    (out / CARD).write_text(config.model_dump_json(indent=2) + "\n")


def _packed(weights: Tensors) -> Tensors:
    tensors: Tensors = {}
    for name, value in weights.items():
        large = name.endswith(".weight") and value.ndim >= 2 and value.numel() >= LEAST_QUANTIZED
        if large and "direction" not in name:
            tensors[name], tensors[f"{name}_scale"] = quantize_rows(value)
        else:
            tensors[name] = value.half().contiguous()
    return tensors
