"""Motion encoder: one face picture -> one motion vector (LIA, arXiv 2203.09043; model spec, section 5.1).

Letters: B pictures, C channels, S side in pixels, M motion width, D directions.
Weights are stored without their equalised-learning-rate factor (StyleGAN, arXiv 1812.04948): the factor is applied on use.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wanimate.model.params import MotionParams


def random_parameter(*shape: int, std: float = 1.0) -> nn.Parameter:
    """Normal numbers for training to begin with; none on the meta device, where arithmetic imports PyTorch's compiler (2 s)."""
    values = torch.empty(*shape)
    return nn.Parameter(values if values.is_meta else values.normal_(std=std))


class MotionEncoder(nn.Module):
    """Faces [B, 3, S, S] in [-1, 1] -> motion vectors [B, M]."""

    def __init__(self, params: MotionParams) -> None:
        super().__init__()
        self.enc = _AppearanceEncoder(params)
        self.dec = _Directions(params)

    def forward(self, faces: Tensor) -> Tensor:
        coefficients = self.enc(faces)
        return coefficients.float() @ self.dec.basis().T


class _AppearanceEncoder(nn.Module):
    """Feature pyramid and an affine map to the D coefficients."""

    def __init__(self, params: MotionParams) -> None:
        super().__init__()
        self.net_app = _Pyramid(params)
        widths = [params.width] * params.layers + [params.directions]
        self.fc = nn.Sequential(*(EqualLinear(a, b) for a, b in itertools.pairwise(widths)))

    def forward(self, faces: Tensor) -> Tensor:
        return self.fc(self.net_app(faces))


class _Pyramid(nn.Module):
    """1x1 stem, halving residual stages down to 4 x 4, and a 4x4 convolution to one vector."""

    def __init__(self, params: MotionParams) -> None:
        super().__init__()
        channels = params.channels
        stages = [_ResBlock(a, b) for a, b in itertools.pairwise(channels)]
        self.convs = nn.ModuleList([_conv_act(3, channels[0], 1), *stages, EqualConv(channels[-1], params.width, 4)])

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.convs[-1].weight.dtype)  # type: ignore[arg-type]
        for conv in self.convs:
            x = conv(x)
        return x[:, :, 0, 0]


class _ResBlock(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = _conv_act(before, before, 3, padding=1)
        self.conv2 = nn.Sequential(Blur(2), *_conv_act(before, after, 3, stride=2))
        self.skip = nn.Sequential(Blur(1), EqualConv(before, after, 1, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv2(self.conv1(x)) + self.skip(x)) / math.sqrt(2)


class _Directions(nn.Module):
    """D directions in motion space, made orthonormal by QR with LAPACK's Householder signs.

    Training leaves them as they are: the linear layers before and after them can learn any turn of the basis.
    """

    def __init__(self, params: MotionParams) -> None:
        super().__init__()
        self.direction = nn.Module()
        self.direction.weight = random_parameter(params.width, params.directions)
        self._known: tuple[tuple[object, ...], Tensor] | None = None

    def basis(self) -> Tensor:
        """Q [M, D], float32, kept until the weight changes.

        Always computed on the CPU: the signs of another device's QR may differ.
        """
        weight = self.direction.weight
        assert isinstance(weight, Tensor)
        state = (id(weight), weight.device, weight.dtype, None if weight.is_inference() else weight._version)
        if self._known is None or self._known[0] != state:
            with torch.no_grad():
                q, _ = torch.linalg.qr(weight.float().cpu() + 1e-8)
            self._known = (state, q.to(weight.device))
        return self._known[1]


class EqualConv(nn.Module):
    """Convolution whose weight is scaled by 1/sqrt(fan in) on use; no bias."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.weight = random_parameter(after, before, kernel, kernel)
        self.scale = 1 / math.sqrt(before * kernel**2)
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, stride=self.stride, padding=self.padding)


class EqualLinear(nn.Module):
    """Linear map whose weight is scaled by 1/sqrt(fan in) on use; the bias is not."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.weight = random_parameter(after, before)
        self.bias = nn.Parameter(torch.zeros(after))
        self.scale = 1 / math.sqrt(before)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias)


class FusedLeakyReLU(nn.Module):
    """leaky_relu(x + bias, 0.2) * sqrt(2); bias [1, C, 1, 1]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.bias, 0.2) * math.sqrt(2)


class Blur(nn.Module):
    """Depthwise 4x4 binomial filter with `padding` zeros on each side."""

    kernel: Tensor

    def __init__(self, padding: int) -> None:
        super().__init__()
        taps = (1.0, 3.0, 3.0, 1.0)
        self.register_buffer("kernel", torch.tensor([[a * b / 64 for b in taps] for a in taps]))
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel.to(x.dtype).expand(x.shape[1], 1, 4, 4)
        return F.conv2d(x, kernel, padding=self.padding, groups=x.shape[1])


def _conv_act(before: int, after: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Sequential:
    return nn.Sequential(EqualConv(before, after, kernel, stride, padding), FusedLeakyReLU(after))
