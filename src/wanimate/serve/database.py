"""The database: SQLite with a write-ahead log, or Postgres. Both by the same code."""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from wanimate.errors import InputError, one_line
from wanimate.media.files import output_error

MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY = 30.0
"""Seconds that a writer of SQLite waits for another."""
_POSTGRES = {
    "connect_timeout": 5, "tcp_user_timeout": 15_000, "keepalives_idle": 5, "keepalives_interval": 5, "keepalives_count": 2,
}  # fmt: skip
"""A server whose machine has vanished is noticed in some 15 s, not after the system's two hours."""
_migrating = threading.Lock()
"""Alembic keeps what it works on in its module."""
_Value = TypeVar("_Value")
_log = logging.getLogger(__name__)


class Database:
    """Sessions of one database.

    Args:
        url: as SQLAlchemy takes it.

    Raises:
        InputError: the address cannot be understood, or its driver is not installed. OutputError: the folder of SQLite's file
            cannot be made.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = sa.make_url(url)
            if parsed.get_backend_name() == "sqlite":
                if parsed.database and parsed.database != ":memory:":
                    _make_folder(Path(parsed.database).parent)
                self.engine = sa.create_engine(parsed, connect_args={"timeout": _BUSY, "check_same_thread": False})
                sa.event.listen(self.engine, "connect", _tune)
                sa.event.listen(self.engine, "begin", _begin)
            else:
                self.engine = sa.create_engine(
                    parsed, pool_pre_ping=True, pool_size=10, max_overflow=20, pool_timeout=10,
                    connect_args=_POSTGRES, isolation_level="READ COMMITTED",
                )  # fmt: skip
        except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError) as error:
            rule, remedy = "it is no address of a database", "Write it as postgresql://USER@HOST/NAME."
            raise InputError("serve.database", _shown(url), rule, remedy) from error
        except ModuleNotFoundError as error:
            rule = f"its driver is not installed ({error.name})"
            raise InputError("serve.database", _shown(url), rule, "Install wanimate[postgres].") from error
        self._url = _shown(url)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that changes nothing. It never waits for a writer."""
        with self._sessions() as session:
            if self.is_sqlite:
                session.connection(execution_options={"reading": True})
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that is committed at the end of the block, or not at all. In SQLite one at a time writes."""
        with self._sessions.begin() as session:
            yield session

    def migrate(self) -> None:
        """Bring the tables to what this version needs. Processes that start together do it one after the other.

        Raises:
            InputError: a newer version has changed the tables.
        """
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        with _migrating, self.engine.connect() as connection:
            if not self.is_sqlite:
                connection.execute(sa.text("SELECT pg_advisory_lock(727001)"))
                connection.commit()
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
                connection.commit()
            except CommandError as error:
                rule = f"its tables are of a newer version ({error})"
                raise InputError("serve.database", self._url, rule, "Update wanimate here.") from error
            finally:
                if not self.is_sqlite:
                    connection.rollback()
                    connection.execute(sa.text("SELECT pg_advisory_unlock(727001)"))
                    connection.commit()

    def open(self) -> None:
        """As `migrate`, for a command that cannot wait.

        Raises:
            InputError: also where the database does not answer, or SQLite's file cannot be written.
        """
        try:
            self.migrate()
        except DBAPIError as error:
            said = one_line(str(error.orig).partition("\n")[0])
            remedy = "Start it, or look at its address and permissions."
            raise InputError("serve.database", self._url, f"it cannot be opened ({said})", remedy) from error

    def close(self) -> None:
        self.engine.dispose()


def is_away(error: BaseException) -> bool:
    """Whether the database does not answer now, and will later."""
    if isinstance(error, sa.exc.TimeoutError):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, (OperationalError, InterfaceError))


def patiently(
    work: Callable[[], _Value], seconds: float | None = None, stop: Callable[[], bool] = lambda: False
) -> _Value:
    """Do `work` again while the database is away, for at most `seconds` (None: for as long as it takes), or until `stop`."""
    began, pause = time.monotonic(), 0.1
    while True:
        try:
            return work()
        except Exception as error:
            over = seconds is not None and time.monotonic() - began > seconds
            if not is_away(error) or over or stop():
                raise
            _log.warning("the database is away, trying again: %s", str(error).partition("\n")[0])
        time.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, 5.0)


def _tune(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins no transactions of its own
    for pragma in (f"busy_timeout={int(_BUSY * 1000)}", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
    until = time.monotonic() + _BUSY
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:  # the only statement for which SQLite does not wait for others
            if time.monotonic() > until:
                raise
            time.sleep(random.uniform(0.005, 0.02))


def _begin(connection: sa.Connection) -> None:
    """A transaction that will write takes the lock at once: one that reads first and writes later could not wait for it."""
    reading = connection.get_execution_options().get("reading")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise output_error(folder, error, "serve.data") from error


def _shown(url: str) -> str:
    """An address without its password."""
    try:
        return sa.make_url(url).render_as_string(hide_password=True)
    except sa.exc.ArgumentError:
        return "(an address)"
