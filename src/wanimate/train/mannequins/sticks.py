"""Skeleton pictures of whole batches, drawn by the product's own renderer."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wanimate.preprocess.keypoints import split
from wanimate.preprocess.skeleton import draw

ALONE = 128
"""So many frames are drawn by this process itself; more are shared among workers."""


def draw_skeletons(keypoints: Tensor, width: int, height: int) -> Tensor:
    """uint8 RGB [n, F, height, width, 3] on the device of `keypoints` [n, F, 133, 3]."""
    points = keypoints.double().cpu().numpy().reshape(-1, 133, 3)
    workers = max(1, (os.cpu_count() or 1) - 2)
    if len(points) <= ALONE or workers < 4:
        frames = _draw(points, width, height)
    else:
        parts = np.array_split(points, workers)
        frames = np.concatenate(list(_pool(workers).map(_draw, parts, [width] * workers, [height] * workers)))
    return torch.from_numpy(frames).to(keypoints.device).unflatten(0, keypoints.shape[:2])


def _draw(points: npt.NDArray[np.float64], width: int, height: int) -> npt.NDArray[np.uint8]:
    cv2.setNumThreads(1)
    frames = np.zeros((len(points), height, width, 3), dtype=np.uint8)
    for i, frame in enumerate(points):
        parts = split(frame)
        frames[i] = draw(parts.body, parts.left_hand, parts.right_hand, width, height)
    return frames


@cache
def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
