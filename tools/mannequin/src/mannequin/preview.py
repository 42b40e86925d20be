"""Look at the world: a contact sheet, one clip a row: video | skeleton | face | reference | person.

python -m mannequin.preview --out build/world.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from mannequin.world.assets import load
from mannequin.world.world import World, WorldBatch, WorldSettings


def contact_sheet(batch: WorldBatch, columns: int = 3) -> npt.NDArray[np.uint8]:
    """uint8 RGB: each clip's reference, then video, skeleton and face at `columns` moments, then what is kept."""
    n, frames, height, _width, _ = batch.video.shape
    rows = []
    for i in range(n):
        tiles = [batch.reference[i].cpu().numpy()]
        for t in np.linspace(0, frames - 1, columns).astype(int):
            face = cv2.resize(batch.face[i, t].cpu().numpy(), (height, height), interpolation=cv2.INTER_LINEAR)
            tiles += [batch.video[i, t].cpu().numpy(), batch.skeleton[i, t].cpu().numpy(), face]
        tiles.append(batch.background[i, -1].cpu().numpy())
        tiles.append(np.repeat(batch.cover[i, -1].cpu().numpy()[:, :, None], 3, axis=2))
        rows.append(np.concatenate(tiles, axis=1))
    return np.concatenate(rows, axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/world.png"))
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--size", default="256x256", help="WIDTHxHEIGHT")
    parser.add_argument("--columns", type=int, default=3)
    parser.add_argument("--face", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--near", type=float, default=0.0, help="share of close-ups")
    parser.add_argument("--full", action="store_true", help="the full mesh")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    width, height = (int(v) for v in args.size.split("x"))
    torch.set_num_threads(2)
    world = World(load(device=args.device, full=args.full), WorldSettings(face_size=args.face, near=args.near))
    batch = world.sample_batch(args.clips, args.frames, width, height, args.seed, args.held_out)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(args.out), cv2.cvtColor(contact_sheet(batch, args.columns), cv2.COLOR_RGB2BGR))
    print(batch, args.out, sep="\n")


if __name__ == "__main__":
    main()
