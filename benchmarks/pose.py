"""How well and how fast the default backend finds a performer: on rendered people whose joints are known, or in a clip.

python benchmarks/pose.py [CLIP ...] [--world FOLDER] [--kind KIND ...]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import torch
from hardware import described
from pose_world import Truth, clip_of, scenes

from mannequin.world.assets import load
from wanimate.config import PreprocessSettings
from wanimate.errors import InputError
from wanimate.media.probe import probe
from wanimate.preprocess.detect import litert
from wanimate.preprocess.detect.mediapipe import MediapipeBackend
from wanimate.preprocess.detect.models import find
from wanimate.preprocess.layout import plan_layout
from wanimate.preprocess.performer import Performer, find_performer
from wanimate.preprocess.pose.face import _square
from wanimate.preprocess.pose.keypoints import BODY, FACE, LEFT_HAND, RIGHT_HAND
from wanimate.types import Clip

_JOINTS = [0, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]
_SURE, _NEAR = 0.5, 0.5
"""Of a joint that is drawn: its confidence, and how many shoulder widths (of a face: sides of its square) it may be off."""
_COLUMNS = (
    "kind", "clips", "frames found", "PCK", "joints wrong", "frames with one", "face off", "faces far off", "faces black",
    "faces invented", "ms a frame",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="*", help="real clips; without any, the rendered set")
    parser.add_argument(
        "--world", type=Path, default=Path("/tmp/wanimate-pose-world"), help="where rendered clips are kept"
    )
    parser.add_argument("--mannequins", type=Path, default=Path("tools/mannequin/tests/data/mannequins.npz"))
    parser.add_argument("--kind", action="append", help="only these kinds of the rendered set")
    parser.add_argument("--each", action="store_true", help="a row for each rendered clip, too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    litert._THREADS = 1
    if args.clips:
        for path in args.clips:
            _real(path)
        return
    print("\n".join(described("cpu", 1)))
    print("\n| " + " | ".join(_COLUMNS) + " |")
    print("|---" * len(_COLUMNS) + "|")
    people, rows = load(args.mannequins), dict[str, list[dict[str, float]]]()
    for number, scene in enumerate(scenes()):
        if args.kind and scene.kind not in args.kind:
            continue
        path, truth = clip_of(people, scene, number, args.world)
        measured = _measured(path, truth)
        rows.setdefault(scene.kind, []).append(measured)
        if args.each:
            _row(f"{number} {scene.kind}", [measured])
    for kind, some in rows.items():
        _row(kind, some)
    _row("all", [row for some in rows.values() for row in some])


def _row(name: str, rows: list[dict[str, float]]) -> None:
    total = {key: sum(row[key] for row in rows) for key in rows[0]}
    frames = total["frames"]
    print(
        f"| {name} | {len(rows)} | {100 * total['found'] / frames:.1f} % | {100 * total['near'] / total['joints']:.1f} % | "
        f"{total['wrong']:.0f} | {total['bad']:.0f} | {total['off'] / max(total['squares'], 1):.2f} | "
        f"{total['far']:.0f} of {total['squares']:.0f} | {total['black']:.0f} of {total['faces']:.0f} | "
        f"{total['invented']:.0f} of {total['hidden']:.0f} | {1000 * total['seconds'] / frames:.0f} |",
        flush=True,
    )  # fmt: skip


class _Timed(MediapipeBackend):
    """Adds up the processor time spent on tracking, without decoding."""

    seconds = 0.0

    def track(self, frames: Iterable[Any], *more: Any) -> Iterator[Any]:
        waiting = 0.0

        def handed() -> Iterator[Any]:
            nonlocal waiting
            start = time.process_time()
            for frame in frames:
                waiting += time.process_time() - start
                yield frame
                start = time.process_time()
            waiting += time.process_time() - start

        steps = super().track(handed(), *more)
        while True:
            waiting, start = 0.0, time.process_time()
            person = next(steps, None)
            self.seconds += time.process_time() - start - waiting
            if person is None:
                return
            yield person


def _performer(clip: Clip) -> tuple[Performer | None, float]:
    """The performer as a job finds it, and the seconds of one core that took."""
    settings, backend = PreprocessSettings(), _Timed(find())
    layout = plan_layout("animation", clip, (640, 640), settings, 640 * 640)
    steps = find_performer(backend, layout, settings)
    try:
        while True:
            next(steps)
    except StopIteration as stop:
        return stop.value, backend.seconds
    except InputError:  # nobody in any frame
        return None, backend.seconds


def _measured(path: Path, truth: Truth) -> dict[str, float]:
    clip = probe(path, limits=None)
    performer, seconds = _performer(clip)
    count = len(truth.points)
    inside = truth.inside[:, _JOINTS].copy()
    inside[truth.hidden, 0] = False  # nobody has to find the nose of a head that looks away
    out = {"frames": count, "seconds": seconds, "joints": inside.sum(), "faces": truth.facing.sum()}
    points = np.zeros((count, 133, 3)) if performer is None else performer.steady
    squares = np.full((count, 3), np.nan) if performer is None else performer.squares
    out["found"] = 0 if performer is None else performer.valid.sum()
    away = np.hypot(*np.moveaxis(points[:, _JOINTS, :2] - truth.points[:, _JOINTS], -1, 0)) / truth.shoulders[:, None]
    sure = points[:, _JOINTS, 2] > _SURE
    out["near"] = (inside & sure & (away <= _NEAR)).sum()
    out["wrong"] = (sure & (away > _NEAR)).sum()
    out["bad"] = (sure & (away > _NEAR)).any(axis=1).sum()
    true = np.array([_square(np.column_stack([p, np.ones(68)])) for p in truth.points[:, FACE]])
    there = np.isfinite(squares[:, 0])
    both = truth.facing & there
    off = np.hypot(*(squares - true)[both, :2].T) / true[both, 2]
    hidden = truth.hidden
    out |= {"squares": both.sum(), "off": off.sum(), "far": (off > _NEAR).sum(), "black": (truth.facing & ~there).sum()}
    return out | {"hidden": hidden.sum(), "invented": (hidden & there).sum()}


def _real(path: Path) -> None:
    clip = probe(path, limits=None)
    performer, seconds = _performer(clip)
    assert performer is not None
    points, count = performer.keypoints, len(performer.valid)
    found = {"body": points[:, BODY, 2].max(axis=1) >= _SURE}
    for name, part in (("face", FACE), ("left hand", LEFT_HAND), ("right hand", RIGHT_HAND)):
        found[name] = points[:, part, 2].max(axis=1) >= _SURE
    print(f"{path.name}: {count} frames of {clip.width}x{clip.height}, without decoding:")
    print(f"  {1000 * seconds / count:.1f} ms of one core a frame")
    print("  found: " + ", ".join(f"{name} {int(flags.sum())}" for name, flags in found.items()))


if __name__ == "__main__":
    main()
