"""How many skeletons a second one core draws.

python benchmarks/skeleton.py --size 1280x720
"""

from __future__ import annotations

import argparse
import time

import cv2
import numpy as np

from wanimate.preprocess.pose.skeleton import draw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1280x720", help="WIDTHxHEIGHT of the pictures")
    parser.add_argument("--frames", type=int, default=300)
    args = parser.parse_args()
    width, height = (int(side) for side in args.size.split("x"))
    cv2.setNumThreads(1)
    random = np.random.default_rng(0)
    points = random.uniform(0, 1, (args.frames, 62, 3)) * (width, height, 0.5) + (0, 0, 0.5)
    start = time.process_time()
    for p in points:
        draw(p[:20], p[20:41], p[41:], width, height)
    seconds = time.process_time() - start
    print(
        f"skeleton {args.size}: {args.frames / seconds:.0f} frames/s on one core (all 62 points drawn, random positions)"
    )


if __name__ == "__main__":
    main()
