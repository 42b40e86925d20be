"""Sizes and first values of the embedded networks (`mannequin`)."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wanimate.model.motion import Blur, EqualConv, EqualLinear, MotionEncoder
from wanimate.model.params import MotionParams, TransformerParams, VaeParams
from wanimate.model.transformer import AnimateTransformer
from wanimate.model.vae import AttentionBlock, CausalConv3d, Downsample, ResidualBlock, Upsample, VideoVae

VAE = VaeParams(base=32, res_blocks=1, mean=(0.0,) * 16, std=(1.0,) * 16)
TRANSFORMER = TransformerParams(
    dim=384,
    ffn_dim=1152,
    num_heads=6,
    num_layers=10,
    time_width=256,
    text_width=64,
    text_length=4,
    image_width=None,
    face_width=192,
    face_slots=4,
    motion=MotionParams(channels=(16, 32, 64, 96, 128, 128), width=128, directions=24),
)


@torch.no_grad()
def initialise_vae(vae: VideoVae) -> None:
    """Every residual branch starts at zero and every filter in time starts as the present frame.

    A VAE that begins as a plain per-frame autoencoder can learn pictures from single frames first and motion later.
    """
    for module in vae.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            taps = module.kernel_size[0] if module.weight.ndim == 5 else 1
            fan_in = module.weight[0].numel() / taps
            nn.init.normal_(module.weight, std=1 / math.sqrt(fan_in))
            assert module.bias is not None
            nn.init.zeros_(module.bias)
            if isinstance(module, CausalConv3d) and taps > 1:
                module.weight[:, :, :-1] = 0
    for module in vae.modules():
        if isinstance(module, ResidualBlock):
            last = module.residual[-1]
            assert isinstance(last, CausalConv3d)
            nn.init.zeros_(last.weight)
        elif isinstance(module, AttentionBlock):
            nn.init.zeros_(module.proj.weight)
        elif isinstance(module, Downsample) and module.time_conv is not None:
            nn.init.dirac_(module.time_conv.weight)
            module.time_conv.weight *= 0.5
            module.time_conv.weight[:, :, -1] = module.time_conv.weight[:, :, 1]
        elif isinstance(module, Upsample) and module.time_conv is not None:
            half = module.time_conv.weight.shape[0] // 2
            nn.init.zeros_(module.time_conv.weight)
            for part in module.time_conv.weight.split(half):
                part[:, :, -1, 0, 0] = torch.eye(half, device=part.device)


@torch.no_grad()
def initialise_transformer(model: AnimateTransformer) -> None:
    """Every gate and the head start at zero, so the network begins as the identity (adaLN-Zero, arXiv 2212.09748)."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv3d | nn.Conv1d):
            nn.init.normal_(module.weight, std=1 / math.sqrt(module.weight[0].numel()))
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    initialise_motion(model.motion_encoder)
    for layer in (model.time_embedding[0], model.time_embedding[2]):
        nn.init.normal_(layer.weight, std=0.02)  # type: ignore[arg-type]
    nn.init.normal_(model.face_encoder.padding_tokens, std=0.02)
    silent = ("head.head.weight", "modulation", "time_projection.1.weight", "cross_attn.o.weight", "linear2.weight")
    for name, weight in model.named_parameters():
        if name.endswith(silent):
            nn.init.zeros_(weight)


@torch.no_grad()
def initialise_motion(encoder: MotionEncoder) -> None:
    """Normal weights, whose factors are applied on use."""
    for module in encoder.modules():
        if isinstance(module, EqualConv | EqualLinear):
            nn.init.normal_(module.weight)


def quick_blur(network: nn.Module) -> None:
    """For a GPU: blur by shifted sums in all motion encoders within, which needs no slow grouped convolution."""
    for module in network.modules():
        if isinstance(module, Blur):
            setattr(module, "forward", partial(shifted_blur, module.padding))  # noqa: B010 - replaces a method on purpose


def shifted_blur(padding: int, x: Tensor) -> Tensor:
    """What `Blur` computes, one axis after the other."""
    x = F.pad(x, (padding,) * 4)
    for axis in (-1, -2):
        size = x.shape[axis] - 3
        a, b, c, d = (x.narrow(axis, i, size) for i in range(4))
        x = (a + d) * 0.125 + (b + c) * 0.375
    return x
