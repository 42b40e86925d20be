"""The shape of the inpaint mask: dilation, grid, and the scene around it (preprocess spec, section 12).

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
    """How a person's outline becomes the inpaint mask.

    iterations, k: rounds and side in pixels of the square dilation. 0 rounds leave the mask as it is, without a grid.
    w_len, h_len: columns and rows of a grid over the person's box. Every cell that the person touches is filled. 1 and 1
    fill the box (the published default). None leaves the dilated outline, which keeps most of the scene.
    """

    iterations: int
    k: int
    w_len: int | None
    h_len: int | None


def shape_mask(mask: Mask, shape: MaskShape) -> Mask:
    """The inpaint mask for one person's outline. It equals the published rule wherever that one does not fail.

    An empty mask stays empty. A cell has at least one pixel, also where the box has fewer pixels than the grid has cells.
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
    """The mask with every cell filled that it touches, of a grid over its box (section 12).

    As published, the box's last row and column are not part of a cell, and a size that does not divide leaves narrower
    cells at the end. Cells have at least one pixel, and an empty mask stays empty.
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


def scene(frame: Frame, mask: Mask) -> Frame:
    """The frame [H, W, 3], black inside of the mask."""
    return np.asarray(frame * (1 - mask[..., None]), dtype=np.uint8)


def as_picture(mask: Mask) -> Frame:
    """0 and 1 as black and white, [H, W, 3]."""
    return np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)
