"""A LoRA from ten clips of an appearance that the embedded checkpoint does not know: robots (`robots.py`), before and after.

    python benchmarks/finetune.py                                          # about a quarter of an hour on one core
    python benchmarks/finetune.py --steps 20 --held-out 2                  # a quick look
    python benchmarks/finetune.py --device cuda --guides true --size 256x256 --frames 33 --clip-frames 66 --steps 2000
    python benchmarks/finetune.py --picture docs/finetune.png

Training takes a user's road: clips as .mp4 with a picture of whom they show beside them go through `wanimate train lora`,
with the default detectors, or, with `--guides true`, with the world's own keypoints and outlines in their place.
ResidentBytes-out clips show other bodies, motions and paints; the network gets their reference, the true
skeleton and a person's face with the expression, and what it makes of them, without and with the LoRA and from the same noise,
is compared with the true render. The same seeds drawn as people show what is forgotten. Clips, the LoRA with its samples and
its curve, and outputs are kept in --work and used again; a LoRA that is there already is measured, not trained again.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch
from animation import (
    FIRST_SEED,
    SETTINGS,
    RecordingWorld,
    Store,
    animation_guides,
    render,
    seeds,
    through_codec,
    world_version,
)
from animation_measures import Truth, read_kept
from hardware import described, hashes
from robots import RobotWorld

from mannequin.world.assets import load
from wanimate.conditions.build import ConditionBuilder
from wanimate.config import PreprocessSettings
from wanimate.finish.decode import to_pixels, to_unit
from wanimate.measure.metrics import psnr
from wanimate.media.files import sha256
from wanimate.media.writer import write_h264
from wanimate.model.transformer import AnimateTransformer
from wanimate.preprocess.people.tracking import Tracker
from wanimate.preprocess.pose.person import PersonPose
from wanimate.sampling.denoise import denoise
from wanimate.sampling.guidance import guided
from wanimate.train.examples import Encoders, ExampleSettings, find_sources, prepare
from wanimate.train.own import named
from wanimate.types import Frame, Frames, Guides, Keypoints, Segment
from wanimate.weights.checkpoint import Checkpoint, load_checkpoint
from wanimate.weights.locate import embedded_path
from wanimate.weights.lora import match_lora, read_lora
from wanimate.weights.lora_view import with_loras

FRAMINGS = (0.4, 0.25, 0.35, 0.0)
"""No close-ups: a visor says little about a robot."""
SLOW = (12.0, 14.0)
"""Frames a second of training clips: 28 frames last the two seconds that a clip must have."""
TRAINING_SEED, HELD_OUT_SEED = 3 * FIRST_SEED, 4 * FIRST_SEED


@dataclass(frozen=True)
class Known:
    """What detectors would find in a clip of the world, from the world itself: keypoints [F, 133, 3], cover uint8 [F, H, W] of
    its frames, and the reference picture's keypoints [133, 3], in pixels of clip and picture. A pose and a mask backend."""

    keypoints: np.ndarray
    cover: np.ndarray
    reference: np.ndarray
    name: str = "truth"

    def detect(self, image: Frame) -> PersonPose:
        return PersonPose(self.reference, True)

    def track(self, frames: Iterable[Frame], tracker: Tracker | None = None) -> Iterator[PersonPose]:
        for _, points in zip(frames, self.keypoints, strict=True):
            yield PersonPose(points, True, "detector")

    def candidates(self, image: Frame, deep: bool = True) -> list[PersonPose]:
        return [self.detect(image)]

    def follow(
        self, frames: Iterable[Frame], people: Keypoints, valid: np.ndarray
    ) -> Iterator[tuple[Frame, np.ndarray]]:
        for frame, cover in zip(frames, self.cover, strict=True):
            small = cv2.resize(cover, (frame.shape[1], frame.shape[0]), interpolation=cv2.INTER_AREA)
            yield frame, (small > 127).astype(np.uint8)


def write_clips(world: RobotWorld, count: int, frames: int, side: int, folder: Path) -> None:
    """robot-NN.mp4 with robot-NN.png, of bodies that are not held out, and with robot-NN.npz, which holds a `Known`; what is
    there already stays."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        clip = folder / f"robot-{number:02d}.mp4"
        if clip.is_file() and clip.with_suffix(".npz").is_file():
            continue
        batch = world.sample_batch(1, frames, side, side, TRAINING_SEED + number)
        cv2.imwrite(str(clip.with_suffix(".png")), batch.reference[0].numpy()[..., ::-1])
        posed, camera, _ = world.drawn[1]
        still = np.concatenate([camera.project(posed.keypoints)[0, :, :2].numpy(), np.ones((133, 1))], axis=1)
        known = Known(batch.keypoints[0].numpy(), batch.cover[0].numpy(), still)
        np.savez_compressed(clip.with_suffix(".npz"), **{k: v for k, v in vars(known).items() if k != "name"})
        rate = Fraction(round(float(batch.rate[0])))
        with write_h264(clip, rate, side, side) as writer:
            for frame in batch.video[0].numpy():
                writer.write(frame)


def encode_known(args: argparse.Namespace, checkpoint: Checkpoint, cache: Path) -> None:
    """Fill the training's `cache` with examples whose guides are the world's own; it then needs no detectors."""
    preprocess = PreprocessSettings(area=args.size)
    area = preprocess.area or checkpoint.config.defaults.area
    settings = ExampleSettings(("animation",), area, args.frames, checkpoint.config.defaults.overlap, preprocess)
    encoders = Encoders(named(checkpoint), checkpoint.vae, checkpoint.image, checkpoint.face_size, checkpoint.device, 4)
    for source in find_sources(args.work / "clips"):
        with np.load(source.video.with_suffix(".npz")) as file:
            known = Known(**file)
        for _ in prepare([source], settings, encoders, cache, known, known):
            pass


def train(args: argparse.Namespace, lora: Path) -> tuple[list[str], float]:
    """The command that was run, and its seconds."""
    words = [
        "train", "lora", "--data", str(args.work / "clips"), "--out", str(lora), "--area", args.size,
        "--clip-length", str(args.frames), "--steps", str(args.steps), "--rate", f"{args.rate:g}",
        "--rank", str(args.rank), "--save-every", str(max(25, args.steps // 12)), "--sample-every", str(args.steps),
        "--device", args.device, "--accumulate", str(args.accumulate),
    ]  # fmt: skip
    if args.checkpoint != embedded_path():
        words += ["--checkpoint", str(args.checkpoint)]
    started = time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": str(args.threads)}
    subprocess.run(
        [sys.executable, "-c", "from wanimate.cli.main import main; main()", *words], check=True, env=environment
    )
    return words, time.perf_counter() - started


def curve(folder: Path) -> list[tuple[int, float]]:
    """Steps and losses of a training's log."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(int(r["step"]), float(r["loss"])) for r in rows]


@torch.inference_mode()
def made(
    c: Checkpoint, models: dict[str, AnimateTransformer], guides: Guides, steps: int, seed: int
) -> dict[str, Frames]:
    """One segment by every model from the same noise; its conditions are encoded once."""
    text, negative = c.prompts.encode(""), c.prompts.encode("", negative=True)
    builder = ConditionBuilder(guides, c.vae, c.image, text, negative, face_size=c.face_size, device=c.device, chunk=4)
    conditions = builder.build(Segment(0, 0, guides.count, 0), None)
    noise = torch.randn(16, *conditions.y.shape[1:], generator=torch.Generator().manual_seed(seed))
    noise = noise.to(c.device)
    found, defaults = {}, c.config.defaults
    for name, model in models.items():
        network = guided(model, conditions, defaults.guidance)
        *_, last = (s.latents for s in denoise(network, noise, defaults.solver, steps, defaults.shift))
        found[name] = to_pixels(to_unit(c.vae.decode(last[None, :, 1:], 4)[0].float().clamp(-1, 1)))
    return found


def measure(truth: Truth, output: Frames) -> dict[str, float]:
    """PSNR in dB of whole frames, inside of the body, outside of it."""
    body = truth.cover > 250
    return {
        "frame": psnr(output, truth.video),
        "body": psnr(output, truth.video, body),
        "scene": psnr(output, truth.video, truth.cover < 5),
    }


COLUMNS = {"frame": "whole frame", "body": "body", "scene": "around it"}
LABELS = {"before": "checkpoint", "after": "with the LoRA", "codec": "true frames through our VAE"}
Rows = list[dict[str, dict[str, float]]]


def table(rows: Rows, kind: str) -> list[str]:
    lines = [f"| {kind}, PSNR in dB | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, label in LABELS.items():
        means = [float(np.mean([r[name][k] for r in rows])) for k in COLUMNS]
        lines.append(f"| {label} | " + " | ".join(f"{m:.2f}" for m in means) + " |")
    gains = {k: np.array([r["after"][k] - r["before"][k] for r in rows]) for k in COLUMNS}
    cells = [f"{g.mean():+.2f} ({g.min():+.2f} to {g.max():+.2f})" for g in gains.values()]
    return [*lines, "| change, mean (least to most) | " + " | ".join(cells) + " |"]


def clip_table(rows: Rows) -> list[str]:
    """Every held-out clip on the body."""
    lines = ["| clip | body before | body after | frame before | frame after |", "|---" * 5 + "|"]
    for number, row in enumerate(rows):
        cells = [row[when][k] for k in ("body", "frame") for when in ("before", "after")]
        lines.append(f"| {number + 1} | " + " | ".join(f"{c:.2f}" for c in cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=embedded_path())
    parser.add_argument("--clips", type=int, default=10, help="to train on")
    parser.add_argument("--clip-frames", type=int, default=28, help="of each of them")
    parser.add_argument("--clip-side", type=int, default=224, help="pixels of each of them")
    parser.add_argument("--held-out", type=int, default=6)
    parser.add_argument("--people", type=int, default=3, help="held-out clips that are measured as people too")
    parser.add_argument("--frames", type=int, default=9, help="of a window in training, and of the held-out clips")
    parser.add_argument("--size", default="128x128", help="WIDTHxHEIGHT that is trained and measured at")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--accumulate", type=int, default=1, help="windows of a training step")
    parser.add_argument("--guides", choices=("found", "true"), default="found", help="of the clips that are trained on")
    parser.add_argument("--device", default="cpu", help="of the networks; clips are drawn on the processor")
    parser.add_argument("--sampling-steps", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="of the diffusion noise")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("build/benchmark/finetune"))
    parser.add_argument("--only-clips", action="store_true", help="write the clips that are trained on")
    parser.add_argument("--only-train", action="store_true")
    parser.add_argument("--only-before", action="store_true", help="fill --work with what needs no LoRA")
    parser.add_argument("--picture", type=Path, help="also write reference, truth, before, after")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/finetune_DEVICE_DATE.md")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    people = load(device="cpu")
    people = replace(people, clips=people.clips[:0], clip_lengths=people.clip_lengths[:0])
    settings = replace(SETTINGS, framings=FRAMINGS)
    world = RobotWorld(people, settings)
    slow = RobotWorld(people, replace(settings, slowest=SLOW[0], fastest=SLOW[1]))
    write_clips(slow, args.clips, args.clip_frames, args.clip_side, args.work / "clips")
    if args.only_clips:
        return
    checkpoint: Checkpoint = load_checkpoint(args.checkpoint, args.device, torch.float32)
    size = f"{args.size}x{args.frames}"
    lora = args.work / f"robots-{size}-r{args.rank}-{args.steps}x{args.accumulate}x{args.rate:g}.safetensors"
    facts = lora.with_suffix(".json")
    if not lora.is_file() and not args.only_before:
        if args.guides == "true":
            encode_known(args, checkpoint, lora.with_suffix("") / "examples")
        words, seconds = train(args, lora)
        facts.write_text(json.dumps({"command": ["wanimate", *words], "seconds": seconds}))
    if args.only_train:
        return
    models, versions = {"before": checkpoint.transformer}, {"before": "", "codec": ""}
    if not args.only_before:
        found = match_lora(read_lora(lora), checkpoint.transformer)
        models["after"] = with_loras(checkpoint.transformer, [(found, 1.0)])
        versions["after"] = sha256(lora)
    store = Store(args.work / "held-out")
    store.folder.mkdir(exist_ok=True)
    drawing = sha256(Path(__file__).with_name("robots.py"))
    source = {"frames": args.frames, "size": args.size, "world": [world_version(), drawing, vars(settings)]}
    width, height = (int(v) for v in args.size.split("x"))
    where = checkpoint.device.type
    rows: dict[str, Rows] = {"Robots": [], "People": []}
    lines_of_picture: list[np.ndarray] = []
    plain = RecordingWorld(people, settings)
    for kind, drawn, count in (("Robots", world, args.held_out), ("People", plain, args.people)):
        for number in seeds(drawn, count, HELD_OUT_SEED):
            file = store.path(f"truth-{kind}", seed=number, **source)
            if not file.is_file():
                render(drawn, number, args.frames, (width, height)).save(file)
            truth = read_kept(Truth, file)
            how = {
                "steps": args.sampling_steps,
                "noise": args.seed,
                "weights": hashes(checkpoint),
                "on": where,
                **source,
            }
            kept = {n: store.path(f"{n}-{kind}", seed=number, lora=versions[n], **how) for n in LABELS if n in versions}
            missing = {n: models[n] for n in models if not kept[n].is_file()}
            if missing:
                guides = animation_guides(truth)
                for name, video in made(checkpoint, missing, guides, args.sampling_steps, args.seed).items():
                    np.savez_compressed(kept[name], made=video)
            if not kept["codec"].is_file():
                np.savez_compressed(kept["codec"], made=through_codec(checkpoint, truth.video))
            videos = {name: np.load(path)["made"] for name, path in kept.items()}
            if args.only_before:
                continue
            rows[kind].append({name: measure(truth, v) for name, v in videos.items()})
            print(kind, len(rows[kind]), json.dumps(rows[kind][-1]), flush=True)
            if kind == "Robots" and len(lines_of_picture) < 4:
                middle = args.frames // 2
                shown = [truth.reference, truth.video[middle], videos["before"][middle], videos["after"][middle]]
                lines_of_picture.append(np.concatenate(shown, axis=1))
    if args.only_before:
        return
    trained = json.loads(facts.read_text())
    losses = curve(lora.with_suffix(""))
    files = list((lora.with_suffix("") / "examples").rglob("window_*.safetensors"))
    used = len({f.parent for f in files})
    lines = [
        "# An appearance learned from ten clips", "", *described(args.device, args.threads),
        f"- `{shlex.join(['python', 'benchmarks/finetune.py', *sys.argv[1:]])}`",
        f"- trained by `{shlex.join(trained['command'])}` in {trained['seconds']:.0f} s, encoding included",
        f"- {len(files)} windows of {args.frames} frames from {used} of {args.clips} clips of {args.clip_frames} frames at "
        f"{args.clip_side}x{args.clip_side}; LoRA of {lora.stat().st_size / 2**20:.1f} MiB",
        f"- loss, mean of {max(25, args.steps // 12)} steps: {', '.join(f'{loss:.3f} ({step})' for step, loss in losses)}",
        f"- measured on {args.held_out} clips of {args.frames} frames at {args.size}, held-out bodies, "
        f"{args.sampling_steps} steps",
        f"- checkpoint {checkpoint.config.name}",
        *(f"  - {name} {digest[:16]}" for name, digest in hashes(checkpoint).items()), "",
        *table(rows["Robots"], "Robots"), "", *clip_table(rows["Robots"]), "",
    ]  # fmt: skip
    if rows["People"]:
        lines += [*table(rows["People"], "People, same seeds"), ""]
    lines += [
        "Means over clips. Body: pixels that the true render covers wholly; around it: pixels that it does not touch. Same",
        "noise before and after. Robots (`benchmarks/robots.py`): boxes for limbs, rubber joints, metal that mirrors its",
        "surroundings, a visor; bodies, motions and paints of the held-out clips are in no training clip. Their face crops",
        "are a person's.",
    ]
    text = "\n".join(lines) + "\n"
    out = args.out or Path(__file__).parent / "results" / f"finetune_{where}_{date.today()}.md"
    out.write_text(text)
    print(text, out, sep="\n")
    if args.picture:
        args.picture.parent.mkdir(parents=True, exist_ok=True)
        grid = np.concatenate(lines_of_picture, axis=0)
        cv2.imwrite(str(args.picture), grid[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    main()
