"""The plan of a job on this machine: its checkpoint, its size, its memory, its speed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path

import psutil
import torch

from wanimate.conditions.segments import plan_segments
from wanimate.config import ParallelSettings, RuntimeSettings, Speed
from wanimate.errors import setting
from wanimate.log import log_choice
from wanimate.media.resize import exact_size
from wanimate.model.transformer import AnimateTransformer
from wanimate.runtime.kept import kept_json
from wanimate.runtime.optimize import has_fp8, has_int8, measured_key
from wanimate.runtime.planning.plan import Alternative, Machine, Plan, ResidentBytes, Work, make_plan
from wanimate.runtime.planning.rates import Rates, measure_rates
from wanimate.runtime.planning.sizes import GIB, Networks, networks, wanted_weights
from wanimate.types import Segment
from wanimate.weights.checkpoint import gpu_room
from wanimate.weights.locate import CheckpointConfig
from wanimate.weights.lora_view import LoraSizes

_CAPPED: set[torch.device] = set()
"""Devices on which this module has set a cap."""
CLIP_LENGTHS = (61, 49, 33, 21)
AREAS = (960 * 544, 832 * 480, 640 * 368, 480 * 272)


def plan_for(
    folder: Path, config: CheckpointConfig, work: Work, settings: RuntimeSettings, device: torch.device,
    held: ResidentBytes = ResidentBytes(), loras: Callable[[AnimateTransformer], LoraSizes] | None = None,
    spread: ParallelSettings = ParallelSettings(),
) -> Plan:  # fmt: skip
    """Where a checkpoint's networks go for a job, and what it takes. Small ones (`is_big`) need no plan.

    held: what its networks take already. loras: sizes of the job's LoRAs, told from a transformer without values. spread: over
    how many GPUs, which are taken to be alike.

    Raises:
        OutOfMemory: it does not fit; the message names the nearest setting that does.
        CheckpointError: the files are not those of the architecture.
        InputError: as `loras` says.
    """
    limit_gpu(settings, device)
    wanted = wanted_weights(settings, device)
    nets = networks(folder, config, wanted, device, spread.shard_weights)
    name, room = "CPU", 0
    if device.type == "cuda":
        name, room = torch.cuda.get_device_name(device), gpu_room(device) + held.gpu
    host = psutil.virtual_memory().available + psutil.Process().memory_info().rss
    if loras is not None:
        with torch.device("meta"):
            work = replace(work, loras=loras(AnimateTransformer(nets.params)))
    rates = _rates(str(device), nets.dtype, settings.speed)
    log_choice("rates", name, ", ".join(f"{k} {v / 1e12:.3g}e12/s" for k, v in vars(rates).items()))

    def alternatives() -> Iterator[Alternative]:
        if spread.gpus > 1 and not spread.shard_weights:
            parts = networks(folder, config, wanted, device, sharded=True)
            yield "parallel.shard_weights", parts, work, spread.model_copy(update={"shard_weights": True})
        for words, other, less in smaller():
            yield words, other, less, spread

    def smaller() -> Iterator[tuple[str, Networks, Work]]:
        if not (nets.quantized or spread.shard_weights):
            yield f"{setting('runtime.weights_dtype')} fp8", networks(folder, config, "fp8", device), work
        for length in CLIP_LENGTHS:
            if length < work.length:
                yield (
                    f"{setting('generate.clip_length')} {length}",
                    nets,
                    replace(work, segments=_shorter(work, length)),
                )
        for area in AREAS:
            if area < work.size[0] * work.size[1]:
                width, height = exact_size(*work.size, area)
                yield f"{setting('preprocess.area')} {width}x{height}", nets, replace(work, size=(width, height))
                smallest = replace(work, size=(width, height), segments=_shorter(work, CLIP_LENGTHS[-1]))
                yield (
                    f"{setting('preprocess.area')} {width}x{height} {setting('generate.clip_length')} {CLIP_LENGTHS[-1]}",
                    nets,
                    smallest,
                )

    if spread.gpus > 1:
        name = f"{spread.gpus} x {name}"
    eight = has_fp8(device) if wanted == "fp8" else has_int8(device)
    machine = Machine(device, name, room, host, rates, eight)
    return make_plan(nets, work, settings, machine, alternatives, held, spread)


def limit_gpu(settings: RuntimeSettings, device: torch.device) -> None:
    """Let this process take no more of the GPU than the settings allow; a cap of earlier settings is lifted."""
    if device.type != "cuda":
        return
    if settings.gpu_memory is not None:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, settings.gpu_memory * GIB / total), device)
        _CAPPED.add(device)
    elif device in _CAPPED:  # one that the caller's own code has set stays
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        _CAPPED.discard(device)


def _shorter(work: Work, length: int) -> tuple[Segment, ...]:
    count = max(s.stop for s in work.segments)
    overlap = next((s.overlap for s in work.segments if s.overlap), 1)
    return plan_segments(count, length, overlap)


@lru_cache(maxsize=8)
def _rates(name: str, dtype: torch.dtype, speed: Speed) -> Rates:
    device = torch.device(name)
    if device.type != "cuda":
        return measure_rates(device, dtype, speed)
    key = ["rates", measured_key(device), str(dtype), speed]
    return Rates(**kept_json("measured", key, lambda: asdict(measure_rates(device, dtype, speed))))
