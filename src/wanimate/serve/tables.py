"""The tables of the service. Times are milliseconds since 1970 in UTC, as the machine that writes them reads its clock.

A change of a table needs a migration beside it (`migrations/versions`); a test holds the two together.
"""

from __future__ import annotations

import math
import time
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Words(TypeDecorator[str]):
    """Text that every database takes: Postgres stores no NUL, and halves of surrogate pairs are no text anywhere. Both become
    U+FFFD, also in what is looked for, so that nothing is found under such a name."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else storable(value)


class LongWords(Words):
    """The same without a limit."""

    impl = Text
    cache_ok = True


class Data(TypeDecorator[Any]):
    """JSON that every database takes: texts as `Words`, None for numbers that JSON does not know, text for what is no JSON."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return storable(value)


def storable(value: Any) -> Any:
    """A value as `Words` and `Data` store it."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, dict):
        return {storable(str(name)): storable(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [storable(one) for one in value]
    return storable(str(value))


Id = Words(64)
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


DAY = 86_400_000
"""Milliseconds."""


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Base(DeclarativeBase):
    pass


class Key(Base):
    """An API key. `digest`: SHA-256 of the whole key, which is stored nowhere. `quotas`: what differs from the settings'."""

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    owner: Mapped[str] = mapped_column(Words(200), index=True)
    digest: Mapped[str] = mapped_column(Words(64), unique=True)
    scopes: Mapped[list[str]] = mapped_column(Data)
    quotas: Mapped[dict[str, Any]] = mapped_column(Data)
    webhook_secret: Mapped[str] = mapped_column(Words(100))
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
    owner: Mapped[str] = mapped_column(Words(200))
    key_id: Mapped[str] = mapped_column(Id)
    request_id: Mapped[str] = mapped_column(Id)
    face: Mapped[str] = mapped_column(Words(20))
    kind: Mapped[str] = mapped_column(Words(20))
    mode: Mapped[str] = mapped_column(Words(20))
    model: Mapped[str] = mapped_column(Words(100))
    tier: Mapped[str | None] = mapped_column(Words(50))
    checkpoint: Mapped[str] = mapped_column(Words(100))
    loras: Mapped[str] = mapped_column(LongWords, default="")
    submission: Mapped[dict[str, Any]] = mapped_column(Data)
    batch: Mapped[str | None] = mapped_column(Id, index=True)

    state: Mapped[str] = mapped_column(Words(20))
    stage: Mapped[str] = mapped_column(Words(20))
    held: Mapped[bool] = mapped_column(default=False, server_default=false())
    priority: Mapped[int] = mapped_column(Integer, default=0)
    order_key: Mapped[int] = mapped_column(BigInteger)
    waits_since: Mapped[int] = mapped_column(BigInteger, default=now)
    prepare_at: Mapped[int | None] = mapped_column(BigInteger)
    generate_at: Mapped[int | None] = mapped_column(BigInteger)
    not_before: Mapped[int] = mapped_column(BigInteger, default=0)

    worker: Mapped[str | None] = mapped_column(Words(200))
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    beat: Mapped[int] = mapped_column(BigInteger, default=0)
    failures: Mapped[int] = mapped_column(Integer, default=0)
    cancelling: Mapped[bool] = mapped_column(default=False, server_default=false())

    fraction: Mapped[float] = mapped_column(default=0.0)
    seconds_left: Mapped[float | None] = mapped_column()
    doing: Mapped[str | None] = mapped_column(Words(50))
    clip_seconds: Mapped[float | None] = mapped_column()

    guides: Mapped[str | None] = mapped_column(LongWords)
    result: Mapped[dict[str, str]] = mapped_column(Data, default=dict)
    facts: Mapped[dict[str, Any]] = mapped_column(Data, default=dict)
    warnings: Mapped[list[str]] = mapped_column(Data, default=list)
    code: Mapped[str | None] = mapped_column(Words(100))
    message: Mapped[str | None] = mapped_column(LongWords)

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

    fingerprint: Mapped[str] = mapped_column(Words(64), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    body: Mapped[str] = mapped_column(Words(64))
    expires: Mapped[int] = mapped_column(BigInteger, index=True)


class Upload(Base):
    """A file that somebody sent. `name`: what `oss://` or an upload id calls it; `stored`: where its bytes are. `model`: the
    only one it may be used with, if it was sent for one."""

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    owner: Mapped[str] = mapped_column(Words(200), index=True)
    name: Mapped[str] = mapped_column(Words(500), unique=True)
    model: Mapped[str | None] = mapped_column(Words(100))
    filename: Mapped[str] = mapped_column(Words(300))
    stored: Mapped[str] = mapped_column(Words(500))
    size: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str] = mapped_column(Words(64))
    created: Mapped[int] = mapped_column(BigInteger)
    expires: Mapped[int] = mapped_column(BigInteger, index=True)


class Event(Base):
    """What happened to a job, in order. `seq` is what `Last-Event-ID` counts."""

    __tablename__ = "events"

    seq: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(Id, index=True)
    owner: Mapped[str] = mapped_column(Words(200), index=True)
    at: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(Words(30))
    data: Mapped[dict[str, Any]] = mapped_column(Data)

    __table_args__ = ({"sqlite_autoincrement": True},)


class Hook(Base):
    """A webhook message that is to be delivered. `tries` so far; `due`: when the next one is."""

    __tablename__ = "hooks"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    job_id: Mapped[str] = mapped_column(Id, index=True)
    key_id: Mapped[str] = mapped_column(Id)
    url: Mapped[str] = mapped_column(LongWords)
    kind: Mapped[str] = mapped_column(Words(30))
    body: Mapped[str] = mapped_column(LongWords)
    tries: Mapped[int] = mapped_column(Integer, default=0)
    due: Mapped[int] = mapped_column(BigInteger, index=True)
    delivered: Mapped[int | None] = mapped_column(BigInteger)
    failed: Mapped[str | None] = mapped_column(LongWords)


class Worker(Base):
    """A worker process, while it lives. `beat` counts signs of life; `holds`: checkpoint and LoRAs that are in memory."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(Words(200), primary_key=True)
    host: Mapped[str] = mapped_column(Words(200))
    pid: Mapped[int] = mapped_column(Integer)
    stages: Mapped[list[str]] = mapped_column(Data)
    device: Mapped[str] = mapped_column(Words(100))
    holds: Mapped[str] = mapped_column(LongWords, default="")
    job_id: Mapped[str | None] = mapped_column(Id)
    facts: Mapped[dict[str, Any]] = mapped_column(Data, default=dict)
    beat: Mapped[int] = mapped_column(BigInteger, default=0)
    started: Mapped[int] = mapped_column(BigInteger)
    seen: Mapped[int] = mapped_column(BigInteger)


class Audit(Base):
    """Who did what. Rows are only added."""

    __tablename__ = "audit"

    seq: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    at: Mapped[int] = mapped_column(BigInteger)
    owner: Mapped[str] = mapped_column(Words(200))
    key_id: Mapped[str | None] = mapped_column(Id)
    request_id: Mapped[str | None] = mapped_column(Id)
    what: Mapped[str] = mapped_column(Words(50))
    target: Mapped[str | None] = mapped_column(LongWords)
    data: Mapped[dict[str, Any]] = mapped_column(Data, default=dict)


class Setting(Base):
    """A value that all processes share: whether the queue is paused, the secret that signs links."""

    __tablename__ = "settings"

    name: Mapped[str] = mapped_column(Words(100), primary_key=True)
    value: Mapped[str] = mapped_column(LongWords)


class PageSession(Base):
    """A session of the page, or a link that begins one (`kind`). `digest`: SHA-256 of its token."""

    __tablename__ = "page_sessions"

    digest: Mapped[str] = mapped_column(Words(64), primary_key=True)
    key_id: Mapped[str] = mapped_column(Id)
    kind: Mapped[str] = mapped_column(Words(20))
    created: Mapped[int] = mapped_column(BigInteger)
    expires: Mapped[int] = mapped_column(BigInteger, index=True)


class LibraryEntry(Base):
    """A clip or a character of the library. `owner`: "" is the house, whose entries everybody sees and uses.

    name: what jobs call it (`library:NAME`), one of its owner's. shelf: clip or character. kind: of a clip. sha256: of the
    file, in hex; everything stored of it lies below `library/SHA256`. suffix: of the stored file. seconds, fps, people, loop,
    camera: of a clip; null until known. loop: first frame, the frame behind the last, and how well it closes. words: what a
    search looks at. look_job: the job that looks into the file. trouble: why it cannot be used.
    """

    __tablename__ = "library"

    seq: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(Id, unique=True)
    owner: Mapped[str] = mapped_column(Words(200))
    shelf: Mapped[str] = mapped_column(Words(20))
    name: Mapped[str] = mapped_column(Words(64))
    title: Mapped[str] = mapped_column(Words(200))
    kind: Mapped[str | None] = mapped_column(Words(20))
    tags: Mapped[list[str]] = mapped_column(Data)
    words: Mapped[str] = mapped_column(LongWords)
    sha256: Mapped[str] = mapped_column(Words(64), index=True)
    suffix: Mapped[str] = mapped_column(Words(10))
    size: Mapped[int] = mapped_column(BigInteger)
    width: Mapped[int | None] = mapped_column(Integer)
    height: Mapped[int | None] = mapped_column(Integer)
    seconds: Mapped[float | None] = mapped_column()
    fps: Mapped[str | None] = mapped_column(Words(30))
    people: Mapped[int | None] = mapped_column(Integer)
    loop: Mapped[dict[str, Any] | None] = mapped_column(Data)
    camera: Mapped[dict[str, Any] | None] = mapped_column(Data)
    licence: Mapped[str | None] = mapped_column(Words(200))
    consent_ids: Mapped[list[str]] = mapped_column(Data)
    status: Mapped[str] = mapped_column(Words(20))
    approved_by: Mapped[str | None] = mapped_column(Words(200))
    approved_at: Mapped[int | None] = mapped_column(BigInteger)
    look_job: Mapped[str | None] = mapped_column(Id)
    trouble: Mapped[str | None] = mapped_column(LongWords)
    created: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (UniqueConstraint("owner", "name"), {"sqlite_autoincrement": True})


class ConsentVersion(Base):
    """One version of a consent; rows are only added, and the newest of an id counts. `record`: `approval.consents.Consent` as
    JSON. `owner`: "" is the house. `asset`: SHA-256 of the clip or the picture. `ends`: when it expires, `withdrawn`: from when
    on it is withdrawn. `by`, `at`: who has written it down, and when."""

    __tablename__ = "consents"

    seq: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    consent_id: Mapped[str] = mapped_column(Words(100))
    version: Mapped[int] = mapped_column(Integer)
    owner: Mapped[str] = mapped_column(Words(200))
    asset: Mapped[str] = mapped_column(Words(64), index=True)
    ends: Mapped[int | None] = mapped_column(BigInteger)
    withdrawn: Mapped[int | None] = mapped_column(BigInteger)
    record: Mapped[str] = mapped_column(LongWords)
    by: Mapped[str] = mapped_column(Words(200))
    at: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (UniqueConstraint("consent_id", "version"), {"sqlite_autoincrement": True})


class ConsentUse(Base):
    """A result that has left the house under a consent. The same result at the same place is one use. `mark`: SHA-256 of way
    and place."""

    __tablename__ = "consent_uses"

    consent_id: Mapped[str] = mapped_column(Words(100), primary_key=True)
    output: Mapped[str] = mapped_column(Words(64), primary_key=True)
    mark: Mapped[str] = mapped_column(Words(64), primary_key=True)
    way: Mapped[str] = mapped_column(Words(20))
    place: Mapped[str] = mapped_column(LongWords)
    at: Mapped[int] = mapped_column(BigInteger)


class Shot(Base):
    """A stack of versions that are reviewed. `root`: the job that versions find their stack by. `touched`: somebody has named
    it, said or decided something, so that it outlives its jobs. `head`: hash of the newest decision (`review.chain`).
    `project`: what it is part of; "" is nothing."""

    __tablename__ = "shots"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    owner: Mapped[str] = mapped_column(Words(200))
    name: Mapped[str] = mapped_column(Words(200))
    project: Mapped[str] = mapped_column(Words(200), default="", server_default="")
    root: Mapped[str] = mapped_column(Id, unique=True)
    state: Mapped[str] = mapped_column(Words(20))
    touched: Mapped[bool] = mapped_column(default=False, server_default=false())
    head: Mapped[str] = mapped_column(Words(64), default="")
    created: Mapped[int] = mapped_column(BigInteger)
    changed: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (Index("shots_of_owner", "owner", "changed"),)


class ShotVersion(Base):
    """A job's result in a stack. `facts`: what is told of it when the job is gone. `digest`: SHA-256 of its file, as its
    maker told or as it was first decided on."""

    __tablename__ = "shot_versions"

    job_id: Mapped[str] = mapped_column(Id, primary_key=True)
    shot_id: Mapped[str] = mapped_column(Id, index=True)
    number: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(Words(20))
    facts: Mapped[dict[str, Any]] = mapped_column(Data, default=dict)
    digest: Mapped[str | None] = mapped_column(Words(64))
    added: Mapped[int] = mapped_column(BigInteger)


class ShotComment(Base):
    """What somebody said of a version. `said`: `review.records.Remark` as JSON. `parent`: the comment that it answers."""

    __tablename__ = "shot_comments"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    shot_id: Mapped[str] = mapped_column(Id, index=True)
    job_id: Mapped[str] = mapped_column(Id)
    parent: Mapped[str | None] = mapped_column(Id)
    author: Mapped[str] = mapped_column(Words(100))
    role: Mapped[str] = mapped_column(Words(20))
    identity: Mapped[str] = mapped_column(Words(100))
    at: Mapped[int] = mapped_column(BigInteger)
    said: Mapped[dict[str, Any]] = mapped_column(Data)
    resolved: Mapped[int | None] = mapped_column(BigInteger)
    resolved_by: Mapped[str | None] = mapped_column(Words(100))


class ShotDecision(Base):
    """One record of a shot's chain (`review.chain`). Rows are only added. `digest`: SHA-256 of `record`."""

    __tablename__ = "shot_decisions"

    shot_id: Mapped[str] = mapped_column(Id, primary_key=True)
    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    job_id: Mapped[str] = mapped_column(Id)
    output: Mapped[str] = mapped_column(Words(64), index=True)
    digest: Mapped[str] = mapped_column(Words(64))
    record: Mapped[str] = mapped_column(LongWords)


class Release(Base):
    """A result that was allowed to leave, written before its first byte did. Rows are only added.

    output: SHA-256 of the result. way, place: how it left and where to. regions: where it will be shown. derived: [name,
    SHA-256] of what was made of it on the way. decisions: ids of those that allowed it. by: identity of who took it out.
    """

    __tablename__ = "releases"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    at: Mapped[int] = mapped_column(BigInteger, index=True)
    output: Mapped[str] = mapped_column(Words(64), index=True)
    way: Mapped[str] = mapped_column(Words(20))
    place: Mapped[str] = mapped_column(LongWords)
    regions: Mapped[list[str]] = mapped_column(Data)
    derived: Mapped[list[list[str]]] = mapped_column(Data)
    decisions: Mapped[list[str]] = mapped_column(Data)
    by: Mapped[str] = mapped_column(Words(200))


class Recall(Base):
    """A release that has to be taken back, since `asked`, and by whom that was confirmed. decision: the revocation's id."""

    __tablename__ = "recalls"

    release_id: Mapped[str] = mapped_column(Id, primary_key=True)
    decision: Mapped[str] = mapped_column(Id)
    asked: Mapped[int] = mapped_column(BigInteger)
    confirmed: Mapped[int | None] = mapped_column(BigInteger)
    confirmed_by: Mapped[str | None] = mapped_column(Words(200))
    note: Mapped[str] = mapped_column(LongWords, default="")


class ShotStatement(Base):
    """What somebody said of a field of a shot record (`preprocess.shot`). Rows are only added; the last one counts.

    guides: storage prefix of the guides whose record it is; owner: whose jobs see it. shot: from 1; null is the clip.
    """

    __tablename__ = "shot_statements"

    seq: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    guides: Mapped[str] = mapped_column(Words(500), index=True)
    owner: Mapped[str] = mapped_column(Words(200))
    key_id: Mapped[str] = mapped_column(Id)
    shot: Mapped[int | None] = mapped_column(Integer)
    field: Mapped[str] = mapped_column(Words(60))
    value: Mapped[Any] = mapped_column(Data)
    by: Mapped[str] = mapped_column(Words(100))
    at: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = ({"sqlite_autoincrement": True},)


class GuestLink(Base):
    """A link that lets somebody without a key see one shot. `digest`: SHA-256 of its token. `rights`: view, comment, decide."""

    __tablename__ = "guest_links"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    shot_id: Mapped[str] = mapped_column(Id, index=True)
    digest: Mapped[str] = mapped_column(Words(64), unique=True)
    label: Mapped[str] = mapped_column(Words(100))
    rights: Mapped[list[str]] = mapped_column(Data)
    made_by: Mapped[str] = mapped_column(Words(100))
    created: Mapped[int] = mapped_column(BigInteger)
    expires: Mapped[int] = mapped_column(BigInteger, index=True)
    revoked: Mapped[int | None] = mapped_column(BigInteger)


class GuestSession(Base):
    """A guest's browser that has opened a link, and what they are called. `digest`: SHA-256 of its token."""

    __tablename__ = "guest_sessions"

    digest: Mapped[str] = mapped_column(Words(64), primary_key=True)
    link_id: Mapped[str] = mapped_column(Id, index=True)
    name: Mapped[str] = mapped_column(Words(100))
    created: Mapped[int] = mapped_column(BigInteger)
    expires: Mapped[int] = mapped_column(BigInteger, index=True)
