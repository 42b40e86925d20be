"""Where pixels come from: optical flow between two pictures, by OpenCV on a processor and by PyTorch everywhere.

A flow of a to b leads each pixel of a to its place in b: b(x + flow(x)) is a(x).
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from wanimate.post.warp import warp

Preset = Literal["fast", "medium"]
_PRESETS = {"fast": cv2.DISOPTICAL_FLOW_PRESET_FAST, "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM}
_SMALLEST = 16
"""Sides of the smallest picture that is looked at."""
_SMALLEST_DIS = 32
"""Long pictures with a shorter side crash OpenCV's DIS."""


class Flow(Protocol):
    """Finds the flow of pictures a to pictures b: luma float32 [n, 1, H, W], 0 to 1 -> float32 [n, 2, H, W], in pixels."""

    def __call__(self, a: Tensor, b: Tensor) -> Tensor: ...

    def close(self) -> None: ...


class DisFlow:
    """OpenCV's DIS (Kroeger and others, arXiv 1603.03590) on 8-bit luma. Pairs go beside each other in `threads`."""

    def __init__(self, preset: Preset = "medium", threads: int = 2) -> None:
        self.preset, self._each = preset, threading.local()
        self._threads = ThreadPoolExecutor(threads, "flow")

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        pictures = [_levels(x) for x in (a, b)]
        found = self._threads.map(self._pair, *pictures)
        return torch.from_numpy(np.stack(list(found))).permute(0, 3, 1, 2).contiguous().to(a.device)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _pair(self, a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """[H, W] each -> [H, W, 2]."""
        height, width = a.shape
        down, right = (max(_SMALLEST_DIS - side, 0) for side in a.shape)
        if down or right:
            a, b = (cv2.copyMakeBorder(x, 0, down, 0, right, cv2.BORDER_REPLICATE) for x in (a, b))
        estimate: Any = getattr(self._each, "estimate", None)
        if estimate is None:
            estimate = self._each.estimate = cv2.DISOpticalFlow.create(_PRESETS[self.preset])
        flow: npt.NDArray[np.float32] = estimate.calc(a, b, None)
        return flow[:height, :width]


def _levels(x: Tensor) -> npt.NDArray[np.uint8]:
    levels: npt.NDArray[np.uint8] = (x[:, 0] * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return levels


class PyramidFlow:
    """Lucas and Kanade's method at every pixel, from small pictures to large ones. Nothing leaves the device.

    Args:
        iterations: at each size. window: side of the neighbourhood that moves as one, in pixels.
    """

    def __init__(self, iterations: int = 3, window: int = 9) -> None:
        self.iterations, self.window = iterations, window

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        pyramid = [(a, b)]
        while min(pyramid[-1][0].shape[2:]) >= 2 * _SMALLEST:
            pyramid.append((_halved(pyramid[-1][0]), _halved(pyramid[-1][1])))
        flow = a.new_zeros(len(a), 2, *pyramid[-1][0].shape[2:])
        for small, other in reversed(pyramid):
            if flow.shape[2:] != small.shape[2:]:
                flow = 2 * F.interpolate(flow, size=small.shape[2:], mode="bilinear", align_corners=False)
            flow = self._refined(small, other, flow)
        return flow

    def close(self) -> None:
        """Nothing is held."""

    def _refined(self, a: Tensor, b: Tensor, flow: Tensor) -> Tensor:
        x, y = _gradients(a)
        xx, xy, yy = self._means(torch.cat((x * x, x * y, y * y), dim=1)).split(1, dim=1)
        xx, yy = xx + _STIFF, yy + _STIFF
        scale = 1 / (xx * yy - xy * xy)
        for _ in range(self.iterations):
            missing = a - warp(b, flow)
            mx, my = self._means(torch.cat((x * missing, y * missing), dim=1)).split(1, dim=1)
            step = torch.cat((yy * mx - xy * my, xx * my - xy * mx), dim=1) * scale
            flow = flow + step.clamp(-_STRIDE, _STRIDE)
            flow = F.avg_pool2d(F.pad(flow, (1, 1, 1, 1), mode="replicate"), 3, 1)
        return flow

    def _means(self, x: Tensor) -> Tensor:
        """Over the neighbourhood of each pixel, nearer ones more."""
        side = self.window // 2 | 1
        for kernel in ((1, side), (side, 1)) * 2:
            padding = kernel[0] // 2, kernel[1] // 2
            x = F.avg_pool2d(x, kernel, 1, padding, count_include_pad=False)
        return x


_STIFF = (1 / 255) ** 2
"""Added to the mean squared slope: what is flatter keeps the flow of the smaller picture."""
_STRIDE = 2.0
"""Pixels that one iteration may move."""


def _halved(x: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2), mode="replicate"), 2)


def _gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes along x and y, a pixel's value over a pixel."""
    wide = F.pad(x, (1, 1, 1, 1), mode="replicate")
    along_x = (wide[:, :, 1:-1, 2:] - wide[:, :, 1:-1, :-2]) / 2
    along_y = (wide[:, :, 2:, 1:-1] - wide[:, :, :-2, 1:-1]) / 2
    return along_x, along_y
