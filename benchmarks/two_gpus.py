"""One job on several GPUs against one: equality, seconds a step, communication, memory, guidance, a whole job, a killed rank.

    python benchmarks/two_gpus.py --out two_gpus.md                 # full size, random weights, one rank a GPU
    python benchmarks/two_gpus.py --tiny --out rehearsal.md         # rehearsal with gloo on the processor

Results are written after every measurement, so that a run that is cut short keeps what it has.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from hardware import described
from random_network import Report, random_conditions, skip_like, visiting
from torch import Tensor

from wanimate.conditions.build import ConditionBuilder
from wanimate.conditions.segments import plan_segments
from wanimate.config import Defaults, ParallelSettings, Speed
from wanimate.engines.segment import SegmentMaker
from wanimate.errors import RankFailed
from wanimate.events import Stage, StageStarted, StepDone
from wanimate.finish.decode import to_pixels
from wanimate.jobs.segments import FramesDone, run_segments
from wanimate.measure.random_weights import quantize_network, random_network
from wanimate.media.video import ArrayFrames
from wanimate.model.params import MotionParams, TransformerParams, VaeParams
from wanimate.model.transformer import AnimateTransformer
from wanimate.model.vae import VideoVae
from wanimate.runtime.fused_vae import optimize_vae
from wanimate.runtime.optimize import TRIAL_TOKENS, optimize_at
from wanimate.runtime.parallel.ranks import Ranks, join, leave
from wanimate.runtime.parallel.sequence import SplitTransformer
from wanimate.runtime.parallel.shard import sharded
from wanimate.runtime.parallel.team import RankWorker, Team, follow
from wanimate.sampling.cache import TURBO, Caching
from wanimate.sampling.denoise import denoise
from wanimate.sampling.guidance import Network, guided
from wanimate.types import Conditions, Guides
from wanimate.weights.checkpoint import Checkpoint, FixedPrompt
from wanimate.weights.locate import CheckpointConfig

SIZES = {"720p": (1280, 720), "480p": (832, 480)}
TINY_SIZES = {"720p": (80, 48), "480p": (48, 32)}
TINY = TransformerParams(
    dim=64, ffn_dim=96, num_heads=4, num_layers=5, time_width=32, text_width=32, text_length=8, image_width=32, face_width=16,
    motion=MotionParams(channels=(8, 8), width=16, directions=4, layers=2),
)  # fmt: skip
PARTS = ("equality", "guidance", "fast", "profile", "job", "memory")


@dataclass
class Bench:
    """One rank of the measurement. `report` is None on all but the first."""

    ranks: Ranks
    tiny: bool
    steps: int
    density: float | None
    report: Report | None

    def __post_init__(self) -> None:
        self.params = TINY if self.tiny else TransformerParams()
        self.sizes = TINY_SIZES if self.tiny else SIZES
        self.frames = 9 if self.tiny else 77
        self.dtype = torch.float32 if self.ranks.device.type == "cpu" else torch.bfloat16
        self.model: AnimateTransformer | None = random_network(self.params, self.ranks.device, self.dtype)
        self.speed: Speed = "exact"
        self.optimize()

    def optimize(self) -> None:
        """As the pipeline does it."""
        if self.ranks.device.type == "cuda":
            error = 0.05 if self.density and self.speed != "exact" else None
            optimize_at(self.whole, self.ranks.device, self.speed, TRIAL_TOKENS, attention_error=error)

    def fast(self) -> None:
        """From here on the network is in float8; equality again."""
        quantize_network(self.whole)
        self.speed = "fast"
        self.restart()
        self.optimize()
        self.equality()

    @property
    def whole(self) -> AnimateTransformer:
        assert self.model is not None, "memory is measured last"
        return self.model

    def add(self, table: str, columns: list[str], row: list[object]) -> None:
        if self.report is not None:
            self.report.add(table, columns, row)

    def conditions(self, size: str) -> tuple[Conditions, Tensor]:
        """Random conditions and noise, the same on every rank."""
        return random_conditions(self.params, self.sizes[size], self.frames, self.ranks.device)

    def denoised(self, net: Network, noise: Tensor) -> tuple[Tensor, float]:
        """The state after the steps, and the seconds of a step, the first one left out: the median, or the mean where sparse
        attention chooses its blocks anew in some of them."""
        times, state = [], noise
        self.wait()
        began = time.perf_counter()
        for step in denoise(net, noise, "dpm++", self.steps, 5.0):
            self.wait()
            times.append(time.perf_counter() - began)
            state, began = step.latents, time.perf_counter()
        middle = np.mean if self.density and self.speed != "exact" else np.median
        return state, float(middle(times[1:] or times))

    def wait(self) -> None:
        if self.ranks.device.type == "cuda":
            torch.cuda.synchronize()

    def meet(self) -> None:
        """All ranks, without keeping a GPU busy."""
        dist.barrier(group=self.ranks.control)

    def peak(self) -> float:
        """The largest peak of GPU memory among the ranks since the last `restart`, in GiB; 0 without a GPU."""
        used = torch.cuda.max_memory_allocated() / 2**30 if self.ranks.device.type == "cuda" else 0.0
        return float(self.ranks.everyone.gather(torch.tensor([used], device=self.ranks.device)).max())

    def restart(self) -> None:
        gc.collect()
        if self.ranks.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def equality(self) -> None:
        """The state of all ranks against one rank's, and the seconds of a step of both."""
        for size in self.sizes:
            given, noise = self.conditions(size)
            alone, seconds_alone = noise, 0.0
            if self.ranks.first:
                alone, seconds_alone = self.denoised(guided(self.whole, given, 1.0), noise)
            self.meet()
            self.restart()
            net = guided(SplitTransformer(self.whole, self.ranks.everyone), given, 1.0)
            together, seconds = self.denoised(net, noise)
            peak = self.peak()
            flow = net(noise, torch.tensor(700, device=self.ranks.device)).std().item()
            error = ((together - alone).norm() / alone.norm()).item()
            self.add(
                f"Seconds a step and state after {self.steps} steps",
                [
                    "size",
                    "mode",
                    "one GPU, s",
                    f"{self.ranks.count} GPUs, s",
                    "faster by",
                    "relative L2",
                    "flow",
                    "GiB a GPU",
                ],
                [size, self.speed, seconds_alone, seconds, seconds_alone / seconds, f"{error:.2e}", flow, peak],
            )

    def profile(self) -> None:
        """What a step spends in communication."""
        from torch.profiler import ProfilerActivity, profile

        cuda = self.ranks.device.type == "cuda"
        for size in self.sizes:
            given, noise = self.conditions(size)
            net = guided(SplitTransformer(self.whole, self.ranks.everyone), given, 1.0)
            t = torch.tensor(700, device=self.ranks.device)
            net(noise, t)
            with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as seen:
                began = time.perf_counter()
                net(noise, t)
                self.wait()
                whole = time.perf_counter() - began
            sums: dict[str, tuple[float, int]] = {}
            for event in seen.key_averages():
                name = event.key.lower()
                kind = next(
                    (k for k in ("alltoall", "all_to_all", "sendrecv", "allgather", "all_gather") if k in name), None
                )
                if kind is None or not ("nccl" in name or "gloo" in name):
                    continue
                spent = event.self_device_time_total if cuda else event.self_cpu_time_total
                before = sums.get(event.key, (0.0, 0))
                sums[event.key] = before[0] + spent / 1e6, before[1] + event.count
            for name, (spent, count) in sorted(sums.items()):
                columns = ["size", "mode", "what", "calls", "s", "share of the step"]
                row = [size, self.speed, name[:60], count, spent, spent / whole]
                self.add("Communication of a step, rank 0", columns, row)

    def guidance(self) -> None:
        """Two branches one after the other on all ranks, against one branch on each half."""
        given, noise = self.conditions("480p")
        if self.ranks.half is None:
            return
        for name, split in (("sequence", False), ("split", True)):
            part = self._part(ParallelSettings(gpus=self.ranks.count, split_guidance=split))
            with torch.inference_mode():
                part.prepare((), given, 2.0)
            state, seconds = self.denoised(part.flow, noise)
            columns = ["size", "branches", "s a step", "norm of the state"]
            self.add("Guidance 2", columns, ["480p", name, seconds, state.norm().item()])

    def memory(self) -> None:
        """Peak memory and speed with whole and with sharded weights."""
        size = "720p"
        given, noise = self.conditions(size)
        columns = ["size", "weights", "peak a GPU, GiB", "s a step"]
        self.model = None
        self.restart()
        self.model = random_network(self.params, self.ranks.device, self.dtype)
        self.speed = "exact"
        self.optimize()
        self.restart()
        _, seconds = self.denoised(guided(SplitTransformer(self.whole, self.ranks.everyone), given, 1.0), noise)
        self.add("Memory", columns, [size, "whole on each", self.peak(), seconds])
        spread = sharded(self.whole, self.ranks)
        self.model = None
        self.restart()
        _, seconds = self.denoised(guided(SplitTransformer(spread, self.ranks.everyone), given, 1.0), noise)
        self.add("Memory", columns, [size, "sharded", self.peak(), seconds])

    def job(self, frames: int, steps: int, skips: str | None) -> None:
        """A whole job through the team, from guides to pixels, with a full-size VAE."""
        if skips:
            skip_like(skips)
        part = self._part(ParallelSettings(gpus=self.ranks.count))
        if not self.ranks.first:
            follow(self.ranks, part)
            return
        team = Team(part, lambda sure: RankFailed("another rank has ended"))
        width, height = self.sizes["720p"]
        random = np.random.default_rng(0)

        def noise(w: int, h: int) -> ArrayFrames:
            return ArrayFrames(random.integers(0, 255, (frames, h, w, 3), dtype=np.uint8))

        side = self.params.motion.size
        guides = Guides(
            "animation", Fraction(30), noise(width, height), noise(side, side), noise(width, height).take([0])[0]
        )
        settings = Defaults(steps=steps, clip_length=self.frames)
        caching = Caching.of(TURBO, None, steps)
        given, _ = self.conditions("480p")
        began = time.perf_counter()
        image = None if given.image_tokens is None else _Image(given.image_tokens)
        chunk = 1 if self.ranks.device.type == "cpu" else max(1, (1 << 18) // (width * height))
        builder = ConditionBuilder(
            guides, team, image, given.text, None, face_size=side, device=self.ranks.device, chunk=chunk,
        )  # fmt: skip
        segments = plan_segments(frames, settings.clip_length, settings.overlap)
        seconds: dict[str, float] = {}
        skipped = [0] * len(segments)
        stage, since = Stage.CONDITIONS, began
        maker = SegmentMaker(builder, lambda c: team.network((), c, 1.0, caching), team, settings, chunk)
        events = run_segments(maker, segments, frames, 0)
        for event in events:
            if isinstance(event, FramesDone):
                to_pixels(event.frames)
            if isinstance(event, StageStarted):
                now = time.perf_counter()
                seconds[stage], stage, since = seconds.get(stage, 0.0) + now - since, event.stage, now
            if isinstance(event, StepDone):
                skipped[event.segment] = event.skipped
                self.wait()
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - since
        team.stop()
        whole = time.perf_counter() - began
        mode = f"{self.speed} weights, {caching}"
        mode += f", attention of density {self.density:g}" if self.density else ""
        columns = ["mode", "frames", "size", "steps", "skipped", "s", *seconds]
        self.add(
            "A whole job, guides to pixels",
            columns,
            [mode, frames, f"{width}x{height}", steps, str(skipped), whole, *seconds.values()],
        )

    def _part(self, settings: ParallelSettings) -> RankWorker:
        vae = VideoVae(VaeParams(base=8, res_blocks=1) if self.tiny else VaeParams())
        for p in vae.parameters():
            p.data.normal_(std=0.02, generator=torch.Generator().manual_seed(2))
        vae.to(self.ranks.device).channels_last().eval().requires_grad_(False)
        if self.speed == "fast" and self.ranks.device.type == "cuda":
            optimize_vae(vae, self.speed)
        config = CheckpointConfig(name="random weights")
        checkpoint = Checkpoint(Path(), config, self.whole, vae, FixedPrompt({}), None, self.ranks.device)
        return RankWorker(self.ranks, checkpoint, settings)


@dataclass(frozen=True)
class _Image:
    tokens: Tensor

    def encode(self, picture: Tensor) -> Tensor:
        return self.tokens


def measure(given: argparse.Namespace) -> None:
    """What each rank runs."""
    ranks = join()
    report = None
    if ranks.first:
        kind = "cuda" if ranks.device.type == "cuda" else "cpu"
        what = "tiny, a rehearsal" if given.tiny else "full size"
        command = f"- `python benchmarks/two_gpus.py {' '.join(given.words)}`"
        head = [*described(kind), f"- {ranks.count} ranks; random weights, {what}", command]
        report = Report(given.out, "One job on several GPUs", head)
    jobs = [(given.frames, steps, skips) for steps, skips in zip(given.job_steps, given.skips, strict=True)]
    with visiting(given.density):
        bench = Bench(ranks, given.tiny, given.steps, given.density, report)
        for part in given.parts:
            run: Callable[..., None] = getattr(bench, part)
            for words in jobs if part == "job" else [()]:
                bench.restart()
                run(*words)
                bench.meet()
    leave()


def kill_a_rank(given: argparse.Namespace) -> str:
    """A running command whose second rank is killed: its message, how soon it ended, and the memory left on the GPUs."""
    import psutil

    from wanimate.preprocess.guides import GuidesWriter

    with tempfile.TemporaryDirectory() as folder:
        place, picture = Path(folder), np.full((192, 192, 3), 90, np.uint8)
        with GuidesWriter(place / "guides", "animation", Fraction(24), (192, 192), 512) as writer:
            for _ in range(9):
                writer.write(picture, np.full((512, 512, 3), 90, np.uint8))
            writer.finish(picture, {}, {"source": np.zeros((9, 133, 3))})
        code = "from wanimate.cli.main import main; main()"
        words = [
            "generate",
            place / "guides",
            "--out",
            place / "a.mp4",
            "--gpus",
            given.gpus,
            "--steps",
            10**6,
            "--json",
        ]
        free = _free_memory()
        job = subprocess.Popen([sys.executable, "-c", code, *map(str, words)], stdout=subprocess.PIPE, text=True)
        assert job.stdout is not None
        for line in job.stdout:
            if '"step"' in line:
                break
        rank = next(p for p in psutil.Process(job.pid).children() if p.environ().get("RANK") == "1")
        used = [a - b for a, b in zip(free, _free_memory(), strict=True)]
        began = time.perf_counter()
        rank.kill()
        said, _ = job.communicate(timeout=120)
        seconds = time.perf_counter() - began
        after = [a - b for a, b in zip(free, _free_memory(), strict=True)]
    error = [line for line in said.splitlines() if '"error"' in line]
    gib = ", ".join(f"{u / 2**30:.2f} -> {a / 2**30:.2f}" for u, a in zip(used, after, strict=True))
    memory = f"; memory of the GPUs, GiB: {gib}" if gib else ""
    last = error[-1] if error else said
    return f"exit code {job.returncode} after {seconds:.1f} s, {len(error)} error line(s): {last}{memory}"


def _free_memory() -> list[int]:
    return [torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())]


@contextmanager
def _processor_only(tiny: bool) -> Iterator[None]:
    if tiny:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True, help="Markdown file")
    parser.add_argument("--tiny", action="store_true", help="small networks on the processor")
    parser.add_argument("--steps", type=int, default=3, help="diffusion steps of each measurement")
    parser.add_argument("--frames", type=int, default=250, help="frames of the whole job")
    parser.add_argument("--job-steps", type=int, nargs="+", default=[20], help="diffusion steps of each whole job")
    parser.add_argument("--skips", metavar="FF..F", nargs="+", help="steps that each job's cache skips (dots)")
    parser.add_argument("--density", type=float, help="share of the blocks that sparse attention visits in fast")
    parser.add_argument("--parts", nargs="+", default=[*PARTS, "kill"], choices=[*PARTS, "kill"])
    given: Any = parser.parse_args()
    given.words = sys.argv[1:]
    given.skips = given.skips or [None] * len(given.job_steps)
    if len(given.skips) != len(given.job_steps):
        parser.error("--skips: a pattern for each of --job-steps is needed")
    kill = "kill" in given.parts
    given.parts = [part for part in given.parts if part != "kill"]
    given.parts.sort(key=PARTS.index)  # the later ones change the weights
    with _processor_only(given.tiny):
        if "RANK" in os.environ:
            measure(given)
            return
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(given.gpus)]
        code = subprocess.call([*launcher, __file__, *sys.argv[1:]]) if given.parts else 0
        if kill and not code:
            said = kill_a_rank(given)
            print(said)
            with open(given.out, "a") as file:
                file.write(f"\n## A killed rank\n\n{said}\n")
        sys.exit(code)


if __name__ == "__main__":
    main()
