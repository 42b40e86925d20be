"""The loss curve of a run as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from wanimate.media.png import write_png

WIDTH, HEIGHT, EDGE = 800, 400, 56


def draw_curve(points: Sequence[tuple[int, float]], path: Path) -> None:
    """Write a PNG of (step, loss) points, the axes labelled with their ends; it appears whole or not at all."""
    picture = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    steps = np.array([p[0] for p in points], np.float64)
    losses = np.array([p[1] for p in points], np.float64)
    first, last = float(steps.min()), float(steps.max())
    low, high = float(losses.min()), float(losses.max())
    x = EDGE + (WIDTH - 2 * EDGE) * (steps - first) / max(last - first, 1e-9)
    y = HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * (losses - low) / max(high - low, 1e-9)
    cv2.rectangle(picture, (EDGE, EDGE), (WIDTH - EDGE, HEIGHT - EDGE), (200, 200, 200), 1, cv2.LINE_AA)
    line = np.stack((x, y), -1).round().astype(np.int32)
    cv2.polylines(picture, [line], False, (160, 80, 20), 2, cv2.LINE_AA)
    for text, place in (
        (f"{high:.4f}", (4, EDGE + 4)), (f"{low:.4f}", (4, HEIGHT - EDGE + 4)), (f"{first:.0f}", (EDGE, HEIGHT - 30)),
        (f"step {last:.0f}", (WIDTH - EDGE - 60, HEIGHT - 30)), ("loss", (EDGE, 36)),
    ):  # fmt: skip
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (60, 60, 60), 1, cv2.LINE_AA)
    write_png(path, picture[:, :, ::-1], "work")
