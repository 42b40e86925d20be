"""What each way to save time costs: error against the same seed computed in full, on the embedded checkpoint.

    python benchmarks/quality.py                            # 2 clips of 17 frames: about 20 minutes on one core
    python benchmarks/quality.py --clips 1 --only taylor    # a quick look at some rows

Held-out people of the mannequin world in the checkpoint's own size. Every row is one whole diffusion of 20 steps from the same
noise, compared with the full float32 one: the whole frames, the region of the face by itself, and how far the mouth's opening
is off. `cost` is arithmetic, as a share of 20 full steps of the 14B at 1280x720 and 77 frames, where attention is 71 % of a
step and the first block 1/40 of it; the seconds are this processor's. Outputs are kept in --work under the hash of what they
depend on.

The exact arithmetic of the processor stands in for that of a GPU: float8 products and float8 attention are emulated by rounding
(e4m3; rows of activations, channels of weights, heads of attention with a scale each), block-sparse attention by a mask.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import inspect
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from animation import (
    FIRST_SEED,
    SETTINGS,
    RecordingWorld,
    Store,
    Truth,
    animation_guides,
    render,
    seeds,
    world_version,
)
from animation_measures import LEAST_JAW, Detectors, read_kept
from emulated import Change, attending, block_sparse, fp8_attention, fp8_both, fp8_products, rounded
from hardware import described, hashes
from torch import Tensor

from mannequin.world.assets import load
from wanimate.conditions.build import ConditionBuilder
from wanimate.conditions.segments import plan_segments
from wanimate.config import CacheKind
from wanimate.finish.decode import SegmentDecoder, to_pixels, to_unit
from wanimate.measure.metrics import psnr, ssim
from wanimate.model.attention import attention
from wanimate.model.fp8 import hadamard
from wanimate.model.transformer import AnimateTransformer
from wanimate.sampling import cache as caches
from wanimate.sampling.cache import Caching
from wanimate.sampling.denoise import denoise
from wanimate.sampling.guidance import GuidedNetwork, guided
from wanimate.types import Conditions, Frames
from wanimate.weights.checkpoint import Checkpoint, load_checkpoint
from wanimate.weights.locate import embedded_path

STEPS = 20
ATTENTION = 4.68 / 6.55
"""Share of attention in a full step of the 14B at 1280x720, 77 frames (PFLOP)."""
BLOCKS = 40
LEAST_FACE = 15.0


@dataclass(frozen=True)
class Variant:
    """One row: how many steps, which cache, which arithmetic. `dense`: share of attention that is computed."""

    name: str
    family: str
    steps: int = STEPS
    caching: Caching | None = None
    history: torch.dtype = torch.float32
    change: Change | None = None
    dense: float = 1.0
    bf16: bool = False

    def cost(self, skipped: int) -> float:
        """Arithmetic as a share of STEPS full steps of the 14B."""
        rest = 0.0 if self.caching is None or self.caching.kind == "magnitude" else 1 / BLOCKS
        full = 1 - ATTENTION * (1 - self.dense)
        return full * (self.steps - skipped * (1 - rest)) / STEPS


def variants() -> list[Variant]:
    """All rows; the first one is what the others are compared with."""
    out = [Variant("full", "full")]
    out += [Variant(f"{n} steps", "fewer steps", steps=n) for n in (5, 7, 9, 11, 14, 17)]
    gates: dict[CacheKind, tuple[float, ...]] = {
        "taylor": (0.005, 0.01, 0.02, 0.05, 0.1, 0.18, 0.3), "early-taylor": (0.01, 0.02, 0.05, 0.1, 0.18),
        "first-block": (0.04, 0.07, 0.12, 0.2),
        "magnitude": (0.02, 0.05, 0.1, 0.3),
    }  # fmt: skip
    for kind, values in gates.items():
        out += [Variant(f"{kind} {gate:g}", kind, caching=Caching(kind, gate, STEPS)) for gate in values]
    middle = Caching("taylor", 0.05, STEPS)
    out.append(Variant("taylor 0.05, bf16 history", "taylor, bf16 history", caching=middle, history=torch.bfloat16))
    for n in (12, 14, 16):
        fewer = Caching("taylor", 0.05, n)
        out.append(Variant(f"taylor 0.05, {n} steps", "taylor 0.05, fewer steps", steps=n, caching=fewer))
    for density in (0.4, 0.55, 0.7):
        sparse = attending(lambda grid, d=density: block_sparse(d, grid))
        out.append(Variant(f"sparse {density:g}", "block-sparse", change=sparse, dense=density))
    out.append(Variant("bf16", "bf16", bf16=True))
    out.append(Variant("fp8 products", "fp8", change=fp8_products))
    kinds = {
        "": fp8_attention(), ", k as it is": fp8_attention(smooth=False), ", not rotated": fp8_attention(rotated=False)
    }  # fmt: skip
    for kind, attend in kinds.items():
        out.append(Variant(f"fp8 attention{kind}", "fp8", change=attending(lambda grid, a=attend: a)))
        out.append(Variant(f"fp8 products and attention{kind}", "fp8", change=fp8_both(attend)))
    return out


# --- running


@dataclass
class Clip:
    """One clip with all that its rows share."""

    number: int
    truth: Truth
    checkpoint: Checkpoint
    conditions: Conditions
    noise: Tensor
    network: GuidedNetwork

    @torch.inference_mode()
    def run(self, variant: Variant) -> tuple[Frames, int, float]:
        """Frames, steps skipped, and processor seconds of the diffusion."""
        network, defaults = self.network, self.checkpoint.config.defaults
        if variant.bf16:
            model = copy.deepcopy(self.checkpoint.transformer).to(torch.bfloat16)
            network = guided(model, self.conditions, 1.0)
        if variant.caching is not None:
            network = replace(network, cache=variant.caching.make(lambda parts: parts.sum(-1), variant.history))
        change = variant.change or (lambda model, grid: contextmanager(lambda: iter([None]))())
        with change(self.checkpoint.transformer, network.positive.grid):
            started = time.process_time()
            for state in denoise(network, self.noise, defaults.solver, variant.steps, defaults.shift):
                latents = state.latents
            seconds = time.process_time() - started
        decoder = SegmentDecoder(self.checkpoint.vae, defaults.overlap, 1)
        frames = np.concatenate([to_pixels(to_unit(part)) for part in decoder.decode(latents[:, 1:], 0)])
        return frames, network.skipped, seconds


def measurable(
    world: RecordingWorld, detectors: Detectors, store: Store, args: argparse.Namespace, source: dict[str, Any]
) -> Iterator[tuple[int, Truth]]:
    """The first clips whose faces are LEAST_FACE pixels wide, move the mouth, and are found in half of the true frames."""
    found = 0
    for number in seeds(world, 16 * args.clips, FIRST_SEED):
        file = store.path("truth", seed=number, **source)
        if not file.is_file():
            width, height = (int(x) for x in args.size.split("x"))
            render(world, number, args.frames, (width, height)).save(file)
        truth = read_kept(Truth, file)
        mouths = detectors.mouths(truth.video, truth.face_box)
        wide = float((truth.face_box[:, 2] - truth.face_box[:, 0]).mean())
        if wide >= LEAST_FACE and np.isnan(mouths).mean() <= 0.5 and truth.jaw.std() >= LEAST_JAW:
            yield number, truth
            found += 1
        if found == args.clips:
            return


def open_clip(checkpoint: Checkpoint, number: int, truth: Truth, seed: int) -> Clip:
    guides = animation_guides(truth)
    text = checkpoint.prompts.encode("")
    with torch.inference_mode():
        builder = ConditionBuilder(
            guides,
            checkpoint.vae,
            checkpoint.image,
            text,
            None,
            face_size=checkpoint.face_size,
            device=checkpoint.device,
        )
        (segment,) = plan_segments(guides.count, guides.count, checkpoint.config.defaults.overlap)
        conditions = builder.build(segment, None)
    noise = torch.randn(16, *conditions.y.shape[1:], generator=torch.Generator().manual_seed(seed))
    return Clip(number, truth, checkpoint, conditions, noise, guided(checkpoint.transformer, conditions, 1.0))


def face_weight(truth: Truth) -> np.ndarray:
    """1 inside the true face box of each frame, [n, H, W]."""
    out = np.zeros(truth.video.shape[:3])
    for frame, (x0, y0, x1, y1) in zip(out, truth.face_box.astype(int), strict=True):
        frame[max(y0, 0) : y1, max(x0, 0) : x1] = 1
    return out


def compare(ours: Frames, full: Frames, truth: Truth, detectors: Detectors) -> dict[str, float]:
    face = face_weight(truth)
    mouths = [detectors.mouths(video, truth.face_box) for video in (ours, full)]
    off = np.abs(mouths[0] - mouths[1])
    off = off[~np.isnan(off)]
    return {
        "psnr": psnr(ours, full), "ssim": ssim(ours, full), "face psnr": psnr(ours, full, face),
        "mouth": float(np.mean(off)) if len(off) else float("nan"), "truth psnr": psnr(ours, truth.video),
        "truth face psnr": psnr(ours, truth.video, face),
    }  # fmt: skip


def version(variant: Variant) -> list[str]:
    """Changes with the code that a row depends on."""
    sources = []
    if variant.caching:
        parts = (v for v in vars(caches).values() if inspect.isclass(v) and v.__module__ == caches.__name__)
        sources = [inspect.getsource(part) for part in parts if part is not Caching]
    if variant.change:
        sources += [inspect.getsource(f) for f in (rounded, fp8_products, fp8_attention, hadamard, block_sparse)]
    return [hash_of(s) for s in (*sources, inspect.getsource(AnimateTransformer), inspect.getsource(attention))]


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def table(rows: dict[str, list[dict[str, float]]], chosen: list[Variant]) -> list[str]:
    head = ("", "skipped", "cost", "seconds", "PSNR", "SSIM", "face PSNR", "mouth", "to the truth", "face to the truth")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for variant in chosen:
        mean = {key: float(np.nanmean([row[key] for row in rows[variant.name]])) for key in rows[variant.name][0]}
        cells = [
            variant.name, f"{mean['skipped']:.1f}", f"{mean['cost']:.3f}", f"{mean['seconds']:.1f}",
            *(("", "", "", "") if variant.family == "full" else (
                f"{mean['psnr']:.2f}", f"{mean['ssim']:.4f}", f"{mean['face psnr']:.2f}", f"{mean['mouth']:.4f}")),
            f"{mean['truth psnr']:.2f}", f"{mean['truth face psnr']:.2f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return lines


COLOURS = {
    "fewer steps": (40, 40, 40), "taylor": (30, 110, 30), "early-taylor": (0, 170, 255),
    "taylor 0.05, fewer steps": (70, 190, 70),
    "first-block": (180, 90, 20), "magnitude": (190, 30, 150), "block-sparse": (20, 20, 200), "bf16": (150, 130, 0),
    "fp8": (0, 130, 230), "taylor, bf16 history": (30, 170, 150),
}  # fmt: skip
"""BGR, by family."""
PANEL, EDGE, LOWEST, HIGHEST = (620, 480), 60, 25.0, 70.0


def draw(rows: dict[str, list[dict[str, float]]], chosen: list[Variant], path: Path) -> None:
    """PSNR over cost: whole frames left, faces right; one line a family."""
    width, height = PANEL
    panels = []
    for key, title in (("psnr", "whole frames"), ("face psnr", "faces")):
        panel = np.full((height, width, 3), 255, np.uint8)

        def write(
            text: str, x: int, y: int, colour: tuple[int, int, int] = (60, 60, 60), on: np.ndarray = panel
        ) -> None:
            cv2.putText(on, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)

        def place(cost: float, value: float) -> tuple[int, int]:
            share = (min(max(value, LOWEST), HIGHEST) - LOWEST) / (HIGHEST - LOWEST)
            return round(EDGE + (width - 2 * EDGE) * (cost - 0.2) / 0.85), round(
                height - EDGE - (height - 2 * EDGE) * share
            )

        for value in range(int(LOWEST), int(HIGHEST) + 1, 5):
            cv2.line(panel, place(0.2, value), place(1.05, value), (225, 225, 225), 1)
            write(str(value), EDGE - 28, place(0.2, value)[1] + 4)
        for tenth in range(2, 11, 2):
            write(f"{tenth / 10:g}", place(tenth / 10, LOWEST)[0] - 8, height - EDGE + 18)
        write(f"{title}: PSNR in dB over arithmetic (1 is 20 full steps)", EDGE, 24)
        for i, (family, colour) in enumerate(COLOURS.items()):
            points = sorted(
                place(*(float(np.mean([row[name] for row in rows[v.name]])) for name in ("cost", key)))
                for v in chosen if v.family == family
            )  # fmt: skip
            if points and family not in ("bf16", "fp8"):
                cv2.polylines(panel, [np.array(points, np.int32).reshape(-1, 1, 2)], False, colour, 2, cv2.LINE_AA)
            for point in points:
                cv2.circle(panel, point, 4, colour, -1, cv2.LINE_AA)
            write(family, EDGE + 8, EDGE + 12 + 16 * i, colour)
        panels.append(panel)
    cv2.imwrite(str(path), np.concatenate(panels, axis=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=embedded_path())
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--size", default="256x256", help="WIDTHxHEIGHT")
    parser.add_argument("--only", help="rows whose name has this in it, besides the full one")
    parser.add_argument("--seed", type=int, default=0, help="of the diffusion noise")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("build/benchmark/quality"))
    parser.add_argument("--models", type=Path, help="folder of the detector models")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/quality_cpu_DATE.md")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    started = time.process_time()
    people = load()
    world = RecordingWorld(replace(people, clips=people.clips[:0], clip_lengths=people.clip_lengths[:0]), SETTINGS)
    checkpoint = load_checkpoint(args.checkpoint, "cpu")
    detectors, store = Detectors(args.models), Store(args.work)
    chosen = [v for v in variants() if v.family == "full" or not args.only or args.only in v.name]
    rows: dict[str, list[dict[str, float]]] = {v.name: [] for v in chosen}
    source = {"frames": args.frames, "size": args.size, "world": world_version()}
    for number, truth in measurable(world, detectors, store, args, source):
        clip, full = None, None
        for variant in chosen:
            file = store.path(
                "output", seed=number, noise=args.seed, weights=hashes(checkpoint), row=variant.name, version=version(variant),
                **source,
            )  # fmt: skip
            if not file.is_file():
                clip = clip or open_clip(checkpoint, number, truth, args.seed)
                frames, skipped, seconds = clip.run(variant)
                np.savez_compressed(file, frames=frames, skipped=skipped, seconds=seconds)
            with np.load(file) as kept:
                frames, skipped, seconds = kept["frames"], int(kept["skipped"]), float(kept["seconds"])
            full = frames if full is None else full
            row = {"skipped": skipped, "cost": variant.cost(skipped), "seconds": seconds}
            rows[variant.name].append(row | compare(frames, full, truth, detectors))
            print(
                number,
                variant.name,
                json.dumps({k: round(v, 4) for k, v in rows[variant.name][-1].items()}),
                flush=True,
            )
    out = args.out or Path(__file__).parent / "results" / f"quality_cpu_{date.today()}.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    draw(rows, chosen, out.with_suffix(".png"))
    lines = [
        "# What each way to save time costs", "", *described("cpu", args.threads), f"- `python {' '.join(sys.argv)}`",
        f"- {args.clips} clips of held-out people, {args.frames} frames of {args.size}, {STEPS} steps, noise seed {args.seed}",
        f"- checkpoint {checkpoint.config.name}", *(f"  - {name} {digest[:16]}" for name, digest in hashes(checkpoint).items()),
        "", f"![PSNR over cost]({out.with_suffix('.png').name})", "", *table(rows, chosen), "", *EXPLAINED,
    ]  # fmt: skip
    out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines), f"{time.process_time() - started:.0f} processor seconds in all", out, sep="\n")


EXPLAINED = [
    "PSNR, SSIM: against the full float32 computation with the same noise, means over the clips; face: inside of the true face",
    "box; mouth: mean difference of the mouth's opening (gap over face height) as the face mesh sees both. To the truth: PSNR",
    "against the rendered clip. Cost: arithmetic as a share of 20 full steps of the 14B at 1280x720 and 77 frames (71 % of a",
    "step is attention, the first block is 1/40 of it); what float8 saves is not in it. Seconds: of one core, the diffusion",
    "alone; those of emulated rows (sparse, fp8) say nothing. bf16: weights and activations of the transformer.",
]

if __name__ == "__main__":
    main()
