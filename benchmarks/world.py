"""Speed of the training world on a device: clips a second, peak memory, and where the time goes.

python benchmarks/world.py --device cuda --clips 64 --size 256x256 [--compiled] [--plain]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import torch

from mannequin.world.assets import load
from mannequin.world.world import World, WorldSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--size", default="128x128", help="WIDTHxHEIGHT")
    parser.add_argument("--face", type=int, default=64)
    parser.add_argument("--supersample", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--compiled", action="store_true", help="shade through torch.compile")
    parser.add_argument("--plain", action="store_true", help="the torch rasteriser instead of Triton")
    parser.add_argument("--profile", action="store_true", help="list the slowest operations of one batch")
    args = parser.parse_args()
    width, height = (int(v) for v in args.size.split("x"))
    cuda = args.device.startswith("cuda")
    settings = replace(
        WorldSettings(), face_size=args.face, supersample=args.supersample, compiled=args.compiled, plain=args.plain
    )
    world = World(load(device=args.device), settings)
    generator = torch.Generator(args.device).manual_seed(0)

    def batch() -> None:
        world.sample_batch(args.clips, args.frames, width, height, generator)
        if cuda:
            torch.cuda.synchronize()

    start = time.perf_counter()
    batch()
    print(f"first batch (tables, kernels): {time.perf_counter() - start:.1f} s")
    batch()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    for _ in range(args.rounds):
        batch()
    seconds = (time.perf_counter() - start) / args.rounds
    peak = f", peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if cuda else ""
    print(
        f"{args.clips} clips of {args.frames} frames at {args.size}, face {args.face}, supersample {args.supersample} on "
        f"{args.device}: {seconds:.3f} s a batch, {args.clips / seconds:.1f} clips/s{peak}"
    )
    if args.profile:
        kinds = [torch.profiler.ProfilerActivity.CPU] + ([torch.profiler.ProfilerActivity.CUDA] if cuda else [])
        with torch.profiler.profile(activities=kinds) as profile:
            batch()
        order = "self_cuda_time_total" if cuda else "self_cpu_time_total"
        print(profile.key_averages().table(sort_by=order, row_limit=20, max_name_column_width=48))


if __name__ == "__main__":
    main()
