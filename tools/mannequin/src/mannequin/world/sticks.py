"""Skeleton pictures of whole batches: the product's drawing (`preprocess.skeleton`), stamped from tables on any device.

The product draws each stick with OpenCV. For a stick of given half-length and angle (a hand line of given step) the
pixels relative to its middle (its start) are always the same, so they are taken from OpenCV once, kept as tables, and
a batch is one scatter: the largest painting order at a pixel wins. Frames with sticks longer than the tables, and
canvases with wider sticks, go through the product's own function. Equal to it, except that
OpenCV's clipping moves a few pixels of sticks and lines which the picture's border cuts (0.1 % of what is drawn).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from wanimate.preprocess.pose.keypoints import LIMBS, split
from wanimate.preprocess.pose.skeleton import MIN_CONFIDENCE, draw, stick_widths

_LONGEST = 112
"""Half-length in pixels of the longest stick in the tables."""
_REACH = 80
"""Largest step in x or y of a hand line in the tables."""
_HAND_LINES = tuple((0 if i % 4 == 0 else i, i + 1) for i in range(20))


@dataclass(frozen=True)
class _Stamps:
    """Pixel offsets (x, y) of many small shapes, one after the other: shape i has `count[i]` from `start[i]` on."""

    offsets: Tensor
    start: Tensor
    count: Tensor


def _stamps(shapes: list[np.ndarray], device: torch.device) -> _Stamps:
    count = torch.tensor([len(s) for s in shapes])
    start = count.cumsum(0) - count
    offsets = torch.from_numpy(np.concatenate(shapes).astype(np.int16))
    return _Stamps(offsets.to(device), start.to(device), count.to(device))


def _pixels(canvas: np.ndarray, middle: int) -> np.ndarray:
    found = cv2.findNonZero(canvas)
    return np.asarray(found).reshape(-1, 2) - middle


@functools.lru_cache(maxsize=4)
def _tables(device: torch.device) -> tuple[_Stamps, _Stamps, _Stamps]:
    """Sticks by (half-length, angle + 180), hand lines by (dx, dy), and one dot; all of width 1."""
    sticks = []
    for half in range(_LONGEST + 1):
        middle = half + 3
        for angle in range(-180, 181):
            canvas = np.zeros((2 * middle + 1, 2 * middle + 1), dtype=np.uint8)
            outline = cv2.ellipse2Poly((middle, middle), (half, 1), angle, 0, 360, 1)
            cv2.fillConvexPoly(canvas, outline, 1)
            sticks.append(_pixels(canvas, middle))
    lines = []
    for dx in range(-_REACH, _REACH + 1):
        for dy in range(-_REACH, _REACH + 1):
            middle = max(abs(dx), abs(dy)) + 1
            canvas = np.zeros((2 * middle + 1, 2 * middle + 1), dtype=np.uint8)
            cv2.line(canvas, (middle, middle), (middle + dx, middle + dy), 1, thickness=1)
            lines.append(_pixels(canvas, middle))
    canvas = np.zeros((9, 9), dtype=np.uint8)
    cv2.circle(canvas, (4, 4), 1, 1, thickness=-1)
    return _stamps(sticks, device), _stamps(lines, device), _stamps([_pixels(canvas, 4)], device)


@functools.lru_cache(maxsize=1)
def _palette() -> np.ndarray:
    """Colours by painting order, [103, 3]: black, 19 limbs, 20 joints, and 20 lines and a dot for each hand.

    Read off the product's own drawing, one element at a time.
    """
    side = 64
    body, hand = np.zeros((20, 3)), np.zeros((21, 3))

    def shown(points: np.ndarray, *at: int) -> np.ndarray:
        out = points.copy()
        for place, i in enumerate(at):
            out[i] = (12 + 40 * place, 32, 1)
        return out

    colours = [np.zeros(3)]
    colours += [draw(shown(body, i, j), hand, hand, side, side)[32, 32] for i, j in LIMBS]
    colours += [draw(shown(body, i), hand, hand, side, side)[32, 12] for i in range(20)]
    lines = [draw(body, shown(hand, i, j), hand, side, side)[32, 32] for i, j in _HAND_LINES]
    dot = draw(body, shown(hand, 0), hand, side, side)[32, 12]
    return np.asarray(colours + (lines + [dot]) * 2, dtype=np.uint8)


def draw_skeletons(keypoints: Tensor, width: int, height: int) -> Tensor:
    """uint8 RGB [n, F, height, width, 3] on the device of `keypoints` [n, F, 133, 3] (x, y in pixels, confidence)."""
    flat = keypoints.double().flatten(0, 1)
    if stick_widths(width, height) != (1, 1):
        return _plainly(flat, width, height).unflatten(0, keypoints.shape[:2])
    device = flat.device
    mean = torch.from_numpy(split(np.eye(133)[:, :, None].repeat(3, 2)).body[..., 0].T.copy()).to(device)  # [20, 133]
    body = mean @ flat
    sticks, lines, dot = _tables(device)
    order = torch.zeros(len(flat), height * width, dtype=torch.int32, device=device)

    a, b = torch.tensor(LIMBS, device=device).unbind(1)
    finite = torch.isfinite(flat).all(-1)
    drawable = (body[..., 2] >= MIN_CONFIDENCE) & torch.isfinite(body).all(-1)
    (xi, yi, _), (xj, yj, _) = body[:, a].unbind(-1), body[:, b].unbind(-1)
    length = ((yi - yj) ** 2 + (xi - xj) ** 2) ** 0.5
    half = (length / 2).nan_to_num().long()
    angle = torch.rad2deg(torch.atan2(yi - yj, xi - xj)).nan_to_num().long()
    limb = drawable[:, a] & drawable[:, b]
    too_long = limb & (half > _LONGEST)
    centre = torch.stack([(xi + xj) / 2, (yi + yj) / 2], -1).nan_to_num().clamp(-1e6, 1e6).long()
    shape = half.clamp_max(_LONGEST) * 361 + angle + 180
    _stamp(order, sticks, shape, centre, limb, torch.arange(1, 20, device=device), width, height)
    place = body[..., :2].nan_to_num().clamp(-1e6, 1e6).long()
    none = torch.zeros_like(drawable, dtype=torch.long)
    _stamp(order, dot, none, place, drawable, torch.arange(20, 40, device=device), width, height)
    special = too_long.any(1)
    for first, level in ((91, 40), (112, 61)):
        hand = flat[:, first : first + 21]
        place = hand[..., :2].nan_to_num().clamp(-1e6, 1e6).long()
        found = (hand[..., 2] >= MIN_CONFIDENCE) & finite[:, first : first + 21] & (place >= 1).all(-1)
        a, b = torch.tensor(_HAND_LINES, device=device).unbind(1)
        step = place[:, b] - place[:, a]
        line = found[:, a] & found[:, b]
        special |= (line & (step.abs() > _REACH).any(-1)).any(1)
        index = step.clamp(-_REACH, _REACH) + _REACH
        shape = index[..., 0] * (2 * _REACH + 1) + index[..., 1]
        _stamp(order, lines, shape, place[:, a], line, torch.arange(level, level + 20, device=device), width, height)
        none = torch.zeros_like(found, dtype=torch.long)
        _stamp(order, dot, none, place, found, torch.full((21,), level + 20, device=device), width, height)
    picture = torch.from_numpy(_palette()).to(device)[order].view(-1, height, width, 3)
    chosen = special.nonzero().squeeze(1)
    if len(chosen):
        picture[chosen] = _plainly(flat[chosen], width, height)
    return picture.unflatten(0, keypoints.shape[:2])


def _stamp(
    order: Tensor, table: _Stamps, shape: Tensor, place: Tensor, shown: Tensor, level: Tensor, width: int, height: int
) -> None:
    """Raise `order` [N, H*W] to `level` [K] at the pixels of shapes [N, K] put at `place` [N, K, 2], where `shown`."""
    frame, element = shown.nonzero(as_tuple=True)
    if len(frame) == 0:
        return
    chosen = shape[frame, element]
    count = table.count[chosen]
    item = torch.repeat_interleave(torch.arange(len(frame), device=order.device), count)
    within = torch.arange(len(item), device=order.device) - (count.cumsum(0) - count)[item]
    at = place[frame, element][item] + table.offsets[table.start[chosen][item] + within].long()
    inside = (at >= 0).all(1) & (at[:, 0] < width) & (at[:, 1] < height)
    at, item = at[inside], item[inside]
    target = frame[item] * (width * height) + at[:, 1] * width + at[:, 0]
    order.view(-1).scatter_reduce_(0, target, level[element[item]].to(torch.int32), "amax")


def _plainly(points: Tensor, width: int, height: int) -> Tensor:
    """The product's own drawing, frame by frame: [N, 133, 3] -> uint8 [N, height, width, 3]."""
    frames = np.zeros((len(points), height, width, 3), dtype=np.uint8)
    for i, frame in enumerate(points.cpu().numpy()):
        parts = split(frame)
        frames[i] = draw(parts.body, parts.left_hand, parts.right_hand, width, height)
    return torch.from_numpy(frames).to(points.device)
