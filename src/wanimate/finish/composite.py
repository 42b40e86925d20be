"""The character in the clip's own pixels: outside of the hole and its seam, every pixel is the scene's, bit for bit."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from wanimate.types import Frame, Frames


def composite(made: Frames, scene: Frames, mask: Frames, feather: int) -> Frames:
    """Generated frames inside the hole, the scene's outside, all uint8 [n, H, W, 3].

    mask: white (above 127) in the hole. Over `feather` pixels around the hole, outwards, the one fades into the other;
    farther away the result equals `scene`. The hole itself is black in `scene`, so nothing of it is mixed in.
    """
    return np.stack([_one(m, s, h[..., 0], feather) for m, s, h in zip(made, scene, mask, strict=True)])


def _one(made: Frame, scene: Frame, mask: npt.NDArray[np.uint8], feather: int) -> Frame:
    outside = np.asarray(mask <= 127, dtype=np.uint8)
    left, top, width, height = cv2.boundingRect(1 - outside)
    if not width:
        return scene
    reach = feather + 1
    box = slice(max(0, top - reach), top + height + reach), slice(max(0, left - reach), left + width + reach)
    away = cv2.distanceTransform(outside[box], cv2.DIST_L2, 5)
    share = np.clip(1 - away / reach, 0, 1)[..., None]
    mixed = np.rint(made[box] * share + scene[box] * (1 - share)).astype(np.uint8)
    whole = scene.copy()
    whole[box] = np.where(share > 0, mixed, scene[box])
    return whole
