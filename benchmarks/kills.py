"""Kills jobs of every kind at random moments and lets them go on: what is lost, and whether the result is the same.

    python benchmarks/kills.py --out benchmarks/results/kills_DATE.md

Jobs run on a tiny random network, so that seconds are those of starting, reading and finding the performer; a segment takes
about one. A row tells the seconds of work that were done twice, by the mean and at the worst.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
for folder in ("robustness", "unit/weights", "parity"):
    sys.path.insert(0, str(ROOT / "tests" / folder))
sys.path.insert(0, str(ROOT / "benchmarks"))

from hardware import described  # noqa: E402
from killing import Harness, Trial  # noqa: E402


def rows(harness: Harness, share: float, seed: int) -> Iterator[str]:
    """A line of the table for every kind of job."""
    yield (
        "| job | kills | over before the signal | went on to the same result | seconds straight | lost, mean | lost, worst | "
        "steps made twice, worst |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    every: list[Trial] = []
    for job, count in harness.jobs():
        straight, _ = harness.straight(job)
        trials = list(harness.trials(job, max(1, round(share * count)), seed))
        every += trials
        for trial in trials:
            for what in trial.wrong:
                print(f"{job.name}, {trial.number} after {trial.moment:.2f} s: {what}", file=sys.stderr)
        late = [trial for trial in trials if trial.ended.code == 0]
        killed = [trial for trial in trials if trial.ended.code != 0]
        lost = [trial.lost for trial in killed] or [0.0]
        twice = [trial.ended.steps + trial.resumed.steps - straight.steps for trial in killed] or [0]
        good = sum(not trial.wrong for trial in trials)
        steps = "" if job.most is None or not straight.steps else f"{max(0, *twice)} of {straight.steps}"
        yield (
            f"| {job.name} | {len(trials)} | {len(late)} | {good} | {straight.seconds:.1f} | {statistics.mean(lost):.1f} | "
            f"{max(lost):.1f} | {steps} |"
        )
    yield f"\n{len(every)} kills, {sum(bool(trial.wrong) for trial in every)} with a fault."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="share of the 64 kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = rows(Harness(Path(folder)), args.share, args.seed)
        lines = ["# Jobs that are killed\n", "`python benchmarks/kills.py`\n", *described(threads=1), "", *table]
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out is not None:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
