"""The character in the clip's own pixels: outside of the hole and its seam, every pixel is the scene's, bit for bit."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from ..types import Frame, Frames


def composite(made: Frames, scene: Frames, mask: Frames, feather: int) -> Frames:
    """Generated frames inside the hole, the scene's outside, all uint8 [n, H, W, 3].

    mask: white (above 127) in the hole. Over `feather` pixels around the hole, outwards, the one fades into the other;
    farther away the result equals `scene`. The hole itself is black in `scene`, so nothing of it is mixed in.
    """
    return np.stack([_one(m, s, h[..., 0], feather) for m, s, h in zip(made, scene, mask, strict=True)])


def _one(made: Frame, scene: Frame, mask: npt.NDArray[np.uint8], feather: int) -> Frame:
    outside = np.asarray(mask <= 127, dtype=np.uint8)
    if outside.all():
        return scene
    away = cv2.distanceTransform(outside, cv2.DIST_L2, 5)
    share = np.clip(1 - away / (feather + 1), 0, 1)[..., None]
    mixed = np.rint(made * share + scene * (1 - share)).astype(np.uint8)
    return np.where(share > 0, mixed, scene)
