"""The training loss of the embedded checkpoint on clips that it has never seen, beside the loss that its training logged.

    python benchmarks/fresh_loss.py                # 24 clips of 33 frames: some minutes on two cores

Clips are rendered, encoded and weighed as `python -m mannequin transformer` does it, with seeds that no training uses. A clip
is in training's pool for a while and drawn many times. Where the logged loss is far below this one, the pool was learnt by
heart, and more clips serve better than more steps.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch
from hardware import described

from mannequin.training.clip_latents import encode_batch
from mannequin.training.pool import SIZES, WORLD
from mannequin.world.assets import load
from mannequin.world.world import World
from wanimate.train.flow import LossSettings, flow_loss, predict
from wanimate.train.latents import LatentClips
from wanimate.weights.checkpoint import load_checkpoint
from wanimate.weights.locate import embedded_path

FIRST_SEED = 9_000_000_000


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=embedded_path())
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--times", type=int, default=4, help="Times and noises drawn for each clip.")
    parser.add_argument("--face-weight", type=float, default=8.0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    where = torch.device(args.device)
    base = load_checkpoint(args.checkpoint, where, torch.float32)
    prompts = torch.stack([base.prompts.encode("", negative=negative) for negative in (False, True)]).to(where)
    world = World(load(device=where), replace(WORLD, face_size=base.face_size))
    generator, grey, seeds = (
        torch.Generator("cpu").manual_seed(0),
        dict[tuple[int, ...], torch.Tensor](),
        count(FIRST_SEED),
    )
    losses: list[float] = []
    for number in range(0, args.clips, 4):
        rendered = world.sample_batch(4, args.frames, *SIZES[number // 4 % len(SIZES)], next(seeds))
        clips = encode_batch(base.vae, rendered, generator, grey, args.face_weight)

        def flow(x: torch.Tensor, t: torch.Tensor, c: LatentClips, dropped: torch.Tensor) -> torch.Tensor:
            return predict(base.transformer, prompts[dropped.long()], None, x, t, c, dropped)

        torch.manual_seed(number)
        losses += [flow_loss(flow, clips, LossSettings()).item() for _ in range(args.times)]
        error = torch.tensor(losses).std().item() / len(losses) ** 0.5 if len(losses) > 1 else float("nan")
        print(f"{number + 4} clips: loss {sum(losses) / len(losses):.4f} +- {error:.4f}", flush=True)
    print("\n".join(described(where.type)))


if __name__ == "__main__":
    main()
