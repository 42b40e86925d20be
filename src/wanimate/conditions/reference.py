"""The character picture as the network sees it (model spec, sections 3.7 and 8)."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from wanimate.conditions.latents import to_network
from wanimate.media.resize import letterbox
from wanimate.types import Frame


class ImageEncoder(Protocol):
    def encode(self, picture: Tensor) -> Tensor:
        """[3, H, W] in [-1, 1] -> image tokens [257, 1280]."""
        ...


def letterboxed(reference: Frame, size: tuple[int, int]) -> Tensor:
    """The reference fitted into (width, height) with black bars, bilinear: [3, 1, H, W] in [-1, 1]."""
    return to_network(letterbox(reference, *size)[None])
