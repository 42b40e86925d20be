"""Several people in a picture: numbering them, choosing one, and telling whether two detections are of the same one.

People are numbered from 1, from left to right. Keypoints are [133, 3] in pixels of the picture.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wanimate.errors import InputError, setting
from wanimate.preprocess.pose.keypoints import BODY, VALID_CONFIDENCE
from wanimate.types import Frame, Keypoints

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""

_OVERLAP, TWICE = 0.2, 0.4
"""Boxes of one person overlap by at least the first in two frames, and by at least the second in one frame."""
HEAD_AND_SHOULDERS, TRUNK = [0, 5, 6], [5, 6, 11, 12]
STEP, ABSENCE = 0.2, 0.35
"""How far head and shoulders may move, in heights of the seen body: between two frames, and while the person is lost."""
LIST_PEOPLE = "Look at the candidates with `wanimate preprocess --list-people`"
_COLOURS = ((230, 60, 60), (40, 140, 230), (40, 170, 80), (230, 150, 20), (160, 70, 200), (20, 170, 170))


@dataclass(frozen=True)
class Choice:
    """Who is tracked. `number` counts from 1, left to right; `point` is in pixels of the clip.

    `at`: when the choice is made, in seconds from the clip's first frame; None is where people appear first.
    """

    kind: Literal["largest", "left", "right", "number", "point"]
    number: int = 0
    point: tuple[float, float] = (0.0, 0.0)
    at: float | None = None

    @property
    def is_anybody(self) -> bool:
        """Whether nobody in particular is asked for. Then the largest person is tracked."""
        return self.kind == "largest" and self.at is None

    @property
    def when(self) -> str:
        return "where people appear first" if self.at is None else f"at {self.at:g} s"

    def __str__(self) -> str:
        who = {"number": f"{self.number}", "point": f"{self.point[0]:g},{self.point[1]:g}"}.get(self.kind, self.kind)
        return who if self.at is None else f"{who}@{self.at:g}"


def parse_choice(text: str) -> Choice:
    """ "largest", "left", "right", "2" or "640,360", each with the seconds if wished: "2@1.5" or "2@1.5s".

    Raises:
        InputError: it is none of these.
    """
    number = r"\d+(?:\.\d+)?"
    found = re.fullmatch(rf"(?:(largest|left|right)|([1-9]\d?)|({number}),({number}))(?:@({number})s?)?", text)
    if found is None:
        remedy = "Give largest, left, right, a number from 1, or x,y in pixels of the clip; with @SECONDS if wished"
        raise InputError("preprocess.person", text, "names nobody", remedy)
    word, count, x, y, seconds = found.groups()
    at = None if seconds is None else float(seconds)
    if word:
        kind: Literal["largest", "left", "right"] = word  # type: ignore[assignment]
        return Choice(kind, at=at)
    return Choice("number", number=int(count), at=at) if count else Choice("point", point=(float(x), float(y)), at=at)


def box(person: Keypoints) -> Box:
    """The box around the body points that are seen; without any it is a point at 0, 0."""
    seen = person[BODY][person[BODY, 2] >= VALID_CONFIDENCE, :2]
    if not len(seen):
        return 0.0, 0.0, 0.0, 0.0
    (x0, y0), (x1, y1) = seen.min(axis=0), seen.max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)


def overlap(a: Box, b: Box) -> float:
    """Intersection over union, 0..1."""
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(wide, 0.0) * max(high, 0.0)
    union = _area(a) + _area(b) - shared
    return shared / union if union > 0 else 0.0


def same_person(a: Keypoints, b: Keypoints, moved: float = STEP, points: Sequence[int] = HEAD_AND_SHOULDERS) -> bool:
    """Whether two detections can be of one person: the boxes overlap, and head and shoulders are near where they were.

    Arms are not compared: they may be anywhere in the next frame. `moved` is a share of the first body's longer side.
    `points`: which keypoints are compared.
    """
    first, second = box(a), box(b)
    both = np.minimum(a[points, 2], b[points, 2]) >= VALID_CONFIDENCE
    if not both.any():
        return False
    apart = float(np.hypot(*(a - b)[points, :2][both].T).mean())
    return overlap(first, second) >= _OVERLAP and apart < moved * max(first[2] - first[0], first[3] - first[1])


def numbered(people: Sequence[Keypoints]) -> list[int]:
    """The indices of `people` from left to right: the first is number 1."""
    centres = [(box(p)[0] + box(p)[2]) / 2 for p in people]
    return sorted(range(len(people)), key=lambda i: centres[i])


def pick(choice: Choice, people: Sequence[Keypoints]) -> int:
    """The index of the chosen one of `people`, of whom there is at least one.

    Raises:
        InputError: there are fewer people than the number, or nobody is at the point.
    """
    order = numbered(people)
    if choice.kind in ("left", "right"):
        return order[0 if choice.kind == "left" else -1]
    if choice.kind == "largest":
        return max(range(len(people)), key=lambda i: _area(box(people[i])))
    remedy = LIST_PEOPLE
    if choice.at is None:
        remedy += f", or say when to choose: {setting('preprocess.person')} {choice}@SECONDS"
    if choice.kind == "number":
        if choice.number > len(order):
            raise InputError("preprocess.person", choice, f"{len(order)} found {choice.when}", remedy)
        return order[choice.number - 1]
    x, y = choice.point
    inside = [
        i for i in order if box(people[i])[0] <= x <= box(people[i])[2] and box(people[i])[1] <= y <= box(people[i])[3]
    ]
    if not inside:
        raise InputError("preprocess.person", choice, f"nobody is there {choice.when}", remedy)
    return min(inside, key=lambda i: _area(box(people[i])))


def numbered_picture(frame: Frame, people: Sequence[Keypoints]) -> Frame:
    """The frame [H, W, 3] with a box and the number of everybody in it."""
    picture = Image.fromarray(frame)
    draw = ImageDraw.Draw(picture)
    size = max(min(frame.shape[:2]) // 16, 12)
    for number, i in enumerate(numbered(people), start=1):
        x0, y0, x1, y1 = box(people[i])
        colour = _COLOURS[(number - 1) % len(_COLOURS)]
        draw.rectangle((x0, y0, x1, y1), outline=colour, width=max(size // 8, 2))
        draw.rectangle((x0, y0, x0 + 1.2 * size, y0 + 1.3 * size), fill=colour)
        draw.text((x0 + 0.6 * size, y0 + 0.65 * size), str(number), (255, 255, 255), ImageFont.load_default(size), "mm")
    return np.asarray(picture)


def _area(a: Box) -> float:
    return (a[2] - a[0]) * (a[3] - a[1])
