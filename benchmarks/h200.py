"""One step of the 14B on one GPU in every speed mode, beside diffusers compiled and the two ceilings, in one process.

    python benchmarks/h200.py                      # all parts, both sizes; under ten minutes
    python benchmarks/h200.py --tiny --device cpu  # a rehearsal: small networks, nothing compiled

Weights and inputs are random, at full size; seconds are medians of `--rounds` calls after one that warms up. Errors are
relative L2 distances of a whole network's output at reduced depth from the same network in float32. Results are written after
every row.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from hardware import described
from random_network import SEEN_SKIPS, Report, fresh, random_conditions, skip_like, visiting
from torch import Tensor, nn

from wanimate.config import Speed
from wanimate.measure.random_weights import quantize_network, random_network
from wanimate.model.fp8 import fp8_product, to_fp8
from wanimate.model.params import MotionParams, TransformerParams, VaeParams
from wanimate.model.vae import VideoVae
from wanimate.runtime.backends import backends, flash3_module
from wanimate.runtime.fused_vae import optimize_vae
from wanimate.runtime.optimize import attention_trials, best_trial, has_fp8, optimize_at
from wanimate.sampling.cache import TURBO, Caching
from wanimate.sampling.denoise import denoise
from wanimate.sampling.guidance import guided

SIZES = {"720p": (1280, 720), "480p": (832, 480)}
TINY_SIZES = {"720p": (96, 64), "480p": (64, 48)}
TINY = TransformerParams(
    dim=128, ffn_dim=256, num_heads=4, num_layers=5, text_width=64, image_width=64, face_width=64,
    motion=MotionParams(channels=(8, 16, 16), width=32, directions=8),
)  # fmt: skip
PARTS = ("ceilings", "exact", "fast", "error", "vae", "peer")
GIB = 2**30


class Bench:
    def __init__(self, args: argparse.Namespace) -> None:
        self.device = torch.device(args.device)
        self.cuda = self.device.type == "cuda"
        self.rounds: int = args.rounds
        self.params, self.sizes = (TINY, TINY_SIZES) if args.tiny else (TransformerParams(), SIZES)
        self.sizes = {name: size for name, size in self.sizes.items() if name in args.sizes}
        self.frames = 9 if args.tiny else 77
        self.tiny: bool = args.tiny
        self.dtype = torch.bfloat16 if self.cuda else torch.float32
        command = f"- `python benchmarks/h200.py {' '.join(sys.argv[1:])}`"
        self.report = Report(args.out, "Speed of the 14B on one GPU", [*described(self.device.type), command])

    def tokens(self, size: tuple[int, int]) -> int:
        return ((self.frames + 3) // 4 + 1) * (size[0] // 16) * (size[1] // 16)

    def seconds(self, call: Callable[[], object]) -> float:
        """Median of the rounds after one to warm up."""
        times = []
        for _ in range(self.rounds + 1):
            self.wait()
            began = time.perf_counter()
            call()
            self.wait()
            times.append(time.perf_counter() - began)
        return statistics.median(times[1:])

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def peak(self) -> float:
        return torch.cuda.max_memory_allocated() / GIB if self.cuda else 0.0

    def ceilings(self) -> None:
        """Products of a block's shapes, and attention over all tokens, by themselves."""
        columns = ["what", "shape", "s", "TFLOP/s"]
        size = next(iter(self.sizes.values()))
        rows, d, f = self.tokens(size), self.params.dim, self.params.ffn_dim
        x = torch.randn(rows, d, device=self.device, dtype=self.dtype)
        for wide in (d, f):
            w = torch.randn(wide, d, device=self.device, dtype=self.dtype)
            work, shape = 2 * rows * d * wide, f"{rows}x{d}x{wide}"
            spent = self.seconds(lambda w=w: x @ w.T)  # type: ignore[misc]
            self.report.add("Ceilings", columns, ["product, bf16", shape, spent, work / spent / 1e12])
            if not has_fp8(self.device):
                continue
            (a, sa), (b, sb) = to_fp8(x, (1,)), to_fp8(w, (1,))
            one = torch.ones((), device=self.device)
            kinds = {"a scale a row": (sa, sb.t().contiguous()), "one scale": (one, one)}
            for name, (left, right) in kinds.items():
                spent = self.seconds(
                    lambda a=a, b=b, left=left, right=right: torch._scaled_mm(  # type: ignore[misc]
                        a, b.t(), left, right, out_dtype=torch.bfloat16, use_fast_accum=True
                    )
                )
                self.report.add("Ceilings", columns, [f"product, fp8, {name}", shape, spent, work / spent / 1e12])
            spent = self.seconds(lambda b=b, sb=sb: fp8_product(*to_fp8(x, (1,)), b, sb, None))  # type: ignore[misc]
            self.report.add(
                "Ceilings", columns, ["product, fp8, rounding x included", shape, spent, work / spent / 1e12]
            )
        heads, width = self.params.num_heads, self.params.head_dim
        for size in self.sizes.values():
            n = self.tokens(size)
            q, k, v = (torch.randn(1, n, heads, width, device=self.device, dtype=self.dtype) for _ in range(3))
            work = 4 * n * n * heads * width
            for backend in backends().values():
                try:
                    spent = self.seconds(lambda q=q, k=k, v=v, attend=backend.attend: attend(q, k, v))  # type: ignore[misc]
                except (RuntimeError, ValueError) as error:
                    self.report.add(
                        "Ceilings", columns, [f"attention, {backend.name}", n, str(error).splitlines()[0], ""]
                    )
                    continue
                self.report.add("Ceilings", columns, [f"attention, {backend.name}", n, spent, work / spent / 1e12])
            self.report.add(
                "Chosen attention", ["tokens", "exact", "fast"],
                [n, *(self.best_attention(n, exact) for exact in (True, False))],
            )  # fmt: skip

    def best_attention(self, tokens: int, exact: bool) -> str:
        return best_trial(attention_trials(self.device, self.dtype, tokens, self.params.head_dim, exact)).name

    def exact(self) -> None:
        self.model = random_network(self.params, self.device, self.dtype)
        self.steps("exact")

    def fast(self) -> None:
        if not hasattr(self, "model"):
            self.model = random_network(self.params, self.device, self.dtype)
        quantize_network(self.model)
        fresh()
        self.steps("fast")
        self.turbo()
        if self.cuda:
            optimize_at(self.model, self.device, "turbo", self.tokens(SIZES["720p"]), attention_error=0.05)
            with visiting(0.5):
                self.turbo(", half of the blocks")
        del self.model
        fresh()

    def turbo(self, also: str = "") -> None:
        """A whole denoising loop that skips the steps that it skips on the embedded checkpoint."""
        skip_like(SEEN_SKIPS)
        steps, columns = len(SEEN_SKIPS), ["mode", "size", "steps", "skipped", "average s a step", "peak, GiB"]
        for name, size in self.sizes.items():
            conditions, noise = random_conditions(self.params, size, self.frames, self.device)
            fresh()
            network = guided(self.model, conditions, 1.0, Caching.of(TURBO, None, steps))
            self.wait()
            began = time.perf_counter()
            for _ in denoise(network, noise, "dpm++", steps, 5.0):
                pass
            self.wait()
            spent = (time.perf_counter() - began) / steps
            row = [f"ours, turbo ({TURBO}{also})", name, steps, network.skipped, spent, self.peak()]
            self.report.add("Turbo", columns, row)
            del network

    def steps(self, speed: Speed) -> None:
        """Seconds and peak memory of a step of the network as the pipeline runs it."""
        columns = ["mode", "size", "s a step", "first step, s", "prepare, s", "peak, GiB"]
        t = torch.tensor(700, device=self.device)
        if self.cuda:
            optimize_at(self.model, self.device, speed, self.tokens(SIZES["720p"]))
        for name, size in self.sizes.items():
            conditions, noise = random_conditions(self.params, size, self.frames, self.device)
            fresh()
            began = time.perf_counter()
            network = guided(self.model, conditions, 1.0)
            self.wait()
            prepared = time.perf_counter() - began
            began = time.perf_counter()
            network(noise, t)
            self.wait()
            first = time.perf_counter() - began
            spent = self.seconds(lambda network=network, noise=noise: network(noise, t))  # type: ignore[misc]
            self.report.add("Seconds a step", columns, [f"ours, {speed}", name, spent, first, prepared, self.peak()])
            if self.cuda:
                self.kernels(speed, name, lambda network=network, noise=noise: network(noise, t))  # type: ignore[misc]
            del network

    def kernels(self, what: str, size: str, call: Callable[[], object]) -> None:
        """Where the time goes."""
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            call()
            self.wait()
        events = sorted(seen.key_averages(), key=lambda e: -e.self_device_time_total)
        whole = sum(e.self_device_time_total for e in events)
        for e in events[:14]:
            row = [what, size, e.key[:90].replace("|", " "), e.count, e.self_device_time_total / 1e6]
            columns = ["what", "size", "kernel", "calls", "s", "share"]
            self.report.add("Kernels", columns, [*row, e.self_device_time_total / whole])

    def error(self) -> None:
        """Relative L2 of the flow at reduced depth: five blocks of few tokens, and one of all there are."""
        sizes = list(self.sizes.values())
        for layers, size, frames in ((5, sizes[-1], 9 if self.tiny else 21), (1, sizes[0], self.frames)):
            self.error_of(replace(self.params, num_layers=layers, face_every=layers), size, frames)

    def error_of(self, few: TransformerParams, size: tuple[int, int], frames: int) -> None:
        conditions, noise = random_conditions(few, size, frames, self.device)
        tokens = conditions.y[0].numel() // 4
        t = torch.tensor(700, device=self.device)
        flows: dict[str, Tensor] = {}
        modes: list[tuple[str, Speed | None]] = [("float32", None), ("bf16, uncompiled", None)]
        modes += [("exact", "exact"), ("fast", "fast")] if self.cuda else []
        for name, speed in modes:
            model = random_network(few, self.device, torch.float32)
            if name != "float32":
                model.to(torch.bfloat16)
            if speed == "fast":
                quantize_network(model)
            if speed is not None:
                optimize_at(model, self.device, speed, tokens)
            flows[name] = guided(model, conditions, 1.0)(noise, t)
            del model
            fresh()
        wanted = flows.pop("float32")
        for name, flow in flows.items():
            distance = ((flow - wanted).norm() / wanted.norm()).item()
            columns = ["arithmetic", "blocks", "tokens", "relative L2 to float32"]
            self.report.add("Error of a step", columns, [name, few.num_layers, tokens, f"{distance:.2e}"])

    def vae(self) -> None:
        """Encoding and decoding a segment, in float32 as published and as the fast modes do, at several lengths of piece."""
        params = VaeParams(base=16) if self.tiny else VaeParams()
        columns = [
            "arithmetic",
            "latent frames at once",
            "encode, s",
            "encode 5 frames and grey, s",
            "decode, s",
            "peak encode, GiB",
            "peak decode, GiB",
        ]
        columns += ["PSNR of frames to float32, dB"]
        (width, height), reference = next(iter(self.sizes.values())), None
        generator = torch.Generator(self.device).manual_seed(3)
        small = torch.randn(1, 3, self.frames, height // 16, width // 16, device=self.device, generator=generator)
        video = nn.functional.interpolate(small, (self.frames, height, width), mode="trilinear").clamp(-1, 1)
        modes: dict[str, Speed | None] = {"float32": None, "float32, fused norms": "exact", "bf16": "fast"}
        for name, speed in modes.items() if self.cuda else [("float32", None)]:
            torch.manual_seed(2)
            vae = VideoVae(params).to(self.device).eval().requires_grad_(False).channels_last()
            if speed is not None:
                optimize_vae(vae, speed)
            for chunk in (1, 2) if speed == "fast" else (1,):
                with torch.inference_mode():
                    fresh()
                    encode = self.seconds(lambda vae=vae, chunk=chunk: vae.encode(video, chunk))  # type: ignore[misc]
                    encode_peak = self.peak()
                    grey = torch.cat((video[:, :, :5], torch.zeros_like(video[:, :, 5:])), dim=2)
                    still = self.seconds(lambda vae=vae, x=grey, chunk=chunk: vae.encode(x, chunk))  # type: ignore[misc]
                    del grey
                    latents = vae.encode(video, chunk).float()
                    fresh()
                    decode = self.seconds(
                        lambda vae=vae, x=latents, chunk=chunk: [0 for _ in vae.decode_pieces(x, chunk)]
                    )  # type: ignore[misc]
                    decode_peak = self.peak()
                    if reference is None:
                        reference = latents, vae.decode(latents, chunk).float()
                    frames = vae.decode(reference[0], chunk).float()
                    span = (reference[1].max() - reference[1].min()).item()
                    psnr = 10 * torch.log10(span**2 / (frames - reference[1]).square().mean().clamp_min(1e-20)).item()
                self.report.add("VAE", columns, [name, chunk, encode, still, decode, encode_peak, decode_peak, psnr])
                if self.cuda and chunk == 1:
                    self.kernels(
                        f"VAE decode, {name}",
                        f"{width}x{height}",
                        lambda vae=vae, x=reference[0]: [0 for _ in vae.decode_pieces(x, 1)],
                    )
            del vae
            fresh()

    def peer(self) -> None:
        """diffusers' transformer with random weights: its attention backends uncompiled, the best one compiled."""
        if not self.cuda or self.tiny:
            return
        if flash3_module() is not None:
            sys.modules.setdefault("flash_attn_interface", flash3_module())  # type: ignore[arg-type]
        from diffusers import WanAnimateTransformer3DModel
        from diffusers import __version__ as version

        usual = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        with torch.device("meta"):
            model = WanAnimateTransformer3DModel()
        torch.set_default_dtype(usual)
        model.to_empty(device=self.device)
        for p in (*model.parameters(), *model.buffers()):
            p.data.normal_(std=0.02) if p.ndim > 1 else p.data.fill_(1.0)
        model.rope = type(model.rope)(128, (1, 2, 2), 1024).to(self.device)
        model.eval().requires_grad_(False)
        columns = ["diffusers " + version, "size", "s a step", "first step, s", "peak, GiB"]
        best: tuple[float, str] = (float("inf"), "native")
        large, *_, small = self.sizes

        def call(size: str) -> Callable[[], object]:
            given, noise = random_conditions(self.params, self.sizes[size], self.frames, self.device)
            assert given.image_tokens is not None
            video = torch.cat((noise, given.y))[None].to(self.dtype)
            text = nn.functional.pad(given.text, (0, 0, 0, self.params.text_length - len(given.text)))
            others: list[Tensor] = [text, given.image_tokens, given.pose_latents, given.face]
            rest = [x[None].to(self.dtype) for x in others]
            return torch.inference_mode()(lambda: model(video, torch.tensor([700], device=self.device), *rest))

        for name in ("_flash_3", "_native_cudnn", "native"):
            try:
                model.set_attention_backend(name)
                spent = self.seconds(call(small))
            except Exception as error:  # the peer's backends refuse in many ways
                self.report.add("Peer", columns, [name, small, (str(error).splitlines() or ["?"])[0][:90], "", ""])
                continue
            self.report.add("Peer", columns, [name, small, spent, "", self.peak()])
            best = min(best, (spent, name))
        model.set_attention_backend(best[1])
        model.compile_repeated_blocks()
        for size in (small, large):
            fresh()
            run = call(size)
            began = time.perf_counter()
            run()
            self.wait()
            first = time.perf_counter() - began
            self.report.add("Peer", columns, [f"{best[1]}, compiled", size, self.seconds(run), first, self.peak()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="A rehearsal with small networks.")
    parser.add_argument("--out", type=Path, default=None)
    args: Any = parser.parse_args()
    args.out = args.out or Path(__file__).parent / "results" / f"speed_{args.device}_{date.today()}.md"
    bench = Bench(args)
    for part in PARTS:
        if part in args.parts:
            began = time.perf_counter()
            try:
                getattr(bench, part)()
            except (RuntimeError, AssertionError, TypeError) as error:  # the other parts still count
                bench.report.add("Failed", ["part", "why"], [part, (str(error).splitlines() or [repr(error)])[0][:300]])
                import traceback

                traceback.print_exc()
            fresh()
            print(f"{part}: {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
