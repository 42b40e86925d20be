"""The whole 14B system with random weights, through the real loader, from guides to a file: what it takes and how long.

python benchmarks/full_size.py build              # 48 GB as a published folder; needs 64 GB of disk
python benchmarks/full_size.py run                # both modes, 480p and 720p, bf16 and fp8
python benchmarks/full_size.py run --caps 0 24 16 12 --areas 1280x720 --modes animation  # hard caps in GiB; 0 is none
python benchmarks/full_size.py run --together --frames 21 49 77 --areas 832x480 1280x720 1280x1280 --steps 1 --modes animation
python benchmarks/full_size.py run --frames 250 --areas 1280x720 --steps 20 --weights auto --speeds turbo fast exact
python benchmarks/full_size.py run --frames 250 --areas 1280x720 --steps 4 --modes animation --weights auto --speeds fast --lora
python benchmarks/full_size.py run --frames 250 --areas 1280x720 --steps 20 --weights auto --speeds turbo --density 0.5
python benchmarks/full_size.py build --tiny; python benchmarks/full_size.py run --tiny --device cpu    # a rehearsal

Weights are random, so the pictures are noise: sizes, seconds and memory are those of the published checkpoint. Every case runs
in a process of its own; `--together`, cases with the same runtime settings in one, after one load, each with a plan of its own
(host peaks are then the process's so far). `run` writes benchmarks/results/full_size_DEVICE_DATE.md and the cases as JSON lines
beside it, after every case.

"to step 1" is from the start of the process, imports and all, until the first diffusion step begins and until it is done;
"after load" is from the loaded checkpoint, LoRAs added, to the written file; "load" and "LoRA" are the two by themselves. The
first segment's guides and CLIP's classes are read beside loading, CLIP's weights after it. "s/step" is the median without a
segment's first step, "mean" of all steps, skipped ones too.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import itertools
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from hardware import described
from random_network import skip_like, visiting

from wanimate.api import Animator
from wanimate.config import Defaults, GenerateSettings, OutputSettings, RuntimeSettings, Speed
from wanimate.errors import WanimateError
from wanimate.events import Finished, Notice, StageFinished, StageStarted, StepDone
from wanimate.measure.synthetic import write_guides
from wanimate.media.resize import exact_size
from wanimate.model.params import MotionParams, TransformerParams, VaeParams
from wanimate.model.transformer import AnimateTransformer
from wanimate.model.vae import VideoVae
from wanimate.runtime.planning import sizes as planning
from wanimate.weights.locate import CLIP, T5, TOKENIZER, TRANSFORMER, VAE
from wanimate.weights.quantize import is_quantizable
from wanimate.weights.stored import Stored, Value, value
from wanimate.weights.tools.convert import Shard, sharded, write_safetensors

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "parity"), str(ROOT / "tests" / "unit" / "weights"), str(ROOT / "tests")]
from published_shapes import clip_shapes, t5_shapes  # noqa: E402
from tiny_checkpoints import write_tokenizer  # noqa: E402

GIB = 2**30
TINY = TransformerParams(
    dim=256, ffn_dim=512, num_heads=2, num_layers=10, text_width=64, image_width=64, face_width=32,
    motion=MotionParams(channels=(8, 16, 16), width=32, directions=8),
)  # fmt: skip


def random_tensor(name: str, shape: torch.Size, dtype: torch.dtype, device: str) -> torch.Tensor:
    """Numbers of the size that keeps a network's signals near 1, always the same for a name; made on the device."""
    generator = torch.Generator(device).manual_seed(hash_of(name))
    if name.endswith(".kernel"):
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        return (torch.outer(taps, taps) / 64).to(dtype)
    flat = len(shape) < 2 or "norm" in name or "gamma" in name
    values = torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
    if flat:
        ones = name.endswith(("weight", "gamma"))
        return (values * 0.02 + (1.0 if ones else 0.0)).to(dtype).cpu()
    equalised = name.startswith("motion_encoder")  # these are scaled on use
    return (values / (1.0 if equalised else math.sqrt(math.prod(shape[1:])))).to(dtype).cpu()


def hash_of(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")


def random_values(shapes: dict[str, tuple[int, ...]], dtype: torch.dtype, device: str) -> dict[str, Value]:
    return {
        name: Stored(size := torch.Size(shape), dtype, partial(random_tensor, name, size, dtype, device))
        for name, shape in shapes.items()
    }


def shapes_of(make: Callable[[], torch.nn.Module]) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in make().state_dict().items()}


def build(args: argparse.Namespace) -> None:
    """Write the folder, a tensor at a time; what is there already stays."""
    folder: Path = args.work / "checkpoint"
    folder.mkdir(parents=True, exist_ok=True)
    device = args.device
    params, vae = (TINY, VaeParams(base=16)) if args.tiny else (TransformerParams(), VaeParams())
    if args.tiny:
        text, clip = t5_shapes(vocab=12, dim=64, inner=64, ffn=96, heads=2, layers=2), clip_shapes(64, 3)
    else:
        text = t5_shapes(vocab=256384, dim=4096, inner=4096, ffn=10240, heads=64, layers=24)
        clip = clip_shapes(1280, 32)
    started = time.perf_counter()
    transformer = random_values(shapes_of(lambda: AnimateTransformer(params)), torch.bfloat16, device)
    files: dict[str, Any] = {}
    shards: list[Shard] = sharded(TRANSFORMER, transformer, 10**6 if args.tiny else 5 * 10**9, files)
    for shard in shards:
        if not (folder / shard.name).is_file():
            write_safetensors(folder / shard.name, shard.tensors)
        print(f"{shard.name}: {time.perf_counter() - started:.0f} s", flush=True)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    parts: list[tuple[str, dict[str, tuple[int, ...]], torch.dtype]] = [
        (VAE, shapes_of(lambda: VideoVae(vae)), torch.float32), (T5, text, torch.bfloat16), (CLIP, clip, torch.float16),
    ]  # fmt: skip
    for name, shapes, dtype in parts:
        if not (folder / name).is_file():
            tensors = {key: value(stored) for key, stored in random_values(shapes, dtype, device).items()}
            torch.save(tensors, folder / f"{name}.part")
            (folder / f"{name}.part").rename(folder / name)
            del tensors
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    if not (args.work / "lora.safetensors").is_file():
        write_lora(args.work / "lora.safetensors", params, device)
    if not (folder / TOKENIZER).is_dir():
        write_tokenizer(folder / TOKENIZER)
    taken = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    print(f"{folder}: {taken / 1e9:.1f} GB, {time.perf_counter() - started:.0f} s")


def write_lora(file: Path, params: TransformerParams, device: str, rank: int = 64) -> None:
    """As the 4-step distillation LoRAs are: rank 64 on every linear layer of the blocks."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (out, inputs) in linears(params):
        stem = f"diffusion_model.{name.removesuffix('.weight')}"
        shapes |= {f"{stem}.lora_down.weight": (rank, inputs), f"{stem}.lora_up.weight": (out, rank)}
    write_safetensors(file, random_values(shapes, torch.bfloat16, device))


def linears(params: TransformerParams) -> list[tuple[str, tuple[int, int]]]:
    """Names and shapes of the weights of the blocks' linear layers."""
    shapes = shapes_of(lambda: AnimateTransformer(params))
    return [(n, (s[0], s[1])) for n, s in shapes.items() if n.startswith("blocks.") and is_quantizable(n)]


def guides(folder: Path, area: int, count: int, mode: str, tiny: bool) -> Path:
    """A guides folder of moving shapes, for where no real one is given."""
    width, height = exact_size(16, 9, area)
    place = folder / f"{mode}-{width}x{height}-{count}"
    with locked(folder / f"{place.name}.lock"):
        if not place.is_dir():
            write_guides(place, (width, height), count, mode, face=64 if tiny else 512)  # type: ignore[arg-type]
    return place


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Alone among the processes of this machine that lock the same file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def case(args: argparse.Namespace) -> None:
    """Jobs of one Animator in this process; the numbers of each as a line of JSON."""
    wanted = json.loads(args.case)
    if args.tiny:
        planning.BIG = 0
    if args.skips:
        skip_like(args.skips)
    runtime = RuntimeSettings.model_validate(wanted[0]["runtime"])
    animator = Animator.from_checkpoint(args.work / "checkpoint", args.device, runtime)
    for i, one in enumerate(wanted):
        try:
            with visiting(args.density):
                result = job(args, animator, one, args.since if i == 0 else None)
        except (WanimateError, torch.OutOfMemoryError) as error:
            result = {"ok": False, "error": str(error)}
        print(json.dumps(one | result, default=str), flush=True)


def job(args: argparse.Namespace, animator: Animator, wanted: dict[str, Any], since: float | None) -> dict[str, Any]:
    """One job; `since`: when the process was started, in seconds of the clock on the wall."""
    settings = GenerateSettings(
        steps=wanted["steps"], seed=1, prompt=args.prompt, clip_length=wanted["clip_length"], lora=wanted["lora"],
        lora_fuse=args.lora != "beside",
    )  # fmt: skip
    out = args.work / "out" / args.out.stem / f"{wanted['name']}.mp4"
    out.parent.mkdir(parents=True, exist_ok=True)
    steps: list[tuple[int, float]] = []
    notices: list[str] = []
    stages: dict[str, float] = {}
    startup: list[float] = []
    began = last = loaded = time.perf_counter()
    for event in animator.generate(Path(wanted["guides"]), out, settings, OutputSettings(audio=False)):
        if isinstance(event, StepDone) or (isinstance(event, StageStarted) and event.stage == "denoise"):
            if args.device != "cpu":
                torch.cuda.synchronize()
            if since is not None and len(startup) < 2:
                startup.append(time.time() - since)
        now = time.perf_counter()
        if isinstance(event, StageFinished):
            stages[event.stage] = stages.get(event.stage, 0.0) + event.seconds
            loaded = now if event.stage in ("load", "lora") else loaded
        elif isinstance(event, StepDone):
            steps.append((event.step, now - last))
        elif isinstance(event, Notice):
            notices.append(event.message)
        elif isinstance(event, Finished):
            record = event.result.manifest
        last = now
    later = sorted(seconds for step, seconds in steps if step > 1) or [seconds for _, seconds in steps]
    plan, cache = animator.engine.networks.plan, record["cache"]
    return {
        "ok": True, "seconds": last - began, "after_load": last - loaded, "startup": startup, "stages": stages,
        "step": later[len(later) // 2], "mean_step": sum(seconds for _, seconds in steps) / len(steps),
        "steps_done": len(steps), "skipped": sum(cache["skipped"]) if cache else 0, "each_step": steps,
        "memory": record["memory"], "placement": record["placement"], "attention": record["attention"],
        "size": record["size"], "notices": notices,
        "planned_step": plan.step_seconds if plan else None, "planned_clip": plan.clip_seconds if plan else None,
        "planned_stages": plan.stages if plan else None, "planned_placement": str(plan.placement) if plan else None,
    }  # fmt: skip


def cases(args: argparse.Namespace) -> list[dict[str, Any]]:
    out = []
    caps = args.caps or [0]
    kinds = itertools.product(args.areas, args.frames, args.modes, args.weights, caps, args.speeds)
    for area, count, mode, weights, cap, speed in kinds:
        width, height = map(int, area.split("x"))
        given = {"animation": args.guides, "replacement": args.guides_replacement}[mode]
        folder = given or guides(args.work / "guides", width * height, count, mode, args.tiny)
        runtime = {"weights_dtype": weights, "blocks": args.blocks, "speed": speed} | (
            {"gpu_memory": cap} if cap else {}
        )
        runtime |= {"attention_error": 0.05} if args.density else {}
        lora = [args.work / "lora.safetensors"] if args.lora else []
        extra = [f"{cap:g}GiB"] if cap else []
        extra += [f"LoRA-{args.lora}"] if lora else []
        extra += [f"density-{args.density:g}"] if args.density else []
        name = "-".join(str(x) for x in (mode, area, count, weights, args.blocks, speed, *extra))
        length = min((count + 2) // 4 * 4 + 1, Defaults().clip_length)
        out.append({
            "name": name, "mode": mode, "area": area, "frames": count, "guides": str(folder), "runtime": runtime,
            "steps": args.steps, "clip_length": length, "lora": [str(file) for file in lora],
        })  # fmt: skip
    return out


def run(args: argparse.Namespace) -> None:
    """All cases; a table of them, kept up to date, since a machine may be taken away."""
    args.out.parent.mkdir(parents=True, exist_ok=True)
    own = ["--work", str(args.work), "--device", args.device, "--out", str(args.out), "--prompt", args.prompt]
    own += [*(["--tiny"] if args.tiny else []), *(["--lora", args.lora] if args.lora else [])]
    own += ["--skips", args.skips] if args.skips else []
    own += ["--density", str(args.density)] if args.density else []
    results: list[dict[str, Any]] = []
    for group in groups(cases(args), args.together):
        words = [sys.executable, __file__, "case", *own, "--case", json.dumps(group), "--since", repr(time.time())]
        with tempfile.TemporaryFile("w+") as said, subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=said, text=True
        ) as process:  # fmt: skip
            assert process.stdout is not None
            done = 0
            for line in process.stdout:
                if line.startswith("{"):
                    done += 1
                    keep(json.loads(line), results, args)
            process.wait()
            said.seek(0)
            last = (said.read().strip().splitlines() or ["it ended early"])[-1]
        for wanted in group[done:]:
            keep(wanted | {"ok": False, "error": last}, results, args)
    print(args.out.read_text())


def groups(wanted: list[dict[str, Any]], together: bool) -> list[list[dict[str, Any]]]:
    """What runs in one process each."""
    if not together:
        return [[one] for one in wanted]
    found: dict[str, list[dict[str, Any]]] = {}
    for one in wanted:
        found.setdefault(json.dumps(one["runtime"]), []).append(one)
    return list(found.values())


def keep(result: dict[str, Any], results: list[dict[str, Any]], args: argparse.Namespace) -> None:
    results.append(result)
    shown = {k: result.get(k) for k in ("name", "ok", "step", "mean_step", "seconds", "placement", "error")}
    print(json.dumps(shown), flush=True)
    args.out.with_suffix(".jsonl").write_text("".join(json.dumps(r) + "\n" for r in results))
    args.out.write_text("\n".join(report(results, args.device)) + "\n")


COLUMNS = (
    "case", "placement", "attention", "s/step", "mean", "planned", "skipped", "GPU peak GiB", "planned", "off %",
    "host peak GiB", "to step 1 s", "prompt s", "load s", "LoRA s", "conditions s", "denoise s", "decode s", "write s",
    "after load s", "all s",
)  # fmt: skip


def report(results: list[dict[str, Any]], device: str) -> list[str]:
    lines = ["# The 14B at full size, random weights", "", *described(device)]
    lines += [f"- `python benchmarks/full_size.py {' '.join(sys.argv[1:])}`", ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for r in results:
        cells = row(r) if r["ok"] else [r["name"], f"failed: {r['error']}", *[""] * (len(COLUMNS) - 2)]
        lines.append("| " + " | ".join(cells) + " |")
    told = [f"- {r['name']}: {n}" for r in results if r["ok"] for n in r["notices"]]
    return [*lines, "", "What the runs said:", "", *told]


def row(r: dict[str, Any]) -> list[str]:
    memory, stages = r["memory"], r["stages"]
    gpu, planned = memory.get("gpu", 0) / GIB, memory.get("planned_gpu", 0) / GIB
    coding = stages.get("reference", 0) + stages.get("conditions", 0)
    return [
        r["name"], r["placement"], r["attention"] or "torch", f"{r['step']:.3f}", f"{r['mean_step']:.3f}",
        f"{r['planned_step'] or 0:.3f}", f"{r['skipped']} of {r['steps_done']}", f"{gpu:.2f}", f"{planned:.2f}",
        f"{100 * (planned / gpu - 1):+.1f}" if gpu else "", f"{memory['host'] / GIB:.1f}",
        " / ".join(f"{seconds:.1f}" for seconds in r["startup"]), f"{stages.get('prompt', 0):.1f}",
        f"{stages['load']:.1f}", f"{stages.get('lora', 0):.1f}", f"{coding:.1f}",
        f"{stages['denoise']:.1f}", f"{stages['decode']:.1f}", f"{stages['write']:.1f}",
        f"{r['after_load']:.1f}", f"{r['seconds']:.1f}",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["build", "run", "case"])
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build" / "full_size", help="Where checkpoint, guides and results go."
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="A rehearsal: the same road with tiny networks.")
    parser.add_argument("--areas", nargs="+", default=None, metavar="WxH")
    parser.add_argument("--frames", nargs="+", type=int, default=[77])
    parser.add_argument(
        "--modes", nargs="+", default=["animation", "replacement"], choices=["animation", "replacement"]
    )
    parser.add_argument("--weights", nargs="+", default=["bf16", "fp8"])
    parser.add_argument("--blocks", default="auto", choices=["auto", "resident", "streamed", "mapped"])
    parser.add_argument("--speeds", nargs="+", default=["exact"], choices=get_args(Speed))
    parser.add_argument(
        "--lora", nargs="?", const="fused", choices=["fused", "beside"],
        help="With the random LoRA of rank 64: added to the weights, or beside them.",
    )  # fmt: skip
    parser.add_argument("--together", action="store_true", help="One process for all cases with the same settings.")
    parser.add_argument("--prompt", default="a person dances", help="A new one opens the text encoder.")
    parser.add_argument(
        "--caps", nargs="*", type=float, metavar="GIB", help="Hard caps of the process's GPU memory; 0: none."
    )
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument(
        "--skips", metavar="FF..F", help="Steps that caches skip (dots): random weights foretell nothing."
    )
    parser.add_argument(
        "--density", type=float, help="Share of the blocks that sparse attention visits, as it is told."
    )
    parser.add_argument("--guides", type=Path, help="A real guides folder for animation.")
    parser.add_argument("--guides-replacement", type=Path)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--since", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    args.areas = args.areas or (["64x48"] if args.tiny else ["832x480", "1280x720"])
    args.frames = [9] if args.tiny and args.frames == [77] else args.frames
    kind = args.device.partition(":")[0]
    args.out = args.out or Path(__file__).parent / "results" / f"full_size_{kind}_{date.today()}.md"
    {"build": build, "run": run, "case": case}[args.what](args)


if __name__ == "__main__":
    main()
