"""The networks to choose from: SPAN for filmed pictures, Real-ESRGAN's for drawn ones, any file by spandrel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wanimate.config.target import parse_target
from wanimate.errors import InputError, setting
from wanimate.post import models
from wanimate.post.flow import DisFlow, Flow, PyramidFlow
from wanimate.post.upscale.base import Enlarger, NetworkEnlarger
from wanimate.post.upscale.ncnn import read_layers
from wanimate.post.upscale.networks import SCALE, Span, Srvgg
from wanimate.post.upscale.stage import Upscaler, Work
from wanimate.runtime.processor import has_bf16

STYLES = ("filmed", "drawn")
STRENGTH = 0.75
_FIELD = "output.upscale_network"
_OWN_REACH = 48
"""How far a stranger's network may look; tiles overlap by it."""


def open_upscaler(
    target: str, style: str = "filmed", strength: float = STRENGTH, device: torch.device | None = None,
    folder: Path | None = None, dtype: torch.dtype | None = None,
) -> Upscaler:  # fmt: skip
    """The stage that enlarges.

    Args:
        target: "1920x1080", "1080p", "2x" (`upscale.target`).
        style: one of `STYLES`, or the file of a network that spandrel reads.
        strength: share of the network's detail, 0 (Lanczos alone) to 1.
        device: None is the processor. folder: of the models, overrides the default one.
        dtype: of convolutions; None is `usual_dtype`.

    Raises:
        InputError: the target or the style is none, the strength lies outside, or models are missing.
    """
    if not 0 <= strength <= 1:
        raise InputError("output.upscale_detail", strength, "it lies outside of 0 to 1", "Give a number between")
    device = device or torch.device("cpu")
    wanted = parse_target(target)
    enlarger = open_enlarger(style, device, folder, dtype)
    flow: Flow = DisFlow() if device.type == "cpu" else PyramidFlow()
    return Upscaler(wanted, enlarger, flow, strength, work_on(device))


def work_on(device: torch.device) -> Work:
    """In what pieces frames are enlarged."""
    return Work(device, 640, 1) if device.type == "cpu" else Work(device, 2048, 4)


def open_enlarger(
    style: str, device: torch.device, folder: Path | None = None, dtype: torch.dtype | None = None
) -> Enlarger:
    """The network of a style, on a device. Raises InputError: see `open_upscaler`."""
    dtype = dtype or usual_dtype(device)
    if style in STYLES:
        name = models.SPAN if style == "filmed" else models.DRAWN
        layers = read_layers(models.read(f"{name}.param", folder), models.read(f"{name}.bin", folder))
        network = Span.of(layers) if style == "filmed" else Srvgg.of(layers)
        return NetworkEnlarger(network, SCALE, network.reach, device, dtype)
    return _own(Path(style), device, dtype)


def usual_dtype(device: torch.device) -> torch.dtype:
    """float16 on a GPU, bfloat16 on a processor that multiplies it, float32 elsewhere."""
    if device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if has_bf16(device) else torch.float32


def _own(path: Path, device: torch.device, dtype: torch.dtype) -> Enlarger:
    """A user's own network."""
    if not path.is_file():
        rule = "there is no such file"
        remedy = f"Give the file of a network, or choose {' or '.join(STYLES)} as {setting('output.upscale_style')}."
        raise InputError(_FIELD, path, rule, remedy)
    try:
        from spandrel import ImageModelDescriptor, ModelLoader
    except ImportError as error:
        rule = "spandrel, which reads it, is not installed"
        raise InputError(_FIELD, path, rule, "Run `pip install 'wanimate[spandrel]'` once") from error
    try:
        found = ModelLoader(device="cpu").load_from_file(path)
    except Exception as error:  # spandrel has many kinds
        rule = f"spandrel cannot read it ({error})"
        raise InputError(_FIELD, path, rule, "Give the file of a network that enlarges pictures") from error
    fits = isinstance(found, ImageModelDescriptor) and found.input_channels == found.output_channels == 3
    if not fits or found.scale < 2:
        raise InputError(_FIELD, path, "it does not enlarge RGB pictures", "Give the file of a network that does")
    supported = dtype != torch.bfloat16 or found.supports_bfloat16
    supported = supported and (dtype != torch.float16 or found.supports_half)
    return NetworkEnlarger(_Described(found), found.scale, _OWN_REACH, device, dtype if supported else torch.float32)


class _Described(nn.Module):
    """A network as spandrel describes it: one frame at a time, filled up to a size that the network takes."""

    def __init__(self, found: Any) -> None:
        super().__init__()
        self.network, self._found = found.model, found

    def forward(self, frames: Tensor) -> Tensor:
        return torch.cat([self._found(frame) for frame in frames.split(1)])
