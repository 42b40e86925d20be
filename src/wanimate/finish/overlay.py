"""A picture with transparency over frames."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class Overlay:
    """Args:
    layer: uint8 [H, W, 4], R, G, B and opacity; of the frames' size.
    """

    def __init__(self, layer: npt.NDArray[np.uint8]) -> None:
        left, top, width, height = cv2.boundingRect((layer[..., 3] > 0).astype(np.uint8))
        self._where = slice(top, top + height), slice(left, left + width)
        part = torch.from_numpy(layer[self._where].copy()).permute(2, 0, 1) / 255
        self._ink, self._share = part[:3], part[3:]

    def on(self, frames: Tensor, opacity: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Frames float32 [n, 3, H, W] in [0, 1] with the layer over them, and their opacity [n, 1, H, W], which is full where
        the layer is. Those given stay as they are."""
        ink, share = self._ink.to(frames.device), self._share.to(frames.device)
        frames = frames.clone()
        part = frames[:, :, *self._where]
        part.copy_(part * (1 - share) + ink * share)
        if opacity is not None:
            opacity = opacity.clone()
            part = opacity[:, :, *self._where]
            part.copy_(part + share * (1 - part))
        return frames, opacity
