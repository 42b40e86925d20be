"""What this machine can run: hardware, backends found, which one is used and why. Loads no networks."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import av
import psutil
import torch

from wanimate.config import GenerateSettings, LoraUse, Mode, ParallelSettings, RuntimeSettings
from wanimate.engines.resolved import ResolvedJob
from wanimate.errors import InputError, Spelling, plainly, setting, spell
from wanimate.media.cpu import cpu_flags
from wanimate.media.probe import probe
from wanimate.media.resize import exact_size
from wanimate.media.video import plan_frames
from wanimate.model.params import TransformerParams, VaeParams
from wanimate.model.transformer import AnimateTransformer
from wanimate.model.vae import VideoVae
from wanimate.preprocess.detect.models import SELFIE, U2NETP, find
from wanimate.runtime.backends import backends
from wanimate.runtime.kept import kept_here
from wanimate.runtime.optimize import TRIAL_HEADS, TRIAL_TOKENS, best_trial, fresh_trials, optimize
from wanimate.runtime.patches import installed
from wanimate.runtime.planning.fit import plan_for
from wanimate.runtime.planning.sizes import wanted_attention_error
from wanimate.versions import version_of
from wanimate.weights.checkpoint import Checkpoint, best_device
from wanimate.weights.locate import CheckpointConfig, embedded_path, read_checkpoint_config
from wanimate.weights.prompts import FixedPrompt

GIB = 2**30
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16", "i8mm", "sve")
# Model spec, section 1: transformer 34.5 GB in bf16, text encoder 11.4 GB, CLIP visual tower and VAE together 1.8 GB.
WEIGHTS_14B = 48e9
TRANSFORMER_14B = 34.5e9
STREAMED_14B = 12 * GIB
"""By the forecast of `runtime.planning` for 1280x720 and 77 frames, with slices of tokens and VAE tiles."""


def examine(
    models: Path | None = None, spelling: Spelling = plainly, runtime: RuntimeSettings = RuntimeSettings()
) -> dict[str, Any]:
    """The report, as plain data; settings in it are called as `spelling` says.

    Returns:
        machine: name -> finding. backends: list of {for, name, available, used, why}.
        jobs: list of {name, verdict: yes | slow | no, why}. patches: network -> what `runtime` puts on it from outside.

    Raises:
        InputError: the device or the attention backend that `runtime` names is not there.
    """
    gpus = gpus_here()
    rows = {"backends": _backends(models, gpus), "jobs": _jobs(models, gpus)}
    told = {name: [row | {"why": spell(row["why"], spelling)} for row in found] for name, found in rows.items()}
    folder, files, taken = kept_here()
    machine = _machine(gpus) | {"kept code": f"{folder}: {files} files, {taken / 2**20:.1f} MiB"}
    return {"machine": machine, **told, "patches": planned_patches(runtime)}


def planned_patches(runtime: RuntimeSettings) -> dict[str, str]:
    """What a job with these settings puts on its networks (`runtime.patches`), found by doing it to networks without values."""
    device = best_device(runtime.device)
    small = TransformerParams(dim=256, ffn_dim=256, num_heads=2, num_layers=5, text_width=8, image_width=None)
    with torch.device("meta"):
        model, vae = AnimateTransformer(small), VideoVae(VaeParams(base=8))
    if device.type == "cuda":
        model = model.to(torch.bfloat16)
    checkpoint = Checkpoint(Path(), CheckpointConfig(name="none"), model, vae, FixedPrompt({}), None, device)
    error = wanted_attention_error(runtime, device)
    optimize(checkpoint, runtime.speed, TRIAL_TOKENS, runtime.attention, error)
    return {name: ", ".join(installed(part)) or "none" for name, part in (("transformer", model), ("VAE", vae))}


def plan_job(
    checkpoint: Path, clip: Path | None, area: int | None, generate: GenerateSettings, runtime: RuntimeSettings,
    mode: Mode = "animation", spread: ParallelSettings = ParallelSettings(), spelling: Spelling = plainly,
) -> dict[str, Any]:  # fmt: skip
    """What a job would take here, as name -> finding; settings in it are called as `spelling` says. Without a clip it is one
    segment of the shape 16:9.

    LoRAs and step caches are those of a run with these settings.

    Raises:
        OutOfMemory: it does not fit; the message names the nearest setting that does.
        InputError: the checkpoint, the clip or a LoRA cannot be used.
    """
    folder, card = read_checkpoint_config(checkpoint)
    order = ResolvedJob.of(generate, mode, folder, card, runtime.speed)
    shape, count = (16, 9), order.settings.clip_length
    if clip is not None:
        found = probe(clip, None)
        shape, count = (found.width, found.height), len(plan_frames(found, None)[0])
    size = exact_size(*shape, area or order.settings.area)
    work = order.work(size, count, new_prompt=True)
    plan = plan_for(folder, card, work, runtime, best_device(runtime.device), loras=order.lora_sizes, spread=spread)
    loras = ", ".join(_written(use) for use in order.generate.lora)
    peaks = {f"GPU, {stage}": f"{taken / GIB:.2f} GiB" for stage, taken in plan.stages.items() if plan.gpu}
    return {
        "job": f"{count} frames of {size[0]}x{size[1]}, {len(work.segments)} segments of up to {work.length}",
        **({"LoRAs": loras} if loras else {}), **({"note": spell(order.warning, spelling)} if order.warning else {}),
        "device": plan.device, "weights": plan.weights, "placement": str(plan.placement),
        **({"GPU, free": f"{plan.room / GIB:.2f} GiB"} if plan.gpu else {}), **peaks,
        "host, peak": f"{plan.host / GIB:.2f} GiB",
        "seconds a step": round(plan.step_seconds, 3), "seconds for the clip": round(plan.clip_seconds, 1),
    }  # fmt: skip


def _written(use: LoraUse) -> str:
    """As on the command line, without the folder."""
    share = "" if (use.start, use.stop) == (0, 1) else f"@{100 * use.start:g}-{100 * use.stop:g}%"
    return f"{use.path.name}:{use.strength:g}{share}"


def _offline_masks(models: Path | None, litert: str | None) -> tuple[str, str, bool, bool, str]:
    try:
        find(models, (SELFIE, U2NETP))
    except InputError as error:
        litert = litert or f"{error.rule}. {error.remedy}"
    return ("masks", "offline", litert is None, litert is None, litert or "models and ai-edge-litert are there")


def machine_words() -> str:
    """GPUs, processor and memory of this machine in one line."""
    found = _machine(gpus_here())
    gpus = "" if found["GPUs"] == "none" else f"{found['GPUs']}; "
    return f"{gpus}{found['processor']}; {found['memory']}; {found['system']}"


def _machine(gpus: list[dict[str, Any]]) -> dict[str, Any]:
    memory = psutil.virtual_memory()
    flags = sorted(cpu_flags() & set(FLAGS))
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "processor": f"{_cpu_name()}, {_usable_cores()} of {os.cpu_count()} cores usable",
        "instructions": ", ".join(flags) or "none of interest known",
        "memory": f"{memory.total / GIB:.1f} GiB, {memory.available / GIB:.1f} GiB free",
        "GPUs": ", ".join(f"{g['name']} ({g['memory'] / GIB:.0f} GiB)" for g in gpus) or "none",
        "torch": f"{torch.__version__}, CUDA {torch.version.cuda or 'not built in'}, {torch.get_num_threads()} threads",
        "encoders": ", ".join(name for name in ("libx264", "libx265", "ffv1", "aac") if _has_encoder(name)),
    }


def _backends(models: Path | None, gpus: list[dict[str, Any]]) -> list[dict[str, Any]]:
    litert = pose_backend(models)
    onnx = version_of("onnxruntime")
    device = f"{gpus[0]['name']}" if gpus else "no CUDA device was found by torch"
    rows = [
        ("pose", "mediapipe", litert is None, litert is None, litert or "models and ai-edge-litert are there"),
        (
            "pose",
            "published",
            onnx is not None,
            False,
            f"onnxruntime {onnx}; needs its ONNX files and {setting('preprocess.backend')} published"
            if onnx
            else "install wanimate[onnx]",
        ),
        _offline_masks(models, litert),
        ("masks", "sam2", True, False, f"needs a SAM 2 video checkpoint, given with {setting('preprocess.sam2')}"),
        ("networks", "cuda", bool(gpus), bool(gpus), device),
        ("networks", "cpu", True, not gpus, "always there" if gpus else "the only device"),
        *_attention(bool(gpus)),
    ]
    names = ("for", "name", "available", "used", "why")
    return [dict(zip(names, row, strict=True)) for row in rows]


def _attention(gpu: bool) -> list[tuple[str, str, bool, bool, str]]:
    """Each backend's time on this GPU; the quickest exact one and the quickest of all are used."""
    known = backends()
    missing = [name for name in ("flash-attention-3", "sage") if name not in known]
    rows = [("attention", name, False, False, "not installed") for name in missing]
    if not gpu:
        return [("attention", "torch", True, True, "part of torch, exact"), *rows]
    device = best_device()
    trials = fresh_trials(device, torch.bfloat16, TRIAL_TOKENS, 128, exact=False)
    exact = best_trial([trial for trial in trials if known[trial.name].exact]).name
    best = best_trial(trials).name
    speed = setting("runtime.speed")
    used = {best: f"{speed} fast and turbo", exact: f"{speed} exact"}
    if best == exact:
        used[exact] = f"every {speed}"
    for trial in trials:
        taken = f"{1e3 * trial.seconds:.1f} ms for {TRIAL_TOKENS} tokens, {TRIAL_HEADS} heads"
        why = trial.why or taken + (f"; {used[trial.name]}" if trial.name in used else "")
        rows.append(("attention", trial.name, not trial.why, trial.name in used, why))
    for name in known.keys() - {trial.name for trial in trials}:
        rows.append(("attention", name, True, False, "not tried: another one is always quicker on this GPU"))
    return rows


def _jobs(models: Path | None, gpus: list[dict[str, Any]]) -> list[dict[str, Any]]:
    missing = pose_backend(models)
    embedded = (embedded_path() / "wanimate.json").is_file()
    memory = psutil.virtual_memory().total
    jobs = []
    if missing is not None:
        jobs.append(("find a performer", "no", missing))
    else:
        jobs.append(("find a performer", "yes", "mediapipe models run on any processor"))
    if not embedded:
        jobs.append(("animate with the mannequin checkpoint", "no", "it is not in this installation"))
    elif memory < 3 * GIB:
        jobs.append(("animate with the mannequin checkpoint", "no", "it needs 3 GiB of memory"))
    else:
        jobs.append(("animate with the mannequin checkpoint", "yes", "small enough for any processor"))
    jobs.append(("animate with Wan2.2-Animate-14B", *verdict_14b(memory, [g["memory"] for g in gpus])))
    return [dict(zip(("name", "verdict", "why"), job, strict=True)) for job in jobs]


def verdict_14b(memory: int, gpu_memory: list[int]) -> tuple[str, str]:
    """(yes | slow | no, why) for the 14B checkpoint, by the size of its weights: bf16 on a GPU, float32 elsewhere."""
    largest = max(gpu_memory, default=0)
    if largest > WEIGHTS_14B * 1.2:
        return "yes", f"its {WEIGHTS_14B / 1e9:.0f} GB of weights fit into a GPU of {largest / GIB:.0f} GiB"
    if largest >= STREAMED_14B and memory > TRANSFORMER_14B * 1.1:
        return (
            "yes",
            f"its blocks stream from host memory through a GPU of {largest / GIB:.0f} GiB; a plan needs "
            f"{setting('checkpoint')}",
        )
    if gpu_memory:
        return (
            "no",
            f"its transformer alone is {TRANSFORMER_14B / 1e9:.1f} GB; the largest GPU has {largest / GIB:.0f} GiB, the host "
            f"{memory / GIB:.0f}",
        )
    if memory > WEIGHTS_14B * 2 * 1.2:
        return "slow", "there is no GPU; on the processor, in float32, a second of video takes hours"
    needed = WEIGHTS_14B * 2 / GIB
    return "no", f"there is no GPU, and {memory / GIB:.0f} GiB of memory do not hold its {needed:.0f} GiB in float32"


def pose_backend(models: Path | None = None) -> str | None:
    """None if the default pose backend can run, else what is missing. It may hold marks of settings."""
    if version_of("ai-edge-litert") is None:
        return "ai-edge-litert is not installed"
    try:
        find(models)
    except InputError as e:
        return f"{e.rule}. {e.remedy}"
    return None


def gpus_here() -> list[dict[str, Any]]:
    """Name and memory, in bytes, of each GPU that torch can use."""
    if not torch.cuda.is_available():
        return []
    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [{"name": g.name, "memory": g.total_memory} for g in found]


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _has_encoder(name: str) -> bool:
    try:
        av.Codec(name, "w")
    except ValueError:
        return False
    return True
