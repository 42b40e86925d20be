"""Upscaling and interpolation on a GPU: milliseconds a frame, memory, and how far results are from the processor's.

    python benchmarks/finishing_gpu.py --json finishing_gpu.json

Frames lie on the GPU before and after. Every part is written as soon as it is measured.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wanimate.config.target import parse_target
from wanimate.post import models
from wanimate.post.base import VideoSpec
from wanimate.post.flow import Flow, PyramidFlow
from wanimate.post.interpolate.choose import open_between
from wanimate.post.interpolate.methods import RifeBetween
from wanimate.post.interpolate.network import Rife
from wanimate.post.upscale.resample import resize
from wanimate.post.upscale.stage import Upscaler, Work
from wanimate.post.upscale.steady import SteadyDetail
from wanimate.post.upscale.styles import open_enlarger

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


class Bench:
    """Measures on one device, and writes what it finds."""

    def __init__(self, device: torch.device, path: Path, seconds: float, types: list[str]) -> None:
        self.device, self.path, self.end = device, path, time.monotonic() + seconds
        self.types = {name: DTYPES[name] for name in types}
        gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
        self.found: dict[str, Any] = {"device": gpu, "torch": torch.__version__, "python": platform.python_version()}

    def row(self, name: str, work: Callable[[], object], frames: int, repeats: int = 4) -> None:
        """Milliseconds a frame (the best of `repeats`) and the peak of memory of a piece of work on so many frames."""
        if time.monotonic() > self.end:
            self.note(name, "left out: no time")
            return
        try:
            work()
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
            times = [self._timed(work) for _ in range(repeats)]
        except RuntimeError as error:
            self.note(name, f"failed: {error}"[:300])
            return
        peak = torch.cuda.max_memory_allocated(self.device) / 2**30 if self.device.type == "cuda" else 0.0
        best, usual = min(times) / frames, sorted(times)[len(times) // 2] / frames
        self.note(name, {"ms": round(1000 * best, 3), "median_ms": round(1000 * usual, 3), "peak_gib": round(peak, 2)})

    def note(self, name: str, value: object) -> None:
        self.found[name] = value
        print(name, value, flush=True)
        self.path.write_text(json.dumps(self.found, indent=1))

    def _timed(self, work: Callable[[], object]) -> float:
        self._wait()
        start = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def moving(count: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """A made picture of soft and of fine texture that turns and drifts: float32 [n, 3, H, W]."""
    width, height = size
    generator = torch.Generator().manual_seed(5)
    picture = sum(
        F.interpolate(torch.rand(1, 3, 9 * k, 16 * k, generator=generator), size=(height, width), mode="bicubic")
        / share
        for k, share in ((1, 2), (6, 4), (40, 8))
    )
    frames = []
    for i in range(count):
        turn = torch.tensor(0.004 * i)
        matrix = torch.stack((turn.cos(), -turn.sin(), turn.sin(), turn.cos())).view(1, 2, 2)
        drift = torch.tensor([[[0.003 * i], [0.001 * i]]])
        grid = F.affine_grid(torch.cat((matrix, drift), dim=2), [1, 3, height, width], align_corners=False)
        frames.append(F.grid_sample(torch.as_tensor(picture), grid, padding_mode="reflection", align_corners=False))
    return torch.cat(frames).clamp(0, 1).to(device)


class _Fixed:
    """An enlarger that costs nothing, to measure what is around the network."""

    scale, reach = 4, 24

    def __call__(self, frames: Tensor) -> Tensor:
        return frames.new_zeros(len(frames), 3, 4 * frames.shape[2], 4 * frames.shape[3])

    def close(self) -> None:
        pass


def upscaler(target: str, device: torch.device, dtype: torch.dtype, batch: int, flow: Flow | None = None) -> Upscaler:
    work = Work(device, 2048, batch)
    return Upscaler(
        parse_target(target), open_enlarger("filmed", device, None, dtype), flow or PyramidFlow(), 0.75, work
    )


def consume(chunks: Iterator[Tensor]) -> None:
    for _ in chunks:
        pass


def upscaling(bench: Bench, frames: Tensor, targets: tuple[str, ...]) -> None:
    device, size = bench.device, (frames.shape[3], frames.shape[2])
    for name, dtype in bench.types.items():
        enlarger = open_enlarger("filmed", device, None, dtype)
        for batch in (1, 4):
            piece = frames[:batch]
            bench.row(f"span x4 alone, {name}, batch {batch}", partial(enlarger, piece), batch)
    drawn = open_enlarger("drawn", device, None, torch.float16)
    bench.row("animevideov3 x4 alone, fp16, batch 4", lambda: drawn(frames[:4]), 4)
    for target in targets:
        for name in bench.types:
            for batch in (4, 1, 8) if name == "fp16" else (4,):
                whole(bench, frames, target, name, batch)
    parts(bench, frames, parse_target(targets[0]).size(size))


def whole(bench: Bench, frames: Tensor, target: str, name: str, batch: int, remark: str = "") -> None:
    """The whole stage, from frames to frames."""
    size = frames.shape[3], frames.shape[2]
    stage, spec = upscaler(target, bench.device, DTYPES[name], batch), VideoSpec(size, Fraction(24), len(frames))
    title = f"{size[0]}x{size[1]} to {target}, {name}, batch {batch}{remark}"
    bench.row(title, lambda: consume(stage.run(spec, [frames])), len(frames), 3)


def parts(bench: Bench, frames: Tensor, size: tuple[int, int]) -> None:
    """What each part costs at the first target, four frames at a time."""
    few = frames[:4]
    large = _Fixed()(few)
    plain = resize(few, size)
    steady, flow, begins = SteadyDetail(PyramidFlow()), PyramidFlow(), [False] * len(few)
    grey = few[:, :1].contiguous()
    with torch.inference_mode():
        bench.row("part: area from x4", lambda: resize(large, size), len(few))
        bench.row("part: Lanczos", lambda: resize(few, size), len(few))
        bench.row("part: flow", lambda: flow(grey, grey.roll(1, 0)), len(few))
        bench.row("part: steady detail with flow", lambda: steady(few, plain, plain, begins), len(few))


def compiled(bench: Bench, frames: Tensor) -> None:
    """SPAN by PyTorch's compiler."""
    enlarger = open_enlarger("filmed", bench.device, None, torch.float16)
    try:
        enlarger._network = torch.compile(enlarger._network)  # type: ignore[attr-defined]
        start = time.perf_counter()
        enlarger(frames[:4])
        bench.note("compiling span, seconds", round(time.perf_counter() - start, 1))
    except Exception as error:  # the compiler has many kinds
        bench.note("compiling span", f"failed: {error}"[:300])
        return
    bench.row("span x4 alone, fp16, batch 4, compiled", lambda: enlarger(frames[:4]), 4)


def interpolating(bench: Bench, size: tuple[int, int], scales: tuple[float, ...] = (1.0,), remark: str = "") -> None:
    frames = moving(4, size, bench.device)
    network = Rife.of(models.read(models.RIFE))
    for scale in scales:
        for name, dtype in bench.types.items():
            between = RifeBetween(network, bench.device, dtype, scale)

            def work(between: RifeBetween = between) -> None:
                for a, b in zip(list(frames.split(1))[:-1], list(frames.split(1))[1:], strict=True):
                    between(a, b, [0.5])

            bench.row(f"rife {size[0]}x{size[1]}, {name}, scale {scale:g}{remark}", work, 3)


def errors(bench: Bench) -> None:
    """Largest and root mean square difference from the processor's float32, in levels of 255."""
    here, frames = torch.device("cpu"), moving(3, (256, 128), torch.device("cpu"))
    spec = VideoSpec((256, 128), Fraction(24), 3)
    wanted = torch.cat(list(upscaler("2x", here, torch.float32, 3).run(spec, [frames])))
    between = torch.cat([open_between("rife", here)(frames[:1], frames[1:2], [0.5])])
    pair = frames.to(bench.device)
    for name, dtype in bench.types.items():
        made = torch.cat(list(upscaler("2x", bench.device, dtype, 3).run(spec, [pair]))).cpu()
        rife = RifeBetween(Rife.of(models.read(models.RIFE)), bench.device, dtype)
        for what, difference in (
            ("upscale", made - wanted), ("rife", rife(pair[:1], pair[1:2], [0.5]).cpu() - between)
        ):  # fmt: skip
            levels = 255 * difference
            rms = float(levels.square().mean().sqrt())
            bench.note(
                f"{what}, {name} against the processor",
                {"max": round(float(levels.abs().max()), 4), "rms": round(rms, 5)},
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path, default=Path("finishing_gpu.json"))
    parser.add_argument("--seconds", type=float, default=60, help="no part begins later")
    parser.add_argument("--small", action="store_true", help="tiny frames, to try the program itself")
    parser.add_argument("--types", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    given = parser.parse_args()
    bench = Bench(torch.device(given.device), given.json, given.seconds, given.types)
    size, targets, count = ((64, 36), ("2x",), 4) if given.small else ((1280, 720), ("1080p", "2160p"), 24)
    frames = moving(count, size, bench.device)
    upscaling(bench, frames, targets)
    interpolating(bench, size)
    interpolating(bench, (64, 64) if given.small else (1920, 1080), (1.0, 0.5))
    with torch.backends.cudnn.flags(benchmark=True):
        enlarger = open_enlarger("filmed", bench.device, None, torch.float16)
        bench.row("span x4 alone, fp16, batch 4, cuDNN tries out", lambda: enlarger(frames[:4]), 4)
        for target in targets:
            whole(bench, frames, target, "fp16", 4, ", cuDNN tries out")
        interpolating(bench, size, remark=", cuDNN tries out")
    errors(bench)
    if bench.device.type == "cuda" and time.monotonic() < bench.end:
        compiled(bench, frames)


if __name__ == "__main__":
    main()
