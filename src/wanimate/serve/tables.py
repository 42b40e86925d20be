"""The tables of the service. Times are milliseconds since 1970 in UTC, as the machine that writes them reads its clock.

A change of a table needs a migration beside it (`migrations/versions`); a test holds the two together.
"""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, String, Text, false
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Id = String(64)
Number = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts rows only in a column of this very type."""


class State(StrEnum):
    """PENDING waits for its first worker. RUNNING has been begun, and may wait between its two stages."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)


class Stage(StrEnum):
    """Which queue a job stands in: processors prepare, GPUs generate."""

    PREPARE = "prepare"
    GENERATE = "generate"


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Base(DeclarativeBase):
    pass


class Key(Base):
    """An API key. `digest`: SHA-256 of the whole key, which is stored nowhere. `quotas`: what differs from the settings'."""

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    owner: Mapped[str] = mapped_column(String(200), index=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[str]] = mapped_column(JSON)
    quotas: Mapped[dict[str, Any]] = mapped_column(JSON)
    webhook_secret: Mapped[str] = mapped_column(String(100))
    created: Mapped[int] = mapped_column(BigInteger)
    expires: Mapped[int | None] = mapped_column(BigInteger)
    revoked: Mapped[int | None] = mapped_column(BigInteger)


class Job(Base):
    """One job. A worker that holds it writes only while `attempt` is the number it was given (`queue`).

    submission: `submission.Submission` as JSON. order_key: jobs of one priority run by it, smallest first; its own creation
    time until somebody moves it. waits_since: when it came into the queue of its stage. prepare_at, generate_at: when a worker
    last began each stage. attempt: counts claims of both stages. beat: counts signs of life. failures: attempts that ended
    without saying why. guides: storage prefix of prepared guides. result: file name -> storage name. facts: frames, rate,
    size, seed, seconds. expires: when row and files may go.
    """

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    owner: Mapped[str] = mapped_column(String(200))
    key_id: Mapped[str] = mapped_column(Id)
    request_id: Mapped[str] = mapped_column(Id)
    face: Mapped[str] = mapped_column(String(20))
    kind: Mapped[str] = mapped_column(String(20))
    mode: Mapped[str] = mapped_column(String(20))
    model: Mapped[str] = mapped_column(String(100))
    tier: Mapped[str | None] = mapped_column(String(50))
    checkpoint: Mapped[str] = mapped_column(String(100))
    loras: Mapped[str] = mapped_column(Text, default="")
    submission: Mapped[dict[str, Any]] = mapped_column(JSON)
    batch: Mapped[str | None] = mapped_column(Id, index=True)

    state: Mapped[str] = mapped_column(String(20))
    stage: Mapped[str] = mapped_column(String(20))
    held: Mapped[bool] = mapped_column(default=False, server_default=false())
    priority: Mapped[int] = mapped_column(Integer, default=0)
    order_key: Mapped[int] = mapped_column(BigInteger)
    waits_since: Mapped[int] = mapped_column(BigInteger, default=now)
    prepare_at: Mapped[int | None] = mapped_column(BigInteger)
    generate_at: Mapped[int | None] = mapped_column(BigInteger)
    not_before: Mapped[int] = mapped_column(BigInteger, default=0)

    worker: Mapped[str | None] = mapped_column(String(200))
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    beat: Mapped[int] = mapped_column(BigInteger, default=0)
    failures: Mapped[int] = mapped_column(Integer, default=0)
    cancelling: Mapped[bool] = mapped_column(default=False, server_default=false())

    fraction: Mapped[float] = mapped_column(default=0.0)
    seconds_left: Mapped[float | None] = mapped_column()
    doing: Mapped[str | None] = mapped_column(String(50))
    clip_seconds: Mapped[float | None] = mapped_column()

    guides: Mapped[str | None] = mapped_column(Text)
    result: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    facts: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    warnings: Mapped[list[str]] = mapped_column(JSON, default=list)
    code: Mapped[str | None] = mapped_column(String(100))
    message: Mapped[str | None] = mapped_column(Text)

    created: Mapped[int] = mapped_column(BigInteger)
    scheduled: Mapped[int | None] = mapped_column(BigInteger)
    ended: Mapped[int | None] = mapped_column(BigInteger)
    expires: Mapped[int | None] = mapped_column(BigInteger, index=True)

    __table_args__ = (
        Index("jobs_waiting", "state", "stage", "worker", "priority", "order_key"),
        Index("jobs_of_owner", "owner", "created"),
    )


class Creation(Base):
    """What a creation was asked with, so that a repeated one finds its job. `fingerprint`: hash of key and body, or of key and
    `Idempotency-Key`."""

    __tablename__ = "creations"

    fingerprint: Mapped[str] = mapped_column(String(64), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    body: Mapped[str] = mapped_column(String(64))
    expires: Mapped[int] = mapped_column(BigInteger, index=True)


class Upload(Base):
    """A file that somebody sent. `name`: what `oss://` or an upload id calls it; `stored`: where its bytes are. `model`: the
    only one it may be used with, if it was sent for one."""

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    owner: Mapped[str] = mapped_column(String(200), index=True)
    name: Mapped[str] = mapped_column(String(500), unique=True)
    model: Mapped[str | None] = mapped_column(String(100))
    filename: Mapped[str] = mapped_column(String(300))
    stored: Mapped[str] = mapped_column(String(500))
    size: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str] = mapped_column(String(64))
    created: Mapped[int] = mapped_column(BigInteger)
    expires: Mapped[int] = mapped_column(BigInteger, index=True)


class Event(Base):
    """What happened to a job, in order. `seq` is what `Last-Event-ID` counts."""

    __tablename__ = "events"

    seq: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(Id, index=True)
    owner: Mapped[str] = mapped_column(String(200), index=True)
    at: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(30))
    data: Mapped[dict[str, Any]] = mapped_column(JSON)

    __table_args__ = ({"sqlite_autoincrement": True},)


class Hook(Base):
    """A webhook message that is to be delivered. `tries` so far; `due`: when the next one is."""

    __tablename__ = "hooks"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    job_id: Mapped[str] = mapped_column(Id, index=True)
    key_id: Mapped[str] = mapped_column(Id)
    url: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(String(30))
    body: Mapped[str] = mapped_column(Text)
    tries: Mapped[int] = mapped_column(Integer, default=0)
    due: Mapped[int] = mapped_column(BigInteger, index=True)
    delivered: Mapped[int | None] = mapped_column(BigInteger)
    failed: Mapped[str | None] = mapped_column(Text)


class Worker(Base):
    """A worker process, while it lives. `beat` counts signs of life; `holds`: checkpoint and LoRAs that are in memory."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    host: Mapped[str] = mapped_column(String(200))
    pid: Mapped[int] = mapped_column(Integer)
    stages: Mapped[list[str]] = mapped_column(JSON)
    device: Mapped[str] = mapped_column(String(100))
    holds: Mapped[str] = mapped_column(Text, default="")
    job_id: Mapped[str | None] = mapped_column(Id)
    facts: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    beat: Mapped[int] = mapped_column(BigInteger, default=0)
    started: Mapped[int] = mapped_column(BigInteger)
    seen: Mapped[int] = mapped_column(BigInteger)


class Audit(Base):
    """Who did what. Rows are only added."""

    __tablename__ = "audit"

    seq: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    at: Mapped[int] = mapped_column(BigInteger)
    owner: Mapped[str] = mapped_column(String(200))
    key_id: Mapped[str | None] = mapped_column(Id)
    request_id: Mapped[str | None] = mapped_column(Id)
    what: Mapped[str] = mapped_column(String(50))
    target: Mapped[str | None] = mapped_column(Text)
    data: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)


class Setting(Base):
    """A value that all processes share: whether the queue is paused, the secret that signs links."""

    __tablename__ = "settings"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    value: Mapped[str] = mapped_column(Text)
