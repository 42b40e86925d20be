"""Checkpoint folders with tiny random networks, in both layouts, and a guides folder to animate with them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import detgen
import numpy as np
import torch
from published_shapes import clip_shapes, t5_shapes
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from golden import fill
from wanimate.config import Defaults
from wanimate.model.params import MotionParams, TransformerParams, VaeParams
from wanimate.model.transformer import AnimateTransformer
from wanimate.model.vae import VideoVae
from wanimate.preprocess.guides import GuidesWriter
from wanimate.weights.formats import quantize_rows
from wanimate.weights.locate import CARD, CLIP, T5, TRANSFORMER, VAE, CheckpointConfig

MOTION = MotionParams(channels=(8, 8), width=16, directions=4, layers=2)
OWN = TransformerParams(
    dim=32, ffn_dim=48, num_heads=2, num_layers=5, time_width=32, text_width=8, text_length=3, image_width=None,
    face_width=16, face_slots=2, motion=MOTION,
)  # fmt: skip
OWN_VAE = VaeParams(base=8, res_blocks=1, mean=(0.1,) * 16, std=(0.8,) * 16)
PUBLISHED = TransformerParams(
    dim=128, ffn_dim=64, num_heads=1, num_layers=5, time_width=32, text_width=16, image_width=32, face_width=16,
    face_slots=2, motion=MOTION,
)  # fmt: skip
DEFAULTS = Defaults(area=32 * 16, steps=2, shift=3.0, clip_length=9, overlap=5)
FPS = Fraction(30000, 1001)


@dataclass(frozen=True)
class Shape:
    """Sizes of a guides folder."""

    width: int = 32
    height: int = 16
    face: int = 12


def transformer_tensors(params: TransformerParams) -> dict[str, Tensor]:
    return dict(fill(AnimateTransformer(params)).state_dict())


def vae_tensors(params: VaeParams) -> dict[str, Tensor]:
    return dict(fill(VideoVae(params)).state_dict())


def own_checkpoint(folder: Path, quantized: bool = False) -> Path:
    """The layout of the embedded checkpoint: a config, safetensors, two fixed prompts."""
    folder.mkdir(parents=True)
    tensors = transformer_tensors(OWN)
    if quantized:
        for key in [k for k, v in tensors.items() if k.endswith(".weight") and v.ndim == 2 and "direction" not in k]:
            tensors[key], tensors[f"{key}_scale"] = quantize_rows(tensors[key])
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / f"{TRANSFORMER}.safetensors")
    save_file(vae_tensors(OWN_VAE), folder / "vae.safetensors")
    prompts = {
        name: detgen.randn(f"tiny/{name}", (OWN.text_length, OWN.text_width)) for name in ("positive", "negative")
    }
    save_file(prompts, folder / "prompts.safetensors")
    config = CheckpointConfig(
        name=folder.name, head_dim=OWN.head_dim, text_length=OWN.text_length, latent_mean=OWN_VAE.mean,
        latent_std=OWN_VAE.std, fixed_prompt=True, defaults=DEFAULTS,
    )  # fmt: skip
    (folder / CARD).write_text(config.model_dump_json())
    return folder


def published_checkpoint(folder: Path) -> Path:
    """The layout of the release: two shards with an index, .pth files, a tokenizer folder and no config."""
    folder.mkdir(parents=True)
    tensors = transformer_tensors(PUBLISHED)
    keys = sorted(tensors)
    shards = {f"{TRANSFORMER}-0000{i + 1}-of-00002.safetensors": keys[i::2] for i in range(2)}
    for name, part in shards.items():
        save_file({k: tensors[k] for k in part}, folder / name)
    index = {"metadata": {}, "weight_map": {k: name for name, part in shards.items() for k in part}}
    (folder / f"{TRANSFORMER}.safetensors.index.json").write_text(json.dumps(index))
    torch.save(vae_tensors(VaeParams(base=8)), folder / VAE)
    t5 = t5_shapes(vocab=12, dim=16, inner=16, ffn=24, heads=2, layers=2)
    torch.save(detgen.state_dict(t5), folder / T5)
    torch.save(detgen.state_dict(clip_shapes(32, 2)), folder / CLIP)
    write_tokenizer(folder / "google" / "umt5-xxl")
    return folder


def write_tokenizer(folder: Path) -> None:
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3, "person": 4, "dances": 5}
    model = Tokenizer(WordLevel(words, unk_token="<unk>"))
    model.pre_tokenizer = Whitespace()
    model.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )
    fast.save_pretrained(folder)


def write_guides(folder: Path, count: int, shape: Shape = Shape(), replacement: bool = False) -> Path:
    """A guides folder of noise."""
    random = np.random.default_rng(count)
    mode = "replacement" if replacement else "animation"
    size = (shape.height, shape.width, 3)
    with GuidesWriter(folder, mode, FPS, (shape.width, shape.height), shape.face) as writer:
        for _ in range(count):
            frames = [random.integers(0, 255, size, dtype=np.uint8)]
            frames.append(random.integers(0, 255, (shape.face, shape.face, 3), dtype=np.uint8))
            if replacement:
                frames.append(random.integers(0, 255, size, dtype=np.uint8))
                frames.append(np.full(size, 255 * (random.random() < 0.5), dtype=np.uint8))
            writer.write(*frames)
        writer.finish(random.integers(0, 255, (40, 48, 3), dtype=np.uint8), {}, {"source": np.zeros((count, 133, 3))})
    return folder
