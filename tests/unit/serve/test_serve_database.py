"""The database: tables and migrations hold together, many processes may start at once, and one that is away is waited for."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy.exc import IntegrityError, OperationalError

from wanimate.errors import InputError
from wanimate.serve import database as module
from wanimate.serve.database import MIGRATIONS, Database, is_away, patiently
from wanimate.serve.tables import Base, Setting

if TYPE_CHECKING:
    from postgres_cluster import Cluster


@pytest.fixture(params=["sqlite", "postgres"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'new.db'}"
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    with sa.create_engine(cluster.url, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(sa.text("DROP DATABASE IF EXISTS empty WITH (FORCE)"))
        connection.execute(sa.text("CREATE DATABASE empty"))
    yield cluster.url_of("empty")


def test_migrations_make_the_tables_and_take_them_away(empty: str) -> None:
    database = Database(empty)
    database.migrate()
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection, {"compare_type": True}), Base.metadata) == []
    database.migrate()  # nothing is left to do
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert sa.inspect(database.engine).get_table_names() == ["alembic_version"]
    database.migrate()
    assert set(sa.inspect(database.engine).get_table_names()) == {"alembic_version", *Base.metadata.tables}
    database.close()


def test_processes_that_start_together_all_find_the_tables(empty: str) -> None:
    wrong: list[BaseException] = []
    start = threading.Barrier(6)

    def one() -> None:
        database = Database(empty)  # an engine of its own, as another process has
        start.wait()
        try:
            database.migrate()
            with database.read() as session:
                session.scalars(sa.select(Setting)).all()
        except BaseException as error:
            wrong.append(error)
        database.close()

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


def test_a_first_connection_waits_for_another_one(tmp_path: Path) -> None:
    """Two processes open a new SQLite file, and one writes already while the other asks for the write-ahead log."""
    other = sqlite3.connect(tmp_path / "new.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    other.execute("CREATE TABLE one (a INTEGER)")
    threading.Timer(0.2, lambda: other.execute("COMMIT")).start()
    database = Database(f"sqlite:///{tmp_path / 'new.db'}")
    with database.read() as session:
        assert session.scalar(sa.text("SELECT count(*) FROM one")) == 0
        assert session.scalar(sa.text("PRAGMA journal_mode")) == "wal"
    database.close()
    other.close()


@pytest.mark.parametrize("url", ["postgresql+psycopg://me:hunter2@/x?host=/nowhere", "sqlite:////proc/nowhere.db"])
def test_a_database_that_does_not_answer_is_told_in_one_sentence(url: str) -> None:
    database = Database(url)
    with pytest.raises(InputError, match="cannot be opened") as told:
        database.open()
    assert "hunter2" not in str(told.value)
    assert "\n" not in str(told.value)


def test_a_newer_database_is_refused_in_words(empty: str) -> None:
    database = Database(empty)
    database.migrate()
    with database.engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(InputError, match="newer"):
        database.migrate()
    database.close()


def test_a_block_that_fails_writes_nothing(database: Database) -> None:
    def written() -> None:
        with database.write() as session:
            session.add(Setting(name="a", value="1"))
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        written()
    with database.read() as session:
        assert session.get(Setting, "a") is None


def test_a_reader_does_not_wait_for_a_writer(database: Database) -> None:
    with database.write() as writing:
        writing.add(Setting(name="a", value="1"))
        writing.flush()
        with database.read() as session:
            assert session.get(Setting, "a") is None


@pytest.mark.parametrize("url", ["nonsense", "nosuch://host/name"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="address of a database"):
        Database(url)


def test_a_refused_address_does_not_show_its_password() -> None:
    with pytest.raises(InputError) as told:
        Database("nosuch://me:hunter2@host/name")
    assert "hunter2" not in str(told.value)


class _Clock:
    """`time` of the module: sleeping moves it."""

    def __init__(self) -> None:
        self.at = 0.0

    def monotonic(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds


def away() -> OperationalError:
    return OperationalError("SELECT", {}, Exception("the server is gone"))


def failing(times: int, error: Callable[[], Exception] = away) -> Callable[[], str]:
    left = [times]

    def work() -> str:
        if left[0]:
            left[0] -= 1
            raise error()
        return "done"

    return work


def test_work_is_done_again_until_the_database_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock()
    monkeypatch.setattr(module, "time", clock)
    assert patiently(failing(20)) == "done"
    assert 20 < clock.at < 100  # it slows down, but never above 5 s between two tries
    with pytest.raises(OperationalError):
        patiently(failing(1000), seconds=60)
    with pytest.raises(OperationalError):
        patiently(failing(2), stop=lambda: True)
    with pytest.raises(IntegrityError):  # an answer, not an absence
        patiently(failing(1, lambda: IntegrityError("INSERT", {}, Exception("twice"))))


def test_what_counts_as_away(postgres: Cluster) -> None:
    database = Database(postgres.url)
    database.migrate()
    held = database.engine.connect()
    held.execute(sa.text("SELECT 1"))
    postgres.stop()
    try:
        with pytest.raises(Exception) as dropped:  # noqa: PT011
            held.execute(sa.text("SELECT 1"))
        with pytest.raises(Exception) as refused, database.read() as session:  # noqa: PT011
            session.execute(sa.text("SELECT 1"))
    finally:
        postgres.start()
    assert is_away(dropped.value)
    assert is_away(refused.value)
    assert not is_away(ValueError("something else"))
    held.close()
    with database.read() as session:  # and it is back by itself
        assert session.scalar(sa.text("SELECT 1")) == 1
    database.close()
