"""What training a LoRA on the 14B takes: memory and time of a step, from networks of its full width with few blocks.

    python benchmarks/lora_memory.py                              # a GPU; a few minutes
    python benchmarks/lora_memory.py --whole                      # all 40 blocks as well, where the GPU has 80 GB
    python benchmarks/lora_memory.py --tiny --device cpu          # a rehearsal

Random weights in bfloat16, random clips; the adapters, their loop and the recomputed blocks are those of `wanimate train lora`.
Every block costs the same, so what 40 of them take is laid through two depths by a straight line, and said to be.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from hardware import described
from random_network import Report
from torch import Tensor

from wanimate.measure.random_weights import random_network
from wanimate.model.params import MotionParams, TransformerParams
from wanimate.train.adapters import AdapterSettings, attach
from wanimate.train.flow import LossSettings, flow_loss
from wanimate.train.latents import LatentClips
from wanimate.train.lora import LoraTraining, train_adapters
from wanimate.train.own import recompute_blocks, with_conditions

TINY = TransformerParams(
    dim=64, ffn_dim=96, num_heads=2, num_layers=40, time_width=16, text_width=8, text_length=4, image_width=8, face_width=8,
    face_slots=2, motion=MotionParams(channels=(4, 4, 4), width=8, directions=3),
)  # fmt: skip
GIB = 2**30
Numbers = tuple[float, float, float, float]
"""GiB of weights, GiB at the highest point, GiB that the allocator held, seconds a step."""


def clip(params: TransformerParams, size: tuple[int, int], frames: int, device: torch.device) -> tuple[Tensor, ...]:
    """What `Examples.draw` gives: fields of one `LatentClips`, then image tokens."""
    (width, height), t, side = size, (frames + 3) // 4, params.motion.size
    h, w = height // 8, width // 8
    generator = torch.Generator(device).manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    clips = LatentClips(
        target=randn(1, 16, t, h, w), pose=randn(1, 16, t, h, w), known=randn(1, 16, t, h, w), reference=randn(1, 16, 1, h, w),
        keep=torch.zeros(1, 4, t, h, w, device=device), person=torch.ones(1, t, h, w, device=device),
        face=torch.randint(0, 256, (1, frames, side, side, 3), generator=generator, dtype=torch.uint8, device=device),
    )  # fmt: skip
    return (*vars(clips).values(), randn(1, 257, params.image_width or 0))


def trained(
    params: TransformerParams, size: tuple[int, int], frames: int, rank: int, steps: int, where: str
) -> Numbers:
    """One network's numbers; the first step, in which kernels are chosen, does not count for the time."""
    device = torch.device(where)
    network = random_network(params, device, torch.bfloat16)
    on_gpu = device.type == "cuda"
    weights = torch.cuda.memory_allocated() / GIB if on_gpu else 0.0
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    adapters = attach(network, AdapterSettings(rank=rank, alpha=rank))
    recompute_blocks(network)
    text = torch.zeros(2, 32, params.text_width, device=device, dtype=torch.bfloat16)
    batch = clip(params, size, frames, device)

    def measure(*fields: Tensor) -> tuple[Tensor]:
        flow, clips = with_conditions(network, text[:, : params.text_length], fields)
        return (flow_loss(flow, clips, LossSettings(shift=5.0)),)

    never = LoraTraining(steps=10**9, save_every=10**9)
    with TemporaryDirectory() as folder:
        for done in train_adapters(never, adapters, measure, lambda number: batch, Path(folder)):
            if on_gpu:
                torch.cuda.synchronize()
            if done == 1:
                started = time.perf_counter()
            if done == steps:
                break
    seconds = (time.perf_counter() - started) / (steps - 1)
    peaks = (torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()) if on_gpu else (0, 0)
    return weights, peaks[0] / GIB, peaks[1] / GIB, seconds


def line(depths: Sequence[int], rows: Sequence[Numbers], blocks: int) -> list[float]:
    """The straight line through the first and the last of the measured depths, at `blocks`."""
    share = (blocks - depths[0]) / (depths[-1] - depths[0])
    return [first + share * (last - first) for first, last in zip(rows[0], rows[-1], strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["480x272x33", "832x480x77"], help="WIDTHxHEIGHTxFRAMES")
    parser.add_argument("--depths", type=int, nargs="+", default=[5, 10], help="multiples of 5: a fuser for every five")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--whole", action="store_true", help="measure all 40 blocks too")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/lora_memory_DEVICE_DATE.md")
    args = parser.parse_args()
    full = TINY if args.tiny else TransformerParams()
    kind = args.device.split(":")[0]
    out = args.out or Path(__file__).parent / "results" / f"lora_memory_{kind}_{date.today()}.md"
    head = [
        *described(args.device),
        f"- width {full.dim}, {full.num_heads} heads, feed-forward {full.ffn_dim}, bfloat16, adapters of rank {args.rank} in "
        "float32 on every linear of the blocks, AdamW, blocks and fusers recomputed, one clip a step; random weights",
        f"- mean of {args.steps - 1} steps after the first",
    ]  # fmt: skip
    report = Report(out, "Training a LoRA on the 14B: memory and time", head)
    columns = ["frames", "blocks", "weights, GiB", "most allocated, GiB", "most reserved, GiB", "s a step", "how"]
    for text in args.sizes:
        width, height, frames = (int(v) for v in text.split("x"))
        rows: list[Numbers] = []
        for blocks in (*args.depths, *([full.num_layers] if args.whole else [])):
            params = replace(full, num_layers=blocks)
            try:
                row = trained(params, (width, height), frames, args.rank, args.steps, args.device)
            except torch.OutOfMemoryError:
                report.add(f"{width}x{height}", columns, [frames, blocks, *"----", "out of memory"])
                row = None
            gc.collect()
            if args.device.startswith("cuda"):
                torch.cuda.empty_cache()
            if row is None:
                break
            report.add(f"{width}x{height}", columns, [frames, blocks, *row, "measured"])
            if blocks != full.num_layers:
                rows.append(row)
            if len(rows) == len(args.depths) > 1 and blocks == args.depths[-1]:
                guess = line(args.depths, rows, full.num_layers)
                report.add(f"{width}x{height}", columns, [frames, full.num_layers, *guess, "extrapolated"])


if __name__ == "__main__":
    main()
