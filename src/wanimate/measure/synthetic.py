"""Guides of moving shapes, for jobs whose pictures do not matter."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np

from wanimate.preprocess.guides import GuidesWriter
from wanimate.types import Mode

FPS = Fraction(30)


def write_guides(folder: Path, size: tuple[int, int], count: int, mode: Mode, face: int) -> None:
    """`count` frames of `size` (width, height), with faces of `face` x `face` pixels."""
    width, height = size
    rows, columns = np.mgrid[:height, :width]
    with GuidesWriter(folder, mode, FPS, (width, height), face) as writer:
        for i in range(count):
            pose = np.zeros((height, width, 3), np.uint8)
            centre = width * (0.5 + 0.3 * math.sin(i / 9))
            person = (abs(columns - centre) < width / 12) & (rows > height / 5)
            pose[person & (abs(columns - centre) < 4)] = (255, 85, 0)
            head = np.full((face, face, 3), 96 + 40 * math.sin(i / 5), np.uint8)
            frames = [pose, head]
            if mode == "replacement":
                scene = np.stack([columns % 256, rows % 256, (columns + rows) // 2 % 256], -1).astype(np.uint8)
                scene[person] = 0
                frames += [scene, np.where(person[..., None], 255, 0).repeat(3, -1).astype(np.uint8)]
            writer.write(*frames)
        reference = np.stack([columns % 256, rows % 256, np.full_like(rows, 128)], -1).astype(np.uint8)
        writer.finish(reference, {}, {"source": np.zeros((count, 133, 3))})
