"""The visible label: that a picture was generated, in letters that can be read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from wanimate.config.marks import Corner, LabelKind, MarkSettings
from wanimate.errors import InputError, setting
from wanimate.types import Frames

FONT = Path(__file__).with_name("fonts") / "label.otf"
"""Latin, Greek and Cyrillic letters, and the Chinese, Japanese and Korean ones of the labels."""
WORDS = {
    "en": "AI generated",
    "de": "AI – KI-generiert",
    "fr": "AI – généré par IA",
    "es": "AI – generado con IA",
    "it": "AI – generato con IA",
    "nl": "AI – gegenereerd met AI",
    "pt": "AI – gerado por IA",
    "zh": "AI生成",
    "ja": "AI生成",
    "ko": "AI 생성",
}
"""By language. All hold the letters AI, which the EU's code asks for in every language."""
_MADE, _BY = ("生成", "合成"), ("AI", "人工智能")
_MARGIN, _PAD = 0.6, 0.35
"""Distance of the plate from the edges, and of the letters from its edges, in heights of the letters."""
_PLATE, _INK = 0.6, 0.95
"""Opacity of the dark plate and of the white letters on it."""
_SMALLEST = 8
"""Pixels of the smallest capital letter that is still read."""
_NOWHERE = "\U0010ffff"
"""No letter: a font draws it as it draws all that it lacks."""


@dataclass(frozen=True)
class Rule:
    """What a label has to be. height: of a capital letter over the frame's short side, at least. seconds: how long it shows;
    None is to the end. least: seconds that the rule asks for; None is to the end. strict: a label that does not fit is an
    error, not made smaller."""

    place: Corner
    height: float
    seconds: float | None = None
    least: float | None = 0.0
    strict: bool = True


RULES: dict[LabelKind, Rule] = {
    "plain": Rule("bottom-right", 0.03, strict=False),
    "eu": Rule("top-right", 0.04),
    "china": Rule("top-left", 0.052, seconds=3.0, least=2.0),
    "eu+china": Rule("top-right", 0.052, least=2.0),
}


class Label:
    """The label for frames of one size; `seconds` is how long it shows, None to the end.

    Args:
        free: rows along the lower edge that it leaves free, for other words.

    Raises:
        InputError: the text lacks what the rule asks for, or letters that the font lacks; it does not fit into the frame; it
            shows too short.
    """

    def __init__(self, width: int, height: int, settings: MarkSettings, free: int = 0) -> None:
        rule = RULES[settings.label]
        text = settings.label_text or WORDS["zh" if "china" in settings.label else settings.label_language]
        _check_words(text, settings)
        self.text, self.seconds = text, rule.seconds if settings.label_seconds is None else settings.label_seconds
        if rule.least and self.seconds is not None and self.seconds < rule.least:
            said = f"the rule asks for {rule.least:g} s"
            raise InputError("marks.label_seconds", self.seconds, said, f"Give {rule.least:g} or more.")
        layer = _drawn((width, height, free), text, rule, settings)
        left, top, right, bottom = layer.getchannel("A").getbbox() or (0, 0, 1, 1)
        self._where = slice(top, bottom), slice(left, right)
        part = np.asarray(layer, np.float32)[self._where] / 255
        self._grey, self._share = part[..., 0], part[..., 1]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Where it lies: left, top, right, bottom in pixels."""
        rows, columns = self._where
        return columns.start, rows.start, columns.stop, rows.stop

    def on(self, frames: Tensor, opacity: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Frames float32 [n, 3, H, W] in [0, 1] with the label, and their opacity [n, 1, H, W], which is full where the label
        is. Those given stay as they are."""
        grey, share = (torch.from_numpy(plane).to(frames) for plane in (self._grey, self._share))
        return self._over(frames, grey, share), None if opacity is None else self._over(
            opacity, torch.ones_like(grey), share
        )

    def _over(self, planes: Tensor, ink: Tensor, share: Tensor) -> Tensor:
        marked = planes.clone()
        part = marked[:, :, *self._where]
        part.copy_(part * (1 - share) + ink * share)
        return marked

    def on_bytes(self, frames: Frames) -> Frames:
        """The same for uint8 RGB [n, H, W, 3]."""
        marked = frames.copy()
        part = marked[:, *self._where]
        grey, share = self._grey[..., None], self._share[..., None]
        part[:] = np.rint(part * (1 - share) + 255 * grey * share).astype(np.uint8)
        return marked


def _check_words(text: str, settings: MarkSettings) -> None:
    if "eu" in settings.label and "AI" not in text:
        raise InputError("marks.label_text", text, "the EU's label has the letters AI", "Put AI into it.")
    if "china" in settings.label and not (any(w in text for w in _MADE) and any(w in text for w in _BY)):
        rule = "China's label has AI or 人工智能, and 生成 or 合成"
        raise InputError("marks.label_text", text, rule, "Write AI生成, for instance.")


def _drawn(frame: tuple[int, int, int], text: str, rule: Rule, settings: MarkSettings) -> Image.Image:
    """The label on a transparent picture of the frame's width and height, with so many rows below: grey and opacity."""
    width, height, free = frame
    capital = max(rule.height * min(width, height), _SMALLEST)
    size = capital / _capital(settings)
    room = width - 2 * (_MARGIN + _PAD) * capital
    needed = _font(settings, size).getlength(text)
    if needed > room:
        if rule.strict:
            said = f"it does not fit into a width of {width} pixels at the height that its rule asks for"
            raise InputError("marks.label", text, said, f"Give a shorter {setting('marks.label_text')}.")
        size *= max(room, 1) / needed
    font = _font(settings, max(size, 4))
    _check_letters(text, font, settings)
    left, top, right, bottom = font.getbbox(text, anchor="ls")
    pad, margin = max(round(_PAD * capital), 2), round(_MARGIN * capital)
    wide, high = int(right - left) + 2 * pad, int(bottom - top) + 2 * pad
    vertical, horizontal = (settings.label_place or rule.place).split("-")
    x = margin if horizontal == "left" else width - margin - wide
    y = margin if vertical == "top" else max(height - free - margin - high, 0)
    layer = Image.new("LA", (width, height))
    draw = ImageDraw.Draw(layer)
    draw.rounded_rectangle((x, y, x + wide - 1, y + high - 1), pad * 0.8, (0, round(255 * _PLATE)))
    draw.text((x + pad - left, y + pad - top), text, (255, round(255 * _INK)), font, "ls")
    return layer


def _font(settings: MarkSettings, size: float) -> ImageFont.FreeTypeFont:
    path = settings.label_font or FONT
    try:
        return ImageFont.truetype(path, size)
    except OSError as error:
        raise InputError(
            "marks.label_font", path, f"it cannot be read ({error})", "Give a TTF, OTF or TTC file."
        ) from error


def _capital(settings: MarkSettings) -> float:
    """Height of a capital letter over the size of the font."""
    _, top, _, bottom = _font(settings, 1000).getbbox("A", anchor="ls")
    return max(bottom - top, 1) / 1000


def _check_letters(text: str, font: ImageFont.FreeTypeFont, settings: MarkSettings) -> None:
    """A letter that the font lacks would be drawn as a box, or not at all."""
    nothing = _picture(font, _NOWHERE)
    letters = [letter for letter in dict.fromkeys(text) if not letter.isspace()]
    lacking = [letter for letter in letters if _picture(font, letter) == nothing]
    if lacking:
        rule = f"the font {(settings.label_font or FONT).name} has no {' '.join(lacking)}"
        raise InputError(
            "marks.label_text", text, rule, f"Name a font that has them with {setting('marks.label_font')}."
        )


def _picture(font: ImageFont.FreeTypeFont, letter: str) -> tuple[bytes, tuple[int, int]]:
    mask = font.getmask(letter)
    return bytes(mask), mask.size


def shows(seconds: float | None, fps: float, first: int, count: int) -> npt.NDArray[np.bool_]:
    """Which of `count` frames from frame `first` on a label of so many seconds shows in."""
    return np.ones(count, bool) if seconds is None else np.arange(first, first + count) < np.ceil(seconds * fps)
