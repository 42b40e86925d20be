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
