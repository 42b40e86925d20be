"""What attention that leaves out blocks costs on a GPU: kernels, the whole call, a step of the 14B; and how sparse heads are.

    python benchmarks/sparse_gpu.py --parts build kernel      # compiles, registers and spills; time against density
    python benchmarks/sparse_gpu.py --parts call              # everything around the kernel included, structured heads
    python benchmarks/sparse_gpu.py --parts step              # a step of the 14B at densities that are forced

Weights are random, and random heads are not sparse: `step` visits random blocks of the density that is told, with all that
choosing and measuring cost. Seconds are of `--rounds` calls in turn after one that warms up: medians of kernels, means where a
choice is renewed on the way. Results are written after every row.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path

import torch
from attention_sparsity import GRIDS, synthetic
from hardware import described
from random_network import Report, fresh, random_conditions, visiting
from torch import Tensor
from triton_targets import TARGETS, listed_kernel

from wanimate.measure.random_weights import quantize_network, random_network
from wanimate.model.params import TransformerParams
from wanimate.runtime.backends import backends
from wanimate.runtime.optimize import optimize_at, run_on_gpu, seconds_of, worth_of
from wanimate.runtime.sparse import control
from wanimate.runtime.sparse.choice import LEFT_OUT
from wanimate.runtime.sparse.control import SparseAttention
from wanimate.runtime.sparse.layout import Layout, Lists, layout
from wanimate.sampling.guidance import guided

PARTS = ("build", "kernel", "call", "step")
DENSITIES = (1.0, 0.75, 0.5, 0.35, 0.25, 0.15)
HEADS, WIDTH = 40, 128
SIZES = {75_600: (1280, 720), 32_760: (832, 480)}
CUDA = torch.device("cuda", 0)
COLUMNS = ["what", "tokens", "density", "ms", "of dense"]


def in_turn(
    calls: dict[str, Callable[[], object]], rounds: int, middle: Callable[[list[float]], float] = statistics.median
) -> dict[str, float]:
    """Seconds of each, in turn: a GPU is quicker while it is cool."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            spent[name].append(seconds_of(call, CUDA))
    return {name: middle(times[1:]) for name, times in spent.items()}


def random_blocks(plan: Layout, density: float, heads: int = HEADS) -> Tensor:
    """As many of each block of queries, the neighbourhood among them."""
    generator = torch.Generator(CUDA).manual_seed(0)
    score = torch.rand(heads, *plan.shape, generator=generator, device=CUDA) + 2 * plan.always
    wanted = max(int(plan.always.sum(-1).max()), round(density * plan.shape[1]))
    kept = score.topk(wanted, dim=-1).indices
    return torch.zeros_like(score, dtype=torch.bool).scatter_(-1, kept, True)


def build(report: Report) -> None:
    """Registers, spills and shared memory of the Triton kernel, compiled for GPUs that are here or not."""
    columns = ["compute capability", "registers", "bytes of spills", "shared memory, KiB", "of"]
    for target, most in TARGETS.items():
        found = listed_kernel(target)
        spills = found.stack + found.local
        report.add(
            "Build", columns, [f"{target / 10}", f"{found.registers}", f"{spills}", f"{found.shared / 1024:g}", most]
        )


def kernels(report: Report, rounds: int) -> None:
    from wanimate.runtime.kernels.attention8 import attend
    from wanimate.runtime.kernels.listed import ListedAttention, attend_listed
    from wanimate.runtime.kernels.rows import fp8_heads, fp8_values
    from wanimate.runtime.sparse.eight import FP8_SIZES as EIGHT

    for tokens in SIZES:
        q, k, v = (torch.randn(1, tokens, HEADS, WIDTH, device=CUDA, dtype=torch.bfloat16) for _ in range(3))
        eight = fp8_heads(q), fp8_heads(k, smooth=True), fp8_values(v)
        plans = {
            "float8": layout(GRIDS[tokens], EIGHT, CUDA),
            "bf16": layout(GRIDS[tokens], ListedAttention.sizes, CUDA),
        }
        exact = [b.name for b in backends().values() if b.exact]
        best = "flash-attention-3" if "flash-attention-3" in exact else "torch"
        calls: dict[str, Callable[[], object]] = {
            "float8 dense": partial(attend, *eight), f"bf16 {best}": partial(backends()[best].attend, q, k, v),
        }  # fmt: skip
        shares: dict[str, float] = {}
        for density in DENSITIES:
            for kind, plan in plans.items():
                blocks = random_blocks(plan, density)
                visits, name = Lists.of(blocks), f"{kind} {density:g}"
                shares[name] = float(blocks.float().mean())
                if kind == "float8":
                    calls[name] = partial(attend, *eight, visits)
                else:
                    calls[name] = partial(attend_listed, q[0], k[0], v[0], visits)
        spent = in_turn(calls, rounds)
        for name, seconds in spent.items():
            dense = spent["float8 dense" if name.startswith("float8") else f"bf16 {best}"]
            report.add("Kernels", COLUMNS, [name, tokens, shares.get(name, 1.0), 1e3 * seconds, seconds / dense])
        del calls, eight, q, k, v
        fresh()


def calls_of_heads(report: Report, rounds: int, error: float) -> None:
    """The whole call on structured heads, by the number that are of each kind: choice, order, measuring included."""
    columns = ["heads", "tokens", "error asked", "density", "largest error measured", "true error", "ms", "of dense"]
    for tokens in SIZES:
        grid = GRIDS[tokens]
        for kind, (q, k, v) in synthetic(grid, CUDA):
            given = [x.expand(-1, HEADS, -1)[None].bfloat16() for x in (q, k, v)]
            for name in ("float8", "torch"):
                run = run_on_gpu(name, error, worth_of(name, CUDA, q.dtype, WIDTH))
                attend = SparseAttention(0, run, backends()[name].attend)
                run.grid = grid
                order = layout(grid, run.sizes, CUDA).places.order
                q, k, v = (x[:, order] for x in given)
                calls = {"dense": partial(attend.dense, q, k, v), "sparse": partial(attend, q, k, v)}
                spent = in_turn(calls, 2 * control.RENEW, statistics.mean)
                run.meter.take()
                out, wanted = attend(q, k, v), attend.dense(q, k, v)
                step = run.meter.take()
                off = float((out - wanted).float().norm() / wanted.float().norm())
                report.add(
                    "Calls",
                    columns,
                    [
                        f"{kind}, {name}",
                        tokens,
                        error,
                        step.density,
                        step.error,
                        off,
                        1e3 * spent["sparse"],
                        spent["sparse"] / spent["dense"],
                    ],
                )
                del attend, run, out, wanted
            fresh()


@torch.inference_mode()
def steps(report: Report, rounds: int) -> None:
    """A step of the 14B in `fast`, dense and at densities that are forced; no head is computed again. The mean is of as many
    steps as choices hold for, or of a multiple, so that choosing counts."""
    rounds = -(-rounds // control.RENEW) * control.RENEW
    params = TransformerParams()
    model = random_network(params, CUDA, torch.bfloat16)
    quantize_network(model)
    columns = ["what", "size", "density", "s", "of dense", "peak, GiB"]
    for tokens, size in SIZES.items():
        given, x = random_conditions(params, size, 77, CUDA)
        t, dense = torch.tensor(500, device=CUDA), 0.0
        for density in (1.0, 0.5, 0.25):
            error = 0.0 if density == 1.0 else 0.05
            with visiting(density if error else None):
                optimize_at(model, CUDA, "fast", tokens, "float8", error)
                network = guided(model, given, 1.0)
                fresh()
                spent = [seconds_of(partial(network, x, t), CUDA) for _ in range(rounds + 1)][1:]
            mean = statistics.mean(spent)
            dense = dense or mean
            peak = torch.cuda.max_memory_allocated() / 2**30
            report.add("Steps", columns, ["fast", f"{size[0]}x{size[1]}", density, mean, mean / dense, peak])
            del network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--error", type=float, default=0.05)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    out = args.out or Path(__file__).parent / "results" / f"sparse_cuda_{date.today()}.md"
    report = Report(
        out,
        "Attention that leaves out blocks, on a GPU",
        [
            *described("cuda"),
            f"- `python benchmarks/sparse_gpu.py {' '.join(sys.argv[1:])}`",
            f"- shares of the mass left out: {LEFT_OUT}",
        ],
    )
    with torch.inference_mode():
        if "build" in args.parts:
            build(report)
        if "kernel" in args.parts:
            kernels(report, args.rounds)
        if "call" in args.parts:
            calls_of_heads(report, args.rounds, args.error)
        if "step" in args.parts:
            steps(report, args.rounds)


if __name__ == "__main__":
    main()
