"""The events of jobs in the database: written beside what they tell of, in the same transaction, and read by `seq`."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from wanimate.serve.database import Database
from wanimate.serve.tables import Event, Hook, Job, now

_HOOKED = {
    "scheduled": "job.scheduled",
    "succeeded": "job.succeeded",
    "failed": "job.failed",
    "cancelled": "job.cancelled",
    "review.revoked": "job.revoked",
}
REVIEW = "review"
_SETTLED = 3000
"""Milliseconds after which no transaction brings an earlier `seq` any more: numbers are given before they are committed."""


@dataclass(frozen=True)
class Told:
    """One event. `data` holds what JSON can."""

    seq: int
    job_id: str
    at: int
    kind: str
    data: dict[str, Any]


def tell(session: Session, job: Job, kind: str, **data: Any) -> None:
    """Write an event of a job, and the webhook message that its owner asked for."""
    at = now()
    session.add(Event(job_id=job.id, owner=job.owner, at=at, kind=kind, data=data))
    hook = job.submission.get("webhook")
    name = _HOOKED.get(f"{kind}.{data.get('what')}" if kind == REVIEW else kind)
    if hook and name in hook["events"]:
        body = {"type": name, "timestamp": at, "data": {"id": job.id, "state": job.state, "model": job.model} | data}
        session.add(
            Hook(
                id=f"msg_{secrets.token_hex(12)}", job_id=job.id, key_id=job.key_id, url=hook["url"], kind=name,
                body=json.dumps(body), due=at, tries=0,
            )
        )  # fmt: skip


class EventStream:
    """Events of one job or of one owner from `after` on, each once, though Postgres shows later numbers first at times.

    Args:
        owner: None sees those of all.
        job_id: None is every job. What is said in reviews is not part of a job's events.
        shot: what is said in the review of this shot, and nothing else.
        after: the last `seq` that is known already; None begins with what happens from now on.
    """

    def __init__(
        self, database: Database, owner: str | None, job_id: str | None, after: int | None, shot: str | None = None
    ) -> None:
        self._database, self._owner, self._job_id, self._shot = database, owner, job_id, shot
        self._recent: dict[int, int] = {}
        self._floor = self._last() if after is None else after

    def new(self, limit: int = 500) -> Sequence[Told]:
        """What has come since the last call, in order."""
        wanted = sa.select(Event).where(Event.seq > self._floor).order_by(Event.seq).limit(limit + len(self._recent))
        with self._database.read() as session:
            rows = session.scalars(self._narrowed(wanted)).all()
        fresh = [Told(r.seq, r.job_id, r.at, r.kind, r.data) for r in rows if r.seq not in self._recent]
        self._recent |= {r.seq: r.at for r in rows}
        settled = now() - _SETTLED
        while self._recent:
            lowest = min(self._recent)
            if self._recent[lowest] > settled:
                break
            self._floor = lowest
            del self._recent[lowest]
        return fresh

    def _last(self) -> int:
        with self._database.read() as session:
            return session.scalar(sa.select(sa.func.coalesce(sa.func.max(Event.seq), 0))) or 0

    def _narrowed(self, wanted: sa.Select[Event]) -> sa.Select[Event]:
        if self._job_id is not None:
            wanted = wanted.where(Event.job_id == self._job_id, Event.kind != REVIEW)
        if self._shot is not None:
            wanted = wanted.where(Event.kind == REVIEW, Event.data["shot"].as_string() == self._shot)
        return wanted if self._owner is None else wanted.where(Event.owner == self._owner)


def server_sent(events: Sequence[Told]) -> Iterator[str]:
    """As `text/event-stream`."""
    for told in events:
        data = json.dumps({"job": told.job_id, "at": told.at, **told.data}, ensure_ascii=False)
        yield f"id: {told.seq}\nevent: {told.kind}\ndata: {data}\n\n"
