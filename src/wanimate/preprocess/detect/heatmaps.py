"""The pose network's heat maps to points, as published (preprocess spec, section 7)."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from wanimate.types import Keypoints

Array = npt.NDArray[np.float32]

_BLUR, _PAD = 11, 5


def decode(heatmaps: Array, centre: tuple[float, float], size: tuple[float, float]) -> Keypoints:
    """Heat maps [k, h, w] to frame pixels [k, 3] with DARK refinement; the raw peak is the confidence (section 7)."""
    count, rows, columns = heatmaps.shape
    out = np.empty((count, 3))
    for k, heat in enumerate(heatmaps):
        row, column = divmod(int(heat.argmax()), columns)
        peak = heat[row, column]
        x, y = (float(column), float(row)) if peak > 0 else (-1.0, -1.0)
        if 1 < x < columns - 2 and 1 < y < rows - 2:
            dx, dy = _step(np.log(np.maximum(modulate(heat), np.float32(1e-10))), column, row)
            x, y = x + dx, y + dy
        out[k] = (x, y, peak)
    for axis, cells in ((0, columns), (1, rows)):
        out[:, axis] = out[:, axis] * (size[axis] / cells) + centre[axis] - size[axis] / 2
    return out


def modulate(heat: Array) -> Array:
    """One heat map blurred (11 x 11, zeros outside) and scaled back to its peak."""
    padded = cv2.copyMakeBorder(heat, _PAD, _PAD, _PAD, _PAD, cv2.BORDER_CONSTANT, value=0)
    blurred = cv2.GaussianBlur(padded, (_BLUR, _BLUR), 0)[_PAD:-_PAD, _PAD:-_PAD]
    return np.asarray(blurred * (heat.max() / blurred.max()), dtype=np.float32)


def _step(log: Array, x: int, y: int) -> tuple[float, float]:
    """Newton's step on a log heat map, from its peak."""
    gx = 0.5 * (log[y, x + 1] - log[y, x - 1])
    gy = 0.5 * (log[y + 1, x] - log[y - 1, x])
    xx = 0.25 * (log[y, x + 2] - 2 * log[y, x] + log[y, x - 2])
    yy = 0.25 * (log[y + 2, x] - 2 * log[y, x] + log[y - 2, x])
    xy = 0.25 * (log[y + 1, x + 1] - log[y - 1, x + 1] - log[y + 1, x - 1] + log[y - 1, x - 1])
    determinant = xx * yy - xy * xy
    if determinant == 0:
        return 0.0, 0.0
    return float(-(yy * gx - xy * gy) / determinant), float(-(xx * gy - xy * gx) / determinant)
