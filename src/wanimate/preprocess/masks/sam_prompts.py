"""Where to click for a SAM 2 video predictor: chunks, key frames and points (preprocess spec, section 11)."""

from __future__ import annotations

from wanimate.preprocess.pose.keypoints import VALID_CONFIDENCE, split
from wanimate.types import Keypoints

CHUNK = 400
CLICKED = (0, 1, 2, 5, 8, 11, 10, 13)
"""Of the 20 joints: nose, neck, shoulders, hips, ankles."""


def chunks(count: int, size: int = CHUNK) -> list[tuple[int, int]]:
    """Stretches (start, stop) of at most `size` frames that cover `count` frames."""
    return [(start, min(start + size, count)) for start in range(0, count, size)]


def key_frames(length: int) -> list[int]:
    """Frames of a chunk that are clicked in: one every quarter of it, as published; the first alone in chunks of up to 4."""
    return list(range(0, length, length // 4)) if length > 4 else [0]


def clicks(keypoints: Keypoints, width: int, height: int, compat: bool = False) -> list[tuple[int, int]]:
    """Positive clicks of one frame in whole pixels.

    Args:
        keypoints: [133, 3] in pixels of the frame.
        compat: every joint, as published; else only those seen (confidence 0.3) and inside of the picture, since a
            click on a joint that is not there selects the background.
    """
    points = []
    for x, y, confidence in split(keypoints).body[list(CLICKED)]:
        # The published code goes through coordinates relative to the frame, which can change the last bit.
        column, row = int(x / width * width), int(y / height * height)
        seen = confidence >= VALID_CONFIDENCE and 0 <= x < width and 0 <= y < height
        if compat or seen:
            points.append((column, row))
    return points
