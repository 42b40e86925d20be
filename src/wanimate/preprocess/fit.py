"""Placing the performer's skeleton on the output canvas, and cutting out faces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from wanimate.config import PreprocessSettings
from wanimate.media.resize import letterbox
from wanimate.preprocess.detect.base import Measured
from wanimate.preprocess.layout import Layout, Size
from wanimate.preprocess.performer import Performer
from wanimate.preprocess.pose import retarget, retarget_published
from wanimate.preprocess.pose.face import is_usable, published_box, published_crop, square_crop
from wanimate.preprocess.pose.keypoints import FACE, Parts, reuse_body_when_outside, split
from wanimate.preprocess.pose.skeleton import draw
from wanimate.types import Frame, Keypoints


@dataclass(frozen=True)
class Drawing:
    """Joints on a canvas of (width, height), and how the performer was fitted to the character, for the manifest."""

    parts: Parts
    canvas: Size
    retarget: dict[str, Any]

    def skeleton(self, index: int, size: Size) -> Frame:
        """The skeleton of one job frame, uint8 RGB of (width, height) `size`."""
        parts = self.parts.at(index)
        hands = parts.left_hand, parts.right_hand
        if self.retarget["mode"] == "published":
            hands = hands[::-1]  # the published code draws the right hand first here (section 13, step 10)
        picture = draw(parts.body, *hands, *self.canvas)
        return picture if self.canvas == size else letterbox(picture, *size)


def own_proportions(keypoints: Keypoints, size: Size, compat: bool) -> Drawing:
    """The performer's joints [n, 133, 3] as they are, on a canvas of their own size; with `compat` as published."""
    parts = split(keypoints)
    if compat:
        parts = Parts(reuse_body_when_outside(parts.body), parts.left_hand, parts.right_hand, parts.face)
    return Drawing(parts, size, {"mode": "off"})


def on_character(
    performer: Performer, layout: Layout, measured: Measured | None, settings: PreprocessSettings
) -> Drawing:
    """The performer's movement on the character's picture, which has the output size.

    Args:
        measured: the character's proportions; None keeps the performer's.
        settings: `retarget` chooses how; with `compat`, "auto" means the published retargeting.
    """
    points, seen, size = performer.steady, layout.seen, layout.size
    if measured is None:
        if settings.compat:
            return own_proportions(points, seen, compat=True)
        return Drawing(retarget.off(points, seen, size), size, {"mode": "off"})
    if settings.retarget == "published" or settings.compat:
        first = int(np.flatnonzero(performer.valid)[0])
        parts, old = retarget_published.retarget(points, seen, measured.character, size, measured.edits, first)
        facts = {"mode": "published", "scale": old.scale, "ratios": old.ratios.tolist(), "class": old.body_class}
        return Drawing(parts, size, facts | measured.facts)
    parts, new = retarget.auto(points, performer.valid, seen, measured.character, size)
    facts = {"mode": "auto", "scale": new.scale, "ratios": new.ratios.tolist(), "hands": new.hands}
    return Drawing(parts, size, facts | {"anchor": new.anchor} | measured.facts)


def face_crops(
    frames: Iterable[Frame], performer: Performer, layout: Layout, settings: PreprocessSettings
) -> Iterator[Frame]:
    """Face crops of seen frames, one a frame; black where nobody is. With `compat`, the last usable box stays in force."""
    box: tuple[int, int, int, int] | None = None
    side = settings.face_size
    for i, frame in enumerate(frames):
        if not settings.compat:
            yield square_crop(frame, performer.squares[i], side)
            continue
        new = published_box(performer.keypoints[i, FACE], *layout.seen)
        if is_usable(new):
            box = new
        if box is None or not performer.valid[i]:
            yield np.zeros((side, side, 3), dtype=np.uint8)
        else:
            yield published_crop(frame, box, side)
