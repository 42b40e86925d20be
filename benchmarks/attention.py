"""Attention in float8 and int8: seconds at a job's sizes, and the error that random heads of several kinds make of it.

    python benchmarks/attention.py

Beside the kernels of our own: the exact backends and, where it is installed, FlashAttention-3 in float8. Seconds are medians of
`--rounds` calls, backends in turn. Errors are relative L2 distances from float64 for the same bfloat16 inputs; the gain is how
large the result is along the true one, 1 where nothing is lost. Needs a Hopper GPU and Triton.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
from hardware import described
from random_network import Report
from torch import Tensor

from wanimate.model.attention import Attend
from wanimate.runtime.backends import backends, flash3_module
from wanimate.runtime.optimize import seconds_of

SIZES = {"832x480, 77 frames": 32_760, "1280x720, 77 frames": 75_600}
LENGTHS = (8_192, 32_760, 75_600)
HEADS, WIDTH, QUERIES = 40, 128, 384
CUDA = torch.device("cuda", 0)


def flash3_float8(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """FlashAttention-3 on the same levels."""
    from wanimate.runtime.kernels.rows import fp8_heads

    (q8, sq), (k8, sk), (v8, sv) = fp8_heads(q), fp8_heads(k, smooth=True), fp8_heads(v)
    return flash3_levels(q8, k8, v8, sq, sk, sv).to(q.dtype)


def flash3_levels(q: Tensor, k: Tensor, v: Tensor, sq: Tensor, sk: Tensor, sv: Tensor) -> Tensor:
    module = flash3_module()
    assert module is not None
    out = module.flash_attn_func(q, k, v, q_descale=sq, k_descale=sk, v_descale=sv)
    found: Tensor = out[0] if isinstance(out, tuple) else out
    return found


def calls(tokens: int) -> dict[str, Callable[[], Tensor]]:
    """Everything that is timed, on random tokens."""
    from wanimate.runtime.kernels.attention8 import Fp8Attention, attend
    from wanimate.runtime.kernels.rows import fp8_heads, fp8_values

    q, k, v = (torch.randn(1, tokens, HEADS, WIDTH, device=CUDA, dtype=torch.bfloat16) for _ in range(3))
    found: dict[str, Callable[[], Tensor]] = {}
    for backend in backends().values():
        if backend.exact:
            found[backend.name] = lambda attend=backend.attend: attend(q, k, v)  # type: ignore[misc]
    found["int8, ours, with the rounding"] = lambda: backends()["int8"].attend(q, k, v)
    found["float8, ours, with the rounding"] = lambda: Fp8Attention()(q, k, v)
    q8, k8, values, v8 = fp8_heads(q), fp8_heads(k, smooth=True), fp8_values(v), fp8_heads(v)
    found["float8, ours"] = lambda: attend(q8, k8, values)
    if flash3_module() is not None:
        found["float8, FlashAttention-3"] = lambda: flash3_levels(q8[0], k8[0], v8[0], q8[1], k8[1], v8[1])
    return found


def seconds(report: Report, rounds: int) -> None:
    columns = ["what", "tokens", "ms", "TFLOP/s"]
    for size, tokens in SIZES.items():
        timed = calls(tokens)
        spent: dict[str, list[float]] = {name: [] for name in timed}
        for _ in range(rounds + 1):  # in turn: a GPU is quicker while it is cool
            for name, call in timed.items():
                spent[name].append(seconds_of(call, CUDA))
        for name, times in spent.items():
            median = statistics.median(times[1:])
            work = 4 * tokens**2 * HEADS * WIDTH
            report.add("Seconds", columns, [name, f"{tokens} ({size})", 1e3 * median, work / median / 1e12])
        del timed


def attentions() -> dict[str, Attend]:
    """Those whose errors are told, as far as they run here."""
    known = backends()
    found = {"bfloat16, PyTorch": known["torch"].attend, "int8, ours": known["int8"].attend}
    if torch.cuda.get_device_capability() == (9, 0):
        found["float8, ours"] = known["float8"].attend
        if flash3_module() is not None:
            found["float8, FlashAttention-3"] = flash3_float8
    return found


def errors(report: Report, attends: dict[str, Attend]) -> None:
    generator = torch.Generator(CUDA).manual_seed(1)

    def random(tokens: int, scale: float = 1.0, mean: float = 0.0, heavy: bool = False) -> Tensor:
        x = torch.randn(1, tokens, 2, WIDTH, device=CUDA, generator=generator)
        if heavy:  # Student's t with three degrees of freedom, and a few channels ten times as large
            chi = torch.randn(3, 1, tokens, 2, WIDTH, device=CUDA, generator=generator).square().sum(0)
            channels = torch.rand(1, 1, 2, WIDTH, device=CUDA, generator=generator) > 0.97
            x = x * (3 / chi).sqrt() * (1 + 9 * channels)
        return (scale * x + mean).bfloat16()

    kinds = {
        "normal, scores of 1": (1.0, 0.0, False),
        "normal, scores of 2.2 (peaked)": (1.5, 0.0, False),
        "values with a mean of half their spread": (1.0, 0.5, False),
        "heavy-tailed, large channels": (0.3, 0.2, True),
    }
    columns = ["heads", "keys", *(f"{name}: {what}" for name in attends for what in ("error", "gain"))]
    for kind, (scale, mean, heavy) in kinds.items():
        for keys in LENGTHS:
            q, k = random(QUERIES, scale, 0.0, heavy), random(keys, scale, 0.0, heavy)
            v = random(keys, 1.0, mean, heavy)
            wanted = exact(q, k, v)
            row: list[object] = [kind, keys]
            for attention in attends.values():
                found = attention(q, k, v).double()
                row += [f"{((found - wanted).norm() / wanted.norm()).item():.2e}"]
                row += [f"{((found * wanted).sum() / wanted.square().sum()).item():.4f}"]
            report.add("Errors", columns, row)


def exact(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """In float64."""
    scores = torch.einsum("bqnd,bknd->bnqk", q.double(), k.double()) / WIDTH**0.5
    return torch.einsum("bnqk,bknd->bqnd", scores.softmax(-1), v.double())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    out = args.out or Path(__file__).parent / "results" / f"attention_cuda_{date.today()}.md"
    report = Report(out, "Attention in float8", [*described("cuda"), "- `python benchmarks/attention.py`"])
    with torch.inference_mode():
        errors(report, attentions())
        seconds(report, args.rounds)


if __name__ == "__main__":
    main()
