"""The character in the clip's own pixels: outside of the hole and its seam, every pixel is the scene's, bit for bit."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wanimate.media.levels import from_levels
from wanimate.types import Frames


def composite(made: Tensor, scene: Frames, share: Tensor) -> Tensor:
    """Generated frames inside the hole, the scene's outside.

    made: float32 [n, 3, H, W] in [0, 1]. scene: uint8 [n, H, W, 3]. share: `seam` of the frames. Where it is 0, the result is
    `scene`; where it is 1, it is `made`.
    """
    around = from_levels(scene).to(made.device)
    mixed = made * share + around * (1 - share)
    return torch.where(share >= 1, made, torch.where(share > 0, mixed, around))


def seam(mask: Frames, feather: int) -> Tensor:
    """How much of the generated frame is shown, float32 [n, 1, H, W]: 1 in the hole, 0 far from it.

    mask: uint8 [n, H, W, 3], white (above 127) in the hole. Over `feather` pixels around the hole, outwards, the one fades
    into the other. The hole itself is black in the scene, so nothing of it is mixed in.
    """
    return torch.from_numpy(np.stack([_one(hole[..., 0], feather) for hole in mask]))[:, None]


def _one(mask: npt.NDArray[np.uint8], feather: int) -> npt.NDArray[np.float32]:
    outside = np.asarray(mask <= 127, dtype=np.uint8)
    share = np.zeros(mask.shape, np.float32)
    left, top, width, height = cv2.boundingRect(1 - outside)
    if width:
        reach = feather + 1
        box = slice(max(0, top - reach), top + height + reach), slice(max(0, left - reach), left + width + reach)
        away = cv2.distanceTransform(outside[box], cv2.DIST_L2, 5)
        share[box] = np.clip(1 - away / reach, 0, 1)
    return share
