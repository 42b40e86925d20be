"""The 14B's parts at full width against the same parts in float64: one block, one fuser, the motion and face encoders, the VAE.

    python benchmarks/full_width.py                 # on a processor or a GPU, whatever is there; a few minutes on two cores

Random weights that keep signals near 1; few tokens and a small picture, all channels. Prints relative L2 errors and the largest
error over the largest value, for float32, and on a GPU for bfloat16 and for the parts as `--speed exact` and `fast` run them.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from hardware import described
from random_network import Report
from torch import Tensor, nn

from wanimate.config import Speed
from wanimate.measure.random_weights import quantize_network, random_network
from wanimate.model.params import TransformerParams, VaeParams
from wanimate.model.rope import rope_table
from wanimate.model.transformer import AnimateTransformer
from wanimate.model.vae import VideoVae
from wanimate.runtime.fused_vae import optimize_vae
from wanimate.runtime.optimize import optimize_at

GRID, FACES, PICTURE = (3, 6, 8), 5, (48, 64)
Call = Callable[[Any], Tensor]


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def parts(params: TransformerParams) -> dict[str, Call]:
    """Name -> output of a transformer for inputs that are the same whatever its type."""
    tokens = GRID[0] * GRID[1] * GRID[2]

    def put(model: AnimateTransformer, x: Tensor, stream: bool = False) -> Tensor:
        weight = model.patch_embedding.weight
        wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
        return x.to(weight.device, wide if stream else weight.dtype)

    def block(model: AnimateTransformer) -> Tensor:
        text, image = put(model, randn(1, params.text_length, params.dim)), put(model, randn(1, 257, params.dim))
        cos, sin = (put(model, t.double(), True) for t in rope_table(GRID, params.head_dim))
        first = model.blocks[0]
        x, e0 = put(model, randn(1, tokens, params.dim), True), put(model, randn(1, 6, params.dim), True)
        return first(x, e0, (cos, sin), first.keys_values(text, image))  # type: ignore[operator]

    def fuser(model: AnimateTransformer) -> Tensor:
        faces = put(model, randn(1, GRID[0], params.face_slots + 1, params.dim))
        return model.face_adapter.fuser_blocks[0](
            put(model, randn(1, tokens, params.dim), True), model.face_adapter.keys_values(faces)[0]
        )

    def faces(model: AnimateTransformer) -> Tensor:
        side = params.motion.size
        return model.encode_face(put(model, randn(1, 3, FACES, side, side).clamp(-1, 1)))

    return {"block": block, "face adapter": fuser, "motion and face encoder": faces}


@contextmanager
def all_in_float64() -> Iterator[None]:
    """Networks ask for float32 where bfloat16 would not do; here they get float64."""
    usual = torch.Tensor.float
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.Tensor.float = usual  # type: ignore[method-assign]


def errors(found: Tensor, wanted: Tensor) -> list[str]:
    found, wanted = found.double().cpu(), wanted.double().cpu()
    return [
        f"{(found - wanted).norm() / wanted.norm():.2e}",
        f"{(found - wanted).abs().max() / wanted.abs().max():.2e}",
    ]


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    device = torch.device(args.device)
    out = args.out or Path(__file__).parent / "results" / f"full_width_{device.type}_{date.today()}.md"
    report = Report(out, "Full width against float64", [*described(device.type), "- `python benchmarks/full_width.py`"])
    columns = ["part", "arithmetic", "relative L2", "largest error over largest value"]
    params = replace(TransformerParams(), num_layers=1, face_every=1)
    kinds: list[tuple[str, torch.dtype, Speed | None]] = [("float32", torch.float32, None)]
    if device.type == "cuda":
        kinds += [
            ("bfloat16", torch.bfloat16, None),
            ("exact", torch.bfloat16, "exact"),
            ("fast", torch.bfloat16, "fast"),
        ]
        torch.backends.cudnn.allow_tf32 = False  # float32 is to be float32 here
    exact = random_network(params, device, torch.float32).double()
    with all_in_float64():
        wanted = {name: call(exact) for name, call in parts(params).items()}
    for kind, dtype, speed in kinds:
        model = copy.deepcopy(exact).to(dtype)
        if speed == "fast":
            quantize_network(model)
        if speed is not None:
            optimize_at(model, device, speed, 1024)
        for name, call in parts(params).items():
            report.add("Transformer, width 5120", columns, [name, kind, *errors(call(model), wanted[name])])
        del model
    del exact
    vae = VideoVae(VaeParams()).to(device).double().eval().requires_grad_(False)
    seeded(vae)
    video, latents = randn(1, 3, 9, *PICTURE).clamp(-1, 1).to(device), randn(1, 16, 3, 6, 8).to(device)
    encoded, decoded = vae.encode(video), vae.decode(latents)
    for _, dtype, speed in kinds:
        twin = copy.deepcopy(vae).float().channels_last()
        if speed is not None:
            optimize_vae(twin, speed)
        elif dtype != torch.float32:
            continue
        name = "float32" if speed is None else "exact" if speed == "exact" else "fast, bfloat16"
        report.add("VAE, base 96", columns, ["encode", name, *errors(twin.encode(video.float()), encoded)])
        report.add("VAE, base 96", columns, ["decode", name, *errors(twin.decode(latents.float()), decoded)])


def seeded(module: nn.Module) -> None:
    generator = torch.Generator(next(module.parameters()).device).manual_seed(4)
    for p in module.parameters():
        if p.ndim > 1 and p.shape[1:].numel() > 1:
            p.data.normal_(std=p.shape[1:].numel() ** -0.5, generator=generator)


if __name__ == "__main__":
    main()
