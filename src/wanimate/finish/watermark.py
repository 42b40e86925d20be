"""A small visible mark on generated frames, the same in every one."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from wanimate.finish.overlay import Overlay

TEXT = "AI generated"
_OF_HEIGHT, _OF_WIDTH, _SMALLEST = 1 / 32, 1 / 3, 10
"""Height of the letters over the picture's, width of the text over the picture's at most; pixels of the smallest letters."""
_MARGIN, _RIM = 0.8, 1 / 9
"""Distance from the edges, and width of the dark rim, in heights of the letters."""
_INK, _SHADE = 0.8, 0.55
"""Opacity of the white letters and of their rim: with it they are read on white, too."""


class Watermark:
    """ "AI generated" in the lower right corner of frames of one size.

    Args:
        width, height: of the frames in pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        letters = max(min(height * _OF_HEIGHT, width * _OF_WIDTH / _widths()), _SMALLEST)
        margin = round(letters * _MARGIN)
        layer = Image.new("LA", (width, height))
        draw = ImageDraw.Draw(layer)
        place, font = (width - margin, height - margin), ImageFont.load_default(letters)
        rim = max(round(letters * _RIM), 1)
        draw.text(
            place, TEXT, (0, round(255 * _SHADE)), font, "rb", stroke_width=rim, stroke_fill=(0, round(255 * _SHADE))
        )
        draw.text(place, TEXT, (255, round(255 * _INK)), font, "rb")
        self._layer = Overlay(np.asarray(layer.convert("RGBA")))

    def on(self, frames: Tensor, opacity: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """As `Overlay.on`."""
        return self._layer.on(frames, opacity)


def _widths() -> float:
    """Width of the text in heights of its letters."""
    size = 100
    return float(ImageFont.load_default(size).getlength(TEXT)) / size
