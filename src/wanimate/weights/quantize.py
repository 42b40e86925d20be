"""Weights that stay quantised in memory: float8 or int8 with a scale a row, expanded where they are used.

Letters: O rows (outputs), I columns (inputs).
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wanimate.model.fp8 import fp8_linear, to_fp8
from wanimate.weights.stored import Scaled, Value, expand, value

_LINEARS = re.compile(
    r"(blocks\.\d+\.(self_attn\.[qkvo]|cross_attn\.([qkvo]|[kv]_img)|ffn\.[02])"
    r"|face_adapter\.fuser_blocks\.\d+\.linear(1_kv|1_q|2))\.weight"
)


class QuantizedLinear(nn.Linear):
    """A linear layer with a quantised weight, float8 or int8 [O, I]; `weight_scale` is float32, [O, 1] or one number.

    It computes in the type of its input; with `fp8_matmul`, which a GPU can switch on, as a product of float8 matrices.
    """

    fp8_matmul = False
    weight_scale: Tensor

    def __init__(self, like: nn.Linear, kind: torch.dtype, scale: torch.Size) -> None:
        super().__init__(like.in_features, like.out_features, like.bias is not None, "meta", torch.float32)
        self.weight = nn.Parameter(torch.empty(like.weight.shape, dtype=kind, device="meta"), requires_grad=False)
        self.register_buffer("weight_scale", torch.empty(scale, device="meta"))

    @classmethod
    def of(cls, like: nn.Linear, quantized: Tensor, scale: Tensor, fp8_matmul: bool = False) -> QuantizedLinear:
        """With this quantised weight and its scales, and the bias of `like`."""
        layer = cls(like, quantized.dtype, scale.shape)
        layer.weight, layer.weight_scale = nn.Parameter(quantized, requires_grad=False), scale
        layer.bias, layer.fp8_matmul = like.bias, fp8_matmul
        return layer

    def forward(self, x: Tensor) -> Tensor:
        if self.fp8_matmul:
            return fp8_linear(x, self.weight, self.weight_scale, self.bias)
        return F.linear(x, expand(self.weight, self.weight_scale).to(x.dtype), self.bias)

    def value_on(self, device: torch.device) -> Tensor:
        """What the quantised weight stands for, [O, I], float32."""
        return expand(self.weight.to(device), self.weight_scale.to(device))

    def holding(self, weight: Tensor, dtype: torch.dtype) -> nn.Linear:
        """A layer like this one with another weight, float32 [O, I]: a plain one of type `dtype`, or float8 again where that is
        what it multiplies. Made where `weight` is."""
        here = self.weight.device
        if self.fp8_matmul:
            quantized, scale = quantize_fp8(weight)
            return QuantizedLinear.of(self, quantized.to(here), scale.to(here), fp8_matmul=True)
        layer = nn.Linear(self.in_features, self.out_features, self.bias is not None, "meta")
        layer.weight, layer.bias = nn.Parameter(weight.to(dtype).to(here), requires_grad=False), self.bias
        return layer


def quantize_fp8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """float [O, I] -> quantised weight, float8_e4m3fn, and float32 scales [O, 1]; the largest value of a row becomes 448."""
    return to_fp8(weight, (1,))


def is_quantizable(name: str) -> bool:
    """Whether a tensor of the transformer is the weight of a linear layer of its blocks or of its fusers."""
    return _LINEARS.fullmatch(name) is not None


def quantized_of(
    source: Value, device: torch.device | str, by: torch.device | str | None = None
) -> tuple[Tensor, Tensor]:
    """Levels and scale on `device`: those of the file, if it is quantised with scales, else new float8 ones, made on `by`."""
    if isinstance(source, Scaled):
        return value(source.quantized).to(device), value(source.scale).to(device, torch.float32)
    quantized, scale = quantize_fp8(value(source).to(by or device))
    return quantized.to(device), scale.to(device)
