"""Databases of the service's tests: SQLite, and a private Postgres where its packages are installed."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parents[2] / "robustness"))
sys.path.insert(0, str(Path(__file__).parents[1] / "approval"))

if TYPE_CHECKING:
    from postgres_cluster import Cluster

    from wanimate.serve.database import Database


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """WANIMATE_REQUIRE_POSTGRES=1 turns the skip without Postgres into a failure."""
    from postgres_cluster import Cluster, binaries

    if binaries() is None and os.environ.get("WANIMATE_REQUIRE_POSTGRES") != "1":
        pytest.skip("Postgres is not installed (Debian: apt-get install postgresql)")
    cluster = Cluster()
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def _postgres_database(postgres: Cluster) -> Iterator[Database]:
    from wanimate.serve.database import Database

    database = Database(postgres.url)
    database.migrate()
    yield database
    database.close()


@pytest.fixture(scope="session")
def sqlite_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with empty tables, to be copied: migrating takes longer than most tests."""
    from wanimate.serve.database import Database

    path = tmp_path_factory.mktemp("tables") / "wanimate.db"
    made = Database(f"sqlite:///{path}")
    made.migrate()
    made.close()
    return path


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database with empty tables."""
    from wanimate.serve.database import Database
    from wanimate.serve.tables import Base

    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_tables"), tmp_path / "wanimate.db")
        made = Database(f"sqlite:///{tmp_path / 'wanimate.db'}")
        yield made
        made.close()
    else:
        made = request.getfixturevalue("_postgres_database")
        with made.engine.begin() as connection:
            connection.execute(sa.text(f"TRUNCATE {', '.join(Base.metadata.tables)} RESTART IDENTITY CASCADE"))
        yield made
