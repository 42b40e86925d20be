"""Where every second of a cold and of a warm job goes.

python benchmarks/full_size.py build     # the checkpoint: random weights at full size
python benchmarks/seconds.py run         # three jobs of 77 frames of 1280x720
python benchmarks/full_size.py build --tiny; python benchmarks/seconds.py run --tiny --device cpu    # a rehearsal

first process    nothing is kept on disk: kernels are compiled, the device is measured, the prompt is new
second process   the same job again, with what the first one has kept
second job       the same job again in the second process

Files are in the page cache. Each second of the main thread counts once, in the innermost row it belongs to. What other threads
do beside it (guides, weights, frames written) counts as far as the main thread waits for it. The GPU is waited for where stages
end. `--src`: the sources of another version of the package, measured by the same script. Beside the table lies FILE.jsonl, with
samples of the main thread's stack every 10 ms: which function of the package it was in.
"""

from __future__ import annotations

import time

BEGAN = time.time()

import argparse  # noqa: E402 - a process that is measured imports as little as it can before its clock runs
import importlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from contextlib import contextmanager, suppress  # noqa: E402
from datetime import date  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

ROOT = Path(__file__).parents[1]
COLUMNS = ("first process", "second process", "second job")
PLACES = (
    ("check: headers of the files", "wanimate.engines.wan_animate", "check_checkpoint"),
    ("plan: sizes off the headers", "wanimate.runtime.planning.fit", "networks"),
    ("plan: networks run without values", "wanimate.runtime.planning.plan", "transformer_cost"),
    ("plan: networks run without values", "wanimate.runtime.planning.plan", "vae_cost"),
    ("plan: rates of the device", "wanimate.runtime.planning.fit", "_rates"),
    ("attention backends tried", "wanimate.runtime.optimize", "attention_trials"),
    ("attention backends tried", "wanimate.runtime.planning.rates", "attention_trials"),
    ("kernels: CUDA C++ (NVRTC)", "wanimate.runtime.kernels.cuda", "compiled"),
    ("kernels: Triton", "triton.runtime.jit:JITFunction", "_do_compile"),
    ("weights: wait for files and copies", "wanimate.weights.staging", "_arrived"),
    ("weights: checked for NaN", "wanimate.weights.formats", "is_finite"),
    ("CLIP: opened and read", "wanimate.weights.checkpoint", "load_image_encoder"),
    ("umT5: opened and read", "wanimate.weights.checkpoint", "_open_text_encoder"),
    ("networks made fast", "wanimate.runtime.placement", "optimize"),
    ("networks made fast", "wanimate.runtime.placement", "optimize_at"),
    ("wait for guides", "wanimate.conditions.read:GuidesReader", "read"),
    ("GPU memory given back", "torch.cuda", "empty_cache"),
    ("hashes for the record", "wanimate.finish.record:Hashes", "of"),
    ("files get their names", "wanimate.jobs.run", "commit"),
)
"""Rows of the table and the functions whose seconds they are; those that a version lacks are left out."""


class Ledger:
    """Seconds of the main thread by row: of the stage that is open, but for what belongs to a function of `PLACES`."""

    def __init__(self, began: float) -> None:
        self.seconds: dict[str, float] = {}
        self._last, self._open = began, ["start"]

    def stage(self, name: str) -> None:
        self._count()
        self._open[0] = name

    @contextmanager
    def within(self, name: str) -> Iterator[None]:
        self._count()
        self._open.append(name)
        try:
            yield
        finally:
            self._count()
            self._open.pop()

    def take(self) -> dict[str, float]:
        self._count()
        taken, self.seconds = self.seconds, {}
        return taken

    def current(self) -> str:
        return self._open[0]

    def _count(self) -> None:
        now = time.time()
        self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) + now - self._last
        self._last = now


def watch(ledger: Ledger) -> None:
    """Have the functions of `PLACES` count in rows of their own."""
    for row, place, name in PLACES:
        module, _, owner = place.partition(":")
        with suppress(ImportError, AttributeError):
            held = importlib.import_module(module)
            held = getattr(held, owner) if owner else held
            setattr(held, name, counted(ledger, row, getattr(held, name)))


def counted(ledger: Ledger, row: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            return function(*args, **kwargs)
        with ledger.within(row):
            return function(*args, **kwargs)

    return call


class Sampler:
    """Which function of the package the main thread is in, looked at every 10 ms."""

    def __init__(self, ledger: Ledger) -> None:
        self.found: Counter[tuple[str, str, str]] = Counter()
        self._ledger = ledger
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        main = threading.main_thread().ident
        while True:
            time.sleep(0.01)
            frame = leaf = sys._current_frames().get(main or 0)
            while frame is not None and "/wanimate/" not in frame.f_code.co_filename:
                frame = frame.f_back
            if frame is not None and leaf is not None:
                self.found[(self._ledger.current(), _named(frame), _named(leaf))] += 1

    def take(self) -> list[tuple[str, str, str, int]]:
        found, self.found = self.found, Counter()
        return [(*where, count) for where, count in found.most_common(60)]


def _named(frame: Any) -> str:
    code = frame.f_code
    return f"{'/'.join(Path(code.co_filename).parts[-2:])}:{code.co_name}:{frame.f_lineno}"


def measured(args: argparse.Namespace) -> None:
    """The jobs of one process, each a line of JSON."""
    ledger = Ledger(args.since)
    ledger.seconds["the interpreter starts"] = BEGAN - args.since
    ledger._last = BEGAN
    ledger.stage("imports")
    import torch

    from wanimate.api import Animator
    from wanimate.config import GenerateSettings, OutputSettings, RuntimeSettings
    from wanimate.runtime.planning import sizes

    if args.tiny:
        sizes.BIG = 0
    watch(ledger)
    sampler = Sampler(ledger)
    ledger.stage("the job is looked at")
    animator = Animator.from_checkpoint(args.work / "checkpoint", args.device, RuntimeSettings(speed=args.speed))
    length = min((args.frames + 2) // 4 * 4 + 1, 77)
    settings = GenerateSettings(steps=args.steps, seed=1, prompt="a person dances", clip_length=length)
    since = args.since
    for i in range(args.jobs):
        out = args.work / "out" / f"seconds-{i}.mp4"
        out.parent.mkdir(parents=True, exist_ok=True)
        ledger.stage("the job is looked at")
        began, steps = time.time(), list[float]()
        output = OutputSettings(audio=False, overwrite=True)
        first: float | None = None
        for event in animator.generate(args.guides, out, settings, output):
            kind = type(event).__name__
            if kind in ("StageStarted", "StageFinished", "StepDone") and args.device != "cpu":
                torch.cuda.synchronize()
            if kind == "StageStarted":
                ledger.stage(event.stage.words)
                if event.stage == "denoise" and first is None:
                    first = time.time() - since
            elif kind == "StageFinished":
                ledger.stage("record" if event.stage == "write" else "between stages")
            elif kind == "StepDone":
                steps.append(time.time() - since)
        ledger.stage("the job is looked at")
        taken = {"rows": ledger.take(), "first": first, "guides_to_first": first and first - (began - since)}
        taken |= {"steps": steps, "all": time.time() - since, "samples": sampler.take()}
        print(json.dumps(taken), flush=True)
        since = time.time()


def run(args: argparse.Namespace) -> None:
    """The three jobs in two processes, and the table."""
    from full_size import guides
    from hardware import described

    width, height = map(int, args.area.split("x"))
    args.guides = guides(args.work / "guides", width * height, args.frames, "animation", args.tiny)
    cache = args.work / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    env = os.environ | {"WANIMATE_CACHE": str(cache), "PYTHONPATH": os.pathsep.join(
        [*([str(args.src)] if args.src else []), *filter(None, [os.environ.get("PYTHONPATH")])]
    )}  # fmt: skip
    for name in ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"):
        env.pop(name, None)
    env["CUDA_CACHE_PATH"] = str(cache / "driver")
    words = [sys.executable, __file__, "measured", "--work", str(args.work), "--device", args.device, "--guides"]
    words += [str(args.guides), "--steps", str(args.steps), "--frames", str(args.frames), "--speed", args.speed]
    words += ["--tiny"] if args.tiny else []
    found: list[dict[str, Any]] = []
    for jobs in (1, 2):
        asked = [*words, "--jobs", str(jobs), "--since", repr(time.time())]
        done = subprocess.run(asked, env=env, stdout=subprocess.PIPE, text=True, check=True)
        found += [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"rows"')]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.with_suffix(".jsonl").write_text("".join(json.dumps(one) + "\n" for one in found))
    lines = ["# Where a job's seconds go", "", *described(args.device)]
    lines += [f"- `python benchmarks/seconds.py {' '.join(sys.argv[1:])}`", "", *table(found), ""]
    args.out.write_text("\n".join(lines))
    print(args.out.read_text())


def table(found: list[dict[str, Any]]) -> list[str]:
    """Rows in the order in which the jobs come to them; those below 0.05 s everywhere in one."""
    names = list(dict.fromkeys(name for one in found for name in one["rows"]))
    small = [name for name in names if all(one["rows"].get(name, 0.0) < 0.05 for one in found)]
    rows = [(name, [one["rows"].get(name, 0.0) for one in found]) for name in names if name not in small]
    rows.append(("all else", [sum(one["rows"].get(name, 0.0) for name in small) for one in found]))
    rows.append(("**all**", [sum(one["rows"].values()) for one in found]))
    rows.append(("**until the first step begins**", [one["first"] for one in found]))
    rows.append(("from the guides until it begins", [one["guides_to_first"] for one in found]))
    rows.append(("until the first step is done", [one["steps"][0] for one in found]))
    lines = ["| seconds | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    return [*lines, *(f"| {name} | " + " | ".join(f"{value:.2f}" for value in values) + " |" for name, values in rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "measured"])
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "full_size", help="As of full_size.py.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="A rehearsal with the tiny checkpoint.")
    parser.add_argument("--area", metavar="WxH")
    parser.add_argument("--frames", type=int)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--speed", default="fast")
    parser.add_argument("--src", type=Path, help="Sources of another version of the package.")
    parser.add_argument("--jobs", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--guides", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--since", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.area = args.area or ("64x48" if args.tiny else "1280x720")
    args.frames = args.frames or (9 if args.tiny else 77)
    args.out = args.out or Path(__file__).parent / "results" / f"seconds_{args.device}_{date.today()}.md"
    {"run": run, "measured": measured}[args.what](args)


if __name__ == "__main__":
    main()
