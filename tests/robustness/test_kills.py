"""A job that is killed loses at most what it was in the middle of, and ends with the frames of one that was not.

`make test` has two kills, `make test-all` 64 (`python benchmarks/kills.py` prints the table).
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "weights"))
from killing import Harness, Trial


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Harness:
    return Harness(tmp_path_factory.mktemp("kills"))


def held(trials: list[Trial]) -> None:
    wrong = [f"{t.job}, {t.number} after {t.moment:.2f} s (exit {t.ended.code}): {w}" for t in trials for w in t.wrong]
    assert wrong == []


@pytest.mark.slow
def test_a_killed_job_goes_on(harness: Harness) -> None:
    (job,) = (job for job, _ in harness.jobs() if job.name == "generate")
    held(list(harness.trials(job, 2, seed=1)))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("number", range(8))
def test_jobs_of_every_kind_go_on(harness: Harness, number: int) -> None:
    job, count = harness.jobs()[number]
    held(list(harness.trials(job, count, seed=0)))
