"""Where a training step's time goes: rendering, encoding, the transformer's step and the VAE's, each by itself.

python benchmarks/training.py                                              # a GPU, the shipping sizes
python benchmarks/training.py --device cpu --batch 1 --frames 5 --part 1 --rounds 1 --crop 32
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from hardware import described

from mannequin.training import transformer
from mannequin.training import vae as vae_training
from mannequin.training.averages import Ema
from mannequin.training.clip_latents import LatentSet, WorldClips, encode_batch
from mannequin.training.muon import Muon
from mannequin.training.observer import Observer
from mannequin.training.pool import SIZES, WORLD
from mannequin.training.reader import FaceReader, Reading
from mannequin.training.recording import step_for
from mannequin.world.assets import load
from mannequin.world.world import World
from wanimate.weights.formats import read_tensors
from wanimate.weights.locate import embedded_path


def timed(name: str, what: Callable[[], object], device: torch.device, rounds: int) -> None:
    """Seconds a call after two warm-up calls, and how long the host was busy with it."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    for _ in range(2 if device.type == "cuda" else 1):
        what()
    wait()
    start = time.perf_counter()
    for _ in range(rounds):
        what()
    host = (time.perf_counter() - start) / rounds
    wait()
    whole = (time.perf_counter() - start) / rounds
    print(f"| {name} | {1000 * whole:.1f} | {1000 * host:.1f} |", flush=True)


def profiled(what: Callable[[], object]) -> None:
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profile:
        what()
        torch.cuda.synchronize()
    print(profile.key_averages().table(sort_by="self_cuda_time_total", row_limit=25, max_name_column_width=60))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--checkpoint", type=Path, default=embedded_path())
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--part", type=int, default=24, help="clips rendered at once")
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--clip-batch", type=int, default=8)
    parser.add_argument("--frame-batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--profile", action="store_true", help="list the slowest operations of each step")
    args = parser.parse_args()
    device = torch.device(args.device)
    fast = device.type == "cuda"
    world = World(load(device=device), replace(WORLD, compiled=fast))
    codec = vae_training.load_trained_vae(args.checkpoint, device)
    if fast:
        vae_training.speed_up(codec)
    rendered = world.sample_batch(args.part, args.frames, *SIZES[0], 1)
    generator, grey = torch.Generator("cpu").manual_seed(0), {}
    print("\n".join(described(args.device, torch.get_num_threads())))
    print(f"- batch {args.batch}, {args.frames} frames, {args.part} clips rendered at once; milliseconds\n")
    print("| | a call | of it the host |\n|---|---|---|")
    timed("render", lambda: world.sample_batch(args.part, args.frames, *SIZES[0], 2), device, args.rounds)
    timed("encode", lambda: encode_batch(codec, rendered, generator, grey), device, args.rounds)
    part = encode_batch(codec, rendered, generator, grey)
    data = LatentSet([[part]])
    config = transformer.FlowTraining()
    model = transformer.Mannequin()
    model.load_checkpoint(args.checkpoint)
    model.to(device)
    matrices, decayed, plain = transformer.sort_weights(model)
    adam = torch.optim.AdamW([*decayed, *plain], lr=0.0, fused=fast)
    muon, ema = Muon(matrices, lr=0.0), Ema(model, 0.999, every=1)
    if fast:
        transformer.speed_up(model.transformer)
    pictures = data.draw(args.batch, generator).face.permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    data.tell(model.faces.told)
    clips = data.draw(args.batch, generator)

    def faces() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=fast):
            model.transformer.encode_face(pictures).float().sum().backward()

    def stepping(reading: Reading | None) -> Callable[[], object]:
        def measure(*fields: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return transformer.losses(model.flow, WorldClips(*fields), config.loss, reading)

        return partial(step_for(fast)(measure, [*matrices, *decayed, *plain]), *vars(clips).values())

    reading = Reading(FaceReader().to(device).requires_grad_(False), 1.0, 1.0, 3.0)
    backward = stepping(None)
    timed("draw a batch", lambda: data.draw(args.batch, generator), device, args.rounds)
    timed("face branch, forward and backward", faces, device, args.rounds)
    timed("transformer, forward and backward", backward, device, args.rounds)
    timed("the same with a reader", stepping(reading), device, args.rounds)
    timed("Adam", adam.step, device, args.rounds)
    timed("Muon", muon.step, device, args.rounds)
    timed("moving average", lambda: ema.update(0), device, args.rounds)
    if args.profile and fast:
        profiled(backward)
    weights = read_tensors(args.checkpoint / "vae.safetensors")
    vae = vae_training.begin_with(weights, vae_training.width_of(weights)).to(device)
    observer = Observer().to(device)
    trained = [*vae.parameters(), *observer.parameters()]
    if fast:
        vae_training.speed_up(vae)
    vae_config = vae_training.VaeTraining()
    for name, shape in (
        ("VAE, frames, forward and backward", (args.frame_batch, 4, 1, args.crop, args.crop)),
        ("VAE, clips, forward and backward", (args.clip_batch, 4, args.frames, args.crop, args.crop)),
        ("VAE, details, forward and backward", (2 * args.clip_batch, 4, args.frames, args.crop // 2, args.crop // 2)),
    ):
        video = torch.rand(shape, device=device)

        loss = partial(vae_training.vae_loss, vae, config=vae_config, observer=observer)
        vae_step = step_for(fast)(loss, trained)
        timed(name, partial(vae_step, video), device, args.rounds)
        if args.profile and fast:
            profiled(partial(vae_step, video))


if __name__ == "__main__":
    main()
