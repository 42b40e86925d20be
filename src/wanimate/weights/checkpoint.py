"""A checkpoint folder -> networks, ready to run: the published layout, diffusers', or ours with a `wanimate.json`."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from wanimate.config import Defaults
from wanimate.errors import CheckpointError
from wanimate.log import chosen
from wanimate.media.files import sha256
from wanimate.model.image_encoder import ClipImageEncoder, clip_config
from wanimate.model.params import LATENT_MEAN, LATENT_STD, TransformerParams
from wanimate.model.text_encoder import TextEncoder, umt5_config
from wanimate.model.transformer import AnimateTransformer
from wanimate.model.vae import VideoVae
from wanimate.weights.formats import Tensors, load_strict, open_folder, open_tensors, read_tensors, shards
from wanimate.weights.layouts import (
    holds_transformer,
    native_clip,
    native_transformer,
    native_umt5,
    native_vae,
)  # fmt: skip
from wanimate.weights.names import Sizes, clip_to_transformers, transformer_params, umt5_to_transformers, vae_params
from wanimate.weights.prompts import FixedPrompt, PromptEncoder, PublishedPrompt
from wanimate.weights.quantize import QuantizedLinear, is_quantizable, levels_of
from wanimate.weights.stored import Scaled, Value, Values, expand, value

CARD = "wanimate.json"
TRANSFORMER = "diffusion_pytorch_model"
T5 = "models_t5_umt5-xxl-enc-bf16.pth"
CLIP = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
VAE = "Wan2.1_VAE.pth"
TOKENIZER = Path("google") / "umt5-xxl"
Compress = Literal["never", "stored", "all"]
"""Which linear layers of the transformer stay quantised: none, those that are in the file, all of the blocks (to float8)."""


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


class PublishedImage:
    """CLIP's picture tower, opened by the first picture."""

    def __init__(self, file: Path, device: torch.device) -> None:
        self.file, self.device = file, device
        open_tensors(file)  # what is no file of tensors is refused now
        self._encoder: ClipImageEncoder | None = None

    def encode(self, picture: Tensor) -> Tensor:
        """[3, H, W] in [-1, 1] -> [257, 1280]."""
        if self._encoder is None:
            half = torch.float16 if self.device.type == "cuda" else torch.float32
            self._encoder = load_image_encoder(open_tensors(self.file), self.file, device=self.device, dtype=half)
        return self._encoder.encode(picture)

    def release(self) -> None:
        """Give the memory of the network back; the next picture opens it again."""
        self._encoder = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@dataclass(frozen=True)
class Checkpoint:
    """Networks and what they were made for. `image` is None where the transformer takes no image tokens."""

    path: Path
    card: Card
    transformer: AnimateTransformer
    vae: VideoVae
    prompts: PromptEncoder
    image: PublishedImage | None
    device: torch.device
    hashes: dict[str, str] = field(default_factory=dict)

    def release_encoders(self) -> None:
        """Free umT5 and CLIP, which denoising does not need."""
        self.prompts.release()
        if self.image is not None:
            self.image.release()

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
    path: Path | None = None, device: str | torch.device | None = None, dtype: torch.dtype | None = None,
    compress: Compress = "never", blocks_on: str | torch.device | None = None, prompts: PromptEncoder | None = None,
) -> Checkpoint:  # fmt: skip
    """Open a checkpoint folder; None is the one in the package. The transformer is bfloat16 on a GPU, else float32. The
    networks compute as they are written: what makes jobs fast is put on them afterwards (`runtime.speed.quicken`).

    Every tensor goes from its mapped file straight to its device and type. `blocks_on`: where the transformer's blocks go,
    None is `device`; on the CPU, tensors that need no conversion stay where they are, in the mapped file. `prompts`: opened
    already, by `open_prompts`.
    """
    folder, card = read_card(path)
    where = best_device(device)
    kind = dtype or (torch.bfloat16 if where.type == "cuda" else torch.float32)
    with ThreadPoolExecutor(1, "import") as beside:
        if find_clip(folder).is_file():
            beside.submit(_import_clip)  # seconds of the interpreter's, while tensors are read, which imports nothing
        transformer = load_transformer(open_transformer(folder), card, folder, kind, where, compress, blocks_on)
        vae_file = find_vae(folder)
        vae = load_vae(open_tensors(vae_file), card, vae_file, where)
    prompts = prompts or open_prompts(folder, card, where, transformer.params)
    image = None
    if transformer.params.image_width is not None:
        image = PublishedImage(find_clip(folder), where)
    hashes = {f.name: sha256(f) for f in sorted(folder.glob("*.safetensors"))} if card.fixed_prompt else {}
    return Checkpoint(folder, card, transformer, vae, prompts, image, where, hashes)


def _import_clip() -> None:
    from transformers import CLIPVisionModel  # noqa: F401 - `model.image_encoder` imports it where it is used


def best_device(asked: str | torch.device | None = None) -> torch.device:
    """The device asked for, else the GPU where there is one."""
    device = torch.device(asked or ("cuda" if torch.cuda.is_available() else "cpu"))
    if str(device) == "cuda" and torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())  # some of torch.cuda refuses one without its number
    return device


def find_vae(folder: Path) -> Path:
    """The VAE's file in one of the layouts."""
    places = (folder / "vae.safetensors", folder / "vae" / f"{TRANSFORMER}.safetensors")
    return next((file for file in places if file.is_file()), folder / VAE)


def find_clip(folder: Path) -> Path:
    """CLIP's file in one of the layouts."""
    own = folder / "image_encoder" / "model.safetensors"
    return own if own.is_file() else folder / CLIP


def find_text_encoder(folder: Path) -> tuple[Path, Path]:
    """umT5's file or folder, and the tokenizer's folder, in one of the layouts."""
    diffusers = (folder / "text_encoder").is_dir() and not (folder / T5).exists()
    weights = folder / ("text_encoder" if diffusers else T5)
    return weights, folder / ("tokenizer" if diffusers else TOKENIZER)


def open_prompts(
    folder: Path, card: Card, device: torch.device, params: TransformerParams | None = None
) -> PromptEncoder:
    """The prompts of a small checkpoint, checked against `params`, or umT5, which opens its file for a new prompt only."""
    if card.fixed_prompt:
        assert params is not None
        own_prompts = folder / "prompts.safetensors"
        return load_prompts(read_tensors(own_prompts), params, own_prompts)
    weights, words = find_text_encoder(folder)
    for part in (weights, words):
        if not part.exists():
            raise CheckpointError("checkpoint", part, "it is missing", "Download the checkpoint again.")
    return PublishedPrompt((weights, words), lambda: _open_text_encoder(weights, words, device))


def _open_text_encoder(weights: Path, words: Path, device: torch.device) -> TextEncoder:
    """umT5 on `device`, or on the CPU, straight from the mapped file, where the GPU has no room for it."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(words, local_files_only=True)
    except (OSError, ValueError) as error:
        rule = f"no readable tokenizer ({(str(error).splitlines() or [''])[0]})"
        raise CheckpointError("checkpoint", words, rule, "Download the checkpoint again.") from error
    stored = open_folder(weights, "model") if weights.is_dir() else open_tensors(weights)
    size = sum(v.numel() * v.dtype.itemsize for v in stored.values())
    if device.type == "cuda" and not fits_beside(size, gpu_room(device)):
        chosen("text encoder", "cpu", f"the GPU has no room for its {size / 2**30:.1f} GiB")
        device = torch.device("cpu")
    return load_text_encoder(stored, tokenizer, weights, device)


def fits_beside(weights: int, room: int) -> bool:
    """Whether an encoder's weights fit into so many bytes of a GPU, with what it computes."""
    return 1.05 * weights + 2**29 <= room


def gpu_room(device: torch.device) -> int:
    """Bytes that this process can still allocate on a GPU, its own cap and cached blocks included."""
    free, total = torch.cuda.mem_get_info(device)
    reserved, used = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
    cap = int(total * torch.cuda.get_per_process_memory_fraction(device))
    return min(free + reserved - used, cap - used)


def open_transformer(folder: Path) -> dict[str, Value]:
    """The transformer's tensors under their stored names: published shards, diffusers' `transformer/`, or one file of any name.

    Raises:
        CheckpointError: none is there, or several files could be meant.
    """
    return {key: tensor for file in transformer_files(folder) for key, tensor in open_tensors(file).items()}


def transformer_files(folder: Path) -> list[Path]:
    """The files that hold the transformer."""
    for place in (folder, folder / "transformer"):
        if any((place / f"{TRANSFORMER}.safetensors{end}").is_file() for end in ("", ".index.json")):
            return shards(place, TRANSFORMER)
    files = sorted(file for ending in ("safetensors", "gguf") for file in folder.glob(f"*.{ending}"))
    found = [file for file in files if holds_transformer(file)]
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        rule = f"several files hold a transformer ({names})"
        raise CheckpointError("checkpoint", folder, rule, "Keep one of them in the folder.")
    return found or [folder / f"{TRANSFORMER}.safetensors"]


def load_transformer(
    tensors: Values, card: Card, source: Path, dtype: torch.dtype, device: torch.device | str = "cpu",
    compress: Compress = "never", blocks_on: torch.device | str | None = None,
) -> AnimateTransformer:  # fmt: skip
    """From any layout that `layouts` knows; see `load_checkpoint`."""
    tensors = native_transformer(tensors)
    params = transformer_params(tensors, card.head_dim, card.text_length, source)
    with torch.device("meta"):
        model = AnimateTransformer(params)

    def place(key: str, stored: Value) -> Tensors:
        where = blocks_on if blocks_on is not None and key.startswith("blocks.") else device
        stays = compress == "all" or (compress == "stored" and isinstance(stored, Scaled))
        if not (stays and is_quantizable(key)):
            return {key: moved(stored, where, dtype)}
        levels, scale = levels_of(stored, where, by=device)
        parent, _, leaf = key.removesuffix(".weight").rpartition(".")
        layer = getattr(owner := model.get_submodule(parent), leaf)
        setattr(owner, leaf, QuantizedLinear(layer, levels.dtype, scale.shape))
        return {key: levels, f"{key}_scale": scale}

    load_strict(model, tensors, source, place)
    return model.eval().requires_grad_(False)


def moved(stored: Value, device: torch.device | str, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor on its device; converted and expanded there. None keeps its type."""
    if isinstance(stored, Scaled):
        made = expand(value(stored.levels).to(device), value(stored.scale).to(device))
    else:
        made = value(stored).to(device)
    return made if dtype is None else made.to(dtype)


def load_vae(tensors: Values, card: Card, source: Path, device: torch.device | str = "cpu") -> VideoVae:
    """From the published layout or from diffusers'."""
    tensors = native_vae(tensors)
    params = vae_params(tensors, source, card.latent_mean, card.latent_std)
    with torch.device("meta"):
        model = VideoVae(params)
    load_strict(model, tensors, source, lambda key, stored: {key: moved(stored, device, torch.float32)})
    model.mean, model.std = (torch.tensor(v, device=device).view(model.mean.shape) for v in (params.mean, params.std))
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


def load_text_encoder(
    tensors: Values, tokenizer: object, source: Path, device: torch.device | str = "cpu"
) -> TextEncoder:
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
    placed: dict[int, Tensor] = {}

    def place(key: str, stored: Value) -> Tensors:
        if id(stored) not in placed:  # the embedding has two names
            placed[id(stored)] = moved(stored, device)
        return {key: placed[id(stored)]}

    load_strict(model.model, umt5_to_transformers(tensors), source, place)
    return model.eval().requires_grad_(False)


def load_image_encoder(
    tensors: Values, source: Path, heads: int = 16, device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> ClipImageEncoder:  # fmt: skip
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

    def place(key: str, stored: Value) -> Tensors:
        return {key: moved(stored, device, None if key.endswith("position_ids") else dtype)}

    load_strict(model.model, {**converted, **_position_ids(own)}, source, place)
    for module in model.modules():
        for name, buffer in _position_ids(dict(module.named_buffers(recurse=False))).items():
            setattr(module, name, buffer.to(device))
    return model.eval().requires_grad_(False)


def _position_ids(buffers: dict[str, Tensor]) -> Tensors:
    """The index buffers among these: transformers keeps them beside the weights, in some versions as if they were weights."""
    return {k: torch.arange(v.shape[-1])[None] for k, v in buffers.items() if k.endswith("position_ids")}
