"""RIFE 4.25: finds a frame between two frames at any time (Huang and others, arXiv 2011.06294).

Written anew from a description; only the published weights are used.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wanimate.post.warp import warp

MULTIPLE = 64
_WIDTHS, _SCALES = (192, 128, 96, 64, 32), (16, 8, 4, 2, 1)
_UNUSED = ("teacher.", "caltime.")
"""Parts of the published file that only training uses."""


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


class Head(nn.Module):
    """Four features of every pixel: [n, 3, H, W] -> [n, 4, H, W]."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn0 = nn.Conv2d(3, 16, 3, 2, 1)
        self.cnn1, self.cnn2 = (nn.Conv2d(16, 16, 3, 1, 1) for _ in range(2))
        self.cnn3 = nn.ConvTranspose2d(16, 4, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = _leaky(self.cnn0(x))
        x = _leaky(self.cnn1(x))
        return self.cnn3(_leaky(self.cnn2(x)))


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, 1, 1)
        self.beta = nn.Parameter(torch.ones(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return _leaky(y * self.beta.to(y.dtype) + x)


class Block(nn.Module):
    """Corrects the flow at one size."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.conv0 = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(inputs, width // 2, 3, 2, 1)),
                nn.Sequential(nn.Conv2d(width // 2, width, 3, 2, 1)),
            ]
        )
        self.convblock = nn.Sequential(*(Residual(width) for _ in range(8)))
        self.lastconv = nn.Sequential(nn.ConvTranspose2d(width, 52, 4, 2, 1), nn.PixelShuffle(2))

    def forward(self, x: Tensor, flow: Tensor | None, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """What is known [n, c, H, W] and the flow [n, 4, H, W] -> its change, a mask [n, 1, H, W], features [n, 8, H, W]."""
        x = _scaled(x, 1 / scale)
        if flow is not None:
            x = torch.cat((x, _scaled(flow, 1 / scale) / scale), dim=1)
        for conv in self.conv0:
            x = _leaky(conv(x))
        found = _scaled(self.lastconv(self.convblock(x)).float(), scale)
        return found[:, :4] * scale, found[:, 4:5], found[:, 5:]


class Rife(nn.Module):
    """Two frames float32 [n, 3, H, W], sides multiples of `MULTIPLE / scale` -> the frame between, `share` from 0 to 1 on."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = Head()
        self.blocks = nn.ModuleList(Block(28 if i else 15, width) for i, width in enumerate(_WIDTHS))

    def features(self, frames: Tensor) -> Tensor:
        """[n, 3 or 4, H, W] -> [n, 4, H, W]; a frame's serve on both of its sides."""
        return self.encode(frames[:, :3]).float()

    def forward(self, a: Tensor, b: Tensor, share: float, scale: float = 1.0) -> Tensor:
        """scale: below 1, movement is looked for in smaller pictures, for frames of 2K and more."""
        return self.between(a, b, self.features(a), self.features(b), share, scale)

    def between(self, a: Tensor, b: Tensor, fa: Tensor, fb: Tensor, share: float, scale: float = 1.0) -> Tensor:
        """The same with the features of the two frames. A fourth channel moves with the others, and is not looked at."""
        time = torch.full_like(a[:, :1], share)
        flow: Tensor | None = None
        known, seen_a, seen_b = torch.cat((a[:, :3], b[:, :3], fa, fb, time), dim=1), a, b
        mask = features = time
        for block, size in zip(self.blocks, _SCALES, strict=True):
            change, mask, features = block(known, flow, size / scale)
            flow = change if flow is None else flow + change
            seen_a, seen_b = warp(a, flow[:, :2]), warp(b, flow[:, 2:])
            if size != _SCALES[-1]:
                known = torch.cat(
                    (seen_a[:, :3], seen_b[:, :3], warp(fa, flow[:, :2]), warp(fb, flow[:, 2:]), time, mask, features),
                    dim=1,
                )
        weight = mask.sigmoid()
        return seen_a * weight + seen_b * (1 - weight)

    @classmethod
    def of(cls, content: bytes) -> Rife:
        """The network of the published file. Raises ValueError: it is another network's."""
        loaded: Mapping[str, Tensor] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        weights = {}
        for name, tensor in loaded.items():
            name = name.removeprefix("module.")
            if not name.startswith(_UNUSED):
                first, _, rest = name.partition(".")
                weights[f"blocks.{first[5:]}.{rest}" if first.startswith("block") else name] = tensor
        network = cls()
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"not RIFE 4.25: {error}") from error
        return network


def _scaled(x: Tensor, factor: float) -> Tensor:
    if factor == 1:
        return x
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
