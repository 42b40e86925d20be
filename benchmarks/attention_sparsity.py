"""How many blocks of self-attention have to be visited for an error, on the embedded checkpoint and on synthetic heads.

    python benchmarks/attention_sparsity.py --side 256                  # a processor, some minutes
    python benchmarks/attention_sparsity.py --parts synthetic --tokens 75600 --device cuda

`mannequin`: a job of the packaged clip and character with square frames of `--side` pixels; queries, keys and values of some
layers and steps. `synthetic`: heads of published patterns (local in space and time, one frame, one place over all frames, a few
keys for all) at a grid of so many tokens. Blocks are chosen for each head as the program does (`runtime.sparse.choice`), at
each share of the mass that may be left out; the error is the relative L2 distance from all keys, over some queries.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import torch
from hardware import described
from random_network import Report
from torch import Tensor

from wanimate.api import Animator
from wanimate.config import Job
from wanimate.events import StepDone
from wanimate.model.attention import attention
from wanimate.runtime.sparse.choice import LEFT_OUT, block_mass, level_errors, plain_scale, ranked
from wanimate.runtime.sparse.layout import BlockSizes, Grid, Layout, layout
from wanimate.weights.locate import embedded_path

GRIDS: dict[int, Grid] = {75_600: (21, 45, 80), 32_760: (21, 30, 52), 8_190: (21, 15, 26)}
"""720p, 480p and half of its sides, 77 frames."""
LAYERS, STEPS, ROWS, WIDTH = (0, 3, 6, 9), (0, 3, 6), 128, 128
ASKED = (0.02, 0.05, 0.1)
Triple = tuple[Tensor, Tensor, Tensor]


def seen(side: int) -> tuple[Grid, dict[tuple[int, int], Triple]]:
    """The grid, and queries, keys and values [L, N, d] by step and layer of a job's first segment."""
    found: dict[tuple[int, int], Triple] = {}
    grid: list[Grid] = []
    demo, step = embedded_path().parent / "demo", 0
    with Animator() as animator, tempfile.TemporaryDirectory() as folder:
        blocks = animator.checkpoint.transformer.blocks

        def keep(layer: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
            def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
                if step in STEPS:
                    found[step, layer] = (q[0], k[0], v[0])
                return attention(q, k, v)

            return attend

        for layer in LAYERS:
            blocks[layer].self_attn.attend = keep(layer)  # type: ignore[assignment, union-attr]
        job = Job.of(
            image=demo / "character-1.png",
            video=demo / "performer.mp4",
            out=Path(folder) / "a.mp4",
            area=side**2,
            seed=1,
        )
        model = animator.checkpoint.transformer
        run_blocks = model.run_blocks

        def noted(tokens: Tensor, e0: Tensor, context: object, hook: object = None) -> Tensor:
            grid.append(context.grid)  # type: ignore[attr-defined]
            return run_blocks(tokens, e0, context, hook)  # type: ignore[arg-type]

        model.run_blocks = noted  # type: ignore[method-assign, assignment]
        events = animator.run(job)
        for event in events:
            if isinstance(event, StepDone):
                step = event.step
                if step > max(STEPS):
                    break
        events.close()
    return grid[0], found


def synthetic(grid: Grid, device: torch.device) -> Iterator[tuple[str, Triple]]:
    """A head of each published pattern, [L, 1, d]."""
    generator = torch.Generator(device).manual_seed(0)
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32, device=device) for n in grid), indexing="ij")
    at = torch.stack(axes, dim=-1).flatten(0, 2)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    def near(frames: float, space: float, strength: float) -> Tensor:
        angle = (at / torch.tensor([frames, space, space], device=device)) @ randn(3, WIDTH // 2)
        return (strength * 2 / WIDTH**0.5) ** 0.5 * torch.cat((angle.cos(), angle.sin()), dim=-1)

    direction = torch.zeros(WIDTH, device=device)
    direction[0] = 1.0
    few = 16 * (torch.rand(len(at), 1, generator=generator, device=device) < 1e-3) * direction
    kinds = {
        "local in space and time": (near(2, 4, 12.0), None), "one frame": (near(0.7, 1e3, 12.0), None),
        "one place, all frames": (near(1e3, 4, 12.0), None), "wide": (near(8, 20, 8.0), None),
        "few keys for all": (16 * direction.expand(len(at), -1), few), "random, scores of 1": (randn(len(at), WIDTH), None),
    }  # fmt: skip
    for name, (q, k) in kinds.items():
        noise = 0.5 if name != "random, scores of 1" else 1.0
        key = q if k is None else k
        q, key = (
            q + noise * randn(len(at), WIDTH),
            (key if name != "random, scores of 1" else 0.0) + noise * randn(len(at), WIDTH),
        )
        yield name, (q[:, None], key[:, None], randn(len(at), 1, WIDTH))


@torch.inference_mode()
def curve(given: Triple, plan: Layout, seed: int) -> tuple[Tensor, Tensor]:
    """Densities and errors of each head at each level, [N, levels]."""
    q, k, v = (x.index_select(0, plan.places.order).transpose(0, 1) for x in given)
    scale = plain_scale(q)
    rank, counts = ranked(block_mass(q, k, scale, plan), plan.always)
    rows = torch.randperm(plan.tokens, generator=torch.Generator().manual_seed(seed))[:ROWS].to(q.device)
    of = rows // plan.sizes.queries
    errors = level_errors(q[:, rows], k, v, scale, rank[:, of], counts[:, of], plan)
    return counts.float().mean(1) / plan.shape[1], errors


def needed(density: Tensor, errors: Tensor, asked: float) -> Tensor:
    """Density of each head that brings its error below what is asked, [N]."""
    level = (errors <= asked).int().argmax(-1)
    return density.gather(-1, level[:, None])[:, 0]


def add_curve(report: Report, table: str, found: list[tuple[Tensor, Tensor]]) -> None:
    density, errors = (torch.cat([pair[i] for pair in found]) for i in (0, 1))
    for i, share in enumerate(LEFT_OUT):
        row = [
            f"{share:g}",
            float(density[:, i].mean()),
            float(errors[:, i].square().mean().sqrt()),
            float(errors[:, i].max()),
        ]
        report.add(
            table, ["mass left out, as estimated", "density", "error, root mean square", "error, worst head"], row
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("mannequin", "synthetic"), default=("mannequin", "synthetic"))
    parser.add_argument("--side", type=int, default=256, help="pixels of a frame's sides")
    parser.add_argument("--tokens", type=int, nargs="+", choices=GRIDS, default=(8_190,))
    parser.add_argument("--blocks", nargs="+", default=("64x32", "192x128"), help="queries x keys")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    device = torch.device(args.device)
    out = args.out or Path(__file__).parent / "results" / f"attention_sparsity_{args.device}_{date.today()}.md"
    report = Report(
        out,
        "How sparse self-attention is",
        [*described(args.device), f"- `{' '.join(['python benchmarks/attention_sparsity.py', *_words(args)])}`"],
    )
    blocks = [BlockSizes(*map(int, word.split("x"))) for word in args.blocks]
    columns = ["heads", "tokens", "blocks", "always visited", *(f"density for error {asked:g}" for asked in ASKED)]
    if "mannequin" in args.parts:
        grid, kept = seen(args.side)
        for sizes in blocks:
            plan = layout(grid, sizes, torch.device("cpu"))
            name = f"{sizes.queries}x{sizes.keys}"
            pairs = {key: curve(given, plan, i) for i, (key, given) in enumerate(sorted(kept.items()))}
            for label, some in _groups(pairs):
                means = [float(torch.cat([needed(*pair, asked) for pair in some]).mean()) for asked in ASKED]
                always = float(plan.always.float().mean())
                report.add("Density by error", columns, [f"mannequin, {label}", str(plan.tokens), name, always, *means])
            add_curve(report, f"Curve of mannequin, {plan.tokens} tokens, blocks of {name}", list(pairs.values()))
    if "synthetic" in args.parts:
        for tokens in args.tokens:
            for sizes in blocks:
                plan = layout(GRIDS[tokens], sizes, device)
                for kind, given in synthetic(GRIDS[tokens], device):
                    pair = curve(given, plan, 0)
                    means = [float(needed(*pair, asked).mean()) for asked in ASKED]
                    always = float(plan.always.float().mean())
                    name = f"{sizes.queries}x{sizes.keys}"
                    report.add("Density by error", columns, [kind, str(tokens), name, always, *means])


def _groups(pairs: dict[tuple[int, int], tuple[Tensor, Tensor]]) -> Iterator[tuple[str, list[tuple[Tensor, Tensor]]]]:
    yield "all", list(pairs.values())
    for layer in LAYERS:
        yield f"block {layer}", [pair for key, pair in pairs.items() if key[1] == layer]


def _words(args: argparse.Namespace) -> list[str]:
    tokens = ["--tokens", *map(str, args.tokens)] if "synthetic" in args.parts else []
    side = ["--side", str(args.side)] if "mannequin" in args.parts else []
    return ["--parts", *args.parts, *side, *tokens, "--blocks", *args.blocks]


if __name__ == "__main__":
    main()
