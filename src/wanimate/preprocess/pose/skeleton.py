"""The skeleton picture the network was trained on, drawn exactly as published (preprocess spec, section 9).

Colours are RGB. Nothing is blended or anti-aliased. Later strokes cover earlier ones.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from wanimate.preprocess.pose.keypoints import LIMBS, Points
from wanimate.types import Frame

MIN_CONFIDENCE = 0.5
"""A joint is drawn from this confidence on (0.5 itself is drawn)."""

_Colour = tuple[int, int, int]

_COLOURS: tuple[_Colour, ...] = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0), (0, 255, 85),
    (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255),
    (255, 0, 170), (255, 0, 85), (200, 200, 0), (100, 100, 0),
)  # fmt: skip
LIMB_COLOURS: tuple[_Colour, ...] = tuple(
    (int(0.6 * r), int(0.6 * g), int(0.6 * b)) for r, g, b in _COLOURS[: len(LIMBS)]
)
_HAND_LINES = tuple((0 if i % 4 == 0 else i, i + 1) for i in range(20))
_HAND_COLOURS: tuple[_Colour, ...] = (
    (255, 0, 0), (255, 77, 0), (255, 153, 0), (255, 229, 0), (204, 255, 0), (128, 255, 0), (51, 255, 0), (0, 255, 25),
    (0, 255, 102), (0, 255, 179), (0, 255, 255), (0, 178, 255), (0, 102, 255), (0, 25, 255), (51, 0, 255),
    (128, 0, 255), (204, 0, 255), (255, 0, 230), (255, 0, 153), (255, 0, 77),
)  # fmt: skip
HAND_COLOUR: _Colour = (0, 0, 255)
"""Of the joints of hands."""


def stick_widths(width: int, height: int) -> tuple[int, int]:
    """(body, hand) stick widths in pixels for a canvas, at least 1 each."""
    body = max(min(width, height) // 200 - 1, 1)
    return body, max(body // 2, 1)


def draw(body: Points, left_hand: Points, right_hand: Points, width: int, height: int) -> Frame:
    """One skeleton on black, uint8 RGB [height, width, 3].

    Args:
        body: 20 joints [20, 3], hands [21, 3] each: x and y in pixels of the canvas, confidence.
            Points may lie outside of the canvas. Points below confidence 0.5 or not finite are left out.
    """
    canvas: Frame = np.zeros((height, width, 3), dtype=np.uint8)
    body_stick, hand_stick = stick_widths(width, height)
    _draw_body(canvas, body, body_stick)
    _draw_hand(canvas, left_hand, hand_stick)
    _draw_hand(canvas, right_hand, hand_stick)
    return canvas


def _drawable(points: Points) -> list[bool]:
    shown = (points[:, 2] >= MIN_CONFIDENCE) & np.isfinite(points).all(axis=1)
    return [bool(s) for s in shown]


def _draw_body(canvas: Frame, body: Points, stick: int) -> None:
    shown = _drawable(body)
    points: list[list[float]] = body.tolist()
    for (i, j), colour in zip(LIMBS, LIMB_COLOURS, strict=True):
        if shown[i] and shown[j]:
            (xi, yi, _), (xj, yj, _) = points[i], points[j]
            # The published code swaps x and y throughout; the same operations in the same order keep every bit.
            length = ((yi - yj) ** 2 + (xi - xj) ** 2) ** 0.5
            angle = int(math.degrees(math.atan2(yi - yj, xi - xj)))
            middle = (int((xi + xj) / 2), int((yi + yj) / 2))
            limb = cv2.ellipse2Poly(middle, (int(length / 2), stick), angle, 0, 360, 1)
            cv2.fillConvexPoly(canvas, limb, colour)
    for (x, y, _), visible, colour in zip(points, shown, _COLOURS, strict=True):
        if visible:
            cv2.circle(canvas, (int(x), int(y)), stick, colour, thickness=-1)


def _draw_hand(canvas: Frame, hand: Points, stick: int) -> None:
    confident = _drawable(hand)
    points = [(int(x), int(y)) if c else (0, 0) for (x, y, _), c in zip(hand.tolist(), confident, strict=True)]
    shown = [x >= 1 and y >= 1 for x, y in points]
    for (i, j), colour in zip(_HAND_LINES, _HAND_COLOURS, strict=True):
        if shown[i] and shown[j]:
            cv2.line(canvas, points[i], points[j], colour, thickness=stick)
    for point, visible in zip(points, shown, strict=True):
        if visible:
            cv2.circle(canvas, point, stick, HAND_COLOUR, thickness=-1)
