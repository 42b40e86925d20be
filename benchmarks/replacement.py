"""Replacement mode of a checkpoint on people it never saw: beside animation, by mask shape, and what a job costs.

    python benchmarks/replacement.py                           # 8 clips of 17 frames and one job: about ten minutes
    python benchmarks/replacement.py --clips 2 --no-job        # a quick look

Every clip shows one held-out body with a procedural motion, drawn twice with the same seed: once with a reference that
shares scene and light (animation), once with one from another scene in other light (replacement). The default backend
finds where the person is, as in a job; it is the character's own place, so a performer of another build would leave more
over. In replacement the checkpoint's relighting LoRA acts as in a job, where there is one. Scenes, masks and outputs are
kept in --work and used again while nothing they depend on has changed.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import torch
from animation import FIRST_SEED, OWN, Store, fill_in, generate, seeds, world_version
from animation_measures import read_kept
from hardware import described, hashes

from mannequin.training.pool import WORLD
from mannequin.world.assets import load
from mannequin.world.world import World, WorldSettings
from wanimate.api import Animator
from wanimate.config import Job, OutputSettings
from wanimate.events import Finished
from wanimate.finish.composite import composite, seam
from wanimate.finish.decode import to_pixels
from wanimate.measure.metrics import psnr, ssim
from wanimate.media.levels import from_levels
from wanimate.media.video import ArrayFrames
from wanimate.preprocess.detect.mediapipe import MediapipeBackend
from wanimate.preprocess.detect.models import DETECTORS, U2NETP, find
from wanimate.preprocess.masks.networks import Salient, Selfie
from wanimate.preprocess.masks.offline import OfflineMasks
from wanimate.preprocess.masks.shape import MaskShape, as_picture, scene, shape_mask
from wanimate.preprocess.modes import mask_shape
from wanimate.types import Frames, Guides
from wanimate.weights.checkpoint import Checkpoint, load_checkpoint
from wanimate.weights.locate import embedded_path
from wanimate.weights.lora import match_lora, read_lora
from wanimate.weights.lora_view import with_loras
from wanimate.weights.relighting import find_relighting

SHAPES = {
    "outline as found": MaskShape(0, 7, None, None),
    "grown by 3": MaskShape(1, 7, None, None),
    "grown by 6": MaskShape(2, 7, None, None),
    "grown by 9": MaskShape(3, 7, None, None),
    "grown by 9, grid of 10 x 20": MaskShape(3, 7, 10, 20),
    "grown by 9, whole box (published)": MaskShape(3, 7, 1, 1),
}
"""Pixels of the job's frames."""
SHOWN_SIDE = 384
"""The detectors look at frames enlarged to this side."""
DEMO = Path(str(files("wanimate.weights") / "embedded" / "demo"))


def composed(made: Frames, scene: Frames, mask: Frames, feather: int) -> Frames:
    """The character in the scene, as a job of 8 bits shows it."""
    return to_pixels(composite(from_levels(made), scene, seam(mask, feather)))


@dataclass(frozen=True)
class Scene:
    """One clip in one mode: video and skeleton [n, H, W, 3], face [n, S, S, 3], reference [H, W, 3], and the true person,
    `cover` [n, H, W] of 0..255."""

    video: np.ndarray
    skeleton: np.ndarray
    face: np.ndarray
    reference: np.ndarray
    cover: np.ndarray
    rate: np.ndarray


class Bench:
    """Renders, finds and generates, each thing once."""

    def __init__(self, args: argparse.Namespace, checkpoint: Checkpoint) -> None:
        self.args, self.checkpoint, self.store = args, checkpoint, Store(args.work)
        self.lit: Checkpoint | None = None
        strength: float = args.relight_strength
        if strength and (file := find_relighting(args.checkpoint)):
            lora = match_lora(read_lora(file), checkpoint.transformer)
            self.lit = dataclasses.replace(
                checkpoint, transformer=with_loras(checkpoint.transformer, [(lora, strength)])
            )
        people = load(device="cpu")
        people = dataclasses.replace(people, clips=people.clips[:0], clip_lengths=people.clip_lengths[:0])
        self.worlds = {
            mode: World(
                people,
                WorldSettings(
                    face_size=WORLD.face_size, replacement=share, disturb=False, other_face=1.0, near=args.near
                ),
            )
            for mode, share in (("animation", 0.0), ("replacement", 1.0))
        }
        width, height = (int(x) for x in args.size.split("x"))
        self.size = width, height
        self.source = {"frames": args.frames, "size": args.size, "near": args.near, "world": world_version()}
        folder = find(args.models, (*DETECTORS.files, U2NETP))
        self.detector = MediapipeBackend(folder)
        self.masks = OfflineMasks(Salient(folder, "standard"), Selfie(folder))
        self.seconds: list[float] = []

    def numbers(self) -> list[int]:
        return seeds(self.worlds["animation"], self.args.clips, FIRST_SEED)

    def scene(self, number: int, mode: str) -> Scene:
        file = self.store.path("scene", seed=number, mode=mode, **self.source)
        if not file.is_file():
            b = self.worlds[mode].sample_batch(1, self.args.frames, *self.size, number, held_out=True)
            parts = {name: getattr(b, name)[0].numpy() for name in ("video", "skeleton", "face", "reference", "cover")}
            np.savez_compressed(file, **parts, rate=np.array(float(b.rate[0])))
        return read_kept(Scene, file)

    def outlines(self, number: int, scene: Scene) -> np.ndarray:
        """The person as the default backend finds it, uint8 [n, H, W]; empty where nobody is found."""
        file = self.store.path("outline", seed=number, **self.source)
        if not file.is_file():
            height, width = scene.video.shape[1:3]
            scale = SHOWN_SIDE / max(height, width)
            size = round(width * scale), round(height * scale)
            large = [cv2.resize(f, size, interpolation=cv2.INTER_CUBIC) for f in scene.video]
            people = list(self.detector.track(iter(large)))
            points, valid = np.stack([p.keypoints for p in people]), np.array([p.valid for p in people])
            found = (
                cv2.resize(m, (width, height), interpolation=cv2.INTER_AREA)
                for _, m in self.masks.follow(large, points, valid)
            )
            np.savez_compressed(file, outlines=np.stack(list(found)))
        return np.asarray(np.load(file)["outlines"])

    def made(
        self, number: int, scene_: Scene, masks: np.ndarray | None, shape: MaskShape | None, relit: bool = True
    ) -> Frames:
        """What the network makes of a scene, before compositing; animation without masks. `relit`: with masks only."""
        args = self.args
        lit = self.lit if relit and masks is not None else None
        how = {name: getattr(args, name) for name in OWN}
        weights = [self.checkpoint.path, hashes(self.checkpoint)]
        kind = None if shape is None else list(vars(shape).values())
        how |= {} if lit is None else {"relight": args.relight_strength}
        file = self.store.path("made", seed=number, noise=args.seed, weights=weights, shape=kind, **how, **self.source)
        if not file.is_file():
            started = time.perf_counter()
            frames, _ = generate(lit or self.checkpoint, guides_of(scene_, masks), args)
            self.seconds.append((time.perf_counter() - started) / len(frames))
            np.savez_compressed(file, made=frames)
        return np.asarray(np.load(file)["made"])


def guides_of(clip: Scene, masks: np.ndarray | None) -> Guides:
    parts = {"pose": ArrayFrames(clip.skeleton), "face": ArrayFrames(clip.face), "reference": clip.reference}
    rate = Fraction(float(clip.rate)).limit_denominator(1000)
    if masks is None:
        return Guides("animation", rate, **parts)
    background = np.stack([scene(frame, m) for frame, m in zip(clip.video, masks, strict=True)])
    mask = np.stack([as_picture(m) for m in masks])
    return Guides("replacement", rate, **parts, background=ArrayFrames(background), mask=ArrayFrames(mask))


def row(video: Frames, clip: Scene) -> list[float]:
    body = clip.cover / 255
    return [
        psnr(video, clip.video),
        ssim(video, clip.video),
        psnr(video, clip.video, body),
        ssim(video, clip.video, body),
    ]


def by_mode(bench: Bench, numbers: Sequence[int], shape: MaskShape, feather: int) -> list[str]:
    """Both modes on the same clips, and the scene outside of the inpaint mask with and without compositing."""
    rows: dict[str, list[list[float]]] = {"animation": [], "replacement": [], "replacement, not composited": []}
    if bench.lit is not None:
        rows["replacement without relighting"] = []
    outside: dict[str, list[float]] = {"composited": [], "not composited": []}
    exact = True
    for number in numbers:
        rows["animation"].append(row(bench.made(number, still := bench.scene(number, "animation"), None, None), still))
        clip = bench.scene(number, "replacement")
        masks = np.stack([shape_mask(m, shape) for m in bench.outlines(number, clip)])
        raw = bench.made(number, clip, masks, shape)
        pictures = np.stack([as_picture(m) for m in masks])
        emptied = np.stack([scene(f, m) for f, m in zip(clip.video, masks, strict=True)])
        done = composed(raw, emptied, pictures, feather)
        rows["replacement"].append(row(done, clip))
        rows["replacement, not composited"].append(row(raw, clip))
        if bench.lit is not None:
            unlit = composed(bench.made(number, clip, masks, shape, relit=False), emptied, pictures, feather)
            rows["replacement without relighting"].append(row(unlit, clip))
        scenery = masks == 0
        for name, video in (("composited", done), ("not composited", raw)):
            outside[name].append(psnr(video, clip.video, scenery))
        square = np.ones((2 * feather + 3,) * 2, np.uint8)
        far = np.stack([cv2.dilate(m, square) == 0 for m in masks])
        exact &= bool((done[far] == clip.video[far]).all())
    lines = ["| | PSNR, dB | SSIM | body PSNR, dB | body SSIM |", "|---|---|---|---|---|"]
    for name, values in rows.items():
        a, b, c, d = np.mean(values, axis=0)
        lines.append(f"| {name} | {a:.2f} | {b:.3f} | {c:.2f} | {d:.3f} |")
    lines += ["", "| scene outside of the inpaint mask | PSNR, dB |", "|---|---|"]
    lines += [f"| {name}, seam included | {np.mean(values):.2f} |" for name, values in outside.items()]
    return [*lines, f"| composited, beyond the seam | {'equal, bit for bit' if exact else 'NOT EQUAL'} |"]


def by_shape(bench: Bench, numbers: Sequence[int], feather: int) -> list[str]:
    """How the inpaint mask's shape changes what is kept and what is made."""
    head = "| inpaint mask | share of the frame, % | person left over, % | PSNR, dB | body PSNR, dB | around the body, dB |"
    lines = [head, "|---|---|---|---|---|---|"]
    for name, shape in SHAPES.items():
        values = []
        for number in numbers:
            clip = bench.scene(number, "replacement")
            masks = np.stack([shape_mask(m, shape) for m in bench.outlines(number, clip)])
            raw = bench.made(number, clip, masks, shape)
            emptied = np.stack([scene(f, m) for f, m in zip(clip.video, masks, strict=True)])
            done = composed(raw, emptied, np.stack([as_picture(m) for m in masks]), feather)
            person, body = clip.cover > 127, clip.cover / 255
            near = np.stack([cv2.dilate(p.astype(np.uint8), np.ones((25, 25), np.uint8)) for p in person]) > 0
            left = 100 * (person & (masks == 0)).sum() / person.sum()
            around = psnr(done, clip.video, near & (clip.cover == 0))
            values.append([100 * masks.mean(), left, psnr(done, clip.video), psnr(done, clip.video, body), around])
        a, b, c, d, e = np.mean(values, axis=0)
        lines.append(f"| {name} | {a:.1f} | {b:.2f} | {c:.2f} | {d:.2f} | {e:.2f} |")
        print(lines[-1], flush=True)
    return lines


def job_seconds(args: argparse.Namespace) -> list[str]:
    """Stages of one `wanimate replace` of the packaged clip."""
    animator = Animator.from_checkpoint(args.checkpoint, "cpu")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        job = Job.of(
            DEMO / "character-2.png", DEMO / "performer.mp4", Path(folder) / "out.mp4", mode="replacement", seed=args.seed,
            models=args.models, steps=args.steps, guidance=args.guidance,
        )  # fmt: skip
        (result,) = (e.result for e in animator.run(job) if isinstance(e, Finished))
    total = time.perf_counter() - started
    lines = [f"{result.count} frames of {result.size[0]}x{result.size[1]}:", "", "| stage | seconds |", "|---|---|"]
    lines += [f"| {stage} | {seconds:.1f} |" for stage, seconds in result.manifest["seconds"].items()]
    return [*lines, f"| everything | {total:.1f} |"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=embedded_path())
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--size", default="256x256", help="WIDTHxHEIGHT")
    parser.add_argument(
        "--near", type=float, default=0.5, help="share of the clips that show head and shoulders to waist"
    )
    parser.add_argument(
        "--shape-clips", type=int, help="clips of the comparison of mask shapes, 0 leaves it out; default: all"
    )
    parser.add_argument("--no-job", action="store_true", help="leave out the seconds of a whole job")
    parser.add_argument("--steps", type=int, help="the checkpoint's own if left out; likewise:")
    parser.add_argument("--clip-length", type=int)
    parser.add_argument("--solver")
    parser.add_argument("--overlap", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--relight-strength", type=float, default=1.0, help="0 leaves relighting out")
    parser.add_argument("--seed", type=int, default=0, help="of the diffusion noise")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("build/benchmark/replacement"))
    parser.add_argument("--models", type=Path, help="folder of the detector models")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/replacement_cpu_DATE.md")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    checkpoint = load_checkpoint(args.checkpoint, "cpu")
    fill_in(args, checkpoint)
    bench, job = Bench(args, checkpoint), Job.of("", "", "")
    shape, feather = mask_shape(job.preprocess, bench.size), OutputSettings().feather
    numbers = bench.numbers()
    modes = by_mode(bench, numbers, shape, feather)
    shapes = by_shape(bench, compared, feather) if (compared := numbers[: args.shape_clips]) else []
    speed = (
        f"{np.mean(bench.seconds):.2f} s a frame to generate" if bench.seconds else "outputs kept from an earlier run"
    )
    lines = [
        "# Replacement mode", "", *described("cpu", args.threads),
        f"- {len(numbers)} clips of {args.frames} frames at {args.size}, {args.steps} steps, guidance {args.guidance:g}, "
        f"held-out bodies; {speed}",
        f"- checkpoint {checkpoint.config.name}: {checkpoint.config.note}",
        *(f"  - {name} {digest[:16]}" for name, digest in hashes(checkpoint).items()), "",
        f"Both modes on the same clips; inpaint mask: the found outline, {shape.iterations} rounds of {shape.k} x {shape.k}; "
        f"seam of {feather} pixels:", "", *modes, "",
        "PSNR and SSIM are means over clips against the true render; body: weighted by the true mask.", "",
        f"Shapes of the inpaint mask, {len(compared)} clips, composited:", "", *shapes, "",
        "Person left over: share of the true person outside of the inpaint mask. Around the body: within 12 pixels of it.",
    ]  # fmt: skip
    if not args.no_job:
        lines += ["", "One `wanimate replace` of the packaged clip:", "", *job_seconds(args)]
    text = "\n".join(lines) + "\n"
    out = args.out or Path(__file__).parent / "results" / f"replacement_cpu_{date.today()}.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    print(text, out, sep="\n")


if __name__ == "__main__":
    main()
