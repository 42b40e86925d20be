"""A checkpoint folder -> networks, ready to run. Where its files lie: `weights.locate`."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from wanimate.errors import CheckpointError, InputError
from wanimate.log import log_choice
from wanimate.model.fp8 import FP8
from wanimate.model.image_encoder import ClipImageEncoder
from wanimate.model.int8 import INT8
from wanimate.model.params import TransformerParams
from wanimate.model.text_encoder import TextEncoder, umt5_config
from wanimate.model.transformer import AnimateTransformer
from wanimate.model.vae import VideoVae
from wanimate.weights.formats import (
    Tensors,
    load_strict,
    loading,
    open_folder,
    open_tensors,
    read_tensors,
    stored_bytes,
)
from wanimate.weights.layouts import (
    native_clip,
    native_transformer,
    native_umt5,
    native_vae,
)  # fmt: skip
from wanimate.weights.locate import (
    TOKENIZER,
    CheckpointConfig,
    find_clip,
    find_text_encoder,
    find_vae,
    home,
    needed,
    open_transformer,
    read_checkpoint_config,
)
from wanimate.weights.names import Sizes, transformer_params, umt5_to_transformers, vae_params
from wanimate.weights.prompts import FixedPrompt, PromptEncoder, PublishedPrompt
from wanimate.weights.quantize import QuantizedLinear, is_quantizable, quantized_of
from wanimate.weights.staging import gpu_of, moved
from wanimate.weights.stored import Scaled, Stored, Value, Values
from wanimate.weights.tokenizer import SPIECE_FILE, open_tokenizer

T = TypeVar("T")
Compress = Literal["never", "stored", "all", "int8"]
"""Which linear layers of the transformer stay quantised: none, those that are in the file, all of the blocks (what
is not quantised yet to float8, or all to int8)."""


class PublishedImage:
    """CLIP's picture tower, opened by the first picture."""

    def __init__(self, file: Path, device: torch.device) -> None:
        self.file, self.device = file, device
        open_tensors(file)  # what is no file of tensors is refused now
        self._encoder: ClipImageEncoder | None = None
        self._last: tuple[bytes, Tensor] | None = None

    def encode(self, picture: Tensor) -> Tensor:
        """[3, H, W] in [-1, 1] -> [257, 1280]. What the last picture gave is remembered."""
        name = hashlib.sha256(picture.contiguous().cpu().view(torch.uint8).numpy().tobytes()).digest()
        if self._last is None or self._last[0] != name:
            if self._encoder is None:
                half = torch.float16 if self.device.type == "cuda" else torch.float32
                self._encoder = load_image_encoder(open_tensors(self.file), self.file, device=self.device, dtype=half)
            self._last = name, self._encoder.encode(picture)
        return self._last[1]

    def release(self) -> None:
        """Give the memory of the network back; the next picture opens it again."""
        self._encoder = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@dataclass(frozen=True)
class Checkpoint:
    """Networks and what they were made for. `image` is None where the transformer takes no image tokens."""

    path: Path
    config: CheckpointConfig
    transformer: AnimateTransformer
    vae: VideoVae
    prompts: PromptEncoder
    image: PublishedImage | None
    device: torch.device

    def release_encoders(self) -> None:
        """Free umT5 and CLIP, which denoising does not need."""
        self.prompts.release()
        if self.image is not None:
            self.image.release()

    @property
    def face_size(self) -> int:
        return self.transformer.params.motion.size


def load_checkpoint(
    path: Path | None = None, device: str | torch.device | None = None, dtype: torch.dtype | None = None,
    compress: Compress = "never", blocks_on: str | torch.device | None = None, prompts: PromptEncoder | None = None,
) -> Checkpoint:  # fmt: skip
    """Open a checkpoint folder; None is the one in the package. The transformer is bfloat16 on a GPU, else float32. The
    networks compute as they are written: what makes jobs fast is put on them afterwards (`runtime.speed.optimize`).

    Every tensor goes from its mapped file straight to its device and type. `blocks_on`: where the transformer's blocks go,
    None is `device`; on the CPU, tensors that need no conversion stay where they are, in the mapped file. `prompts`: opened
    already, by `open_prompts`.
    """
    return drained(opening(path, device, dtype, compress, blocks_on, prompts))


def opening(
    path: Path | None = None, device: str | torch.device | None = None, dtype: torch.dtype | None = None,
    compress: Compress = "never", blocks_on: str | torch.device | None = None, prompts: PromptEncoder | None = None,
) -> Generator[tuple[int, int], None, Checkpoint]:  # fmt: skip
    """`load_checkpoint`, tensor by tensor: yields bytes read and bytes in all. Closing it leaves nothing behind."""
    folder, config = read_checkpoint_config(path)
    where = best_device(device)
    kind = dtype or (torch.bfloat16 if where.type == "cuda" else torch.float32)
    vae_file = needed(find_vae(folder), "VAE", folder)
    tensors, vae_tensors = native_transformer(open_transformer(folder)), native_vae(open_tensors(vae_file))
    total = sum(map(stored_bytes, (*tensors.values(), *vae_tensors.values())))
    reading = loading_transformer(tensors, config, folder, kind, where, compress, blocks_on)
    transformer = yield from _counted(reading, 0, total)
    first = sum(map(stored_bytes, tensors.values()))
    vae = yield from _counted(loading_vae(vae_tensors, config, vae_file, where), first, total)
    prompts = prompts or open_prompts(folder, config, where, transformer.params)
    image = None
    if transformer.params.image_width is not None:
        image = PublishedImage(needed(find_clip(folder), "image encoder", folder), where)
    return Checkpoint(folder, config, transformer, vae, prompts, image, where)


def check_checkpoint(folder: Path, config: CheckpointConfig) -> TransformerParams:
    """Whether the files of a checkpoint are there and of the architecture, as far as their headers tell; the sizes found.

    Raises:
        CheckpointError: a file is missing, is no file of tensors, or holds another network.
    """
    params = transformer_params(
        native_transformer(open_transformer(folder)), config.head_dim, config.text_length, folder
    )
    vae = needed(find_vae(folder), "VAE", folder)
    vae_params(native_vae(open_tensors(vae)), vae, config.latent_mean, config.latent_std)
    if params.image_width is not None:
        open_tensors(needed(find_clip(folder), "image encoder", folder))
    return params


def drained(steps: Generator[Any, None, T]) -> T:
    """What a generator returns, once it has run to its end."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: T = done.value
            return found


def _counted(sizes: Generator[int, None, T], done: int, total: int) -> Generator[tuple[int, int], None, T]:
    while True:
        try:
            done += next(sizes)
        except StopIteration as end:
            found: T = end.value
            return found
        yield done, total


def best_device(asked: str | torch.device | None = None) -> torch.device:
    """The device asked for, else the GPU where there is one.

    Raises:
        InputError: there is no such device, or one of a kind that the networks do not run on.
    """
    try:
        device = torch.device(asked or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, TypeError) as error:
        raise InputError(
            "runtime.device", asked, "there is no such kind of device", "Use cuda, cuda:N or cpu."
        ) from error
    if device.type == "mps":
        rule = "Apple's GPUs are not supported: the network's tables need float64, which they do not have"
        raise InputError("runtime.device", asked, rule, "Use cpu.")
    if device.type not in ("cuda", "cpu", "meta"):
        raise InputError("runtime.device", asked, "the networks do not run on it", "Use cuda, cuda:N or cpu.")
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        rule = "PyTorch sees no CUDA GPU here"
        raise InputError("runtime.device", asked, rule, "Use cpu, or see `wanimate doctor`.")
    count = torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        raise InputError("runtime.device", asked, f"this machine has {count} GPUs", f"Use cuda:0 to cuda:{count - 1}.")
    # Some of torch.cuda refuses a device without its number.
    return torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)


def open_prompts(
    folder: Path, config: CheckpointConfig, device: torch.device, params: TransformerParams | None = None
) -> PromptEncoder:
    """The prompts of a small checkpoint, checked against `params`, or umT5, which opens its file for a new prompt only."""
    if config.fixed_prompt:
        assert params is not None
        own_prompts = home(folder) / "prompts.safetensors"
        return load_prompts(read_tensors(own_prompts), params, own_prompts)
    weights, words = find_text_encoder(folder)
    needed(weights, "text encoder", folder)
    if not words.exists():
        rule = f"the tokenizer is missing, and {weights.name} carries none"
        remedy = f"Put {TOKENIZER}/ (published), tokenizer/ (diffusers), or its {SPIECE_FILE} beside the text encoder."
        raise CheckpointError("checkpoint", words, rule, remedy)
    return PublishedPrompt((weights, words), lambda: _open_text_encoder(weights, words, device))


def _open_text_encoder(weights: Path, words: Path, device: torch.device) -> TextEncoder:
    """umT5 on `device`, or on the CPU, straight from the mapped file, where the GPU has no room for it."""
    tokenizer = open_tokenizer(words)
    stored = open_folder(weights, "model") if weights.is_dir() else open_tensors(weights)
    size = text_bytes(stored)
    if device.type == "cuda" and not fits_beside(size, gpu_room(device)):
        log_choice("text encoder", "cpu", f"the GPU has no room for its {size / 2**30:.1f} GiB")
        device = torch.device("cpu")
    return load_text_encoder(stored, tokenizer, weights, device)


def text_type(tensors: Values) -> torch.dtype | None:
    """What umT5 computes in: the type of its file, or bfloat16, in which it was published, where that is float16, in which its
    numbers overflow, or several types, or quantised. None keeps the file's."""
    packed = any(isinstance(v, Stored) and v.packed for v in tensors.values())
    kept = {v.dtype for v in tensors.values()} in ({torch.float32}, {torch.bfloat16})
    return None if kept and not packed else torch.bfloat16


def text_bytes(tensors: Values) -> int:
    """Bytes that umT5's weights take in memory."""
    tensors = native_umt5(tensors)
    kind = text_type(tensors)
    return sum(v.numel() * (v.dtype if kind is None else kind).itemsize for v in tensors.values())


def fits_beside(weights: int, room: int) -> bool:
    """Whether an encoder's weights fit into so many bytes of a GPU, with what it computes."""
    return 1.05 * weights + 2**29 <= room


def gpu_room(device: torch.device) -> int:
    """Bytes that this process can still allocate on a GPU, its own cap and cached blocks included."""
    free, total = torch.cuda.mem_get_info(device)
    reserved, used = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
    cap = int(total * torch.cuda.get_per_process_memory_fraction(device))
    return min(free + reserved - used, cap - used)


def load_transformer(
    tensors: Values, config: CheckpointConfig, source: Path, dtype: torch.dtype, device: torch.device | str = "cpu",
    compress: Compress = "never", blocks_on: torch.device | str | None = None,
) -> AnimateTransformer:  # fmt: skip
    """From any layout that `layouts` knows; see `load_checkpoint`."""
    return drained(loading_transformer(tensors, config, source, dtype, device, compress, blocks_on))


def loading_transformer(
    tensors: Values, config: CheckpointConfig, source: Path, dtype: torch.dtype, device: torch.device | str = "cpu",
    compress: Compress = "never", blocks_on: torch.device | str | None = None,
) -> Generator[int, None, AnimateTransformer]:  # fmt: skip
    """`load_transformer`, tensor by tensor: yields the bytes of each."""
    tensors = native_transformer(tensors)
    params = transformer_params(tensors, config.head_dim, config.text_length, source)
    with torch.device("meta"):
        model = AnimateTransformer(params)

    def place(key: str, stored: Value) -> Tensors:
        where = blocks_on if blocks_on is not None and key.startswith("blocks.") else device
        stays = compress in ("all", "int8") or (compress == "stored" and isinstance(stored, Scaled))
        if not (stays and is_quantizable(key)):
            return {key: moved(stored, where, dtype)}
        quantized, scale = quantized_of(stored, where, by=device, kind=INT8 if compress == "int8" else FP8)
        parent, _, leaf = key.removesuffix(".weight").rpartition(".")
        layer = getattr(owner := model.get_submodule(parent), leaf)
        setattr(owner, leaf, QuantizedLinear(layer, quantized.dtype, scale.shape))
        return {key: quantized, f"{key}_scale": scale}

    def first(key: str) -> torch.device | None:
        stays = blocks_on is not None and key.startswith("blocks.") and not (compress == "all" and is_quantizable(key))
        return None if stays else gpu_of(device)

    yield from loading(model, tensors, source, place, first)
    return model.eval().requires_grad_(False)


def load_vae(tensors: Values, config: CheckpointConfig, source: Path, device: torch.device | str = "cpu") -> VideoVae:
    """From the published layout or from diffusers'."""
    return drained(loading_vae(tensors, config, source, device))


def loading_vae(
    tensors: Values, config: CheckpointConfig, source: Path, device: torch.device | str = "cpu"
) -> Generator[int, None, VideoVae]:
    """`load_vae`, tensor by tensor: yields the bytes of each."""
    tensors = native_vae(tensors)
    params = vae_params(tensors, source, config.latent_mean, config.latent_std)
    with torch.device("meta"):
        model = VideoVae(params)

    def place(key: str, stored: Value) -> Tensors:
        return {key: moved(stored, device, torch.float32)}

    yield from loading(model, tensors, source, place, lambda _: gpu_of(device))
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
    placed: dict[str, Tensor] = {}
    kind = text_type(tensors)
    converted, names = umt5_to_transformers(tensors), dict[int, str]()
    same = {key: names.setdefault(id(stored), key) for key, stored in converted.items()}  # the embedding has two names

    def place(key: str, stored: Value) -> Tensors:
        if same[key] not in placed:
            placed[same[key]] = moved(stored, device, kind)
        return {key: placed[same[key]]}

    def first(key: str) -> torch.device | None:
        return gpu_of(device) if same[key] == key else None

    load_strict(model.model, converted, source, place, first)
    return model.eval().requires_grad_(False)


def load_image_encoder(
    tensors: Values, source: Path, heads: int = 16, device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> ClipImageEncoder:  # fmt: skip
    """From published CLIP keys or transformers'. The head count leaves no trace in the shapes. The text tower, the last block
    and the projection are never used."""
    tensors = native_clip(tensors)
    sizes = Sizes(tensors)
    try:
        width = sizes.of("visual.patch_embedding.weight", 0, 4)
        ffn = sizes.of("visual.transformer.0.mlp.0.weight", 0, 2)
        layers = sizes.count("visual.transformer.") - 1
        if width % heads:
            raise ValueError(f"its width, {width}, is not one of {heads} heads")
        with torch.device("meta"):
            model = ClipImageEncoder(width, heads, layers, ffn)
    except (ValueError, IndexError) as error:
        rule = f"it is not the published CLIP ({error})"
        raise CheckpointError("image encoder", source, rule, "Use the file that comes with the checkpoint.") from error
    unused = (f"visual.transformer.{layers}.", "visual.post_norm.", "visual.head")
    used = {key: v for key, v in tensors.items() if key.startswith("visual.") and not key.startswith(unused)}

    def place(key: str, stored: Value) -> Tensors:
        return {key: moved(stored, device, dtype)}

    load_strict(model, used, source, place, lambda _: gpu_of(device))
    return model.eval().requires_grad_(False)
