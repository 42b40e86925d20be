"""Whether mouth and eyes of finished videos do what those of their performer do, as the face mesh sees both.

    wanimate animate --image character.png --video dance.mp4 --out made.mp4
    python benchmarks/follows.py --clip dance.mp4 made.mp4

Both clips have the same frames. Faces are found in the finished video as a job finds a performer's. "open": the mean opening
of the frames in which the performer's is above its median; "shut": of the others.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from motion_probe import TARGETS, see

from wanimate.measure.metrics import correlation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("made", type=Path, nargs="+", help="finished videos")
    parser.add_argument("--clip", type=Path, required=True, help="the performer's")
    parser.add_argument("--models", type=Path, help="folder of the detector models (default: the user's cache)")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    performer = see(args.clip, args.models).openings
    columns = "", "", "faces found", "correlation", "open", "shut", "performer's open", "shut"
    print("| " + " | ".join(columns) + " |", "|" + "---|" * len(columns), sep="\n")
    for path in args.made:
        made = see(path, args.models).openings
        if len(made) != len(performer):
            raise SystemExit(
                f"{path}: {len(made)} frames, {args.clip} has {len(performer)}. Make it from that clip, at its rate."
            )
        for i, name in enumerate(TARGETS):
            ours, theirs = made[:, i], performer[:, i]
            known = np.isfinite(ours) & np.isfinite(theirs)
            wide = theirs > np.nanmedian(theirs)
            means = [float(x[known & part].mean()) for x in (ours, theirs) for part in (wide, ~wide)]
            numbers = [known.mean(), correlation(np.where(known, ours, np.nan), theirs), *means]
            print(f"| {path.name} | {name} | " + " | ".join(f"{x:.3f}" for x in numbers) + " |", flush=True)


if __name__ == "__main__":
    main()
