"""The two networks that enlarge four times: SPAN for filmed pictures, SRVGG for drawn ones.

SPAN: Wan and others, arXiv 2311.12770. SRVGG: the compact network of Real-ESRGAN, Wang and others, arXiv 2107.10833.
Both are written anew from their descriptions; their weights are read from ncnn's files.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wanimate.post.upscale.ncnn import Layer

SCALE = 4


def _conv3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _precisely(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """In float32, whatever autocast says: colours of 0 to 255 and finished pictures need more digits than bfloat16 has."""
    with torch.autocast(x.device.type, enabled=False):
        result: Tensor = conv(x.float())
    return result


def _reduced(x: Tensor) -> Tensor:
    """In the type that autocast is set to, so that sums are in it, too."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


class SpanBlock(nn.Module):
    """Three convolutions whose result weighs itself, without parameters for it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (_conv3(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[n, c, H, W] -> the same shape, and the first convolution's result behind its SiLU."""
        first = F.silu(self.conv1(x), inplace=True)
        last = self.conv3(F.silu(self.conv2(first), inplace=True))
        return (last + x).mul_(last.sigmoid().sub_(0.5)), first


class Span(nn.Module):
    """float [n, 3, H, W], RGB 0 to 1 -> [n, 3, 4 H, 4 W], not clamped. A result looks 22 pixels around."""

    scale, reach = SCALE, 24
    mean: Tensor

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        self.head = _conv3(3, width)
        self.blocks = nn.ModuleList(SpanBlock(width) for _ in range(6))
        self.tail = _conv3(width, width)
        self.join = nn.Conv2d(4 * width, width, 1)
        self.out = _conv3(width, 3 * SCALE * SCALE)

    def forward(self, rgb: Tensor) -> Tensor:
        y = features = _reduced(_precisely(self.head, (rgb - self.mean) * 255))
        after_first, inner = y, y
        for number, block in enumerate(self.blocks):
            y, inner = block(y)
            after_first = y if number == 0 else after_first
        joined = self.join(torch.cat((features, self.tail(y), after_first, inner), dim=1))
        return F.pixel_shuffle(_precisely(self.out, joined), SCALE)

    @classmethod
    def of(cls, layers: Iterable[Layer]) -> Span:
        """The network of an ncnn file. Raises ValueError: it is another network."""
        layers = list(layers)
        constants = [layer.tensors[0] for layer in layers if layer.kind == "MemoryData"]
        convolutions = [layer.tensors for layer in layers if layer.kind == "Convolution"]
        if len(constants) != 1 or constants[0].numel() != 3 or not convolutions:
            raise ValueError("not a SPAN network")
        network = cls(len(convolutions[0][0]))
        network.mean = constants[0].view(1, 3, 1, 1).clone()
        inner = [
            conv
            for block in cast(Iterable[SpanBlock], network.blocks)
            for conv in (block.conv1, block.conv2, block.conv3)
        ]
        _fill([network.head, *inner, network.tail, network.join, network.out], convolutions)
        return network


class Srvgg(nn.Module):
    """float [n, 3, H, W], RGB 0 to 1 -> [n, 3, 4 H, 4 W], not clamped. A result looks 18 pixels around."""

    scale, reach = SCALE, 24

    def __init__(self, width: int = 64, depth: int = 17) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_conv3(3 if i == 0 else width, width) for i in range(depth))
        self.slopes = nn.ModuleList(nn.PReLU(width) for _ in range(depth))
        self.out = _conv3(width, 3 * SCALE * SCALE)

    def forward(self, rgb: Tensor) -> Tensor:
        y = rgb
        for conv, slope in zip(self.convs, self.slopes, strict=True):
            y = slope(conv(y))
        return F.pixel_shuffle(_precisely(self.out, y), SCALE) + F.interpolate(rgb, scale_factor=SCALE, mode="nearest")

    @classmethod
    def of(cls, layers: Iterable[Layer]) -> Srvgg:
        """The network of an ncnn file. Raises ValueError: it is another network."""
        layers = list(layers)
        convolutions = [layer.tensors for layer in layers if layer.kind == "Convolution"]
        slopes = [layer.tensors[0] for layer in layers if layer.kind == "PReLU"]
        if not slopes or len(convolutions) != len(slopes) + 1:
            raise ValueError("not an SRVGG network")
        network = cls(len(slopes[0]), len(slopes))
        _fill([*cast(Iterable[nn.Conv2d], network.convs), network.out], convolutions)
        for module, slope in zip(cast(Iterable[nn.PReLU], network.slopes), slopes, strict=True):
            module.weight = nn.Parameter(slope)
        return network


def _fill(modules: list[nn.Conv2d], tensors: list[tuple[Tensor, ...]]) -> None:
    """Give convolutions their weights. Raises ValueError: they are fewer, more, or of another shape."""
    shapes = [[tuple(p.shape) for p in module.parameters()] for module in modules]
    if [[tuple(t.shape) for t in pair] for pair in tensors] != shapes:
        raise ValueError("its convolutions have other shapes")
    for module, (weight, bias) in zip(modules, tensors, strict=True):
        module.weight, module.bias = nn.Parameter(weight), nn.Parameter(bias)
