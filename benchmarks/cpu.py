"""What the demo's job costs on this processor at each speed, and how far its frames are from exact ones.

    python benchmarks/cpu.py                     # 9 jobs: 4 minutes on two cores
    python benchmarks/cpu.py --speeds exact      # also runs on commits from before a change

The packaged character and clip, `make demo`'s settings, frames compared without loss. Of each stage, the least seconds of all
rounds; the speeds take turns.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from datetime import date
from pathlib import Path

import torch
from hardware import described

from wanimate.api import Animator
from wanimate.config import Job, RuntimeSettings
from wanimate.events import Finished
from wanimate.measure.metrics import psnr
from wanimate.media.video import VideoFrames
from wanimate.types import Frames, Result
from wanimate.weights.locate import embedded_path


def run(speed: str, out: Path) -> Result:
    """The demo's job with nothing opened yet."""
    assets = embedded_path().parent / "demo"
    image, video = assets / "character-1.png", assets / "performer.mp4"
    job = Job.of(image, video, out, seed=1, codec="ffv1")
    animator = Animator.from_checkpoint(device="cpu", runtime=RuntimeSettings.model_validate({"speed": speed}))
    return next(event.result for event in animator.run(job) if isinstance(event, Finished))


def frames_of(result: Result) -> Frames:
    video = VideoFrames(result.out)
    return video.take(range(video.count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speeds", nargs="+", default=["exact", "fast", "turbo"], help="the first is compared with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / f"cpu_{date.today()}.md")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    seconds: dict[str, dict[str, float]] = {speed: {} for speed in args.speeds}
    frames: dict[str, Frames] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(args.rounds):
            for speed in args.speeds:
                result = run(speed, Path(folder) / f"{speed}{turn}.mkv")
                frames.setdefault(speed, frames_of(result))
                spent: dict[str, float] = result.manifest["seconds"]
                print(turn, speed, {stage: round(s, 2) for stage, s in spent.items()}, flush=True)
                best = seconds[speed]
                seconds[speed] = {stage: min(s, best.get(stage, s)) for stage, s in spent.items()}
    first = frames[args.speeds[0]]
    stages = list(seconds[args.speeds[0]])
    rows = [[stage, *(f"{seconds[speed][stage]:.1f}" for speed in args.speeds)] for stage in stages]
    rows.append(["**all stages**", *(f"**{sum(seconds[speed].values()):.1f}**" for speed in args.speeds)])
    rows.append(["PSNR, dB", "", *(f"{psnr(frames[speed], first):.1f}" for speed in args.speeds[1:])])
    worst = [min(psnr(a[None], b[None]) for a, b in zip(frames[s], first, strict=True)) for s in args.speeds[1:]]
    rows.append(["PSNR of the worst frame, dB", "", *(f"{value:.1f}" for value in worst)])
    lines = [
        "# What the demo's job costs on a processor", "", *described("cpu", args.threads),
        f"- `python {' '.join(sys.argv)}`",
        f"- {len(first)} frames of {first.shape[2]}x{first.shape[1]}; seconds, least of {args.rounds}; "
        f"PSNR against `{args.speeds[0]}`", "",
        f"| | {' | '.join(args.speeds)} |", "|---" * (1 + len(args.speeds)) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]  # fmt: skip
    args.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines), args.out, sep="\n")


if __name__ == "__main__":
    main()
