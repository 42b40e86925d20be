"""How often and how fast the default backend finds body, face and hands in a clip.

python benchmarks/pose.py CLIP
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from wanimate.media.probe import probe
from wanimate.media.video import iter_frames
from wanimate.preprocess.detect.mediapipe import MediapipeBackend
from wanimate.preprocess.detect.models import find
from wanimate.preprocess.pose.keypoints import FACE, LEFT_HAND, RIGHT_HAND


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    path = parser.parse_args().clip
    clip = probe(path, limits=None)
    frames = list(iter_frames(clip))
    backend = MediapipeBackend(find())
    wall, core = time.perf_counter(), time.process_time()
    people = list(backend.track(frames))
    wall, core = time.perf_counter() - wall, time.process_time() - core
    points = np.stack([p.keypoints for p in people])
    found = {"body": np.array([p.valid for p in people])}
    for name, part in (("face", FACE), ("left hand", LEFT_HAND), ("right hand", RIGHT_HAND)):
        found[name] = points[:, part, 2].max(axis=1) >= 0.5
    print(f"{path.name}: {len(frames)} frames of {clip.width}x{clip.height}, without decoding:")
    print(f"  {1000 * wall / len(frames):.1f} ms a frame, {1000 * core / len(frames):.1f} ms of processor time")
    print("  found: " + ", ".join(f"{name} {int(flags.sum())}" for name, flags in found.items()))


if __name__ == "__main__":
    main()
