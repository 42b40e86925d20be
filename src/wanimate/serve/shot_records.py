"""Shot records of jobs that have guides: the analysis lies in the guides' manifest, what people say of it in the database."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from wanimate.errors import InputError
from wanimate.preprocess.folder import MANIFEST
from wanimate.preprocess.shot.record import ShotRecord, Value
from wanimate.preprocess.shot.stored import KEY
from wanimate.serve.database import Database
from wanimate.serve.errors import away, missing
from wanimate.serve.keys import Caller
from wanimate.serve.storage import NotStored, Storage, StorageAway
from wanimate.serve.tables import Job, ShotStatement, now

Changed = Callable[[ShotRecord], ShotRecord]
_MOST = 5000
"""Statements about one record."""


class ShotRecords:
    """Methods raise ServiceError: 404 the job has no record, 503 the storage is away."""

    def __init__(self, database: Database, storage: Storage) -> None:
        self._database, self._storage = database, storage

    def of_job(self, job: Job) -> ShotRecord:
        """The record of a job's guides, with everything that was said of it."""
        record = self._proposed(job)
        with self._database.read() as session:
            return said_of(record, statements(session, job.guides, job.owner))

    def change(self, caller: Caller, job: Job, change: Changed) -> ShotRecord:
        """Add what somebody says.

        Raises:
            InputError: what `change` raises.
        """
        proposed = self._proposed(job)
        with self._database.write() as session:
            rows = statements(session, job.guides, job.owner)
            before = said_of(proposed, rows)
            after = change(before)
            new = _differences(before, after)
            if len(rows) + len(new) > _MOST:
                raise InputError(
                    "fields", len(new), f"{_MOST} things were said of this record", "Prepare the clip anew."
                )
            at = now()
            for shot, field, value in new:
                session.add(
                    ShotStatement(
                        guides=job.guides or "", owner=job.owner, key_id=caller.key_id, shot=shot, field=field,
                        value=value.value, by=value.by, at=at,
                    )
                )  # fmt: skip
        return after

    def _proposed(self, job: Job) -> ShotRecord:
        if not job.guides:
            raise missing("shot record")
        try:
            manifest = json.loads(b"".join(self._storage.read(f"{job.guides}/guides/{MANIFEST}")))
            return ShotRecord.of(manifest[KEY])
        except StorageAway as error:
            raise away("The guides cannot be read now.") from error
        except (NotStored, ValueError, KeyError, TypeError, InputError) as error:
            raise missing("shot record") from error


def statements(session: Session, guides: str | None, owner: str) -> Sequence[ShotStatement]:
    """What was said of a record, oldest first."""
    mine = ShotStatement.guides == (guides or ""), ShotStatement.owner == owner
    return session.scalars(sa.select(ShotStatement).where(*mine).order_by(ShotStatement.seq)).all()


def said_of(record: ShotRecord, rows: Sequence[ShotStatement]) -> ShotRecord:
    """A record with what was said of it. Statements about shots that it has not are left out."""
    for row in rows:
        record = with_statement(record, row.shot, row.field, row.value, row.by, row.at)
    return record


def with_statement(record: ShotRecord, shot: int | None, field: str, value: Any, by: str, at: int) -> ShotRecord:
    """A record with one thing that was said of it, `at` milliseconds since 1970."""
    if shot is not None and shot > len(record.shots):
        return record
    when = datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="seconds")
    return record.holding(shot, field, Value(value=value, confidence=1.0, by=by, at=when))


def taken_along(session: Session, job: Job) -> list[list[Any]]:
    """What was said of a job's record, as facts of a job that goes on from its guides."""
    return [[row.shot, row.field, row.value, row.by, row.at] for row in statements(session, job.guides, job.owner)]


def forgotten(session: Session, guides: str, owner: str | None = None) -> None:
    """Guides are gone, and what was said of them goes, too. `owner`: only of this one."""
    mine = [ShotStatement.guides == guides, *([] if owner is None else [ShotStatement.owner == owner])]
    session.execute(sa.delete(ShotStatement).where(*mine))


def _differences(before: ShotRecord, after: ShotRecord) -> list[tuple[int | None, str, Value]]:
    """(shot, field, value) of what has changed, in the order of the history; once a field."""
    was, is_ = _values(before), _values(after)
    changed = [(one.shot, one.field) for one in after.history[len(before.history) :]]
    new = [key for key in is_ if key not in was and key not in changed]
    return [(*key, is_[key]) for key in dict.fromkeys([*changed, *new])]


def _values(record: ShotRecord) -> dict[tuple[int | None, str], Value]:
    found: dict[tuple[int | None, str], Value] = {(None, name): value for name, value in record.clip.items()}
    found |= {(i, name): value for i, shot in enumerate(record.shots, 1) for name, value in shot.values.items()}
    return found
