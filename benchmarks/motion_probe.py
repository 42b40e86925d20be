"""What the motion vectors of a checkpoint's motion encoder tell of jaw and eyes: ridge regression, R2 on held-out clips.

    python benchmarks/motion_probe.py                                   # the embedded checkpoint: two minutes
    python benchmarks/motion_probe.py --checkpoint build/mannequin

A transformer cannot follow a mouth that these vectors do not tell. Faces are drawn as training draws them, with a detector's
errors. The map is fitted on trained bodies and measured on held-out ones.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from mannequin.training.clip_latents import to_video
from mannequin.world.assets import load
from mannequin.world.world import World, WorldSettings
from wanimate.weights.checkpoint import Checkpoint, load_checkpoint
from wanimate.weights.locate import embedded_path

TARGETS = ("jaw", "eyes")
SIDE = 32
"""Of the pictures beside the faces: they are not looked at."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=embedded_path())
    parser.add_argument("--clips", type=int, default=96, help="to fit; a third as many to measure")
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    checkpoint = load_checkpoint(args.checkpoint, "cpu")
    size = checkpoint.face_size
    world = World(load(), WorldSettings(face_size=size, near=1.0, other_face=0.0, replacement=0.0, slowest=8.0))
    fitted = samples(checkpoint, world, args.clips, args.frames, args.seed, held_out=False)
    measured = samples(checkpoint, world, args.clips // 3, args.frames, args.seed + 10**6, held_out=True)
    print(f"{args.checkpoint}: faces of {size}x{size}, {args.clips} clips to fit, {args.clips // 3} held out")
    print("| | R2 | R2 within clips | spread of the truth |", "|---|---|---|---|", sep="\n")
    for i, name in enumerate(TARGETS):
        weights = ridge(fitted[0].flatten(0, 1), fitted[1][..., i].flatten())
        guess, truth = predict(measured[0], weights), measured[1][..., i]
        inside = r2(centred(guess), centred(truth))
        print(f"| {name} | {r2(guess, truth):.3f} | {inside:.3f} | {truth.std():.3f} |")


def samples(
    checkpoint: Checkpoint, world: World, clips: int, frames: int, seed: int, held_out: bool, part: int = 8
) -> tuple[Tensor, Tensor]:
    """Motion vectors [clips, frames, M] and what they should tell [clips, frames, len(TARGETS)]."""
    vectors, truths = [], []
    for i in range(-(-clips // part)):
        batch = world.sample_batch(part, frames, SIDE, SIDE, seed + i, held_out)
        with torch.inference_mode():
            vectors.append(checkpoint.transformer.encode_motion(to_video(batch.face)).float())
        truths.append(torch.stack([getattr(batch, name) for name in TARGETS], dim=-1))
    return torch.cat(vectors)[:clips], torch.cat(truths)[:clips]


def ridge(x: Tensor, y: Tensor, share: float = 1e-3) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, mean of x and mean of y of a linear map [n, M] -> [n]."""
    x, y = x.double(), y.double()
    mean, middle = x.mean(0), y.mean()
    x = x - mean
    square = x.T @ x
    damped = square + share * square.diagonal().mean() * torch.eye(len(square), dtype=x.dtype)
    return torch.linalg.solve(damped, x.T @ (y - middle)), mean, middle


def predict(x: Tensor, weights: tuple[Tensor, Tensor, Tensor]) -> Tensor:
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
