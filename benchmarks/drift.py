"""Does a long clip keep its colours, its sharpness and its character from segment to segment?

    python benchmarks/drift.py                                     # 30 s and 120 s, both modes, three characters
    python benchmarks/drift.py --seconds 8 --people 1              # a quick look

Bodies and motions come from the training world. A drawn motion of `--drawn` frames runs forwards and backwards for as long as
the clip is, so that the true frames are known at every moment. A shorter clip is the beginning of the longest one.
Every run is kept in --work and used again while nothing it depends on has changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from drift_measures import Curve, Drawn, by_segment, drift, of_whole, plot, summary, table
from hardware import described

from mannequin.world.assets import assets_path, load
from mannequin.world.world import World, WorldSettings
from wanimate.conditions.read import GuidesReader
from wanimate.conditions.segments import reflect
from wanimate.config import GenerateSettings, Job, RuntimeSettings
from wanimate.engines.registry import engine_for
from wanimate.engines.wan_animate import WanAnimate
from wanimate.finish import anchor as anchor_module
from wanimate.finish.decode import to_pixels
from wanimate.jobs.segments import FramesDone, run_segments
from wanimate.media.files import sha256
from wanimate.preprocess.masks.shape import as_picture, scene, shape_mask
from wanimate.preprocess.modes import mask_shape
from wanimate.types import Frames, Guides, Mode, Segment

FIRST_SEED = 3 * 10**12
MODES: tuple[Mode, ...] = ("animation", "replacement")
ANCHORS = ("off", "on")


@dataclass(frozen=True)
class Looped:
    """A `FrameSource` of `count` frames: `frames` forwards and backwards."""

    frames: Frames
    count: int

    @property
    def size(self) -> tuple[int, int]:
        return self.frames.shape[2], self.frames.shape[1]

    def take(self, indices: Sequence[int]) -> Frames:
        return self.frames[[reflect(i, len(self.frames)) for i in indices]]


class KeepsPortrait(World):
    """Keeps the regions of the reference picture."""

    def _draw(self, *args: Any) -> Any:
        picture = super()._draw(*args)
        self.drawn = [*getattr(self, "drawn", []), picture][-3:]  # clip, reference, faces
        return picture


def draw(mode: Mode, seed: int, args: argparse.Namespace) -> Drawn:
    source = hashlib.sha256(assets_path().read_bytes()).hexdigest()[:8]
    file = args.work / f"drawn-{mode}-{seed}-{args.drawn}-{args.side}-{source}.npz"
    if not file.is_file():
        people = load(device="cpu")
        people = replace(people, clips=people.clips[:0], clip_lengths=people.clip_lengths[:0])
        share = float(mode == "replacement")
        settings = WorldSettings(replacement=share, disturb=False, other_face=1.0, slowest=16.0, fastest=16.0)
        world = KeepsPortrait(people, settings)
        b = world.sample_batch(1, args.drawn, args.side, args.side, seed, held_out=True)
        cover = b.cover[0].numpy()
        shape = mask_shape(Job.of("", "", "").preprocess, (args.side, args.side))
        hole = [as_picture(shape_mask((c > 127).astype(np.uint8), shape)) for c in cover]
        parts = {k: getattr(b, k)[0].numpy() for k in ("video", "skeleton", "face", "reference", "cover", "region")}
        region = world.drawn[1].region[0].numpy()
        np.savez_compressed(file, **parts, reference_region=region, mask=np.stack(hole))
    with np.load(file) as kept:
        return Drawn(**{f.name: kept[f.name] for f in fields(Drawn)})


def guides_of(drawn: Drawn, mode: Mode, count: int, fps: int) -> Guides:
    parts: dict[str, Any] = {"pose": Looped(drawn.skeleton, count), "face": Looped(drawn.face, count)}
    if mode == "replacement":
        emptied = np.stack([scene(f, m[..., 0] // 255) for f, m in zip(drawn.video, drawn.mask, strict=True)])
        parts |= {"background": Looped(emptied, count), "mask": Looped(drawn.mask, count)}
    return Guides(mode, Fraction(fps), reference=drawn.reference, **parts)


Prepared = Callable[[WanAnimate], None]


def generate(
    engine: WanAnimate, guides: Guides, settings: GenerateSettings, prepare: Prepared = lambda engine: None
) -> tuple[Frames, tuple[Segment, ...]]:
    """Every frame of the job, before compositing, and its segments."""
    job = engine.resolve(settings, guides.mode)
    segments = job.segments(guides.count)
    reader = GuidesReader(guides)
    for _ in (*engine.plan(job, guides.size, guides.count), *engine.open(job, reader)):
        pass
    prepare(engine)
    width, height = guides.size
    frames = np.empty((guides.count, height, width, 3), np.uint8)
    assert settings.seed is not None
    for event in run_segments(engine, segments, guides.count, settings.seed):
        if isinstance(event, FramesDone):
            frames[event.start : event.start + len(event.frames)] = to_pixels(event.frames)
    engine.release()
    return frames, segments


def clip_numbers(
    made: Frames, drawn: Drawn, segments: Sequence[Segment], seconds: Sequence[int], fps: int
) -> dict[str, Any]:
    """What is measured by segment, and of the whole clip for each of its lengths."""
    rows = by_segment(made, drawn, segments)
    of_clip = {}
    for s in seconds:
        count = s * fps
        inside = [segment for segment in segments if segment.start + segment.overlap < count]
        of_clip[str(s)] = of_whole(made[:count], drawn, inside)
    return {"rows": rows, "clips": of_clip}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="the embedded one if left out")
    parser.add_argument("--seconds", type=int, nargs="+", default=[30, 120])
    parser.add_argument("--fps", type=int, default=16)
    parser.add_argument("--people", type=int, default=3)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--anchors", nargs="+", choices=ANCHORS, default=ANCHORS)
    parser.add_argument("--drawn", type=int, default=121, help="frames of the drawn motion")
    parser.add_argument("--side", type=int, default=256, help="of the square pictures, in pixels")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=7, help="of the diffusion noise")
    parser.add_argument("--device")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only-draw", action="store_true", help="draw the motions and end")
    parser.add_argument("--work", type=Path, default=Path("build/benchmark/drift"))
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/drift_DATE.md, the plot beside it")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    engine = engine_for(args.checkpoint, RuntimeSettings(device=args.device))
    found: dict[tuple[Mode, str], list[dict[str, Any]]] = {}
    for number, mode in ((n, m) for n in range(args.people) for m in args.modes):
        drawn = draw(mode, FIRST_SEED + number, args)
        for anchor in () if args.only_draw else args.anchors:
            file = args.work / f"numbers-{mode}-{number}-{anchor}-{key(args, engine)}.json"
            if not file.is_file():
                started, count = time.perf_counter(), max(args.seconds) * args.fps
                settings = GenerateSettings(seed=args.seed, steps=args.steps, anchor=anchor == "on")
                made, segments = generate(engine, guides_of(drawn, mode, count, args.fps), settings)
                numbers = clip_numbers(made, drawn, segments, args.seconds, args.fps)
                spent = time.perf_counter() - started
                file.write_text(json.dumps(numbers))
                print(f"{mode}, character {number + 1}, anchor {anchor}: {count} frames in {spent:.0f} s", flush=True)
            found.setdefault((mode, anchor), []).append(json.loads(file.read_text()))
    if args.only_draw:
        return
    out = args.out or Path(__file__).parent / "results" / f"drift_{date.today()}.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(report(args, engine, found, out.with_suffix(".png"))) + "\n"
    out.write_text(text)
    print(text, out, sep="\n")


def key(args: argparse.Namespace, engine: WanAnimate) -> str:
    """Of all that a run depends on but its mode, its character and its anchor."""
    names = ("seconds", "fps", "drawn", "side", "steps", "seed", "device")
    depends = {name: getattr(args, name) for name in names} | {"weights": [sha256(file) for file in engine.files]}
    depends["anchor"] = Path(anchor_module.__file__).read_text()
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:12]


def report(
    args: argparse.Namespace, engine: WanAnimate, found: dict[tuple[Mode, str], list[dict[str, Any]]], picture: Path
) -> list[str]:
    lines = ["# Drift of long clips", "", *described(str(engine.device), args.threads)]
    lines.append(
        f"- checkpoint {engine.config.name}, {args.people} characters, {args.side}x{args.side}, {args.fps} frames/s, "
        f"motion of {args.drawn} frames to and fro, seed {args.seed}"
    )
    panels: dict[str, dict[str, list[Curve]]] = {}
    for mode in args.modes:
        for place in ("body", "scene"):
            panels[f"{mode}: drift of the {place}, CIE76"] = {
                f"anchor {anchor}": [
                    ([row["stop"] / args.fps for row in clip["rows"]], drift(clip["rows"], place))
                    for clip in found[mode, anchor]
                ]
                for anchor in args.anchors
            }
    plot(panels, picture)
    for seconds, mode in ((s, m) for s in args.seconds for m in args.modes):
        columns = {}
        for anchor in args.anchors:
            clips = found[mode, anchor]
            first = [[row for row in clip["rows"] if row["start"] < seconds * args.fps] for clip in clips]
            columns[f"anchor {anchor}"] = [
                summary(rows, clip["clips"][str(seconds)]) for rows, clip in zip(first, clips, strict=True)
            ]
        lines += ["", f"## {mode.capitalize()}, {seconds} s", "", *table(columns)]
    return [*lines, "", f"![drift by time]({picture.name})", "", *EXPLAINED]


EXPLAINED = [
    "Means over characters, frames before compositing. Drift: mean L*a*b* of pixels that truly are body or scene, minus that",
    "of the true frames, against the same of the first segment. A step at a join is the mean absolute change into a segment's",
    "first new frame, minus the mean of the three changes on each side; that of the true frames is taken off. Flicker: mean",
    "absolute second difference in time. Sharpness: mean absolute Laplacian, as a share of the true frames'.",
]


if __name__ == "__main__":
    main()
