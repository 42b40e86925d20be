"""Trained networks -> the checkpoint folder that ships: int8 rows for large weights, float16 for the rest."""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors.torch import save_file

from mannequin.training.networks import TRANSFORMER
from mannequin.training.vae import weights_in
from wanimate.config import Defaults
from wanimate.train.common import load_state
from wanimate.weights.formats import Tensors, quantize_rows
from wanimate.weights.locate import CARD, CheckpointConfig, read_checkpoint_config
from wanimate.weights.locate import TRANSFORMER as STEM

VAE = "vae.safetensors"
LEAST_QUANTIZED = 4096
"""Weights with fewer elements stay in float16."""


def package(vae: Path, transformer: Path, out: Path, defaults: Defaults, note: str) -> None:
    """Write the folder `out` from folders of trainings. A `vae` that is packaged already stays as it is."""
    out.mkdir(parents=True, exist_ok=True)
    weights = weights_in(vae)
    if weights.name == VAE:
        shutil.copyfile(weights, out / VAE)
        known = read_checkpoint_config(vae)[1]
        mean, std = known.latent_mean, known.latent_std
    else:
        save_file(_packed(load_state(weights)), out / VAE)
        numbers = load_state(vae / "statistics.pt")
        mean, std = (tuple(round(x, 5) for x in numbers[name]) for name in ("mean", "std"))
    trained = load_state(transformer / "transformer.pt")
    positive, negative = trained.pop("prompts").half()
    save_file({"positive": positive.clone(), "negative": negative.clone()}, out / "prompts.safetensors")
    network = {k.removeprefix("transformer."): v for k, v in trained.items()}
    save_file(_packed(network), out / f"{STEM}.safetensors")
    config = CheckpointConfig(
        name=out.name,
        head_dim=TRANSFORMER.head_dim,
        text_length=TRANSFORMER.text_length,
        latent_mean=mean,
        latent_std=std,
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
