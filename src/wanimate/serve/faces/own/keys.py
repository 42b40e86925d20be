"""Keys, who asks, and who did what."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from wanimate.errors import InputError
from wanimate.serve.errors import missing, of_input, wrong
from wanimate.serve.faces.common import Admin, Reader, RequestId, Submitter, TheService
from wanimate.serve.faces.own.forms import Cursor, Done, Limit, Rows, refusals
from wanimate.serve.keys import USUAL, Caller, Scope
from wanimate.serve.service import Service
from wanimate.serve.settings import Quotas
from wanimate.serve.tables import Audit, Job, Key, State
from wanimate.serve.usage import seconds_today

router = APIRouter()
KeyId = Annotated[str, Path(max_length=64)]


class Usage(BaseModel):
    """What the key uses now. `seconds_today`: of the clips of its jobs of the last 24 hours."""

    running: int
    queued: int
    seconds_today: float


class Me(BaseModel):
    """Who asks. `webhook_secret` signs the messages to this key's webhooks."""

    key: str
    owner: str
    scopes: list[str]
    quotas: Quotas
    usage: Usage
    webhook_secret: str


class NewKey(BaseModel):
    """`days`: until it expires; never if it is left out. `quotas`: what differs from the service's."""

    model_config = ConfigDict(extra="forbid")

    owner: str = Field(min_length=1, max_length=200)
    scopes: list[Scope] = Field(default=list(USUAL), min_length=1)
    days: float | None = Field(default=None, ge=1 / 1440, lt=36_500)
    quotas: dict[str, float | None] = {}


class KeyView(BaseModel):
    object: Literal["key"] = "key"
    id: str
    owner: str
    scopes: list[str]
    quotas: dict[str, Any]
    created: int
    expires: int | None
    revoked: int | None


class MadeKey(KeyView):
    """`secret` is the key itself. It is shown only now."""

    secret: str


class AuditRow(BaseModel):
    seq: int
    at: int
    owner: str
    key: str | None
    request_id: str | None
    what: str
    target: str | None
    data: dict[str, Any]


@router.get("/me", summary="Who asks", tags=["keys"], responses=refusals())
def me(service: TheService, caller: Reader) -> Me:
    with service.database.read() as session:
        row = session.get(Key, caller.key_id)
    if row is None:
        raise missing("key")
    return _me(service, caller, row.webhook_secret)


@router.post("/me/webhook-secret", summary="A new secret for webhooks", tags=["keys"], responses=refusals())
def rotate(service: TheService, caller: Submitter, request_id: RequestId) -> Me:
    """Messages that wait are signed with the new one, too."""
    with service.database.write() as session:
        row = session.get(Key, caller.key_id)
        if row is None:
            raise missing("key")
        row.webhook_secret = f"whsec_{secrets.token_hex(16)}"
        service.audit(session, caller, request_id, "key.webhook_secret", caller.key_id)
    return _me(service, caller, row.webhook_secret)


def _me(service: Service, caller: Caller, secret: str) -> Me:
    mine = Job.key_id == caller.key_id
    count = sa.func.count()
    with service.database.read() as session:
        running = session.scalar(sa.select(count).select_from(Job).where(mine, Job.worker.is_not(None)))
        queued = session.scalar(sa.select(count).select_from(Job).where(mine, Job.state == State.PENDING))
        seconds = seconds_today(session, caller.key_id)
    usage = Usage(running=running or 0, queued=queued or 0, seconds_today=seconds)
    return Me(
        key=caller.key_id, owner=caller.owner, scopes=sorted(caller.scopes), quotas=caller.quotas, usage=usage,
        webhook_secret=secret,
    )  # fmt: skip


def _view(row: Key) -> dict[str, Any]:
    names = ("id", "owner", "scopes", "quotas", "created", "expires", "revoked")
    return {name: getattr(row, name) for name in names}


@router.post("/keys", summary="Make a key", tags=["admin"], responses=refusals(), status_code=201)
def create(service: TheService, caller: Admin, request_id: RequestId, wanted: NewKey) -> MadeKey:
    try:
        secret = service.keys.create(wanted.owner, wanted.scopes, wanted.days, wanted.quotas)
    except InputError as error:
        raise of_input(error) from error
    made = service.keys.find(secret)
    assert made is not None
    service.log(caller, request_id, "key.create", made.key_id, owner=made.owner, scopes=sorted(made.scopes))
    with service.database.read() as session:
        row = session.get_one(Key, made.key_id)
    return MadeKey(**_view(row), secret=secret)


@router.get("/keys", summary="All keys", tags=["admin"], responses=refusals())
def listed(
    service: TheService, _caller: Admin, owner: Annotated[str | None, Query(max_length=200)] = None
) -> Rows[KeyView]:
    return Rows(data=[KeyView(**_view(row)) for row in service.keys.list(owner)])


@router.delete("/keys/{key_id}", summary="Revoke a key", tags=["admin"], responses=refusals(404))
def revoke(service: TheService, caller: Admin, request_id: RequestId, key_id: KeyId) -> Done:
    """It is refused from then on; within seconds by other processes of the service."""
    if not service.keys.revoke(key_id):
        raise missing("key")
    service.log(caller, request_id, "key.revoke", key_id)
    return Done(id=key_id)


@router.get("/audit", summary="Who did what, newest first", tags=["admin"], responses=refusals())
def audit(
    service: TheService, _caller: Admin, owner: Annotated[str | None, Query(max_length=200)] = None,
    what: Annotated[str | None, Query(max_length=50, description='As in "job.create".')] = None,
    limit: Limit = 100, cursor: Cursor = None,
) -> Rows[AuditRow]:  # fmt: skip
    wanted = sa.select(Audit).order_by(Audit.seq.desc()).limit(limit + 1)
    for column, value in ((Audit.owner, owner), (Audit.what, what)):
        if value is not None:
            wanted = wanted.where(column == value)
    if cursor is not None:
        if not (cursor.isascii() and cursor.isdecimal()) or len(cursor) > 18:
            raise wrong("cursor", "cursor: it is none that an answer gave.")
        wanted = wanted.where(Audit.seq < int(cursor))
    with service.database.read() as session:
        rows = session.scalars(wanted).all()
    shown = [
        AuditRow(
            seq=row.seq, at=row.at, owner=row.owner, key=row.key_id, request_id=row.request_id, what=row.what,
            target=row.target, data=row.data,
        )
        for row in rows[:limit]
    ]  # fmt: skip
    return Rows(data=shown, next=str(shown[-1].seq) if len(rows) > limit else None)
