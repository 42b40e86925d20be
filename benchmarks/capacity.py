"""Jobs an hour that one GPU makes of each tier, from the measured seconds a step.

python benchmarks/capacity.py

A job takes the time of its steps. Decoding and encoding come on top; guides are made on processors meanwhile.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from wanimate.conditions.segments import plan_segments
from wanimate.config import Defaults

MEASURED = Path(__file__).parent / "results" / "speed_h200_2026-11-30.md"
TIERS = {"wan-std": 15, "wan-pro": 25}
SECONDS = (5, 15)


def seconds_a_step() -> dict[tuple[str, str], float]:
    """(mode, size) -> seconds; `turbo` with all blocks of attention."""
    step = re.compile(
        r"^\| ours, (\w+)(?: \([\w-]+\) \| (\w+) \| \d+ \| \d+ \|| \| (\w+) \|) ([\d.]+) \|", re.MULTILINE
    )
    return {(mode, one or other): float(seconds) for mode, one, other, seconds in step.findall(MEASURED.read_text())}


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    defaults = Defaults()
    print(f"One H200, {defaults.steps} steps, segments of {defaults.clip_length} frames.")
    print("Jobs an hour, and in brackets the seconds of denoising of a job.\n")
    print(
        "| clip | tier | frames | segments | " + " | ".join(f"{mode}, {size}" for mode, size in seconds_a_step()) + " |"
    )
    print("|---|---|---|---|" + "---|" * len(seconds_a_step()))
    for clip in SECONDS:
        for tier, rate in TIERS.items():
            frames = clip * rate
            segments = len(plan_segments(frames, defaults.clip_length, defaults.overlap))
            cells = []
            for step in seconds_a_step().values():
                job = segments * defaults.steps * step
                cells.append(f"{3600 / job:.1f} ({job:.0f})")
            print(f"| {clip} s | {tier} | {frames} | {segments} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
