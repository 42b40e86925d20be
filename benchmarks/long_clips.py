"""Memory and time of preprocessing and of whole jobs, by the length of the clip.

    python benchmarks/long_clips.py                        # 3, 30, 120 and 600 s: a quarter of an hour on two cores
    python benchmarks/long_clips.py --seconds 3 30         # a quick look

The packaged performer, forwards and backwards for as long as the clip is; each command in a process of its own, as a user runs
it. The networks take one step on small pictures: what grows with a clip does not depend on steps or size.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from fractions import Fraction
from pathlib import Path

from hardware import described

from wanimate.conditions.segments import reflect
from wanimate.media.probe import probe
from wanimate.media.video import VideoFrames, write_h264
from wanimate.weights.locate import embedded_path

DEMO = embedded_path().parent / "demo"
CLIP_LENGTH, OVERLAP = 9, 1
"""The shortest clip has more than one segment, too."""


def write_clip(path: Path, seconds: float) -> int:
    """The performer's clip, played to and fro for `seconds`; its number of frames."""
    clip = probe(DEMO / "performer.mp4", None)
    frames = VideoFrames(clip.path, "video").take(range(clip.count))
    count = round(seconds * clip.fps)
    with write_h264(path, clip.fps, clip.width, clip.height) as writer:
        for i in range(count):
            writer.write(frames[reflect(i, clip.count)])
    return count


def measure(words: Sequence[object], threads: int) -> tuple[float, float]:
    """Seconds and peak MiB of a command in a process of its own."""
    line = [sys.executable, "-m", "wanimate", *(str(word) for word in words)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    started = time.perf_counter()
    process = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(line)} ended with {process.returncode}: {said.decode()[-2000:]}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, nargs="+", default=[3, 30, 120, 600])
    parser.add_argument("--fps", type=Fraction, default=Fraction(4))
    parser.add_argument("--area", default="96x96")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", type=Path, help="folder of the detector models")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / f"long_clips_cpu_{date.today()}.md"
    )
    args = parser.parse_args()
    lines = [
        "| clip, s | frames | find and draw, s | ms a frame | peak, MiB | whole job, s | ms a frame | peak, MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    models = [] if args.models is None else ["--models", args.models]
    for seconds in args.seconds:
        with tempfile.TemporaryDirectory() as folder:
            clip, count = Path(folder) / "clip.mp4", round(seconds * args.fps)
            write_clip(clip, seconds)
            given = [
                "--image",
                DEMO / "character-1.png",
                "--video",
                clip,
                "--allow-any-length",
                "--fps",
                args.fps,
                "--area",
                args.area,
                *models,
            ]
            found = measure(["preprocess", *given, "--out", Path(folder) / "guides"], args.threads)
            job = ["--out", Path(folder) / "out.mp4", "--steps", 1, "--seed", 1]
            job += ["--clip-length", CLIP_LENGTH, "--overlap", OVERLAP]
            whole = measure(["animate", *given, *job], args.threads)
        cells = [f"{s:.1f} | {1000 * s / count:.1f} | {memory:.0f}" for s, memory in (found, whole)]
        lines.append(f"| {seconds} | {count} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    head = ["# Memory and time by the length of a clip", "", *described("cpu", args.threads)]
    head += [f"- area {args.area}, {args.fps} frames/s, 1 step, segments of {CLIP_LENGTH} frames", ""]
    text = "\n".join([*head, *lines]) + "\n"
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text)
    print(text, args.out, sep="\n")


if __name__ == "__main__":
    main()
