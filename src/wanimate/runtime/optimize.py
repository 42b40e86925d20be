"""Making the networks fast, from outside. On a GPU: the quickest attention, kernels that spare memory traffic, products of
matrices of eight bits. On a processor: `runtime.processor`.

exact   the arithmetic of the published bfloat16 flow
fast    matrix products and attention in eight bits, the VAE in bfloat16
turbo   fast, and steps skipped by forecasting (`sampling.cache`)
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from wanimate.config import Attention, Speed
from wanimate.errors import InputError, setting
from wanimate.log import log_choice
from wanimate.model.attention import attention as attention_of_torch
from wanimate.model.fp8 import FP8, fp8_product
from wanimate.model.int8 import INT8, int8_product
from wanimate.model.transformer import AnimateTransformer
from wanimate.runtime.backends import HAS_TRITON, backends
from wanimate.runtime.fused_vae import optimize_vae
from wanimate.runtime.kept import device_key, kept_json, source_hash
from wanimate.runtime.patches import install
from wanimate.runtime.processor import optimize_vae_here
from wanimate.runtime.sparse.control import WORTH, SparseRun, sparse_changes
from wanimate.runtime.sparse.layout import Lists
from wanimate.versions import version_of
from wanimate.weights.checkpoint import Checkpoint
from wanimate.weights.quantize import Product, QuantizedLinear

TRIAL_TOKENS = 32_768
"""Backends are compared on so many tokens where no job says how many it has."""
TRIAL_HEADS = 8
"""Of more tokens fewer heads are tried, so that a trial takes milliseconds."""
ROUNDS = 7
CLOSE = 1.05
"""Trials whose seconds differ by less are as good as equal."""
FP8_CAPABILITY, INT8_CAPABILITY = (8, 9), (8, 0)
PRODUCT_TRIAL = 4096
"""Side of the matrices that tell whether float8 is multiplied; as in the report that is named there."""
ATTENTION_PACKAGES = ("fa3-fwd", "flash-attn", "flash-attn-3", "sageattention")


@dataclass(frozen=True)
class Trial:
    """A backend on one shape: seconds of a call, infinite with the reason where it cannot run."""

    name: str
    seconds: float
    why: str = ""


def has_fp8(device: torch.device) -> bool:
    """Whether a device multiplies float8 matrices, with a scale a row, as far as this PyTorch goes."""
    able = device.type == "cuda" and torch.cuda.get_device_capability(device) >= FP8_CAPABILITY
    return able and _multiplies_float8(device)


def has_int8(device: torch.device) -> bool:
    """Whether a device multiplies int8 matrices."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= INT8_CAPABILITY


def multiplied_type(device: torch.device) -> torch.dtype | None:
    """Of eight bits, what the blocks' weights become in `fast`: float8 where it is multiplied, else int8, else neither."""
    if has_fp8(device):
        return FP8
    return INT8 if has_int8(device) else None


def product_for(kind: torch.dtype, device: torch.device) -> Product | None:
    """What multiplies matrices of this type on a device; None where they are expanded instead."""
    if kind == FP8:
        return fp8_product if has_fp8(device) else None
    if kind != INT8 or not has_int8(device):
        return None
    if not HAS_TRITON:
        return int8_product
    from wanimate.runtime.kernels.product_int8 import multiply

    return multiply


@lru_cache(maxsize=8)
def _multiplies_float8(device: torch.device) -> bool:
    """Found by trying: which GPUs have the product depends on the versions of PyTorch and of its libraries
    (https://github.com/pytorch/pytorch/issues/192707)."""
    size = PRODUCT_TRIAL
    levels, scale = torch.zeros(size, size, device=device).to(FP8), torch.ones(size, 1, device=device)
    try:
        fp8_product(levels, scale, levels, scale, torch.zeros(size, device=device))
    except RuntimeError as error:
        log_choice("products", "not float8", (str(error).splitlines() or ["they fail"])[0])
        return False
    return True


@lru_cache(maxsize=32)
def attention_trials(
    device: torch.device, dtype: torch.dtype, tokens: int, head_dim: int, exact: bool, asked: Attention = "auto"
) -> tuple[Trial, ...]:
    """`fresh_trials`; a GPU's are kept on disk (`runtime.kept`)."""
    if device.type != "cuda":
        return fresh_trials(device, dtype, tokens, head_dim, exact, asked)
    key = ["attention", measured_key(device), str(dtype), tokens, head_dim, exact, asked]
    found = kept_json(
        "measured", key, lambda: [asdict(t) for t in fresh_trials(device, dtype, tokens, head_dim, exact, asked)],
        lambda trials: not any("out of memory" in t["why"] for t in trials),
    )  # fmt: skip
    return tuple(Trial(**trial) for trial in found)


def measured_key(device: torch.device) -> list[object]:
    """What a measurement of a GPU depends on: `kept.device_key`, the attention backends and the project's own kernels."""
    kernels = tuple(sorted((Path(__file__).parent / "kernels").iterdir()))
    packages = {name: version_of(name) for name in ATTENTION_PACKAGES}
    return [device_key(device), list(backends()), packages, source_hash(tuple(f for f in kernels if f.is_file()))]


@torch.inference_mode()
def fresh_trials(
    device: torch.device, dtype: torch.dtype, tokens: int, head_dim: int, exact: bool, asked: Attention = "auto"
) -> tuple[Trial, ...]:
    """Every backend that may be the quickest, and the one `asked` for, on random tokens of this device, the quickest first."""
    heads = max(1, min(TRIAL_HEADS, TRIAL_TOKENS**2 * TRIAL_HEADS // tokens**2))
    q, k, v = (torch.randn(1, tokens, heads, head_dim, device=device, dtype=dtype) for _ in range(3))
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    known = [b for b in backends().values() if b.name == asked or b.unless is None or b.unless != capability]
    attends = {b.name: b.attend for b in known if b.exact or not exact}
    times: dict[str, list[float]] = {name: [] for name in attends}
    refused: dict[str, str] = {}
    for _ in range(ROUNDS + 1):  # in turn: a GPU is quicker while it is cool
        for name in attends.keys() - refused.keys():
            try:
                times[name].append(seconds_of(partial(attends[name], q, k, v), device))
            except Exception as error:  # a compiler's own kinds, too
                refused[name] = (str(error).splitlines() or ["it failed"])[0]
    found = [
        Trial(name, float("inf"), refused[name]) if name in refused else Trial(name, statistics.median(times[name][1:]))
        for name in attends
    ]
    return tuple(sorted(found, key=lambda trial: trial.seconds))


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The quickest; of those that are as good as equal, always the same one, so that a job can be repeated bit for bit."""
    order = list(backends())
    close = [trial for trial in trials if trial.seconds <= CLOSE * trials[0].seconds]
    return max(close, key=lambda trial: order.index(trial.name))


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, until the device has done it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def optimize(
    checkpoint: Checkpoint,
    speed: Speed,
    tokens: int,
    attention: Attention = "auto",
    attention_error: float | None = None,
) -> str:
    """Make the networks of a checkpoint fast where they are; every process that runs jobs calls it once.

    On a GPU they get the attention that is asked for (`choose_attention`) and kernels that spare memory traffic. Where `speed`
    is not exact, quantised layers multiply matrices of eight bits, and the VAE computes in bfloat16. A processor changes the
    VAE. Attention leaves out what `attention_error` allows (`thin_attention`). Returns the name of the attention backend.

    Raises:
        InputError: the attention that is asked for cannot be had here.
    """
    model, device = checkpoint.transformer, checkpoint.device
    check_attention_error(device, speed, attention_error)
    if device.type == "cpu":
        optimize_vae_here(checkpoint.vae, speed)
        thin_attention(model, attention_error)
        return choose_attention(device, model.dtype, model.params.head_dim, speed, tokens, attention)
    optimize_vae(checkpoint.vae, speed)
    return optimize_at(model, device, speed, tokens, attention, attention_error)


def check_attention(device: torch.device, asked: Attention) -> None:
    """Refuse a backend that no network can have here; whether it runs for one is found when that is open.

    Raises:
        InputError: it needs a GPU, or is not installed.
    """
    if asked == "auto" or (device.type != "cuda" and asked == "torch"):
        return
    if device.type != "cuda":
        raise InputError("runtime.attention", asked, "it needs a CUDA GPU", "Use auto or torch.")
    if asked not in backends():
        known = ", ".join(backends())
        raise InputError("runtime.attention", asked, "it is not installed", f"Use one of auto, {known}.")


def check_attention_error(device: torch.device, speed: Speed, error: float | None) -> None:
    """Refuse to leave attention out where that cannot be had.

    Raises:
        InputError: `speed` is exact, or the device is a GPU without Triton.
    """
    if error and speed == "exact":
        rule = f"it leaves out parts of attention, which {setting('runtime.speed')} exact does not allow"
        raise InputError("runtime.attention_error", error, rule, f"Use {setting('runtime.speed')} fast or turbo.")
    if error and device.type != "cpu" and not HAS_TRITON:
        rule = "the kernels for GPUs that leave out parts of attention need Triton"
        raise InputError("runtime.attention_error", error, rule, "Install triton, or leave it out.")


def thin_attention(model: AnimateTransformer, error: float | None) -> None:
    """Let a processor's self-attention leave out what counts for less than `error` (`runtime.sparse`); 0 and None: nothing."""
    changes = sparse_changes(model, SparseRun(error), attention_of_torch) if error else []
    install(model, "attention", changes, f"torch, error {error or 0:g}")


def run_on_gpu(attention: str, error: float, worth: float = WORTH) -> SparseRun:
    """For a backend on a GPU: its own kernel where it is in eight bits, else one in the network's type, which `worth` is of."""
    if attention in ("float8", "int8"):
        from wanimate.runtime.sparse.eight import FP8_SIZES, INT8_SIZES

        return SparseRun(error, sizes=FP8_SIZES if attention == "float8" else INT8_SIZES)
    from wanimate.runtime.kernels.listed import ListedAttention

    kernel = ListedAttention()
    return SparseRun(error, sizes=kernel.sizes, blocks=kernel, worth=worth)


def worth_of(attention: str, device: torch.device, dtype: torch.dtype, head_dim: int) -> float:
    """The density up to which it is quicker to leave out blocks than to compute with this backend, found by a trial that is
    kept on disk. FlashAttention-3 is twice as quick as the kernel in Triton where that visits everything."""
    if attention in ("float8", "int8"):
        return WORTH
    key = ["worth", measured_key(device), attention, str(dtype), head_dim]
    share: float = kept_json("measured", key, lambda: listed_share(attention, device, dtype, head_dim))
    log_choice("blocks left out", f"from a density of {WORTH * share:.2f} on", f"as quick as {attention} with all keys")
    return WORTH * share


@torch.inference_mode()
def listed_share(attention: str, device: torch.device, dtype: torch.dtype, head_dim: int) -> float:
    """Seconds of a backend by those of the kernel that visits listed blocks, when it visits all; at most 1."""
    from wanimate.runtime.kernels.listed import ListedAttention, attend_listed

    q, k, v = (torch.randn(1, TRIAL_TOKENS, TRIAL_HEADS, head_dim, device=device, dtype=dtype) for _ in range(3))
    sizes = ListedAttention.sizes
    shape = TRIAL_HEADS, -(-TRIAL_TOKENS // sizes.queries), -(-TRIAL_TOKENS // sizes.keys)
    every = Lists.of(torch.ones(shape, dtype=torch.bool, device=device))
    calls = partial(backends()[attention].attend, q, k, v), partial(attend_listed, q[0], k[0], v[0], every)
    times = [[seconds_of(call, device) for call in calls] for _ in range(ROUNDS + 1)][1:]
    dense, listed = (statistics.median(of) for of in zip(*times, strict=True))
    return min(1.0, dense / listed)


def choose_attention(
    device: torch.device, dtype: torch.dtype, head_dim: int, speed: Speed, tokens: int, asked: Attention = "auto"
) -> str:
    """Name of the backend of self-attention for so many tokens: the one asked for, else the quickest that `speed` allows.

    Raises:
        InputError: the one asked for is not installed, does not run for this network, or rounds where `speed` is exact.
    """
    check_attention(device, asked)
    if device.type != "cuda":
        return "torch"
    exact = speed == "exact"
    if asked == "auto":
        best = best_trial(attention_trials(device, dtype, tokens, head_dim, exact))
        why = f"the quickest for {tokens} tokens: {1e3 * best.seconds:.2f} ms for some heads"
        log_choice("attention", best.name, why)
        return best.name
    trials = {trial.name: trial for trial in attention_trials(device, dtype, tokens, head_dim, False, asked)}
    usable = ", ".join(
        name for name, trial in trials.items() if not trial.why and (backends()[name].exact or not exact)
    )
    if trials[asked].why:
        raise InputError("runtime.attention", asked, trials[asked].why, f"Use one of auto, {usable}.")
    if exact and not backends()[asked].exact:
        rule = f"it rounds to 8 bits, which {setting('runtime.speed')} exact does not allow"
        raise InputError("runtime.attention", asked, rule, f"Use one of auto, {usable}, or another speed.")
    log_choice("attention", asked, "asked for")
    return asked


def optimize_transformer(
    model: AnimateTransformer, device: torch.device, speed: Speed, attention: str, attention_error: float | None = None
) -> None:
    """The transformer's part of `optimize`, on a GPU; it can be repeated with another attention backend."""
    attend = backends()[attention].attend
    if attention_error:
        worth = worth_of(attention, device, model.dtype, model.params.head_dim)
        changes = sparse_changes(model, run_on_gpu(attention, attention_error, worth), attend)
        install(model, "attention", changes, f"{attention}, error {attention_error:g}")
    else:
        blocks: list[Any] = list(model.blocks.children())
        install(model, "attention", [(block.self_attn, "attend", attend) for block in blocks], attention)
    if speed != "exact":
        layers = [part for part in model.modules() if isinstance(part, QuantizedLinear)]
        found = [(layer, product_for(layer.weight.dtype, device)) for layer in layers]
        kinds = {"float8" if layer.weight.dtype == FP8 else "int8" for layer, product in found if product is not None}
        changes = [(layer, "product", product) for layer, product in found if product is not None]
        install(model, "products", changes, ", ".join(sorted(kinds)))
    if device.type == "cuda" and HAS_TRITON:
        from wanimate.runtime.fused import fuse

        fuse(model)


def optimize_at(
    model: AnimateTransformer, device: torch.device, speed: Speed, tokens: int, attention: Attention = "auto",
    attention_error: float | None = None,
) -> str:  # fmt: skip
    """`optimize_transformer` with the attention that is best for so many tokens; returns its name."""
    name = choose_attention(device, model.dtype, model.params.head_dim, speed, tokens, attention)
    optimize_transformer(model, device, speed, name, attention_error)
    return name
