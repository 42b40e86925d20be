"""What upscaling and interpolation do to a clip that is known in full, on a processor.

    python benchmarks/finishing.py CLIP --threads 1

Upscaling: frames are halved by area and enlarged again. A moving part of the clip is looked at (`--crop`, `--first`).
Interpolation: every second frame of the clip, at 1280x720, is left out and made again. `--mannequins N` adds as many clips of
the mannequin world, which are drawn at the full size. `--drawn SLOW FAST` names two results of a network for the same clip, the
second at twice the rate: the first is interpolated and held against the second.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import chain, islice, pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from hardware import described
from torch import Tensor

from wanimate.config.target import parse_target
from wanimate.measure.metrics import psnr
from wanimate.media.probe import probe
from wanimate.media.resize import AREA
from wanimate.media.video import iter_frames
from wanimate.post.base import VideoSpec
from wanimate.post.flow import DisFlow, Flow, PyramidFlow
from wanimate.post.interpolate.choose import Method, open_between, open_interpolator
from wanimate.post.upscale.resample import resize
from wanimate.post.upscale.stage import Upscaler, Work
from wanimate.post.upscale.styles import open_enlarger
from wanimate.types import Frames

HERE = torch.device("cpu")
RATE = Fraction(30)
METHODS: Sequence[Method] = ("hold", "blend", "dis", "rife")
MOVING = 10
"""Pixels whose largest channel changes by more, between the two frames around, move."""
SEED = 7 * 10**12
Luma = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """A clip in full, uint8 [n, H, W, 3], and its name."""

    name: str
    truth: Frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--crop", type=int, nargs=3, default=(600, 300, 640), metavar=("X", "Y", "SIDE"))
    parser.add_argument("--first", type=int, default=22, help="first of the 8 frames of the upscaling table")
    parser.add_argument("--every", type=int, default=4, help="of the frames to be made, each so many is")
    parser.add_argument("--mannequins", type=int, default=0)
    parser.add_argument("--drawn", type=Path, nargs=2, metavar=("SLOW", "FAST"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", choices=("upscale", "interpolate", "cost"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print("\n".join(described(threads=given.threads)))
    if given.only in (None, "upscale"):
        upscaling(given)
    if given.only in (None, "interpolate"):
        interpolation(given)
    if given.drawn:
        drawn(*given.drawn)
    if given.only in (None, "cost"):
        costs()


def mannequins(count: int, frames: int, side: int) -> Iterator[Case]:
    """Clips of the world at 16 frames/s; the number decides everything."""
    if not count:
        return
    from mannequin.world.assets import load
    from mannequin.world.world import World, WorldSettings

    world = World(load(), WorldSettings(replacement=0.0, disturb=False, slowest=16.0, fastest=16.0))
    for i in range(count):
        clip = world.sample_batch(1, frames, side, side, SEED + i, held_out=True)
        yield Case(f"mannequin {i}", clip.video[0].numpy())


def upscaling(given: argparse.Namespace) -> None:
    x, y, side = given.crop
    taken = islice(iter_frames(probe(given.clip, None)), given.first, given.first + 8)
    clip = Case("clip", np.stack([frame[y : y + side, x : x + side] for frame in taken]))
    print("\n| | PSNR, dB | warp | sharp |\n|---|---|---|---|")
    for case in chain([clip], mannequins(given.mannequins, 8, 512)):
        flows = [flow(a, b) for a, b in pairwise(case.truth)]
        print(f"| {case.name}: truth | | {warped(case.truth, flows):.3f} | 1 |", flush=True)
        for name, made in enlarged(case.truth):
            row = f"{psnr(made, case.truth):.2f} | {warped(made, flows):.3f} | {sharpness(made, case.truth):.2f}"
            print(f"| {case.name}: {name} | {row} |", flush=True)


def enlarged(truth: Frames) -> list[tuple[str, Frames]]:
    """The clip, halved and enlarged in every way."""
    height, width = truth.shape[1:3]
    small = np.stack([cv2.resize(frame, (width // 2, height // 2), interpolation=AREA) for frame in truth])
    frames, size, target = tensors(small), (width, height), parse_target(f"{width}x{height}")
    spec = VideoSpec((width // 2, height // 2), RATE, len(frames))
    plain = resize(frames, size)
    known = _Known(torch.cat([open_enlarger("filmed", HERE)(frame) for frame in frames.split(1)]))
    network = resize(known.made, size)

    def steady(strength: float, flow: Flow) -> Frames:
        stage = Upscaler(target, known, flow, strength, Work(HERE, 4096, len(frames)))
        return pixels(torch.cat(list(stage.run(spec, [frames]))))

    drawn = torch.cat([open_enlarger("drawn", HERE)(frame) for frame in frames.split(1)])
    return [
        ("Lanczos", pixels(plain)),
        ("SPAN x4, by area", pixels(network)),
        ("0.7 SPAN x4 + 0.3 Lanczos", pixels(torch.lerp(plain, network, 0.7))),
        ("steady detail, strength 0.7", steady(0.7, DisFlow())),
        ("steady detail, strength 0.75", steady(0.75, DisFlow())),
        ("steady detail, strength 0.8", steady(0.8, DisFlow())),
        ("the same, 0.75, flow in PyTorch as on a GPU", steady(0.75, PyramidFlow())),
        ("drawn, by area", pixels(resize(drawn, size))),
    ]


class _Known:
    """An enlarger that has made its frames already."""

    scale, reach = 4, 24

    def __init__(self, made: Tensor) -> None:
        self.made = made

    def __call__(self, frames: Tensor) -> Tensor:
        assert len(frames) == len(self.made)
        return self.made

    def close(self) -> None:
        pass


def interpolation(given: argparse.Namespace) -> None:
    print("\n| every 2nd frame | PSNR, dB | on moving pixels, dB | CPU s a frame |\n|---|---|---|---|")
    frames = iter_frames(probe(given.clip, None))
    small = np.stack([cv2.resize(frame, (1280, 720), interpolation=AREA) for frame in frames])
    for case in chain([Case("clip", small)], mannequins(given.mannequins, 33, 512)):
        for method in METHODS:
            print(f"| {case.name}: {method} | {remade(case.truth, method, given.every)} |", flush=True)


def remade(truth: Frames, method: Method, every: int) -> str:
    """PSNR of frames that are left out and made again, of all together."""
    between = open_between(method, HERE)
    errors, shares, moving, spent = [], [], [], []
    for number in range(0, len(truth) - 2, 2 * max(every // 2, 1)):
        a, wanted, b = truth[number], truth[number + 1], truth[number + 2]
        start = time.process_time()
        made = pixels(between(tensors(a[None]), tensors(b[None]), [0.5]))[0]
        spent.append(time.process_time() - start)
        error = np.square(made.astype(np.float32) - wanted).mean(-1)
        moves = np.abs(a.astype(np.int16) - b).max(-1) > MOVING
        errors.append(error.mean())
        moving.append((error * moves).mean())
        shares.append(moves.mean())
    between.close()
    whole, part = np.mean(errors), np.mean(moving) / np.mean(shares)
    return f"{10 * np.log10(255**2 / whole):.2f} | {10 * np.log10(255**2 / part):.1f} | {np.mean(spent):.2f}"


def drawn(slow: Path, fast: Path) -> None:
    """A network's own frames: drawn slowly and interpolated, beside drawn at the full rate."""
    print("\n| drawn slowly, then | frames drawn, dB | frames between, dB |\n|---|---|---|")
    wanted, clip = np.stack(list(iter_frames(probe(fast, None)))), probe(slow, None)
    few = np.stack(list(iter_frames(clip)))
    spec = VideoSpec((clip.width, clip.height), clip.fps, len(few))
    for method in METHODS:
        stage = open_interpolator(2 * clip.fps, method)
        made = pixels(torch.cat(list(stage.run(spec, [tensors(few)]))))
        stage.close()
        both = min(len(made), len(wanted)) - 1  # the last one is held
        row = f"{psnr(made[:both:2], wanted[:both:2]):.2f} | {psnr(made[1:both:2], wanted[1:both:2]):.2f}"
        print(f"| {method} | {row} |", flush=True)
    print(
        "\n| drawn at the full rate, every 2nd frame | PSNR, dB | on moving pixels, dB | CPU s a frame |\n|---|---|---|---|"
    )
    for method in METHODS:
        print(f"| {method} | {remade(wanted, method, 1)} |", flush=True)


def costs() -> None:
    """Processor seconds of a 1280x720 frame, and the memory of this process after it."""
    print("\n| 1280x720 | CPU s a frame | peak of the process, GiB |\n|---|---|---|")
    frames = torch.rand(2, 3, 90, 160)
    frames = torch.nn.functional.interpolate(frames, size=(720, 1280), mode="bicubic").clamp(0, 1)
    spec = VideoSpec((1280, 720), RATE, 2)
    for target in ("1080p", "2160p"):
        stage = Upscaler(parse_target(target), open_enlarger("filmed", HERE), DisFlow(), 0.75, Work(HERE, 640, 1))
        cost(f"upscale to {target}", partial(consume, stage, spec, frames), 2)
    for method in METHODS[1:]:
        between = open_between(method, HERE)
        cost(f"interpolate by {method}", partial(between, frames[:1], frames[1:2], [0.5]), 1)


def consume(stage: Upscaler, spec: VideoSpec, frames: Tensor) -> None:
    for _ in stage.run(spec, [frames]):
        pass


def cost(name: str, work: Callable[[], object], frames: int) -> None:
    start = time.process_time()
    work()
    spent = (time.process_time() - start) / frames
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"| {name} | {spent:.2f} | {peak:.2f} |", flush=True)


def flow(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """From a to b, [H, W, 2]."""
    return (
        DisFlow(threads=1)(*(tensors(x[None]).mul(_WEIGHTS).sum(1, keepdim=True) for x in (a, b)))[0]
        .permute(1, 2, 0)
        .numpy()
    )


_WEIGHTS = torch.tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)


def luma(frame: npt.NDArray[np.uint8]) -> Luma:
    grey: Luma = frame.astype(np.float32) @ np.array((0.299, 0.587, 0.114), np.float32)
    return grey


def warped(frames: Frames, flows: Sequence[npt.NDArray[np.float32]]) -> float:
    """Mean difference in luma from each frame to the next one, moved along the truth's flow."""
    height, width = frames.shape[1:3]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    differences = []
    for (a, b), moved in zip(pairwise(frames), flows, strict=True):
        back = cv2.remap(
            luma(b), x + moved[..., 0], y + moved[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        differences.append(np.abs(luma(a) - back).mean())
    return float(np.mean(differences))


def sharpness(frames: Frames, truth: Frames) -> float:
    """Variance of the Laplacian over the truth's."""
    shares = [
        cv2.Laplacian(luma(a), cv2.CV_32F).var() / cv2.Laplacian(luma(b), cv2.CV_32F).var()
        for a, b in zip(frames, truth, strict=True)
    ]
    return float(np.mean(shares))


def tensors(frames: Frames) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255


def pixels(frames: Tensor) -> Frames:
    levels: Frames = (frames * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return levels


if __name__ == "__main__":
    main()
