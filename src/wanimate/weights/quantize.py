"""Weights that stay quantised in memory: float8 or int8 with a scale a row, expanded where they are used.

Letters: O rows (outputs), I columns (inputs).
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wanimate.model.fp8 import FP8, to_fp8
from wanimate.model.int8 import INT8, to_int8
from wanimate.weights.stored import Scaled, Value, expand, value

_LINEARS = re.compile(
    r"(blocks\.\d+\.(self_attn\.[qkvo]|cross_attn\.([qkvo]|[kv]_img)|ffn\.[02])"
    r"|face_adapter\.fuser_blocks\.\d+\.linear(1_kv|1_q|2))\.weight"
)


Product = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""A product of matrices of eight bits: levels [R, I] and scales [R, 1] of the rows, levels [O, I] and scales of the weight, the
bias or None -> bfloat16 [R, O], as `model.fp8.fp8_product` and `model.int8.int8_product`."""


class QuantizedLinear(nn.Linear):
    """A linear layer with a quantised weight, float8 or int8 [O, I]; `weight_scale` is float32, [O, 1] or one number.

    It computes in the type of its input; with `product`, which a GPU can switch on, as a product of matrices of eight bits.
    """

    product: Product | None = None
    weight_scale: Tensor

    def __init__(self, like: nn.Linear, kind: torch.dtype, scale: torch.Size) -> None:
        super().__init__(like.in_features, like.out_features, like.bias is not None, "meta", torch.float32)
        self.weight = nn.Parameter(torch.empty(like.weight.shape, dtype=kind, device="meta"), requires_grad=False)
        self.register_buffer("weight_scale", torch.empty(scale, device="meta"))

    @classmethod
    def of(cls, like: nn.Linear, quantized: Tensor, scale: Tensor, product: Product | None = None) -> QuantizedLinear:
        """With this quantised weight and its scales, and the bias of `like`."""
        layer = cls(like, quantized.dtype, scale.shape)
        layer.weight, layer.weight_scale = nn.Parameter(quantized, requires_grad=False), scale
        layer.bias, layer.product = like.bias, product
        return layer

    def forward(self, x: Tensor) -> Tensor:
        if self.product is not None:
            rounded = to_levels(x.flatten(0, -2), self.weight.dtype)
            return self.multiplied(*rounded).view(*x.shape[:-1], -1)
        return F.linear(x, expand(self.weight, self.weight_scale).to(x.dtype), self.bias)

    def multiplied(self, levels: Tensor, scale: Tensor) -> Tensor:
        """The same of rows that are rounded already, [R, I] with scales [R, 1] -> bfloat16 [R, O]."""
        assert self.product is not None, "the layer multiplies no matrices of eight bits here"
        return self.product(levels, scale, self.weight, self.weight_scale, self.bias)

    def value_on(self, device: torch.device) -> Tensor:
        """What the quantised weight stands for, [O, I], float32."""
        return expand(self.weight.to(device), self.weight_scale.to(device))

    def holding(self, weight: Tensor, dtype: torch.dtype) -> nn.Linear:
        """A layer like this one with another weight, float32 [O, I]: a plain one of type `dtype`, or its own levels again where
        it multiplies those. Made where `weight` is."""
        here = self.weight.device
        if self.product is not None:
            quantized, scale = to_levels(weight, self.weight.dtype)
            return QuantizedLinear.of(self, quantized.to(here), scale.to(here), self.product)
        layer = nn.Linear(self.in_features, self.out_features, self.bias is not None, "meta")
        layer.weight, layer.bias = nn.Parameter(weight.to(dtype).to(here), requires_grad=False), self.bias
        return layer


def quantize_fp8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """float [O, I] -> quantised weight, float8_e4m3fn, and float32 scales [O, 1]; the largest value of a row becomes 448."""
    return to_fp8(weight, (1,))


def to_levels(rows: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """float [R, I] -> levels of the type `kind`, float8_e4m3fn or int8, and float32 scales [R, 1]."""
    if kind not in (FP8, INT8):
        raise ValueError(f"there are no products of {kind}")
    return quantize_fp8(rows) if kind == FP8 else to_int8(rows, (1,))


def is_quantizable(name: str) -> bool:
    """Whether a tensor of the transformer is the weight of a linear layer of its blocks or of its fusers."""
    return _LINEARS.fullmatch(name) is not None


def quantized_of(
    source: Value, device: torch.device | str, by: torch.device | str | None = None, kind: torch.dtype = FP8
) -> tuple[Tensor, Tensor]:
    """Levels and scale on `device`: those of the file, if it is quantised with scales, else new ones of the type `kind`, made
    on `by`. A file's int8 stays as it is, and so does its float8 unless `kind` is int8."""
    if isinstance(source, Scaled):
        levels, scale = value(source.quantized), value(source.scale)
        if kind != INT8 or levels.dtype == INT8:
            return levels.to(device), scale.to(device, torch.float32)
        weight = expand(levels.to(by or device), scale.to(by or device))
    else:
        weight = value(source).to(by or device)
    quantized, scale = to_levels(weight, kind)
    return quantized.to(device), scale.to(device)
