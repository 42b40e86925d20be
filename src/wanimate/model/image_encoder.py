"""The CLIP ViT-H/14 visual tower up to its second-last block (model spec, section 8), run by transformers.

It is imported where it is used: it takes seconds, and checkpoints without a picture tower do without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import CLIPVisionConfig

SIZE = 224
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class ClipImageEncoder(nn.Module):
    """Picture [3, H, W] in [-1, 1] -> [257, 1280]. Holds only the blocks that are used."""

    def __init__(self, config: CLIPVisionConfig) -> None:
        from transformers import CLIPVisionModel

        super().__init__()
        self.model = CLIPVisionModel(config).eval()

    @torch.inference_mode()
    def encode(self, picture: Tensor) -> Tensor:
        pixels = preprocess(picture.to(self.model.device)).to(self.model.dtype)
        out: Tensor = self.model(pixel_values=pixels[None]).last_hidden_state[0]
        return out


def preprocess(picture: Tensor) -> Tensor:
    """[3, H, W] in [-1, 1] -> [3, 224, 224] normalised: bicubic, stretched, without antialiasing, as published."""
    resized = F.interpolate(picture[None].float(), (SIZE, SIZE), mode="bicubic", align_corners=False)[0]
    mean, std = (torch.tensor(v, device=picture.device).view(3, 1, 1) for v in (MEAN, STD))
    return (resized * 0.5 + 0.5 - mean) / std


def clip_config(width: int = 1280, heads: int = 16, layers: int = 31, ffn: int = 5120) -> CLIPVisionConfig:
    """`layers` counts the blocks that run: one less than the checkpoint has."""
    from transformers import CLIPVisionConfig

    return CLIPVisionConfig(
        hidden_size=width, intermediate_size=ffn, num_hidden_layers=layers, num_attention_heads=heads,
        image_size=SIZE, patch_size=14, hidden_act="gelu", layer_norm_eps=1e-5,
    )  # fmt: skip
