"""How a size can be asked for, and which size that is for a video.

    1920x1080   fit into this frame     1080p   fit into 1920x1080, turned for an upright picture     2x   twice each side

The picture keeps its shape: nothing is cut off, no bars are added. Where fitting leaves a side less than 1 % short of the
frame, the picture is the frame. Sides are even.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from wanimate.errors import InputError

FIELD = "output.upscale"
LARGEST = 16
"""How many times a side may be enlarged."""
MAX_SIDE = 16384
_ALMOST = Fraction(99, 100)
_FORMS = "Give a size such as 1920x1080, a height such as 1080p or 2160p, or a factor such as 2x."


@dataclass(frozen=True)
class Target:
    """A frame that the picture is fitted into (turned with the picture where `turns`), or a factor. `text` is as given."""

    text: str
    frame: tuple[int, int] | None = None
    turns: bool = False
    factor: Fraction | None = None

    def size(self, source: tuple[int, int]) -> tuple[int, int]:
        """(width, height) for a video of this size; its own size where it fits the frame already.

        Raises:
            InputError: the video is larger than what is asked for, or would grow beyond the limits.
        """
        width, height = source
        if self.factor is not None:
            scale = self.factor
            size = _even(width * scale), _even(height * scale)
        else:
            assert self.frame is not None
            frame = self.frame[::-1] if self.turns and height > width else self.frame
            scale = min(Fraction(frame[0], width), Fraction(frame[1], height))
            if scale < 1:
                rule = f"the video has {width}x{height} pixels, which is more"
                raise InputError(FIELD, self.text, rule, "Ask for a larger size, or leave it out")
            fitted = [
                whole if side >= _ALMOST * whole else _even(side)
                for side, whole in zip((width * scale, height * scale), frame, strict=True)
            ]
            size = fitted[0], fitted[1]
        if scale > LARGEST or max(size) > MAX_SIDE:
            rule = f"{width}x{height} would become {size[0]}x{size[1]}; the limits are {LARGEST} times and {MAX_SIDE} pixels"
            raise InputError(FIELD, self.text, rule, "Ask for a smaller size")
        return source if scale == 1 else size


def parse_target(text: str) -> Target:
    """ "1920x1080", "1080p", "2x" -> the target. Raises InputError: it is none of these."""
    word = text.strip().lower()
    if found := re.fullmatch(r"(\d{1,5})\s*[x*×]\s*(\d{1,5})", word):
        frame = int(found[1]), int(found[2])
        if min(frame) < 2 or any(side % 2 for side in frame):
            raise InputError(
                FIELD, text, "its sides are not even numbers of pixels", "Give even sides, such as 1920x1080"
            )
        return Target(text, frame)
    if found := re.fullmatch(r"(\d{3,4})p", word):
        height = int(found[1])
        if height % 2 or not height:
            raise InputError(FIELD, text, "its height is not an even number of pixels", _FORMS)
        return Target(text, (_even(Fraction(16 * height, 9)), height), turns=True)
    if found := re.fullmatch(r"(\d{1,2}(?:\.\d{1,3})?)x", word):
        factor = Fraction(found[1])
        if not 1 <= factor <= LARGEST:
            raise InputError(FIELD, text, f"a factor lies between 1 and {LARGEST}", "Give a factor such as 2x")
        return Target(text, factor=factor)
    raise InputError(FIELD, text, "it is no size", _FORMS)


def _even(side: Fraction) -> int:
    """The nearest even number of pixels, at least 2."""
    return max(2 * round(side / 2), 2)
