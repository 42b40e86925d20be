"""The shape of the hole that the character is drawn into: dilation, grid, and the scene around it (spec, section 12).

Masks are uint8 [H, W] with 1 where the person is.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from wanimate.preprocess.masks.base import Mask
from wanimate.types import Frame


@dataclass(frozen=True)
class MaskShape:
    """How a person's outline becomes the hole.

    iterations, k: rounds and side in pixels of the square dilation; 0 rounds leave the mask as it is, without a grid.
    w_len, h_len: columns and rows of the grid over the person's box, every cell that is touched being filled; 1 and 1
    fill the box (the published default). None leaves the dilated outline, which keeps most of the scene.
    """

    iterations: int
    k: int
    w_len: int | None
    h_len: int | None


def shape_mask(mask: Mask, shape: MaskShape) -> Mask:
    """The hole for one person's outline; equal to the published rule wherever that one does not fail.

    An empty mask stays empty. Where the box is narrower than the grid's cells are many, a cell is one pixel.
    """
    if shape.iterations == 0 or not mask.any():
        return mask
    grown = dilated(mask, shape.k, shape.iterations)
    if shape.w_len is None and shape.h_len is None:
        return grown
    return gridded(grown, shape.w_len or 1, shape.h_len or 1)


def dilated(mask: Mask, k: int, iterations: int) -> Mask:
    """Grown by a k x k square so many times; an even k grows further to the top left, as published."""
    return np.asarray(cv2.dilate(mask, np.ones((k, k), np.uint8), iterations=iterations), dtype=np.uint8)


def gridded(mask: Mask, columns: int, rows: int) -> Mask:
    """Every cell of a grid over the mask's box that holds any of the mask, filled (section 12).

    As published, the box's last row and column are not part of a cell, and a size that does not divide leaves narrower
    cells at the end. Raises nothing: cells are at least one pixel, and an empty mask stays empty.
    """
    ys, xs = np.nonzero(mask)
    out = mask.copy()
    if not len(ys):
        return out
    x0, x1, y0, y1 = int(xs.min()), int(xs.max()), int(ys.min()), int(ys.max())
    wide, high = max((x1 - x0) // columns, 1), max((y1 - y0) // rows, 1)
    for x in range(x0, x1, wide):
        for y in range(y0, y1, high):
            cell = np.s_[y : min(y + high, y1), x : min(x + wide, x1)]
            if mask[cell].any():
                out[cell] = 1
    return out


def scene(frame: Frame, hole: Mask) -> Frame:
    """The frame [H, W, 3] with the hole black."""
    return np.asarray(frame * (1 - hole[..., None]), dtype=np.uint8)


def as_picture(hole: Mask) -> Frame:
    """0 and 1 as black and white, [H, W, 3]."""
    return np.repeat(hole[..., None] * np.uint8(255), 3, axis=2)
