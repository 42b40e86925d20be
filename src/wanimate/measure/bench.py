"""What a machine takes for jobs: seconds, memory and energy, of synthetic guides, so that nothing but a checkpoint is needed.

cold   the first job: weights are opened, kernels compiled. What has been read before may come from the page cache.
warm   the same job again: weights are in memory.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from wanimate.config import Defaults, GenerateSettings, Job, OutputSettings, RuntimeSettings
from wanimate.engines.registry import engine_for
from wanimate.engines.wan_animate import WanAnimate
from wanimate.events import Finished, Stage, StageFinished, StageStarted, StepDone
from wanimate.finish.record import peak_rss
from wanimate.jobs import run as jobs
from wanimate.measure.energy import EnergyMeter
from wanimate.measure.random_weights import NAME, RandomEngine, RandomNetworks, fits
from wanimate.measure.synthetic import write_guides
from wanimate.media.resize import exact_size
from wanimate.types import Mode
from wanimate.weights.checkpoint import check_checkpoint

GIB = 2**30
Start = Literal["cold", "warm"]
STARTS: tuple[Start, ...] = ("cold", "warm")
SIZES = ((832, 480), (1280, 720))
PROMPT = "a person moves"
COLUMNS = (
    "mode", "size", "start", "seconds", "until the first step", "s/step", "steps skipped", "decode s", "GPU peak GiB",
    "host peak GiB", "Wh",
)  # fmt: skip


@dataclass(frozen=True)
class JobMeasure:
    """One job. Seconds of all of it, until the first step begins, of a step (median without each segment's first), and of its
    stages; GiB at most on the GPU (None without one) and of the process so far; what the GPU has drawn in watt-hours (None
    where the driver does not tell)."""

    frames: int
    steps: int
    skipped: int
    seconds: float
    until_denoising: float
    step: float
    conditions: float
    denoise: float
    decode: float
    gpu_peak: float | None
    host_peak: float
    watt_hours: float | None
    placement: str
    attention: str


@dataclass(frozen=True)
class BenchRow:
    mode: Mode
    size: str
    start: Start
    measured: JobMeasure

    def to_dict(self) -> dict[str, Any]:
        return {"mode": self.mode, "size": self.size, "start": self.start, **asdict(self.measured)}


@dataclass(frozen=True)
class BenchOrder:
    """What is measured. `sizes`: width and height; empty is 480p and 720p, or the one size of a small checkpoint. `frames`,
    `steps`: None is one segment, and the checkpoint's."""

    modes: tuple[Mode, ...] = ("animation", "replacement")
    sizes: tuple[tuple[int, int], ...] = ()
    frames: int | None = None
    steps: int | None = None


def measure_job(
    engine: WanAnimate, guides: Path, out: Path, settings: GenerateSettings = GenerateSettings()
) -> JobMeasure:
    """Run a job from a guides folder to `out` and measure it. Whether it is cold or warm depends on the engine's state.

    Raises:
        As `api.Animator.generate`.
    """
    stages: dict[Stage, float] = {}
    steps: list[tuple[int, float]] = []
    denoising: float | None = None
    record: dict[str, Any] = {}
    began = last = time.perf_counter()
    with EnergyMeter(engine.device) as energy:
        output = OutputSettings(audio=False, overwrite=True, sheet=False)
        for event in jobs.generate(engine, guides, Job.checked("out", out), settings, output):
            if isinstance(event, StepDone) and engine.device.type == "cuda":
                torch.cuda.synchronize(engine.device)
            now = time.perf_counter()
            if isinstance(event, StageStarted) and event.stage is Stage.DENOISE and denoising is None:
                denoising = now - began
            elif isinstance(event, StageFinished):
                stages[event.stage] = stages.get(event.stage, 0.0) + event.seconds
            elif isinstance(event, StepDone):
                steps.append((event.step, now - last))
            elif isinstance(event, Finished):
                record = event.result.manifest
            last = now
    later = [seconds for step, seconds in steps if step > 1] or [seconds for _, seconds in steps]
    memory, cache = record["memory"], record["cache"]
    return JobMeasure(
        record["frames"], len(steps), sum(cache["skipped"]) if cache else 0, last - began, denoising or 0.0,
        statistics.median(later), stages.get(Stage.CONDITIONS, 0.0), stages.get(Stage.DENOISE, 0.0),
        stages.get(Stage.DECODE, 0.0), memory["gpu"] / GIB if "gpu" in memory else None, peak_rss() / GIB, energy.watt_hours,
        record["placement"], record["attention"],
    )  # fmt: skip


def engine_to_bench(
    checkpoint: Path | None, runtime: RuntimeSettings, order: BenchOrder
) -> tuple[Callable[[], WanAnimate], str]:
    """What makes the engine, and in words which weights it has: those of `checkpoint`; else random ones of the published size,
    where a GPU here holds them with the largest size; else those of the small checkpoint in the package.

    Raises:
        As `engines.registry.engine_for`.
    """
    largest = max(order.sizes or SIZES, key=lambda size: size[0] * size[1])
    if checkpoint is None and fits(runtime, largest, order.frames or Defaults().clip_length):
        return lambda: RandomEngine(RandomNetworks(runtime)), NAME
    name = engine_for(checkpoint, runtime).config.name
    why = "" if checkpoint is not None else ": no checkpoint was given, and no GPU here holds the published size"
    return lambda: engine_for(checkpoint, runtime), name + why


def bench(make_engine: Callable[[], WanAnimate], order: BenchOrder, folder: Path) -> Iterator[BenchRow]:
    """Each mode and size, cold and warm; a row as soon as it is known. Every cold job has an engine of its own. Guides and
    results go into `folder`."""
    closed = make_engine()
    defaults, networks = closed.config.defaults, closed.networks
    params = networks.params if isinstance(networks, RandomNetworks) else check_checkpoint(closed.folder, closed.config)
    settings = GenerateSettings(steps=order.steps, seed=1, prompt=PROMPT)
    small = exact_size(1, 1, defaults.area)
    own = SIZES if defaults.area >= SIZES[0][0] * SIZES[0][1] else (small,)
    for size, mode in itertools.product(order.sizes or own, order.modes):
        name = f"{size[0]}x{size[1]}"
        guides = folder / f"{mode}-{name}"
        write_guides(guides, size, order.frames or defaults.clip_length, mode, params.motion.size)
        engine = make_engine()
        try:
            for start in STARTS:
                yield BenchRow(mode, name, start, measure_job(engine, guides, guides.with_suffix(".mp4"), settings))
        finally:
            engine.close()


def as_markdown(rows: Sequence[BenchRow], head: Sequence[str]) -> str:
    """A table for people; `head`: lines of a list above it."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    for row in rows:
        m = row.measured
        cells = (
            row.mode, row.size, row.start, f"{m.seconds:.1f}", f"{m.until_denoising:.1f}", f"{m.step:.2f}",
            f"{m.skipped} of {m.steps}", f"{m.decode:.1f}", _or(m.gpu_peak, ".1f", "none"), f"{m.host_peak:.1f}",
            _or(m.watt_hours, ".2f", "not told"),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(["# What this machine takes", "", *(f"- {line}" for line in head), "", *lines, ""])


def _or(value: float | None, form: str, otherwise: str) -> str:
    return otherwise if value is None else format(value, form)
