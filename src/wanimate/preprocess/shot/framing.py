"""How much of a person a shot shows: the words of xmpDM:shotSize, from the points of the body that are in the picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from wanimate.preprocess.pose.keypoints import FACE, VALID_CONFIDENCE
from wanimate.preprocess.shot.terms import SIZES, Guess
from wanimate.types import Keypoints

_SHOULDERS, _HIPS, _KNEES, _ANKLES = [5, 6], [11, 12], [13, 14], [15, 16]
_HUGE, _LARGE = 0.75, 0.42
"""Shares of the picture's height from the brows to the chin: of an extreme close-up and of a close-up at least."""
_FAR = 0.45
"""A whole person takes less of the picture's height than this in an extreme wide shot."""
_SURE = 0.8
"""Confidence of a size that every frame has: where one ends and the next begins is a matter of taste."""


def framing_of(points: Keypoints, size: tuple[int, int]) -> str | None:
    """The size of the shot of a frame; None where it cannot be told.

    Args:
        points: the person's [133, 3] in pixels. size: (width, height) of the frame.
    """
    width, height = size
    x, y, confidence = points.T
    seen = (confidence >= VALID_CONFIDENCE) & (x >= 0) & (y >= 0) & (x < width) & (y < height)
    if seen[_ANKLES].any():
        top, low = y[seen].min(), y[seen].max()
        return "EWS" if low - top < _FAR * height else "WS"
    if seen[_KNEES].any():
        return "MWS"
    if seen[_HIPS].any():
        return "MS"
    face = seen[FACE]
    if face.sum() >= 10:
        tall = float(np.ptp(y[FACE][face])) / height
        if tall > _HUGE:
            return "ECU"
        return "CU" if tall > _LARGE or not seen[_SHOULDERS].any() else "MCU"
    return "MCU" if seen[_SHOULDERS].any() else None


def shot_size(sizes: Sequence[str | None]) -> Guess:
    """The size that most frames of a shot have."""
    found = Counter(size for size in sizes if size is not None)
    if not found:
        return Guess(None, 0.0)
    best, times = found.most_common(1)[0]
    near = sum(found.get(SIZES[i], 0) for i in range(len(SIZES)) if abs(i - SIZES.index(best)) == 1)
    return Guess(best, _SURE * (times + 0.3 * near) / len(sizes))
