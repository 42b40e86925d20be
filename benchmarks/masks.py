"""How well the default mask backend finds people, on held-out mannequins whose true masks are known.

python benchmarks/masks.py --clips 8
"""

from __future__ import annotations

import argparse
import time

import cv2
import numpy as np
from hardware import described

from mannequin.world.assets import load
from mannequin.world.world import World, WorldSettings
from wanimate.preprocess.detect.mediapipe import MediapipeBackend
from wanimate.preprocess.detect.models import find
from wanimate.preprocess.masks.selfie import SelfieMasks

FIRST_SEED = 3 * 10**12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--first", type=int, default=0, help="number of the first clip")
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--size", type=int, default=384, help="side of the rendered pictures")
    parser.add_argument(
        "--grow", type=int, default=7, help="side of the square that grows the mask for 'person left over'"
    )
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    cv2.setNumThreads(args.threads)
    world = World(load(), WorldSettings(replacement=0.0, disturb=False, supersample=1))
    folder = find(None)
    masks = SelfieMasks(folder)
    print("\n".join(described("cpu", args.threads)))
    print(
        f"- {args.clips} clips of {args.frames} frames at {args.size}x{args.size}, held-out bodies, "
        f"seed {FIRST_SEED + args.first}\n"
    )
    print(
        "| clip | frames with a person found | IoU | person left over, % | the same, mask grown thrice, % | ms a frame |"
    )
    print("|---|---|---|---|---|---|")
    rows = []
    for number in range(args.first, args.first + args.clips):
        batch = world.sample_batch(1, args.frames, args.size, args.size, FIRST_SEED + number, held_out=True)
        frames, truth = batch.video[0].numpy(), batch.cover[0].numpy() > 127
        people = list(MediapipeBackend(folder).track(iter(frames)))
        valid = np.array([p.valid for p in people])
        points = np.stack([p.keypoints for p in people])
        start = time.perf_counter()
        found = np.stack([mask for _, mask in masks.follow(iter(frames), points, valid)]) > 0
        spent = 1000 * (time.perf_counter() - start) / args.frames
        if not valid.any():
            print(f"| {number} | 0 | | | | |")
            continue
        found, truth = found[valid], truth[valid]
        square = np.ones((args.grow, args.grow), np.uint8)
        grown = np.stack([cv2.dilate(m.astype(np.uint8), square, iterations=3) for m in found]) > 0
        iou = (found & truth).sum() / (found | truth).sum()
        left, still = ((truth & ~m).sum() / truth.sum() for m in (found, grown))
        rows.append((valid.mean(), iou, 100 * left, 100 * still, spent))
        print(
            f"| {number} | {valid.mean():.2f} | {iou:.3f} | {100 * left:.1f} | {100 * still:.2f} | {spent:.0f} |",
            flush=True,
        )
    mean = np.mean(rows, axis=0)
    print(f"| mean | {mean[0]:.2f} | {mean[1]:.3f} | {mean[2]:.1f} | {mean[3]:.2f} | {mean[4]:.0f} |")


if __name__ == "__main__":
    main()
