"""The speed path of GPUs without Hopper's kernels: products and attention in int8, their errors, and what they take.

    python benchmarks/int8_gpu.py --parts build             # registers, spills, shared memory; needs Triton and no GPU
    python benchmarks/int8_gpu.py --parts errors seconds    # of attention and of products
    python benchmarks/int8_gpu.py --parts shapes            # blocks of other sizes
    python benchmarks/int8_gpu.py --parts step              # a step of the 14B, forced onto the path

With TRITON_OVERRIDE_ARCH=sm86 in the environment, a Hopper GPU runs the instructions of an Ampere GPU, and `seconds` are of
those. Weights are random. Seconds are medians of `--rounds` calls in turn after one that warms up. Results are
written after every row.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path

import torch
from attention import attentions, errors
from hardware import described
from random_network import Report, fresh, random_conditions
from torch import Tensor
from triton_targets import TARGETS, int8_kernels

from wanimate.config import Attention
from wanimate.measure.random_weights import quantize_network, random_network
from wanimate.model.fp8 import FP8
from wanimate.model.int8 import INT8
from wanimate.model.params import TransformerParams
from wanimate.runtime.backends import backends
from wanimate.runtime.optimize import optimize_at, product_for, seconds_of
from wanimate.sampling.guidance import guided
from wanimate.weights.quantize import to_levels

PARTS = ("build", "errors", "seconds", "shapes", "step")
ATTENTION_SHAPES = ((128, 64, 8, 3), (128, 32, 4, 3), (64, 64, 4, 2), (64, 32, 4, 3), (128, 128, 8, 2))
"""Queries and keys of a block, warps, stages."""
PRODUCT_SHAPES = ((128, 256, 128, 8, 3), (128, 256, 64, 8, 4), (256, 128, 128, 8, 3), (128, 128, 128, 4, 3))
"""Rows, outputs and inputs of a block, warps, stages."""
HEADS, WIDTH, DIM, FFN = 40, 128, 5120, 13824
SIZES = {75_600: (1280, 720), 32_760: (832, 480)}
CUDA = torch.device("cuda", 0)
KINDS = {"float8": FP8, "int8": INT8}


def build(report: Report) -> None:
    columns = ["target", "kernel", "registers", "stack", "local", "shared memory, KiB", "of KiB"]
    for target, most in TARGETS.items():
        for name, found in int8_kernels(target).items():
            row: list[object] = [
                f"sm_{target}",
                name,
                found.registers,
                found.stack,
                found.local,
                found.shared / 1024,
                most,
            ]
            report.add("Build", columns, row)


def product_errors(report: Report) -> None:
    """Relative L2 distances from float64 for the same bfloat16 inputs."""
    generator = torch.Generator(CUDA).manual_seed(1)

    def random(rows: int, channels: float, tails: bool) -> Tensor:
        x = torch.randn(rows, DIM, device=CUDA, generator=generator)
        if tails:
            x = x * (3 / torch.randn(3, rows, DIM, device=CUDA, generator=generator).square().sum(0)).sqrt()
        large = torch.rand(DIM, device=CUDA, generator=generator) > 0.99
        return (x * (1 + (channels - 1) * large)).bfloat16()

    inputs = {
        "normal": (1, False),
        "a hundredth of the channels 10 times as large": (10, False),
        "heavy-tailed": (1, True),
    }
    for name, (channels, tails) in inputs.items():
        x, w = random(2048, channels, tails), random(2048, 1, False)
        wanted = x.double() @ w.double().T
        row: list[object] = [name, f"{float((x @ w.T - wanted).norm() / wanted.norm()):.2e}"]
        for kind in KINDS.values():
            multiply = product_for(kind, CUDA)
            if multiply is None:
                row.append("none here")
                continue
            found = multiply(*to_levels(x, kind), *to_levels(w, kind), None)
            row.append(f"{float((found.double() - wanted).norm() / wanted.norm()):.2e}")
        report.add("Errors of products", ["rows", "bfloat16", *KINDS], row)


def in_turn(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each, in turn: a GPU is quicker while it is cool."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            spent[name].append(seconds_of(call, CUDA))
    return {name: statistics.median(times[1:]) for name, times in spent.items()}


def instructions(report: Report, rounds: int) -> None:
    """What the shares of datasheet rates in `runtime.planning.cards` are measured by."""
    from triton_ceiling import ceilings

    known = ceilings(CUDA)
    for name, seconds in in_turn({name: call for name, (call, _) in known.items()}, rounds).items():
        report.add("Instructions alone", ["matrices", "1e12 operations/s"], [name, known[name][1] / seconds / 1e12])


def products(report: Report, rounds: int) -> None:
    columns = ["product", "shape", "ms", "1e12 operations/s"]
    rows = max(SIZES)
    for ins, outs in ((DIM, DIM), (DIM, FFN), (FFN, DIM)):
        x, w = (torch.randn(n, ins, device=CUDA, dtype=torch.bfloat16) for n in (rows, outs))
        calls: dict[str, Callable[[], object]] = {"bf16": partial(torch.mm, x, w.T)}
        for name, kind in KINDS.items():
            multiply, given = product_for(kind, CUDA), (*to_levels(x, kind), *to_levels(w, kind))
            if multiply is not None:
                calls[name] = partial(multiply, *given, None)
            if kind == INT8:
                calls["int8, cuBLAS, sums alone"] = partial(torch._int_mm, given[0], given[2].t())
        for name, seconds in in_turn(calls, rounds).items():
            work = 2 * rows * ins * outs
            report.add("Products", columns, [name, f"{rows}x{ins}x{outs}", 1e3 * seconds, work / seconds / 1e12])
        del calls, x, w, given
        fresh()


def shapes(report: Report, rounds: int) -> None:
    """The kernels with blocks of other sizes; all of them fit into 99 KiB and spill nothing on 8.6."""
    from wanimate.runtime.kernels import attention_int8, product_int8, rows

    columns = ["kernel", "blocks", "ms", "1e12 operations/s"]
    tokens = max(SIZES)
    q, k, v = (torch.randn(1, tokens, HEADS, WIDTH, device=CUDA, dtype=torch.bfloat16) for _ in range(3))
    levels = rows.int8_heads(q), rows.int8_heads(k, smooth=True), rows.half_values(v)
    names = ("QUERIES", "KEYS", "WARPS", "STAGES")
    usual = [getattr(attention_int8, name) for name in names]
    for sizes in ATTENTION_SHAPES:
        for name, size in zip(names, sizes, strict=True):
            setattr(attention_int8, name, size)
        seconds = in_turn({"": partial(attention_int8.attend, *levels)}, rounds)[""]
        report.add(
            "Shapes", columns, ["attention", sizes, 1e3 * seconds, 4 * tokens**2 * HEADS * WIDTH / seconds / 1e12]
        )
    for name, size in zip(names, usual, strict=True):
        setattr(attention_int8, name, size)
    del levels, q, k, v
    given = (
        *to_levels(torch.randn(tokens, DIM, device=CUDA), INT8),
        *to_levels(torch.randn(FFN, DIM, device=CUDA), INT8),
    )
    known = dict(product_int8.SHAPE)
    for blocks in PRODUCT_SHAPES:
        product_int8.SHAPE.update(zip(known, blocks, strict=True))
        seconds = in_turn({"": partial(product_int8.multiply, *given, None)}, rounds)[""]
        report.add("Shapes", columns, ["product", blocks, 1e3 * seconds, 2 * tokens * DIM * FFN / seconds / 1e12])
    product_int8.SHAPE.update(known)
    fresh()


def attention_seconds(report: Report, rounds: int) -> None:
    from wanimate.runtime.kernels import attention_int8, rows

    columns = ["attention", "tokens", "ms", "1e12 operations/s"]
    for tokens in SIZES:
        q, k, v = (torch.randn(1, tokens, HEADS, WIDTH, device=CUDA, dtype=torch.bfloat16) for _ in range(3))
        calls: dict[str, Callable[[], object]] = {
            b.name: partial(b.attend, q, k, v) for b in backends().values() if b.exact and b.name != "torch"
        }
        levels = rows.int8_heads(q), rows.int8_heads(k, smooth=True), rows.half_values(v)
        calls["int8"] = partial(attention_int8.attend, *levels)
        calls["int8, with the rounding"] = partial(attention_int8.Int8Attention(), q, k, v)
        for name in list(calls):
            try:
                calls[name]()
            except RuntimeError as error:
                report.add("Attention", columns, [name, tokens, str(error).splitlines()[0][:80], ""])
                del calls[name]
        for name, seconds in in_turn(calls, rounds).items():
            work = 4 * tokens**2 * HEADS * WIDTH
            report.add("Attention", columns, [name, tokens, 1e3 * seconds, work / seconds / 1e12])
        del calls, levels, q, k, v
        fresh()


@torch.inference_mode()
def steps(report: Report, rounds: int) -> None:
    """A step of the 14B: as Ampere and as Ada would compute it."""
    params, columns = TransformerParams(), ["weights", "attention", "size", "s", "peak, GiB"]
    paths: tuple[tuple[torch.dtype, Attention], ...] = ((INT8, "int8"), (FP8, "int8"))
    for kind, attend in paths:
        model = random_network(params, CUDA, torch.bfloat16)
        quantize_network(model, kind)
        for tokens, size in SIZES.items():
            given, x = random_conditions(params, size, 77, CUDA)
            t = torch.tensor(500, device=CUDA)
            optimize_at(model, CUDA, "fast", tokens, attend)
            network = guided(model, given, 1.0)
            fresh()
            spent = statistics.mean([seconds_of(partial(network, x, t), CUDA) for _ in range(rounds + 1)][1:])
            name = next(name for name, known in KINDS.items() if known == kind)
            peak = torch.cuda.max_memory_allocated() / 2**30
            report.add("Steps", columns, [name, attend, f"{size[0]}x{size[1]}", spent, peak])
            del network, given, x
        del model
        fresh()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    here = "cuda" if torch.cuda.is_available() else "cpu"
    out = args.out or Path(__file__).parent / "results" / f"int8_{here}_{date.today()}.md"
    code = os.environ.get("TRITON_OVERRIDE_ARCH", "its own")
    head = [
        *described(here), f"- `python benchmarks/int8_gpu.py {' '.join(sys.argv[1:])}`", f"- instructions: {code}",
    ]  # fmt: skip
    report = Report(out, "Products and attention in int8", head)
    with torch.inference_mode():
        if "build" in args.parts:
            build(report)
        if "errors" in args.parts:
            product_errors(report)
            errors(report, attentions())
        if "seconds" in args.parts:
            instructions(report, args.rounds)
            attention_seconds(report, args.rounds)
            products(report, args.rounds)
        if "shapes" in args.parts:
            shapes(report, args.rounds)
        if "step" in args.parts:
            steps(report, args.rounds)


if __name__ == "__main__":
    main()
