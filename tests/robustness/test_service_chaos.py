"""Jobs of the service survive kills of workers, of the API and of the database: none lost, none doubled."""

from __future__ import annotations

import os

import pytest
from postgres_cluster import binaries
from service_chaos import chaos

BACKENDS = pytest.mark.parametrize("postgres", [False, True], ids=["sqlite", "postgres"])


def _needs(postgres: bool) -> None:
    if postgres and binaries() is None and os.environ.get("WANIMATE_REQUIRE_POSTGRES") != "1":
        pytest.skip("Postgres is not installed (Debian: apt-get install postgresql)")


def test_a_few_jobs_survive_kills() -> None:
    found = chaos(6, 2, postgres=False, seed=1, deadline=60, seconds=0.1, pause=(0.3, 0.8))
    assert found.good, found
    assert found.jobs == 6
    assert found.kills.total() >= 1


@pytest.mark.slow
@BACKENDS
def test_a_hundred_jobs_survive_kills(postgres: bool) -> None:
    _needs(postgres)
    found = chaos(100, 3, postgres, seed=2, deadline=300, seconds=0.1)
    assert found.good, found
    assert found.jobs == 100
    assert found.kills.total() >= 10
