"""Words on frames for review: along the lower edge of every frame, and on a slate before the first one.

The font is the one that Pillow carries: Aileron (CC0).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from wanimate.config import BurnIn
from wanimate.finish.overlay import Overlay
from wanimate.media.levels import from_levels

_OF_HEIGHT, _SMALLEST, _LEAST = 1 / 30, 9, 5.0
"""Height of the letters over the picture's; pixels of the smallest letters, and where several words have to share a line."""
_BAND, _MARGIN = 1.7, 0.6
"""Height of the dark band and distance from the sides, in heights of the letters."""
_SHADE = 150
_PAPER, _INK, _FAINT = (24, 24, 28), (236, 236, 232), (150, 150, 158)
_BARS = ((235, 235, 235), (235, 235, 16), (16, 235, 235), (16, 235, 16), (235, 16, 235), (235, 16, 16), (16, 16, 235))
_STEPS = 11
"""Of the grey scale."""


@dataclass(frozen=True)
class Take:
    """What is told of a result. `label`: the timecode of a job frame, None where there is none."""

    shot: str
    take: int
    version: int | None
    size: tuple[int, int]
    fps: Fraction
    count: int
    label: Callable[[int], str | None]
    first_number: int = 0

    def words(self, index: int, what: BurnIn) -> str:
        """One burn-in of a job frame."""
        if what == "name":
            return self.shot if self.version is None else f"{self.shot} v{self.version:03}"
        if what == "take":
            return f"take {self.take}"
        if what == "frame":
            return f"{self.first_number + index:06}"
        return self.label(index) or "--:--:--:--"


class BurnIns:
    """The words of `what`, spread over a dark band along the lower edge: the first at the left, the last at the right."""

    def __init__(self, take: Take, what: Sequence[BurnIn]) -> None:
        self._take, self._what = take, tuple(what)
        width, height = take.size
        letters = max(height * _OF_HEIGHT, _SMALLEST)
        wide = sum(self._widths(ImageFont.load_default(letters), take.count)) + letters * (len(self._what) - 1)
        room = width - 2 * _MARGIN * letters
        self._letters = max(letters * min(1.0, room / max(wide, 1)), _LEAST)
        self._font = ImageFont.load_default(self._letters)

    @property
    def band(self) -> int:
        """Rows of the band."""
        return round(self._letters * _BAND)

    def _widths(self, font: ImageFont.FreeTypeFont, index: int) -> list[float]:
        return [float(font.getlength(self._take.words(index, one))) for one in self._what]

    def on(self, frames: Tensor, opacity: Tensor | None, start: int) -> tuple[Tensor, Tensor | None]:
        """Frames float32 [n, 3, H, W] from job frame `start` on, with their opacity, as `Overlay.on` gives them."""
        found = [
            Overlay(self._layer(start + i)).on(frames[i : i + 1], None if opacity is None else opacity[i : i + 1])
            for i in range(len(frames))
        ]
        marked = torch.cat([one for one, _ in found])
        return marked, None if opacity is None else torch.cat([one for _, one in found if one is not None])

    def _layer(self, index: int) -> np.ndarray:
        width, height = self._take.size
        band = self.band
        layer = Image.new("RGBA", (width, height))
        draw = ImageDraw.Draw(layer)
        draw.rectangle((0, height - band, width, height), (0, 0, 0, _SHADE))
        margin, wide = self._letters * _MARGIN, self._widths(self._font, index)
        gap = (width - 2 * margin - sum(wide)) / max(len(wide) - 1, 1)
        place = margin
        for what, one in zip(self._what, wide, strict=True):
            draw.text((place, height - band / 2), self._take.words(index, what), (255, 255, 255, 255), self._font, "lm")
            place += one + gap
        return np.asarray(layer)


def slate(take: Take) -> Tensor:
    """The slate as a frame, float32 [1, 3, H, W]: what the take is, colour bars and a grey scale."""
    width, height = take.size
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    seconds = float(take.count / take.fps)
    rate = f"{float(take.fps):.3f}".rstrip("0").rstrip(".")
    rows = [
        ("shot", take.shot), ("take", str(take.take)),
        ("version", "-" if take.version is None else f"{take.version:03}"),
        ("frames", f"{take.count} ({seconds:.2f} s at {rate} frames/s)"), ("size", f"{width} x {height}"),
        ("first frame", take.label(0) or "no timecode"),
    ]  # fmt: skip
    bars = round(height * 0.18)
    room = height - bars
    line = room / (len(rows) + 1.5)
    letters = max(min(line * 0.5, width / 28), 5.0)
    label, value = ImageFont.load_default(letters * 0.8), ImageFont.load_default(letters)
    left, middle = width * 0.08, width * 0.30
    for i, (name, text) in enumerate(rows):
        y = line * (i + 1.25)
        draw.text((left, y), name, _FAINT, label, "lm")
        draw.text((middle, y), _shortened(text, value, width * 0.94 - middle), _INK, value, "lm")
    _fill(draw, _BARS, height - bars, height - bars // 2, width)
    greys = [(round(255 * i / (_STEPS - 1)),) * 3 for i in range(_STEPS)]
    _fill(draw, greys, height - bars // 2, height, width)
    return from_levels(np.asarray(sheet)[None])


def _fill(draw: ImageDraw.ImageDraw, colours: Sequence[tuple[int, ...]], top: int, bottom: int, width: int) -> None:
    for i, colour in enumerate(colours):
        left, right = (round(width * part / len(colours)) for part in (i, i + 1))
        draw.rectangle((left, top, right - 1, bottom - 1), colour)


def _shortened(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    while len(text) > 1 and font.getlength(text) > room:
        text = text[:-2] + "…"
    return text
