"""How values can be written: rates, areas, files, LoRAs. Python, JSON and the command line share these."""

from __future__ import annotations

import re
from fractions import Fraction
from numbers import Rational, Real
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

MIN_AREA = 16 * 16
STANDARD_RATES = tuple(
    Fraction(n, d)
    for n, d in (
        (5, 1), (8, 1), (10, 1), (12, 1), (25, 2), (15, 1), (16, 1), (20, 1), (24000, 1001), (24, 1), (25, 1),
        (30000, 1001), (30, 1), (48, 1), (50, 1), (60000, 1001), (60, 1), (90, 1), (100, 1), (120000, 1001), (120, 1),
        (240, 1),
    )
)  # fmt: skip


def snap_rate(measured: Fraction, tolerance: float = 0.0005) -> Fraction:
    """The nearest standard rate within `tolerance` (relative), else `measured` with a denominator of at most 1001."""
    nearest = min(STANDARD_RATES, key=lambda r: abs(r - measured))
    if abs(nearest - measured) <= tolerance * measured:
        return nearest
    return measured.limit_denominator(1001)


def parse_rate(value: Any) -> Fraction:
    """24, 29.97, "29.97" (both are 30000/1001), "30000/1001" or a Fraction -> frames per second, above 0, at most 1000.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(value, bool):
        raise ValueError("not a frame rate")
    if isinstance(value, Rational):
        rate = Fraction(int(value.numerator), int(value.denominator))
    else:
        text = str(float(value)) if isinstance(value, Real) else str(value)
        if not re.fullmatch(r"\s*(\d{1,9}(\.\d{0,18})?|\d{1,9}/0*[1-9]\d{0,8})\s*", text):
            raise ValueError("not a frame rate")
        rate = Fraction(text.strip())
        rate = snap_rate(rate) if "." in text and rate > 0 else rate
    if not 0 < rate <= 1000:
        raise ValueError("a frame rate lies above 0 and at most at 1000")
    return rate


def parse_area(value: Any) -> Any:
    """ "1280x720" (or a number of pixels, as a text) -> pixel area. What is no text passes.

    Raises:
        ValueError: the text is neither.
    """
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d{1,6})\s*[xX*×]\s*(\d{1,6})\s*|\s*(\d{1,10})\s*", value)
    if found is None:
        raise ValueError("not an area")
    width, height, pixels = found.groups()
    return int(pixels) if pixels else int(width) * int(height)


_NAMED_SIDES = {"4k": 2160, "uhd": 2160, "8k": 4320}
_SIDES = (16, 16384)
"""Shortest and longest side of a target in pixels."""
_NEAR = Fraction(1, 100)
"""Aspects that differ by less count as the same."""


def parse_target(value: Any) -> Any:
    """ "1920x1080", "1080p", "4k" or "2x" -> the same in one spelling: "1920x1080", "1080p", "2x". What is no text passes.

    Raises:
        ValueError: it is none of these, or out of bounds.
    """
    if not isinstance(value, str):
        return value
    text = value.strip().lower().replace("×", "x").replace("*", "x")
    if text in _NAMED_SIDES:
        return f"{_NAMED_SIDES[text]}p"
    if (times := re.fullmatch(r"(\d{1,2}(?:\.\d{1,3})?)x", text)) is not None:
        if not 0 < float(times[1]) <= 8:
            raise ValueError("it has to lie above 0x and at most at 8x")
        return text
    sides = re.fullmatch(r"(\d{2,5})\s*x\s*(\d{2,5})|(\d{2,5})p", text)
    if sides is None:
        raise ValueError("not a size")
    found = [int(side) for side in sides.groups() if side]
    if not all(_SIDES[0] <= side <= _SIDES[1] for side in found):
        raise ValueError(f"its sides have to lie between {_SIDES[0]} and {_SIDES[1]} pixels")
    return f"{found[0]}p" if len(found) == 1 else f"{found[0]}x{found[1]}"


def target_size(target: str, size: tuple[int, int]) -> tuple[int, int]:
    """(width, height), both even, of frames of `size` at a target of `parse_target`.

    A box is turned for frames that stand while it lies. Frames whose aspect is the box's to 1 % fill it; others keep their aspect
    and touch two of its sides. "1080p" is the length of the short side.
    """
    width, height = size
    if target.endswith("x"):
        scale = Fraction(target[:-1])
    elif target.endswith("p"):
        scale = Fraction(int(target[:-1]), min(size))
    else:
        box = sorted(int(side) for side in target.split("x"))
        box = box if width <= height else box[::-1]
        across, down = Fraction(box[0], width), Fraction(box[1], height)
        if abs(across / down - 1) <= _NEAR:
            return _even(Fraction(box[0])), _even(Fraction(box[1]))
        scale = min(across, down)
    return _even(width * scale), _even(height * scale)


def _even(side: Fraction) -> int:
    return max(2 * round(side / 2), 2)


def _large_enough(area: int) -> int:
    if area < MIN_AREA:
        raise ValueError("smaller than 16x16 pixels")
    return area


def _usable(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("a path holds no zero bytes")
    return path


Rate = Annotated[
    Fraction, BeforeValidator(parse_rate), WithJsonSchema({"type": ["number", "string"], "examples": ["30000/1001"]})
]
"""Frames per second."""
Area = Annotated[
    int,
    BeforeValidator(parse_area),
    AfterValidator(_large_enough),
    WithJsonSchema({"type": ["integer", "string"], "examples": ["1280x720"]}),
]
"""Width x height in pixels; only the product counts."""
File = Annotated[Path, AfterValidator(_usable)]
"""A file or a folder."""


def parse_lora(text: str) -> dict[str, Any]:
    """`FILE`, `FILE:0.8`, `FILE:1.0@0-50%` -> path, strength, start, stop; those that are given.

    Raises:
        ValueError: it is written otherwise.
    """
    number = r"\s*(\d+(?:\.\d+)?)\s*"
    found = re.fullmatch(rf"(.+?)(?::([^:/\\@]*))?(?:@{number}-{number}%)?", text)
    if found is None:
        raise ValueError("not a LoRA; write it as FILE, FILE:0.8 or FILE:0.8@0-50%")
    path, strength, start, stop = found.groups()
    fields: dict[str, Any] = {"path": path}
    if strength is not None:
        try:
            fields["strength"] = float(strength)
        except ValueError as error:
            raise ValueError(f"{strength!r} is not a number; write the strength as FILE:0.8") from error
    if start is not None:
        fields |= {"start": float(start) / 100, "stop": float(stop) / 100}
    return fields
