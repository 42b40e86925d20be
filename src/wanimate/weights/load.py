"""A checkpoint folder -> networks, ready to run: the published layout, diffusers', or ours with a `wanimate.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Protocol

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor
from transformers import AutoTokenizer

from wanimate.conditions.reference import ImageEncoder
from wanimate.config import Defaults
from wanimate.errors import CheckpointError
from wanimate.media.files import sha256
from wanimate.model.image_encoder import ClipImageEncoder, clip_config
from wanimate.model.params import LATENT_MEAN, LATENT_STD, TransformerParams
from wanimate.model.text_encoder import TextEncoder, umt5_config
from wanimate.model.transformer import AnimateTransformer
from wanimate.model.vae import VideoVae
from wanimate.weights.formats import Tensors, load_strict, read_folder, read_tensors
from wanimate.weights.layouts import (
    holds_transformer,
    native_clip,
    native_transformer,
    native_umt5,
    native_vae,
)  # fmt: skip
from wanimate.weights.names import Sizes, clip_to_transformers, transformer_params, umt5_to_transformers, vae_params

CARD = "wanimate.json"
TRANSFORMER = "diffusion_pytorch_model"
T5 = "models_t5_umt5-xxl-enc-bf16.pth"
CLIP = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
VAE = "Wan2.1_VAE.pth"
TOKENIZER = Path("google") / "umt5-xxl"
DEFAULT_PROMPT = "视频中的人在做动作"
DEFAULT_NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，"
    "丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，"
    "杂乱的背景，三条腿，背景人很多，倒着走"
)


class Card(BaseModel):
    """What a small checkpoint says of itself (`wanimate.json`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    head_dim: int = 128
    text_length: int = 512
    latent_mean: tuple[float, ...] = LATENT_MEAN
    latent_std: tuple[float, ...] = LATENT_STD
    fixed_prompt: bool = False
    note: str = ""
    defaults: Defaults = Defaults()


class PromptEncoder(Protocol):
    def encode(self, prompt: str, negative: bool = False) -> Tensor:
        """[tokens, text width]; an empty prompt is the checkpoint's own default."""
        ...


class FixedPrompt:
    """The one prompt a small checkpoint was trained with."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors

    def encode(self, prompt: str, negative: bool = False) -> Tensor:
        return self.tensors["negative" if negative else "positive"]


class PublishedPrompt:
    """umT5, opened for the first prompt and held until this object goes."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.device = device
        diffusers = (folder / "text_encoder").is_dir() and not (folder / T5).exists()
        self.weights = folder / ("text_encoder" if diffusers else T5)
        self.words = folder / ("tokenizer" if diffusers else TOKENIZER)
        for part in (self.weights, self.words):
            if not part.exists():
                raise CheckpointError("checkpoint", part, "it is missing", "Download the checkpoint again.")

    def encode(self, prompt: str, negative: bool = False) -> Tensor:
        return self._encoder.encode(prompt or (DEFAULT_NEGATIVE if negative else DEFAULT_PROMPT))

    @cached_property
    def _encoder(self) -> TextEncoder:
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.words, local_files_only=True)
        except (OSError, ValueError) as error:
            rule = f"no readable tokenizer ({(str(error).splitlines() or [''])[0]})"
            raise CheckpointError("checkpoint", self.words, rule, "Download the checkpoint again.") from error
        stored = read_folder(self.weights, "model") if self.weights.is_dir() else read_tensors(self.weights)
        return load_text_encoder(stored, tokenizer, self.weights).to(self.device)


@dataclass(frozen=True)
class Checkpoint:
    """Networks and what they were made for. `image` is None where the transformer takes no image tokens."""

    path: Path
    card: Card
    transformer: AnimateTransformer
    vae: VideoVae
    prompts: PromptEncoder
    image: ImageEncoder | None
    device: torch.device
    hashes: dict[str, str] = field(default_factory=dict)

    @property
    def face_size(self) -> int:
        return self.transformer.params.motion.size


def embedded_path() -> Path:
    """Folder of the checkpoint that ships with the package."""
    return Path(str(files("wanimate.weights") / "embedded" / "mannequin"))


def read_card(path: Path | None) -> tuple[Path, Card]:
    """The checkpoint's folder and card, without opening its weights."""
    folder = embedded_path() if path is None else path
    if not folder.is_dir():
        raise CheckpointError("checkpoint", folder, "there is no such folder", "Give a Wan2.2-Animate-14B folder.")
    card = folder / CARD
    if not card.is_file():
        return folder, Card(name=folder.name)
    try:
        return folder, Card.model_validate(json.loads(card.read_text()))
    except ValidationError as error:
        first = error.errors()[0]
        rule = f"not a valid card ({'.'.join(str(x) for x in first['loc'])}: {first['msg']})"
        raise CheckpointError("checkpoint", card, rule, "Download it again.") from error
    except (OSError, ValueError) as error:
        raise CheckpointError("checkpoint", card, f"not a valid card ({error})", "Download it again.") from error


def load_checkpoint(
    path: Path | None = None, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> Checkpoint:
    """Open a checkpoint folder; None is the one in the package. The transformer is bfloat16 on a GPU, else float32."""
    folder, card = read_card(path)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    kind = dtype or (torch.bfloat16 if where.type == "cuda" else torch.float32)
    transformer = load_transformer(read_transformer(folder, kind), card, folder, kind).to(where)
    places = (folder / "vae.safetensors", folder / "vae" / f"{TRANSFORMER}.safetensors")
    vae_file = next((file for file in places if file.is_file()), folder / VAE)
    vae = load_vae(read_tensors(vae_file), card, vae_file).to(where)
    prompts: PromptEncoder
    if card.fixed_prompt:
        own_prompts = folder / "prompts.safetensors"
        prompts = load_prompts(read_tensors(own_prompts), transformer.params, own_prompts)
    else:
        prompts = PublishedPrompt(folder, where)
    image = None
    if transformer.params.image_width is not None:
        half = torch.float16 if where.type == "cuda" else torch.float32
        own_clip = folder / "image_encoder" / "model.safetensors"
        clip_file = own_clip if own_clip.is_file() else folder / CLIP
        image = load_image_encoder(read_tensors(clip_file), clip_file).to(where, half)
    hashes = {f.name: sha256(f) for f in sorted(folder.glob("*.safetensors"))} if card.fixed_prompt else {}
    return Checkpoint(folder, card, transformer, vae, prompts, image, where, hashes)


def read_transformer(folder: Path, dtype: torch.dtype) -> Tensors:
    """The transformer's tensors under their stored names: published shards, diffusers' `transformer/`, or one file of any name.

    Raises:
        CheckpointError: none is there, or several files could be meant.
    """
    for place in (folder, folder / "transformer"):
        if any((place / f"{TRANSFORMER}.safetensors{end}").is_file() for end in ("", ".index.json")):
            return read_folder(place, TRANSFORMER, dtype)
    files = sorted(file for ending in ("safetensors", "gguf") for file in folder.glob(f"*.{ending}"))
    found = [file for file in files if holds_transformer(file)]
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        rule = f"several files hold a transformer ({names})"
        raise CheckpointError("checkpoint", folder, rule, "Keep one of them in the folder.")
    return read_tensors(found[0], dtype) if found else read_folder(folder, TRANSFORMER, dtype)


def load_transformer(tensors: Tensors, card: Card, source: Path, dtype: torch.dtype) -> AnimateTransformer:
    """From any layout that `layouts` knows."""
    tensors = native_transformer(tensors)
    params = transformer_params(tensors, card.head_dim, card.text_length, source)
    with torch.device("meta"):
        model = AnimateTransformer(params)
    load_strict(model, {k: v.to(dtype) for k, v in tensors.items()}, source)
    return model.eval().requires_grad_(False)


def load_vae(tensors: Tensors, card: Card, source: Path) -> VideoVae:
    """From the published layout or from diffusers'."""
    tensors = native_vae(tensors)
    params = vae_params(tensors, source, card.latent_mean, card.latent_std)
    with torch.device("meta"):
        model = VideoVae(params)
    load_strict(model, {k: v.float() for k, v in tensors.items()}, source)
    model.mean, model.std = (torch.tensor(v).view(model.mean.shape) for v in (params.mean, params.std))
    return model.channels_last().eval().requires_grad_(False)


def load_prompts(tensors: Tensors, params: TransformerParams, source: Path) -> FixedPrompt:
    """The usual prompt `positive` and the `negative` one, [1..text length, text width] each."""
    for name in ("positive", "negative"):
        if name not in tensors:
            raise CheckpointError("checkpoint", source, f"{name} is missing", "Download it again.")
        prompt = tensors[name]
        if prompt.ndim != 2 or prompt.shape[1] != params.text_width or not 1 <= len(prompt) <= params.text_length:
            wanted = f"[1..{params.text_length}, {params.text_width}]"
            rule = f"{name} is of another shape: {list(prompt.shape)} instead of {wanted}"
            raise CheckpointError("checkpoint", source, rule, "Use the prompts that come with the checkpoint.")
        if not torch.isfinite(prompt).all():
            raise CheckpointError("checkpoint", source, f"{name} is not finite", "Download it again.")
    return FixedPrompt({name: prompt.float() for name, prompt in tensors.items()})


def load_text_encoder(tensors: Tensors, tokenizer: object, source: Path) -> TextEncoder:
    """From published umT5 keys or transformers'; the sizes are in the shapes, and heads follow from the bias table."""
    tensors = native_umt5(tensors)
    sizes = Sizes(tensors)
    try:
        vocab, width = (sizes.of("token_embedding.weight", axis, 2) for axis in range(2))
        heads = sizes.of("blocks.0.pos_embedding.embedding.weight", 1, 2)
        inner, ffn = sizes.of("blocks.0.attn.q.weight", 0, 2), sizes.of("blocks.0.ffn.fc1.weight", 0, 2)
        config = umt5_config(vocab, width, inner, ffn, heads, sizes.count("blocks."))
    except (ValueError, ZeroDivisionError) as error:
        rule = f"it is not the published umT5 encoder ({error})"
        raise CheckpointError("text encoder", source, rule, "Use the file that comes with the checkpoint.") from error
    with torch.device("meta"):
        model = TextEncoder(config, tokenizer)  # type: ignore[arg-type]
    load_strict(model.model, umt5_to_transformers(tensors), source)
    return model.eval().requires_grad_(False)


def load_image_encoder(tensors: Tensors, source: Path, heads: int = 16) -> ClipImageEncoder:
    """From published CLIP keys or transformers'. The head count leaves no trace in the shapes."""
    tensors = native_clip(tensors)
    sizes = Sizes(tensors)
    try:
        width = sizes.of("visual.patch_embedding.weight", 0, 4)
        ffn = sizes.of("visual.transformer.0.mlp.0.weight", 0, 2)
        layers = sizes.count("visual.transformer.") - 1
        with torch.device("meta"):
            model = ClipImageEncoder(clip_config(width, heads, layers, ffn))
        own = model.model.state_dict()
        prefix = "vision_model." if any(k.startswith("vision_model.") for k in own) else ""
        converted = clip_to_transformers(tensors, prefix)
    except KeyError as error:
        rule = f"it is not the published CLIP (visual.{error.args[0]} is missing)"
        raise CheckpointError("image encoder", source, rule, "Use the file that comes with the checkpoint.") from error
    except (ValueError, IndexError) as error:
        rule = f"it is not the published CLIP ({error})"
        raise CheckpointError("image encoder", source, rule, "Use the file that comes with the checkpoint.") from error
    load_strict(model.model, {k: v.float() for k, v in converted.items()} | _position_ids(own), source)
    for module in model.modules():
        for name, buffer in _position_ids(dict(module.named_buffers(recurse=False))).items():
            setattr(module, name, buffer)
    return model.eval().requires_grad_(False)


def _position_ids(buffers: dict[str, Tensor]) -> Tensors:
    """The index buffers among these: transformers keeps them beside the weights, in some versions as if they were weights."""
    return {k: torch.arange(v.shape[-1])[None] for k, v in buffers.items() if k.endswith("position_ids")}
