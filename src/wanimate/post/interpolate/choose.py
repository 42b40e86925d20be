"""How frames are interpolated, by name."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Literal

import torch

from wanimate.errors import InputError
from wanimate.post import models
from wanimate.post.flow import DisFlow
from wanimate.post.interpolate.methods import Between, Blend, FlowBetween, Hold, RifeBetween
from wanimate.post.interpolate.network import Rife
from wanimate.post.interpolate.stage import Interpolator

Method = Literal["auto", "rife", "dis", "blend", "hold"]


def open_interpolator(
    fps: Fraction, method: Method = "auto", device: torch.device | None = None, folder: Path | None = None,
    scale: float = 1.0,
) -> Interpolator:  # fmt: skip
    """The stage that brings a video to `fps` frames per second.

    Args:
        method: auto is rife on a GPU and dis on a processor.
        device: None is the processor. folder: of the models, overrides the default one.
        scale: of the pictures in which rife looks for movement: 1, 0.5 or 0.25.

    Raises:
        InputError: the scale is none of these, or the model is missing.
    """
    device = device or torch.device("cpu")
    return Interpolator(fps, open_between(method, device, folder, scale))


def open_between(method: Method, device: torch.device, folder: Path | None = None, scale: float = 1.0) -> Between:
    """What makes frames between frames. Raises InputError: see `open_interpolator`."""
    if scale not in (1.0, 0.5, 0.25):
        raise InputError("output.interpolate_scale", scale, "it is none of 1, 0.5 and 0.25", "Give one of these")
    if method == "auto":
        method = "dis" if device.type == "cpu" else "rife"
    if method == "rife":
        network = Rife.of(models.read(models.RIFE, folder))
        return RifeBetween(network, device, torch.float16 if device.type == "cuda" else torch.float32, scale)
    if method == "dis":
        return FlowBetween(DisFlow("fast"))
    return Blend() if method == "blend" else Hold()
