"""What the motion vectors of a motion encoder tell of jaw and eyes: ridge regression, R2 on held-out clips.

    python benchmarks/motion_probe.py                                   # the embedded checkpoint: two minutes
    python benchmarks/motion_probe.py --checkpoint build/mannequin
    python benchmarks/motion_probe.py --motion build/train/motion --clip dance.mp4

A transformer cannot follow a mouth that these vectors do not tell. Faces are drawn as training draws them, with a detector's
errors. The map is fitted on trained bodies and measured on held-out ones. With `--clip` the same map reads the faces of a real
performer, cut out as a job cuts them out; openings of mouth and eyes as the face mesh sees them are the truth.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from animation_measures import Detectors
from torch import Tensor

from mannequin.training.motion import load_motion, to_network
from mannequin.training.networks import TRANSFORMER
from mannequin.world.assets import load
from mannequin.world.world import World, WorldSettings
from wanimate.conditions.latents import resize_faces
from wanimate.config import PreprocessSettings
from wanimate.measure.metrics import correlation
from wanimate.media.probe import probe
from wanimate.media.video import iter_indices
from wanimate.model.motion import MotionEncoder
from wanimate.preprocess.fit import face_crops
from wanimate.preprocess.layout import Layout, plan_layout
from wanimate.preprocess.performer import Performer, find_performer
from wanimate.types import Frame, Frames
from wanimate.weights.checkpoint import drained, load_checkpoint
from wanimate.weights.locate import embedded_path

TARGETS = ("jaw", "eyes")
SIDE = 32
"""Of the pictures beside the faces: they are not looked at."""
AREA = 256 * 256
"""Of a job's output. No face crop depends on it."""
Weights = tuple[Tensor, Tensor, Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--checkpoint", type=Path, default=embedded_path())
    source.add_argument("--motion", type=Path, help="folder of a motion encoder's training, instead of a checkpoint")
    parser.add_argument("--clip", type=Path, help="video of a real performer to read as well")
    parser.add_argument("--models", type=Path, help="folder of the detector models (default: the user's cache)")
    parser.add_argument("--clips", type=int, default=96, help="to fit; a third as many to measure")
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    encoder, size = opened(args.checkpoint, args.motion)
    seen = None if args.clip is None else see(args.clip, args.models)
    world = World(load(), WorldSettings(face_size=size, near=1.0, other_face=0.0, replacement=0.0, slowest=8.0))
    fitted = samples(encoder, world, args.clips, args.frames, args.seed, held_out=False)
    measured = samples(encoder, world, args.clips // 3, args.frames, args.seed + 10**6, held_out=True)
    maps = {name: ridge(fitted[0].flatten(0, 1), fitted[1][..., i].flatten()) for i, name in enumerate(TARGETS)}
    print(
        f"{args.motion or args.checkpoint}: faces of {size}x{size}, {args.clips} clips to fit, {args.clips // 3} held out"
    )
    print("| | R2 | R2 within clips | spread of the truth |", "|---|---|---|---|", sep="\n")
    for i, name in enumerate(TARGETS):
        guess, truth = predict(measured[0], maps[name]), measured[1][..., i]
        inside = r2(centred(guess), centred(truth))
        print(f"| {name} | {r2(guess, truth):.3f} | {inside:.3f} | {truth.std():.3f} |")
    if seen is not None:
        faces = resize_faces(to_network(torch.from_numpy(seen.crops)).transpose(0, 1), size).transpose(0, 1)
        vectors = read(encoder, faces)
        print(f"\n{args.clip}: {len(seen.crops)} frames, faces found in {np.isfinite(seen.openings[:, 0]).mean():.2f}")
        print(
            "| | correlation with the face mesh | mean and spread told | of the mesh |", "|---|---|---|---|", sep="\n"
        )
        for i, name in enumerate(TARGETS):
            truth = seen.openings[:, i]
            guess = np.where(np.isnan(truth), np.nan, predict(vectors, maps[name]).numpy())
            told, mesh = (f"{np.nanmean(v):.3f}, {np.nanstd(v):.3f}" for v in (guess, truth))
            print(f"| {name} | {correlation(guess, truth):.3f} | {told} | {mesh} |")


def opened(checkpoint: Path, motion: Path | None) -> tuple[MotionEncoder, int]:
    """A motion encoder and the side of the faces that it looks at."""
    if motion is None:
        known = load_checkpoint(checkpoint, "cpu")
        return known.transformer.motion_encoder, known.face_size
    encoder = MotionEncoder(TRANSFORMER.motion)
    encoder.load_state_dict(load_motion(motion))
    return encoder.eval(), TRANSFORMER.motion.size


@dataclass(frozen=True)
class Seen:
    """crops: a job's, [n, S, S, 3]; openings of mouth and eyes, [n, 2], NaN where there is no face."""

    crops: Frames
    openings: npt.NDArray[np.floating]


def see(path: Path, models: Path | None) -> Seen:
    """The performer's faces in a clip as a job takes them, and what the face mesh sees of them in the clip itself."""
    clip, settings, detectors = probe(path), PreprocessSettings(), Detectors(models)
    layout = plan_layout("animation", clip, (clip.width, clip.height), settings, AREA)
    performer = drained(find_performer(detectors.backend, layout, settings))
    crops = np.stack(list(face_crops(_frames(layout), performer, layout, settings)))
    return Seen(crops, np.concatenate(list(_openings(layout, performer, detectors))))


def _frames(layout: Layout) -> Iterator[Frame]:
    return map(layout.seen_frame, iter_indices(layout.clip, layout.indices))


def _openings(layout: Layout, performer: Performer, detectors: Detectors) -> Iterator[npt.NDArray[np.floating]]:
    for frame, (x, y, side) in zip(_frames(layout), performer.squares, strict=True):
        box = np.array([[x - side / 2, y - side / 2, x + side / 2, y + side / 2]])
        found = np.isfinite(side)
        yield detectors.expressions(frame[None], box) if found else np.full((1, len(TARGETS)), np.nan)


def samples(
    encoder: MotionEncoder, world: World, clips: int, frames: int, seed: int, held_out: bool, part: int = 8
) -> tuple[Tensor, Tensor]:
    """Motion vectors [clips, frames, M] and what they should tell [clips, frames, len(TARGETS)]."""
    vectors, truths = [], []
    for i in range(-(-clips // part)):
        batch = world.sample_batch(part, frames, SIDE, SIDE, seed + i, held_out)
        vectors.append(read(encoder, to_network(batch.face.flatten(0, 1))).unflatten(0, (part, frames)))
        truths.append(torch.stack([getattr(batch, name) for name in TARGETS], dim=-1))
    return torch.cat(vectors)[:clips], torch.cat(truths)[:clips]


@torch.inference_mode()
def read(encoder: MotionEncoder, faces: Tensor) -> Tensor:
    """Faces [N, 3, S, S] in [-1, 1] -> motion vectors [N, M]."""
    return torch.cat([encoder(part).float() for part in faces.split(64)])


def ridge(x: Tensor, y: Tensor, share: float = 1e-3) -> Weights:
    """Weights, mean of x and mean of y of a linear map [n, M] -> [n]."""
    x, y = x.double(), y.double()
    mean, middle = x.mean(0), y.mean()
    x = x - mean
    square = x.T @ x
    damped = square + share * square.diagonal().mean() * torch.eye(len(square), dtype=x.dtype)
    return torch.linalg.solve(damped, x.T @ (y - middle)), mean, middle


def predict(x: Tensor, weights: Weights) -> Tensor:
    slope, mean, middle = weights
    return (x.double() - mean) @ slope + middle


def centred(values: Tensor) -> Tensor:
    """Without each clip's mean."""
    return values - values.mean(1, keepdim=True)


def r2(guess: Tensor, truth: Tensor) -> float:
    """Share of the truth's variance that the guess explains."""
    return 1 - ((guess - truth).square().sum() / (truth - truth.mean()).square().sum()).item()


if __name__ == "__main__":
    main()
