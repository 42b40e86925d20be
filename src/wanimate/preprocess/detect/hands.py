"""Finding the two hands of a known body: by tracking, else where the arm ends, else with the palm detector around it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wanimate.preprocess.detect.landmarks import Hand, Networks, Pose, hand_square, palm_square
from wanimate.preprocess.detect.litert import Picture, Square, Vectors

MIN_SCORE = 0.5
_MIN_WRIST_VISIBILITY = 0.3


@dataclass(frozen=True)
class Arm:
    """The end of one arm in BlazePose landmarks, pixels."""

    wrist: Vectors
    index: Vectors
    little: Vectors
    forearm: float
    shoulders: float
    right: bool

    @property
    def reach(self) -> float:
        """A length that stands for the size of the arm, even of one that points at the camera."""
        return max(self.forearm, 0.5 * self.shoulders)


def arm(pose: Pose, right: bool) -> Arm:
    """The end of the right or left arm of a body."""
    elbow, wrist, little, index = (14, 16, 18, 20) if right else (13, 15, 17, 19)
    p = pose.points[:, :2]
    forearm = float(np.hypot(*(p[wrist] - p[elbow])))
    shoulders = float(np.hypot(*(p[11] - p[12])))
    return Arm(p[wrist], p[index], p[little], forearm, shoulders, right)


def find_hands(
    networks: Networks, picture: Picture, pose: Pose, before: tuple[Hand | None, Hand | None], moved: Vectors | None
) -> tuple[Hand | None, Hand | None]:
    """(left, right) hand of a body; None where it is not seen.

    Args:
        before: the hands of the frame before, which are tracked.
        moved: how far the left and the right wrist moved since then [2, 2], pixels.
    """
    found: list[Hand | None] = []
    for side in (0, 1):
        visible = pose.points[(15, 16)[side], 2] >= _MIN_WRIST_VISIBILITY
        followed = before[side]
        start = None
        if followed is not None and moved is not None:
            square = followed.next
            start = Square(square.x + moved[side, 0], square.y + moved[side, 1], square.side, square.angle)
        found.append(_find(networks, picture, arm(pose, right=side == 1), start) if visible else None)
    left, right = found
    if left is not None and right is not None and _same(left, right):
        # Both arms claim one hand: it belongs to the arm it fits better, the other hand is hidden.
        if _misfit(left, arm(pose, False)) < _misfit(right, arm(pose, True)):
            return left, None
        return None, right
    return left, right


def _find(networks: Networks, picture: Picture, end: Arm, start: Square | None) -> Hand | None:
    for where, again in _places(networks, picture, end, start):
        hand = networks.hand(picture, where)
        if again and hand.score < MIN_SCORE:
            hand = networks.hand(picture, hand.next)
        if hand.score >= MIN_SCORE and _belongs(hand, end):
            return hand
    return None


def _places(networks: Networks, picture: Picture, end: Arm, start: Square | None) -> Iterator[tuple[Square, bool]]:
    """Squares to try, and whether a second pass is worth it. Later ones cost more and are rarely needed."""
    if start is not None:
        yield start, False
    yield hand_square(end.wrist, end.index, end.little), True
    around = Square.at((end.wrist + end.index) / 2, 2.2 * end.reach)
    for palm in networks.find_palms(picture, around)[:2]:
        yield palm_square(palm), True


def _belongs(hand: Hand, end: Arm) -> bool:
    """The hand's root is at the wrist, and its size is a hand's (section 17, corrections)."""
    gap = float(np.hypot(*(hand.points[0, :2] - end.wrist)))
    return gap <= hand.palm and 0.12 * end.reach <= hand.palm <= 0.9 * end.reach


def _same(left: Hand, right: Hand) -> bool:
    gap = float(np.hypot(*(left.points[9, :2] - right.points[9, :2])))
    return gap < 0.5 * max(left.palm, right.palm)


def _misfit(hand: Hand, end: Arm) -> float:
    side = hand.rightness if end.right else 1 - hand.rightness
    return float(np.hypot(*(hand.points[0, :2] - end.wrist))) / hand.palm - side
