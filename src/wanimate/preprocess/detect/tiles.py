"""Where small people are looked for in a picture that shows nobody as a whole."""

from __future__ import annotations

import math

import numpy as np

DEEP = 8
"""Where nobody is found, every so many pictures of a clip are looked at turned and in tiles, too."""
PATIENCE = 8
"""For so many frames nobody else is taken for a person who was lost."""
_SIDE, _STEP = 0.5, 0.6


def tiles(width: int, height: int) -> list[tuple[float, float, float]]:
    """Squares (left, top, side) that cover a picture.

    The side is half of the picture's short side; neighbours are at most 0.6 of it apart, so that each person of less than a
    fifth of the short side is whole in one of them.
    """
    side = _SIDE * min(width, height)
    lefts, tops = (
        np.linspace(0, length - side, math.ceil((length - side) / (_STEP * side)) + 1) for length in (width, height)
    )
    return [(float(left), float(top), side) for top in tops for left in lefts]
