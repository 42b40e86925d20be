"""How many skeletons a second one core draws: `python benchmarks/skeleton.py [WIDTHxHEIGHT]` (default 1280x720)."""

from __future__ import annotations

import sys
import time

import cv2
import numpy as np

from wanimate.preprocess.pose.skeleton import draw


def main(size: str = "1280x720", frames: int = 300) -> None:
    width, height = (int(side) for side in size.split("x"))
    cv2.setNumThreads(1)
    random = np.random.default_rng(0)
    points = random.uniform(0, 1, (frames, 62, 3)) * (width, height, 0.5) + (0, 0, 0.5)
    start = time.process_time()
    for p in points:
        draw(p[:20], p[20:41], p[41:], width, height)
    seconds = time.process_time() - start
    print(f"skeleton {size}: {frames / seconds:.0f} frames/s on one core (all 62 points drawn, random positions)")


if __name__ == "__main__":
    main(*sys.argv[1:2])
