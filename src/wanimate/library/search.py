"""Searching the library: SQLite's full-text search where it is built in, else LIKE. Both find words by their beginnings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from wanimate.library.names import words_of
from wanimate.serve.database import Database
from wanimate.serve.tables import LibraryEntry

_INDEX = "library_words"
_PROBE = "CREATE VIRTUAL TABLE temp.library_probe USING fts5(words)"


@dataclass(frozen=True)
class Wanted:
    """Which entries are listed. Empty is any. tags: all of them. offset, limit: rows to pass over, and to give at most."""

    shelf: str = ""
    search: str = ""
    tags: tuple[str, ...] = ()
    kind: str = ""
    status: str = ""
    offset: int = 0
    limit: int = 50

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """All but the words."""
        same = (
            (LibraryEntry.shelf, self.shelf),
            (LibraryEntry.kind, self.kind),
            (LibraryEntry.status, self.status),
        )
        wanted: list[sa.ColumnElement[bool]] = [column == value for column, value in same if value]
        return wanted + [_tagged(tag) for tag in self.tags]


def _tagged(tag: str) -> sa.ColumnElement[bool]:
    """Tags are stored as a list in JSON."""
    return sa.cast(LibraryEntry.tags, sa.Text).contains(json.dumps(tag), autoescape=True)


class Index:
    """The words of all entries. `full_text`: by FTS5; else every entry is looked at."""

    def __init__(self, database: Database, full_text: bool | None = None) -> None:
        self.full_text = (_can(database) if full_text is None else full_text) and database.is_sqlite
        if self.full_text:
            self._catch_up(database)

    def put(self, session: Session, entry: LibraryEntry) -> None:
        """Remember the words of an entry that has its number."""
        if self.full_text:
            self.drop(session, entry)
            put = sa.text(f"INSERT INTO {_INDEX} (rowid, words) VALUES (:seq, :words)")
            session.execute(put, {"seq": entry.seq, "words": entry.words})

    def drop(self, session: Session, entry: LibraryEntry) -> None:
        if self.full_text:
            session.execute(sa.text(f"DELETE FROM {_INDEX} WHERE rowid = :seq"), {"seq": entry.seq})

    def matching(self, text: str) -> tuple[Sequence[sa.ColumnElement[bool]], Sequence[Any]]:
        """Conditions under which an entry has a word that begins as each word of `text` does, and the order of the rows: the
        best match first, else the newest."""
        words, newest = words_of(text).split(), LibraryEntry.seq.desc()
        if not words:
            return ([], [newest]) if not text.strip() else ([sa.false()], [newest])
        if not self.full_text:
            spaced = sa.literal(" ").concat(LibraryEntry.words)
            return [spaced.contains(f" {word}", autoescape=True) for word in words], [newest]
        query = " ".join(f'"{word}"*' for word in words)
        table = sa.table(_INDEX, sa.column("rowid"), sa.column("rank"))
        match = sa.text(f"{_INDEX} MATCH :query").bindparams(query=query)
        found = sa.select(table.c.rowid).where(match)
        rank = sa.select(table.c.rank).where(match, table.c.rowid == LibraryEntry.seq).scalar_subquery()
        return [LibraryEntry.seq.in_(found)], [rank, newest]

    def _catch_up(self, database: Database) -> None:
        """Index what processes without full-text search have added or removed."""
        with database.write() as session:
            made = f"CREATE VIRTUAL TABLE IF NOT EXISTS {_INDEX} USING fts5(words, tokenize='unicode61', prefix='2 3')"
            session.execute(sa.text(made))
            differs = (
                f"SELECT EXISTS (SELECT seq, words FROM library EXCEPT SELECT rowid, words FROM {_INDEX}) "
                f"OR EXISTS (SELECT rowid, words FROM {_INDEX} EXCEPT SELECT seq, words FROM library)"
            )
            if session.scalar(sa.text(differs)):
                session.execute(sa.text(f"DELETE FROM {_INDEX}"))
                session.execute(sa.text(f"INSERT INTO {_INDEX} (rowid, words) SELECT seq, words FROM library"))


def _can(database: Database) -> bool:
    """Whether this SQLite has FTS5."""
    if not database.is_sqlite:
        return False
    try:
        with database.engine.connect().execution_options(reading=True) as connection:
            connection.exec_driver_sql(_PROBE)
            connection.exec_driver_sql("DROP TABLE temp.library_probe")
            connection.rollback()
    except OperationalError:
        return False
    return True
