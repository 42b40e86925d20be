"""How well the default mask backend finds people, on rendered clips whose true masks are known: hats, long hair, coats, chairs,
held things, strong backgrounds, a second person; as people and as stylised figures with large heads.

python benchmarks/masks.py --rounds 2
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from hardware import described
from masks_world import FIRST_SEED, KINDS, Sample, render_clip

from mannequin.world.assets import Mannequins, load
from wanimate.errors import InputError
from wanimate.preprocess.detect.mediapipe import MediapipeBackend
from wanimate.preprocess.detect.models import DETECTORS, U2NET, U2NETP, find
from wanimate.preprocess.masks.networks import Salient, Selfie
from wanimate.preprocess.masks.offline import OfflineMasks
from wanimate.preprocess.people.choice import Choice

Masks = npt.NDArray[np.bool_]
COLUMNS = (
    "people found", "IoU", "boundary F", "flicker, %", "left over, %", "the same, mask grown thrice, %",
    "scene taken, %", "ms a frame",
)  # fmt: skip
_NEAR = 2
"""Pixels by which a contour may be off for the boundary F."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="clips of each kind, people and stylised")
    parser.add_argument(
        "--first", type=int, default=1, help="number of the first round; round 0 was used to choose constants"
    )
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--size", type=int, default=512, help="side of the rendered pictures")
    parser.add_argument("--quality", choices=("standard", "high"), default="standard")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder that keeps the rendered clips for the next run")
    args = parser.parse_args()
    cv2.setNumThreads(args.threads)
    folder = find(None, (*DETECTORS.files, U2NET if args.quality == "high" else U2NETP))
    detector = MediapipeBackend(folder)
    masks = OfflineMasks(
        Salient(folder, args.quality), Selfie(folder), lambda f: [p.keypoints for p in detector.candidates(f)]
    )
    print("\n".join(described("cpu", args.threads)))
    print(
        f"- {args.rounds} clips a kind of {args.frames} frames at {args.size}x{args.size}, held-out bodies, rounds from "
        f"{args.first}, seeds from {FIRST_SEED}, quality {args.quality}\n"
    )
    print("| clip | look | " + " | ".join(COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 2) + "|")
    people = load()
    rows: dict[bool, list[list[float]]] = {False: [], True: []}
    for stylised in (False, True):
        for number in range(args.first, args.first + args.rounds):
            for kind in KINDS:
                sample = clip_of(people, number, kind, stylised, args)
                found = measured(sample, MediapipeBackend(folder, performer(sample)), masks)
                print(_row(f"{kind} {number}", stylised, found), flush=True)
                if not np.isnan(found).any():
                    rows[stylised].append(found)
    for stylised, all_of in rows.items():
        print(_row("**mean**", stylised, list(np.mean(all_of, axis=0))))


def clip_of(people: Mannequins, number: int, kind: str, stylised: bool, args: argparse.Namespace) -> Sample:
    """The clip, from the folder that keeps them where it is there."""
    seed = 100 * number + 50 * stylised + KINDS.index(kind)
    place = None if args.keep is None else args.keep / f"{seed:04d}.npz"
    if place is not None and place.is_file():
        with np.load(place) as kept:
            return Sample(kept["frames"], kept["truth"], kept["ignored"], kind, stylised)
    sample = render_clip(people, seed, kind, stylised, args.frames, args.size)
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(place, frames=sample.frames, truth=sample.truth, ignored=sample.ignored)
    return sample


def performer(sample: Sample) -> Choice:
    """Whoever is in the middle of the true mask of the first frame, where there are two."""
    if sample.kind != "two":
        return Choice("largest")
    rows, columns = np.nonzero(sample.truth[0])
    return Choice("point", point=(float(np.median(columns)), float(np.median(rows))))


def measured(sample: Sample, detector: MediapipeBackend, masks: OfflineMasks) -> list[float]:
    """The values of COLUMNS; NaN for all but the first where nobody was found in any frame."""
    nobody = [0.0] + [float("nan")] * (len(COLUMNS) - 1)
    try:
        seen = list(detector.track(iter(sample.frames)))
    except InputError:  # the performer is not among those who are found
        return nobody
    valid = np.array([p.valid for p in seen])
    start = time.perf_counter()
    out = [m for _, m in masks.follow(iter(sample.frames), np.stack([p.keypoints for p in seen]), valid)]
    spent = 1000 * (time.perf_counter() - start) / len(out)
    if not valid.any():
        return nobody
    kept = ~sample.ignored[valid]
    found, truth = (np.stack(out)[valid] > 0) & kept, sample.truth[valid] & kept
    square = np.ones((7, 7), np.uint8)
    grown = np.stack([cv2.dilate(m.astype(np.uint8), square, iterations=3) for m in found]) > 0
    size = truth.sum()
    moved = (found[1:] ^ found[:-1]) & ~(truth[1:] ^ truth[:-1])
    return [
        float(valid.mean()), float((found & truth).sum() / (found | truth).sum()),
        float(np.mean([boundary(a, b) for a, b in zip(found, truth, strict=True)])),
        100 * float(moved.sum() / max(truth[1:].sum(), 1)), 100 * float((truth & ~found).sum() / size),
        100 * float((truth & ~grown).sum() / size), 100 * float((found & ~truth).sum() / size), spent,
    ]  # fmt: skip


def boundary(found: Masks, truth: Masks) -> float:
    """F measure of two contours [h, w], each point matched within `_NEAR` pixels."""
    edges = [
        cv2.morphologyEx(m.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) for m in (found, truth)
    ]
    away = [cv2.distanceTransform(1 - e, cv2.DIST_L2, 3) for e in edges]
    if not all(e.any() for e in edges):
        return 0.0
    precision, recall = (float((away[1 - i][edges[i] > 0] <= _NEAR).mean()) for i in range(2))
    return 2 * precision * recall / max(precision + recall, 1e-9)


def _row(name: str, stylised: bool, values: list[Any]) -> str:
    digits = (2, 3, 3, 1, 1, 2, 1, 0)
    told = ["" if np.isnan(v) else f"{v:.{d}f}" for v, d in zip(values, digits, strict=True)]
    return f"| {name} | {'stylised' if stylised else 'person'} | " + " | ".join(told) + " |"


if __name__ == "__main__":
    main()
