"""The parity table: every comparison of tests/parity, its largest error and its tolerance.

python benchmarks/parity.py            # some minutes; writes benchmarks/results/parity_cpu_DATE.md
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pytest
import torch
from hardware import described

ROOT = Path(__file__).parents[1]
PARITY = ROOT / "tests" / "parity"
sys.path.insert(0, str(PARITY))
import golden  # noqa: E402


@dataclass(frozen=True)
class Tap:
    """One compared tensor."""

    name: str
    error: float
    relative: float
    allowed: float
    allowed_relative: float

    @property
    def used(self) -> float:
        """Share of the tolerance that the error uses up."""
        return max(
            self.error / self.allowed if self.allowed else self.error, self.relative / (self.allowed_relative or 1)
        )


@dataclass
class Recorder:
    """A pytest plugin that writes down what `golden.check` compares and which tests pass."""

    taps: dict[str, list[Tap]] = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)
    current: str = ""

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self.current = item.nodeid

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid] = report.outcome

    def watch(self) -> None:
        check = golden.check

        def recording(name: str, ours: torch.Tensor, theirs: torch.Tensor, atol: float, rl2: float) -> None:
            difference = ours.double() - theirs.double()
            relative = (difference.norm() / theirs.double().norm().clamp_min(1e-30)).item()
            self.taps.setdefault(self.current, []).append(Tap(name, difference.abs().max().item(), relative, atol, rl2))
            check(name, ours, theirs, atol, rl2)

        golden.check = recording


def table(recorder: Recorder) -> list[str]:
    lines = [
        "| comparison | tensors | closest to its tolerance | max error | tolerance | relative L2 | tolerance |",
        "|---|---|---|---|---|---|---|",
    ]
    for test, taps in recorder.taps.items():
        worst = max(taps, key=lambda t: t.used)
        numbers = f"{worst.error:.1e} | {worst.allowed:.2g} | {worst.relative:.1e} | {worst.allowed_relative:.2g}"
        lines.append(f"| {_title(test)} | {len(taps)} | {worst.name} | {numbers} |")
    others = [t for t in recorder.outcomes if t not in recorder.taps]
    failed = [t for t, outcome in recorder.outcomes.items() if outcome != "passed"]
    lines += ["", f"{len(others)} more tests check tables, lengths, keys, shapes and messages: "]
    lines[-1] += ", ".join(sorted({_title(t).split(" [")[0] for t in others})) + "."
    lines += ["", "All pass." if not failed else "FAILED: " + ", ".join(_title(t) for t in failed)]
    return lines


def _title(test: str) -> str:
    file, _, name = test.rpartition("/")[2].partition("::")
    where = {"test_diffusers.py": "diffusers: "}.get(file, "golden: ")
    return where + name.removeprefix("test_").replace("_", " ").replace("[", " [")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / f"parity_cpu_{date.today()}.md")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recorder = Recorder()
    recorder.watch()
    code = int(
        pytest.main(["-q", "--no-header", "-p", "no:cacheprovider", f"--rootdir={ROOT}", str(PARITY)], [recorder])
    )
    lines = ["# Parity, float32 on the CPU", "", *described("cpu", args.threads), "", *table(recorder)]
    text = "\n".join(lines) + "\n"
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text)
    print(text, args.out, sep="\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
