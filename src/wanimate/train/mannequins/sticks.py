"""Skeleton pictures of whole batches, drawn by the product's own renderer."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wanimate.preprocess.keypoints import split
from wanimate.preprocess.skeleton import draw


def draw_skeletons(keypoints: Tensor, width: int, height: int) -> Tensor:
    """uint8 RGB [n, F, height, width, 3] on the device of `keypoints` [n, F, 133, 3]."""
    points = keypoints.double().cpu().numpy().reshape(-1, 133, 3)
    frames = np.zeros((len(points), height, width, 3), dtype=np.uint8)
    for i, frame in enumerate(points):
        parts = split(frame)
        frames[i] = draw(parts.body, parts.left_hand, parts.right_hand, width, height)
    return torch.from_numpy(frames).to(keypoints.device).unflatten(0, keypoints.shape[:2])
