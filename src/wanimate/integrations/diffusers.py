"""Our transformer behind diffusers' `WanAnimatePipeline`: the same weights, the same call, the same output.

What no step changes is computed once a segment instead of once a step, and the residual stream stays float32. Where a prompt is
not padded to 512 tokens, diffusers takes some of them for image tokens; ours does not.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wanimate.errors import InputError
from wanimate.model.transformer import AnimateTransformer, Context
from wanimate.weights.layouts import native_transformer
from wanimate.weights.lora import read_lora
from wanimate.weights.names import transformer_params
from wanimate.weights.tools.to_diffusers import diffusers_transformer

BRANCHES = 2
"""Contexts that are kept: with and without guidance's condition."""
_FUSED = re.compile(r"face_adapter\.(\d+)\.to_([kv])\.(weight|bias)$")
Inputs = tuple[Tensor | None, ...]


def accelerate(pipe: Any) -> Any:
    """Put our transformer behind a `WanAnimatePipeline`; returns the pipeline, which is called as before.

    Parameters stay the pipeline's own and are shared, not copied: `pipe.to(...)`, offloading and `fuse_lora` go on working. For
    inference only. `del pipe.transformer.forward` takes it out again.

    >>> pipe = wanimate.integrations.diffusers.accelerate(WanAnimatePipeline.from_pretrained(folder))

    Raises:
        InputError: the transformer is not diffusers' WanAnimateTransformer3DModel, or not in its plain form (quantised, LoRA
            adapters that are not fused, fused projections).
    """
    module = getattr(pipe, "transformer", None)
    if type(module).__name__ != "WanAnimateTransformer3DModel":
        rule = f"its transformer is a {type(module).__name__}, not diffusers' WanAnimateTransformer3DModel"
        raise InputError("pipe", type(pipe).__name__, rule, "Give a WanAnimatePipeline, not compiled.")
    forward = SharedForward(module)
    # Offloading of accelerate keeps the forward that it wraps under this name.
    setattr(module, "_old_forward" if hasattr(module, "_hf_hook") else "forward", forward)
    return pipe


def lora_weights(path: Path) -> dict[str, Tensor]:
    """A LoRA as `wanimate train lora` writes it, under diffusers' names and with alpha / rank in its tensors.

    >>> pipe.load_lora_weights(wanimate.integrations.diffusers.lora_weights(Path("hero.safetensors")))

    Raises:
        InputError: the file cannot be read, or is in another dialect than peft's on the published names.
    """
    file = read_lora(path)
    pairs = {key.removeprefix("base_model.model."): tensor for key, tensor in file.tensors.items()}
    strange = [
        k for k in pairs if not re.fullmatch(r"blocks\.\d+\.(self_attn|cross_attn|ffn)\.\w+\.lora_[AB]\.weight", k)
    ]
    if strange:
        rule = f"{strange[0]} is none of the keys that `wanimate train lora` writes"
        raise InputError("generate.lora", path, rule, "Give such a file; diffusers may know the other dialects itself.")

    def scaled(key: str, tensor: Tensor) -> Tensor:
        if file.alpha is None or "lora_A" in key:
            return tensor
        rank = tensor.shape[1]
        return tensor * (file.alpha / (rank**0.5 if file.root else rank))

    named = diffusers_transformer({key: scaled(key, tensor) for key, tensor in pairs.items()})
    return {f"transformer.{key}": tensor for key, tensor in named.items()}


class SharedForward:
    """Takes the place of the module's `forward`. Views of its parameters are renewed when they have moved."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self._places = _places(module)
        self.network = share(module)
        self._contexts: list[tuple[Inputs, tuple[int | None, ...], Context]] = []

    @torch.no_grad()
    def __call__(
        self, hidden_states: Tensor, timestep: Tensor, encoder_hidden_states: Tensor,
        encoder_hidden_states_image: Tensor | None = None, pose_hidden_states: Tensor | None = None,
        face_pixel_values: Tensor | None = None, motion_encode_batch_size: int | None = None, return_dict: bool = True,
        attention_kwargs: dict[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        """As diffusers': hidden_states [B, 36, T+1, h, w] -> the flow [B, 16, T+1, h, w] in its type."""
        if (places := _places(self.module)) != self._places:
            self._contexts.clear()
            self.network, self._places = share(self.module), places
        network = self.network
        length = encoder_hidden_states.shape[1]
        if length != network.params.text_length:
            network.params = dataclasses.replace(network.params, text_length=length)
        inputs = (encoder_hidden_states, encoder_hidden_states_image, pose_hidden_states, face_pixel_values)
        channels = network.params.out_channels
        x, y = hidden_states.split((channels, hidden_states.shape[1] - channels), dim=1)
        flow = network(x, timestep, y, self._context(inputs)).to(hidden_states.dtype)
        if not return_dict:
            return (flow,)
        from diffusers.models.modeling_outputs import Transformer2DModelOutput

        return Transformer2DModelOutput(sample=flow)

    def _context(self, inputs: Inputs) -> Context:
        """What these inputs come to, kept over the steps; equal inputs need not be the same tensors."""
        versions = tuple(None if x is None or x.is_inference() else x._version for x in inputs)
        for known, then, context in self._contexts:
            same = (a is b and v == w for a, b, v, w in zip(known, inputs, then, versions, strict=True))
            if all(s or (a is not b and _equal(a, b)) for s, a, b in zip(same, known, inputs, strict=True)):
                return context
        del self._contexts[: len(self._contexts) - BRANCHES + 1]
        text, image, pose, face = inputs
        assert pose is not None, "diffusers' pipeline always gives pose and face"
        assert face is not None
        assert text is not None
        words = text.any(-1).any(0).nonzero()  # zeros fill up the rest
        context = self.network.prepare(text[:, : int(words[-1]) + 1 if len(words) else 1], image, face, pose)
        self._contexts.append((inputs, versions, context))
        return context


def share(module: Any) -> AnimateTransformer:
    """Our transformer on the parameters of diffusers' own; none of them is copied.

    Raises:
        InputError: see `accelerate`.
    """
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    fused = {name: p for name, p in parameters.items() if _FUSED.match(name)}
    native = native_transformer({name: p for name, p in parameters.items() if name not in fused})
    shapes = native_transformer({name: torch.empty(p.shape, device="meta") for name, p in parameters.items()})
    try:
        params = transformer_params(shapes, module.config.attention_head_dim, 512, Path("transformer"))
        with torch.device("meta"):
            network = AnimateTransformer(params).eval().requires_grad_(False)
        _join_keys_and_values(network, fused)
        _widen_norms(network)
        device = parameters["patch_embedding.weight"].device
        native = {name: p.to(device) if name.endswith(".kernel") else p for name, p in native.items()}
        network.load_state_dict(native, strict=True, assign=True)
    except (InputError, KeyError, RuntimeError) as error:
        rule = f"its weights are not in diffusers' plain form ({(str(error).splitlines() or [''])[0]})"
        remedy = "Fuse and unload LoRAs, unfuse projections, and load the weights unquantised, then accelerate."
        raise InputError("pipe.transformer", type(module).__name__, rule, remedy) from error
    return network


class _Joined(nn.Module):
    """A linear layer whose output rows lie in two layers: first the keys', then the values'."""

    def __init__(self, keys: tuple[Tensor, Tensor], values: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.parts = (keys, values)

    @property
    def weight(self) -> Tensor:
        return self.parts[0][0]

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.linear(x, weight, bias) for weight, bias in self.parts], dim=-1)


class _WideNorm(nn.LayerNorm):
    """A layer norm whose weights may be float32 where its input is not, as diffusers loads them."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.float(), self.bias.float()
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps).to(x.dtype)


def _join_keys_and_values(network: AnimateTransformer, fused: dict[str, Tensor]) -> None:
    for i, block in enumerate(network.face_adapter.fuser_blocks):
        keys, values = (
            (fused[f"face_adapter.{i}.to_{p}.weight"], fused[f"face_adapter.{i}.to_{p}.bias"]) for p in "kv"
        )
        block.linear1_kv = _Joined(keys, values)


def _widen_norms(network: AnimateTransformer) -> None:
    if network.params.image_width is None:
        return
    for i in (0, 4):
        old = network.img_emb.proj[i]
        assert isinstance(old, nn.LayerNorm)
        with torch.device("meta"):
            network.img_emb.proj[i] = _WideNorm(old.normalized_shape, old.eps)


def _places(module: nn.Module) -> list[tuple[str, int, torch.dtype]]:
    """Where every parameter lies; changes when one is moved, cast, replaced or added."""
    return [(name, p.data_ptr(), p.dtype) for name, p in module.named_parameters()]


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
