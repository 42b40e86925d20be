"""Kills the service's workers, its API and its connections to the database at random, and looks for lost and doubled jobs.

    python benchmarks/chaos.py --out benchmarks/results/chaos_cpu_DATE.md

Jobs are dummies of 20 ms, submitted over HTTP. A job is lost if it did not succeed; doubled if it succeeded twice, or if one
submission made two jobs; wrong if its result is not what its last attempt made.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "robustness"))
sys.path.insert(0, str(ROOT / "benchmarks"))

from hardware import described  # noqa: E402

BACKENDS = ("sqlite", "postgres")


def rows(jobs: int, workers: int, seed: int, backends: list[str], deadline: float) -> Iterator[str]:
    """Lines of the table."""
    from service_chaos import LEASE, chaos

    yield f"{jobs} jobs, {workers} workers, lease {LEASE:g} s.\n"
    yield (
        "| database | jobs | lost | doubled | wrong result | attempts | attempts that were killed | done twice | seconds | "
        "what was done to it |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for backend in backends:
        found = chaos(jobs, workers, backend == "postgres", seed, deadline)
        done = ", ".join(f"{count} × {what}" for what, count in sorted(found.kills.items()))
        yield (
            f"| {backend} | {found.jobs} | {len(found.lost)} | {len(found.doubled)} | {len(found.wrong)} | {found.attempts} | "
            f"{found.failures} | {found.twice} | {found.seconds:.0f} | {done} |"
        )
        for name in ("lost", "doubled", "wrong"):
            for one in getattr(found, name):
                print(f"{backend}: {name}: {one}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--database", choices=BACKENDS, action="append", help="both by default")
    parser.add_argument("--deadline", type=float, default=1800.0, help="seconds for each database")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    lines = ["# Jobs of the service under random kills\n", "`python benchmarks/chaos.py`\n", *described(threads=1), ""]
    print("\n".join(lines))
    for line in rows(args.jobs, args.workers, args.seed, args.database or list(BACKENDS), args.deadline):
        print(line, flush=True)
        lines.append(line)
    if args.out is not None:
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
