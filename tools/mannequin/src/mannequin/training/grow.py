"""A trained VAE in a wider network that computes the same (Net2Net, arXiv 1511.05641), to go on training from."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from wanimate.model.vae import VideoVae


@torch.no_grad()
def grow_vae(narrow: VideoVae, base: int) -> VideoVae:
    """`narrow` with `base` channels instead of its own, all levels in proportion; results differ by rounding only.

    New channels are silent: what writes them is zero. What reads them is random, so that gradients reach the writers.
    """
    wide = VideoVae(replace(narrow.params, base=base))
    for name, weight in wide.named_parameters():
        weight.copy_(_placed(name, narrow.get_parameter(name), weight.shape))
    return wide


def _placed(name: str, old: Tensor, shape: torch.Size) -> Tensor:
    ratio = shape[0] / len(old)
    if name.endswith("gamma"):  # the norm multiplies by the root of its width
        return torch.cat((old, old.new_ones(shape[0] - len(old), *shape[1:]))) / math.sqrt(ratio)
    parts = 3 if "to_qkv" in name else 2 if "upsamples" in name and "time_conv" in name else 1
    pieces = []
    for i, piece in enumerate(old.chunk(parts)):
        if parts == 3 and i == 0:  # attention divides by the root of its width
            piece = piece * math.sqrt(ratio)
        if piece.ndim > 1 and shape[1] > piece.shape[1]:
            extra = torch.randn(len(piece), shape[1] - piece.shape[1], *shape[2:])
            piece = torch.cat((piece, extra * (0.5 / math.sqrt(math.prod(shape[1:])))), dim=1)
        silent = piece.new_zeros(shape[0] // parts - len(piece), *shape[1:])
        pieces.append(torch.cat((piece, silent)))
    return torch.cat(pieces)
