"""Quality of the embedded checkpoint on people and motions it never saw, beside two trivial baselines.

    python benchmarks/animation.py                                  # 32 clips of 33 frames, 4 long ones: an hour and a half
    python benchmarks/animation.py --clips 2 --long 0 --frames 9    # a quick look

Every clip shows one held-out body with a procedural motion of an unseen seed (no recorded motion), half of them from near.
The network gets what a job would give it: the reference, the drawn skeleton, and face crops of someone else with the same
expression. Truth and
outputs are kept in --work, one file a clip, and used again while nothing they depend on has changed.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch
from animation_measures import Detectors, Truth, measure, read_kept, summarise
from hardware import described, hashes

from mannequin.training.pool import WORLD
from mannequin.world.assets import assets_path, load
from mannequin.world.body import Posed
from mannequin.world.camera import Camera
from mannequin.world.dice import Dice
from mannequin.world.render import Picture, Subjects
from mannequin.world.world import World, WorldSettings
from wanimate.conditions.build import ConditionBuilder
from wanimate.conditions.segments import plan_segments
from wanimate.engines.segment import SegmentMaker
from wanimate.finish.decode import to_pixels, to_unit
from wanimate.jobs.segments import FramesDone, run_segments
from wanimate.measure.metrics import place_cutout, similarity
from wanimate.media.video import ArrayFrames
from wanimate.sampling.guidance import SegmentNetwork, guided
from wanimate.types import Conditions, Frames, Guides, Segment
from wanimate.weights.checkpoint import Checkpoint, load_checkpoint
from wanimate.weights.locate import embedded_path

OWN = ("steps", "clip_length", "solver", "overlap", "guidance")
"""Settings that a checkpoint has its own of."""
FIRST_SEED = 10**12
"""Far from every seed that training draws clips with."""
SETTINGS = WorldSettings(face_size=WORLD.face_size, replacement=0.0, disturb=False, other_face=1.0)
ANCHORS = [0, 5, 6, 11, 12]
"""Nose, shoulders, hips: what the cut-out baseline is placed by."""


class RecordingWorld(World):
    """Keeps what was drawn: the clip, the reference picture and the faces, in this order."""

    def _draw(self, posed: Posed, camera: Camera, subjects: Subjects, height: int, width: int) -> Picture:
        picture = super()._draw(posed, camera, subjects, height, width)
        self.drawn = [*getattr(self, "drawn", []), (posed, camera, picture)][-3:]
        return picture


def seeds(world: World, count: int, first: int) -> list[int]:
    """Seeds that show every held-out body once before any twice."""
    people, chosen, seen = world.people, [], set()
    seed = first
    while len(chosen) < count:
        dice = Dice(1, torch.Generator(people.device).manual_seed(seed))
        body = int(dice.integer(people.trained, len(people.rest)))
        if body not in seen:
            chosen.append(seed)
            seen.add(body)
            if len(seen) == people.held_out:
                seen.clear()
        seed += 1
    return chosen


def render(world: RecordingWorld, seed: int, frames: int, size: tuple[int, int]) -> Truth:
    batch = world.sample_batch(1, frames, *size, seed, held_out=True)
    posed, camera, portrait = world.drawn[1]
    points = camera.project(posed.keypoints)[0, :, :2]
    return Truth(
        video=batch.video[0].cpu().numpy(),
        skeleton=batch.skeleton[0].cpu().numpy(),
        face=batch.face[0].cpu().numpy(),
        reference=batch.reference[0].cpu().numpy(),
        cover=batch.cover[0].cpu().numpy(),
        region=batch.region[0].cpu().numpy(),
        keypoints=batch.keypoints[0].cpu().numpy(),
        face_box=batch.face_box[0].cpu().numpy(),
        jaw=batch.jaw[0].cpu().numpy(),
        eyes=batch.eyes[0].cpu().numpy(),
        reference_cover=(portrait.cover[0] * 255 + 0.5).to(torch.uint8).cpu().numpy(),
        reference_region=portrait.region[0].cpu().numpy(),
        reference_points=points.cpu().numpy(),
        body=np.array(int(batch.body[0])),
        rate=np.array(float(batch.rate[0])),
    )


def animation_guides(truth: Truth) -> Guides:
    return Guides(
        mode="animation", fps=Fraction(float(truth.rate)).limit_denominator(1000), pose=ArrayFrames(truth.skeleton),
        face=ArrayFrames(truth.face), reference=truth.reference,
    )  # fmt: skip


def fill_in(args: argparse.Namespace, checkpoint: Checkpoint) -> None:
    """The checkpoint's own settings of `OWN`, where they were left out."""
    for name in OWN:
        if getattr(args, name, ...) is None:
            setattr(args, name, getattr(checkpoint.config.defaults, name))


def generate(checkpoint: Checkpoint, guides: Guides, args: argparse.Namespace) -> tuple[Frames, tuple[Segment, ...]]:
    """The real road from guides to frames, with arguments that are filled in."""
    settings = checkpoint.config.defaults.model_copy(update={name: getattr(args, name) for name in OWN})
    segments = plan_segments(guides.count, settings.clip_length, settings.overlap)
    text, negative = checkpoint.prompts.encode(""), checkpoint.prompts.encode("", negative=True)
    builder = ConditionBuilder(
        guides, checkpoint.vae, checkpoint.image, text, negative, face_size=checkpoint.face_size,
        device=checkpoint.device, chunk=4,
    )  # fmt: skip

    def network(conditions: Conditions) -> SegmentNetwork:
        return guided(checkpoint.transformer, conditions, settings.guidance)

    maker = SegmentMaker(builder, network, checkpoint.vae, settings, chunk=4)
    events = run_segments(maker, segments, guides.count, args.seed)
    return np.concatenate([to_pixels(e.frames) for e in events if isinstance(e, FramesDone)]), segments


@torch.inference_mode()
def through_codec(checkpoint: Checkpoint, video: Frames) -> Frames:
    """What the VAE alone makes of the true frames: no transformer can do better."""
    count = -(-(len(video) - 1) // 4) * 4 + 1
    padded = np.concatenate([video, np.repeat(video[-1:], count - len(video), axis=0)])
    x = (torch.from_numpy(padded).float() / 127.5 - 1).permute(3, 0, 1, 2)[None].to(checkpoint.device)
    decoded = checkpoint.vae.decode(checkpoint.vae.encode(x, 4), 4)[0].float().clamp(-1, 1)
    return to_pixels(to_unit(decoded))[: len(video)]


def cutout(truth: Truth) -> Frames:
    """The reference's person, moved over the filled-in background by the similarity that fits nose, shoulders and hips."""
    covered = (cv2.dilate(truth.reference_cover, np.ones((7, 7), np.uint8)) > 5).astype(np.uint8)
    background = cv2.inpaint(truth.reference, covered, 3, cv2.INPAINT_TELEA)
    matrices = [similarity(truth.reference_points[ANCHORS], points[ANCHORS, :2]) for points in truth.keypoints]
    return place_cutout(truth.reference, truth.reference_cover / 255, background, matrices)


@dataclass(frozen=True)
class Store:
    """One file a clip, kept under the hash of everything it depends on."""

    folder: Path

    def path(self, kind: str, **depends: object) -> Path:
        key = hashlib.sha256(json.dumps(depends, sort_keys=True, default=str).encode()).hexdigest()[:12]
        return self.folder / f"{kind}-{depends['seed']}-{key}.npz"


def clips(
    args: argparse.Namespace,
    world: RecordingWorld,
    checkpoint: Checkpoint,
    store: Store,
    numbers: list[int],
    frames: int,
) -> Iterator[tuple[Truth, Frames, tuple[Segment, ...], float | None]]:
    """Truth, output, its segments, and the seconds the output took (None where it was kept)."""
    source = {"frames": frames, "size": args.size, "near": args.near, "world": world_version(), "device": args.device}
    for number in numbers:
        file = store.path("truth", seed=number, **source)
        if file.is_file():
            truth = read_kept(Truth, file)
        else:
            truth = render(world, number, frames, tuple(int(x) for x in args.size.split("x")))
            truth.save(file)
        how = {name: getattr(args, name) for name in OWN}
        file = store.path(
            "output", seed=number, noise=args.seed, weights=[checkpoint.path, hashes(checkpoint)], **source, **how
        )
        seconds = None
        if file.is_file():
            with np.load(file) as kept:
                output, segments = kept["output"], tuple(Segment(*row) for row in kept["segments"].tolist())
        else:
            started = time.perf_counter()
            output, segments = generate(checkpoint, animation_guides(truth), args)
            seconds = time.perf_counter() - started
            rows = np.array([[s.index, s.start, s.length, s.overlap] for s in segments])
            np.savez_compressed(file, output=output, segments=rows)
        yield truth, output, segments, seconds


def world_version() -> str:
    """Changes with the exported bodies and with the code that draws them."""
    digest = hashlib.sha256(assets_path().read_bytes())
    for file in sorted(Path(inspect.getfile(World)).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def sheet(rows: list[dict[str, Frames]], references: list[np.ndarray], path: Path, columns: int = 4) -> None:
    """Reference, then at a few moments truth, output and cut-out above each other; one block a clip."""
    blocks = []
    for videos, reference in zip(rows, references, strict=True):
        moments = np.linspace(0, len(videos["truth"]) - 1, columns).astype(int)
        lines = [np.concatenate([reference, *videos[name][moments]], axis=1) for name in ("truth", "ours", "cut-out")]
        blocks.append(np.concatenate(lines, axis=0))
    cv2.imwrite(str(path), np.concatenate(blocks, axis=0)[..., ::-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=embedded_path())
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--long", type=int, default=4, help="clips of several segments, for the joins")
    parser.add_argument("--long-frames", type=int, default=61)
    parser.add_argument("--size", default="256x256", help="WIDTHxHEIGHT")
    parser.add_argument(
        "--near", type=float, default=0.5, help="share of the clips that show head and shoulders to waist"
    )
    parser.add_argument("--steps", type=int, help="the checkpoint's own if left out; likewise:")
    parser.add_argument("--clip-length", type=int)
    parser.add_argument("--solver")
    parser.add_argument("--overlap", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--seed", type=int, default=0, help="of the diffusion noise")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("build/benchmark/mannequin"))
    parser.add_argument("--models", type=Path, help="folder of the detector models")
    parser.add_argument("--only-generate", action="store_true", help="fill --work and measure elsewhere or later")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/mannequin_DEVICE_DATE.md")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    people = load(device=args.device)
    people = replace(people, clips=people.clips[:0], clip_lengths=people.clip_lengths[:0])
    world = RecordingWorld(people, replace(SETTINGS, near=args.near))
    checkpoint = load_checkpoint(args.checkpoint, args.device)
    fill_in(args, checkpoint)
    detectors = None if args.only_generate else Detectors(args.models)
    store = Store(args.work)
    results, long_results, shown, references, seconds, bodies = [], [], [], [], [], set()
    plan = [(False, args.frames, seeds(world, args.clips, FIRST_SEED))]
    plan.append((True, args.long_frames, seeds(world, args.long, 2 * FIRST_SEED)))
    for is_long, frames, numbers in plan:
        for truth, output, segments, spent in clips(args, world, checkpoint, store, numbers, frames):
            if spent is not None:
                seconds.append(spent / frames)
            bodies.add(int(truth.body))
            if detectors is None:
                continue
            still = np.repeat(truth.reference[None], frames, axis=0)
            videos = {"truth": truth.video, "ours": output, "cut-out": cutout(truth), "still": still}
            if is_long:
                long_results.append(measure(truth, {"truth": truth.video, "ours": output}, detectors, segments))
                continue
            videos["codec"] = through_codec(checkpoint, truth.video)
            results.append(measure(truth, videos, detectors, segments))
            print(len(results), json.dumps(results[-1]["ours"]), flush=True)
            if len(shown) < 8:
                shown.append(videos)
                references.append(truth.reference)
    if detectors is None:
        return
    if shown:
        sheet(shown, references, args.work / "sheet.png")
    (args.work / "clips.json").write_text(json.dumps({"clips": results, "long": long_results}, indent=1))
    speed = f"{np.mean(seconds):.3f} s a frame to generate" if seconds else "outputs kept from an earlier run"
    what = ", ".join(
        f"{k} {getattr(args, k)}"
        for k in ("clips", "frames", "long", "long_frames", "size", "near", "steps", "guidance", "seed")
    )
    lines = [
        "# Quality of the embedded checkpoint", "", *described(args.device, args.threads), f"- {what}; {speed}",
        f"- checkpoint {checkpoint.config.name}: {checkpoint.config.note}",
        *(f"  - {name} {digest[:16]}" for name, digest in hashes(checkpoint).items()),
        f"- {len(bodies)} different held-out bodies, procedural motion only, face crops of someone else", "",
        *summarise(results, long_results),
    ]  # fmt: skip
    text = "\n".join(lines) + "\n"
    out = args.out or Path(__file__).parent / "results" / f"mannequin_{args.device.split(':')[0]}_{date.today()}.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    print(text, out, sep="\n")


if __name__ == "__main__":
    main()
