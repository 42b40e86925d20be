"""The published network with random weights, in memory alone: it takes the time and the memory of the real one, and makes
noise."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import torch
from torch import Tensor

from wanimate.config import RuntimeSettings
from wanimate.engines.resolved import ResolvedJob
from wanimate.engines.wan_animate import WanAnimate
from wanimate.errors import OutOfMemory
from wanimate.events import Event
from wanimate.model.fp8 import FP8
from wanimate.model.int8 import INT8
from wanimate.model.params import TransformerParams, VaeParams
from wanimate.model.transformer import AnimateTransformer
from wanimate.model.vae import VideoVae
from wanimate.runtime.placement import PlacedNetworks
from wanimate.runtime.planning.cards import Published, published_networks
from wanimate.runtime.planning.plan import Machine, Plan, Work, make_plan
from wanimate.runtime.planning.rates import Rates
from wanimate.runtime.planning.sizes import wanted_weights
from wanimate.weights.checkpoint import Checkpoint, Compress, PublishedImage, best_device, gpu_room
from wanimate.weights.locate import CheckpointConfig
from wanimate.weights.lora_view import LoraSizes
from wanimate.weights.prompts import FixedPrompt, PromptEncoder
from wanimate.weights.quantize import QuantizedLinear, is_quantizable, to_levels

NAME = "random weights of the published size"
IMAGE_TOKENS, WORDS = 257, 32


def random_network(params: TransformerParams, device: torch.device, dtype: torch.dtype) -> AnimateTransformer:
    """Random weights that keep activations in bounds, the same on every rank."""
    with torch.device("meta"):
        model = AnimateTransformer(params)
    model.to(dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name.endswith(".kernel"):
            taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
            tensor.data.copy_(torch.outer(taps, taps) / 64)
        elif tensor.ndim < 2 and name.endswith("weight"):
            tensor.data.fill_(1.0)
        elif name.startswith("motion_encoder") and tensor.ndim > 1:  # it scales its weights itself
            tensor.data.normal_(generator=generator)
        else:
            width = tensor.numel() // len(tensor) if tensor.ndim > 1 else len(tensor)
            tensor.data.normal_(std=width**-0.5, generator=generator)
    return model.eval().requires_grad_(False)


def quantize_network(model: AnimateTransformer, kind: torch.dtype = FP8) -> None:
    """Its linear layers in float8 or int8, in place, one after the other."""
    for name in [name for name, _ in model.named_parameters() if is_quantizable(name)]:
        parent, _, leaf = name.removesuffix(".weight").rpartition(".")
        owner = model.get_submodule(parent)
        old = getattr(owner, leaf)
        setattr(owner, leaf, QuantizedLinear.of(old, *to_levels(old.weight, kind)))


class RandomNetworks(PlacedNetworks):
    """As `PlacedNetworks`, all of it resident, without a file. `params`, `vae`: of the published networks unless told."""

    def __init__(
        self, runtime: RuntimeSettings = RuntimeSettings(), params: TransformerParams = TransformerParams(),
        vae: VaeParams = VaeParams(),
    ) -> None:  # fmt: skip
        config = CheckpointConfig(name=NAME, head_dim=params.head_dim, text_length=params.text_length)
        super().__init__(Path(NAME), config, best_device(runtime.device), runtime)
        self.params, self.vae_params = params, vae

    def plan_job(self, work: Work, loras: Callable[[AnimateTransformer], LoraSizes] | None = None) -> Plan | None:
        """There is none: where the networks go is settled."""
        self._tokens = work.tokens
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        return None

    def _read(
        self, dtype: torch.dtype, compress: Compress, prompts: PromptEncoder | None
    ) -> Generator[tuple[int, int], None, Checkpoint]:
        yield 0, 1
        model = random_network(self.params, self.device, dtype)
        if compress in ("all", "int8"):
            quantize_network(model, INT8 if compress == "int8" else FP8)
        torch.manual_seed(0)
        with self.device:
            vae = VideoVae(self.vae_params).eval().requires_grad_(False).channels_last()
        words = torch.randn(WORDS, self.params.text_width)[: self.params.text_length].to(self.device)
        image = None if self.params.image_width is None else _RandomImage(self.params.image_width, self.device)
        prompt = FixedPrompt({"positive": words, "negative": words})
        return Checkpoint(self.folder, self.config, model, vae, prompt, image, self.device)


class _RandomImage(PublishedImage):
    """In the place of CLIP: tokens of no picture."""

    def __init__(self, width: int, device: torch.device) -> None:
        self.width, self.device = width, device

    def encode(self, picture: Tensor) -> Tensor:
        return torch.randn(IMAGE_TOKENS, self.width, device=self.device)

    def release(self) -> None:
        """Nothing is held."""


class RandomEngine(WanAnimate):
    """An engine whose checkpoint has no files."""

    def __init__(self, networks: RandomNetworks) -> None:
        super().__init__(networks)

    @property
    def files(self) -> list[Path]:
        return []

    def check(self, job: ResolvedJob) -> None:
        """There are no files that could be wrong."""

    def read_ahead(self, job: ResolvedJob) -> None:
        """There is nothing to read."""

    def _encode_prompt(self, job: ResolvedJob) -> Iterator[Event]:
        yield from ()

    def _is_new(self, job: ResolvedJob) -> bool:
        return False


def fits(runtime: RuntimeSettings, size: tuple[int, int], length: int) -> bool:
    """Whether a GPU is here that holds the published network whole, with a segment of so many frames of `size`."""
    from wanimate.conditions.segments import plan_segments
    from wanimate.runtime.optimize import has_fp8, has_int8

    device = best_device(runtime.device)
    if device.type != "cuda":
        return False
    wanted_type = wanted_weights(runtime, device)
    weights: Published = wanted_type if wanted_type in ("fp8", "int8") else "bf16"
    eight = has_fp8(device) if weights == "fp8" else has_int8(device)
    machine = Machine(device, "", gpu_room(device), 2**50, Rates(1, 1, 1, 1, 1, 1), eight)
    wanted = runtime.model_copy(update={"blocks": "resident"})
    try:
        make_plan(published_networks(weights), Work(size, plan_segments(length, length, 1), 1), wanted, machine)
    except OutOfMemory:
        return False
    return True
