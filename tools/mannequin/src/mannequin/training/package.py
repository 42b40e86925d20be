"""Trained networks -> the checkpoint folder that ships: int8 rows for large weights, float16 for the rest."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from mannequin.training.networks import TRANSFORMER
from mannequin.training.vae import PACKAGED, load_trained_vae, weights_in
from wanimate.config import Defaults
from wanimate.train.common import load_state
from wanimate.weights.formats import Tensors, quantize_rows
from wanimate.weights.locate import CARD, CheckpointConfig
from wanimate.weights.locate import TRANSFORMER as STEM

LEAST_QUANTIZED = 4096
"""Weights with fewer elements stay in float16."""


def package(vae: Path, transformer: Path, out: Path, defaults: Defaults, note: str) -> None:
    """Write the folder `out` from folders of trainings. A `vae` that is packaged already stays as it is."""
    out.mkdir(parents=True, exist_ok=True)
    weights = weights_in(vae)
    if weights.name == PACKAGED:
        shutil.copyfile(weights, out / PACKAGED)
    else:
        save_file(_packed(load_state(weights)), out / PACKAGED)
    latents = load_trained_vae(vae, torch.device("cpu")).params
    trained = load_state(transformer / "transformer.pt")
    positive, negative = trained.pop("prompts").half()
    save_file({"positive": positive.clone(), "negative": negative.clone()}, out / "prompts.safetensors")
    network = {k.removeprefix("transformer."): v for k, v in trained.items()}
    save_file(_packed(network), out / f"{STEM}.safetensors")
    config = CheckpointConfig(
        name=out.name,
        head_dim=TRANSFORMER.head_dim,
        text_length=TRANSFORMER.text_length,
        latent_mean=tuple(round(x, 5) for x in latents.mean),
        latent_std=tuple(round(x, 5) for x in latents.std),
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
