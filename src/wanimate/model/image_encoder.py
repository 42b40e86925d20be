"""The CLIP ViT-H/14 visual tower up to its second-last block (model spec, section 8), under the published names.

Letters: L tokens of a picture, one more than its patches; D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE, PATCH = 224, 14
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class ClipImageEncoder(nn.Module):
    """Picture [3, H, W] in [-1, 1] -> [257, D]. `layers` counts the blocks that run: one less than the checkpoint has."""

    def __init__(self, width: int = 1280, heads: int = 16, layers: int = 31, ffn: int = 5120) -> None:
        super().__init__()
        self.visual = _Tower(width, heads, layers, ffn)

    @torch.inference_mode()
    def encode(self, picture: Tensor) -> Tensor:
        weight = self.visual.patch_embedding.weight
        out: Tensor = self.visual(preprocess(picture.to(weight.device)).to(weight.dtype)[None])[0]
        return out


class _Tower(nn.Module):
    def __init__(self, width: int, heads: int, layers: int, ffn: int) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, width, PATCH, PATCH, bias=False)
        self.cls_embedding = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embedding = nn.Parameter(torch.zeros(1, 1 + (SIZE // PATCH) ** 2, width))
        self.pre_norm = nn.LayerNorm(width)
        self.transformer = nn.Sequential(*(_Block(width, heads, ffn) for _ in range(layers)))

    def forward(self, picture: Tensor) -> Tensor:
        """[n, 3, 224, 224], normalised -> [n, L, D]."""
        patches = self.patch_embedding(picture).flatten(2).mT
        x = torch.cat([self.cls_embedding.expand(len(patches), -1, -1), patches], 1) + self.pos_embedding
        out: Tensor = self.transformer(self.pre_norm(x))
        return out


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = _Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, ffn), nn.GELU(), nn.Linear(ffn, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.to_qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        out: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return out


def preprocess(picture: Tensor) -> Tensor:
    """[3, H, W] in [-1, 1] -> [3, 224, 224] normalised: bicubic, stretched, without antialiasing, as published."""
    resized = F.interpolate(picture[None].float(), (SIZE, SIZE), mode="bicubic", align_corners=False)[0]
    mean, std = (torch.tensor(v, device=picture.device).view(3, 1, 1) for v in (MEAN, STD))
    return (resized * 0.5 + 0.5 - mean) / std
