"""Consents: what performers and people in pictures have agreed to. Records stay; new versions and withdrawals are added."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi import Path as InPath
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from wanimate.approval.consents import consent_of
from wanimate.approval.regions import Region
from wanimate.approval.terms import Use
from wanimate.errors import InputError
from wanimate.serve.consents import HOUSE, Kept
from wanimate.serve.errors import ServiceError, missing, of_input, wrong
from wanimate.serve.faces.common import Reader, RequestId, Submitter, TheService
from wanimate.serve.faces.own.forms import Rows, refusals
from wanimate.serve.keys import Caller
from wanimate.serve.reviews import Reviewer
from wanimate.serve.service import Service

router = APIRouter(tags=["consents"])
ConsentId = Annotated[str, InPath(max_length=100, description="The uid of the agreement.")]
Word = Annotated[str, Field(min_length=1, max_length=100)]


class ConsentView(BaseModel):
    """A consent. `id`: the uid of the agreement. `state`: valid, expired, withdrawn or not signed yet. `asset`: SHA-256 of the
    clip or the picture. `used`: results that have left under it. `permitted`, `prohibited`, `duties`: its terms in words.
    `record`: the record itself."""

    object: Literal["consent"] = "consent"
    id: str
    version: int
    owner: str
    house: bool
    state: str
    asset: str
    subject: str
    permitted: list[str]
    prohibited: list[str]
    duties: list[str]
    expires: str | None
    withdrawn_at: str | None
    recorded_by: str
    recorded_at: int
    used: int
    record: dict[str, Any]


class WholeConsent(ConsentView):
    """The same with all of its versions, oldest first."""

    versions: list[ConsentView]


class Withdrawal(ConsentView):
    """A withdrawn consent. `revoked`: ids of decisions that take approvals back which rested on it. `to_be_taken_back`: ids of
    releases."""

    revoked: list[str]
    to_be_taken_back: list[str]


class NewConsent(BaseModel):
    """`consent`: a record (docs/approval.md). `house`: it counts for everybody; admins only."""

    model_config = ConfigDict(extra="forbid")

    consent: dict[str, Any]
    house: bool = False


class AskedUse(BaseModel):
    """A use. `at`: now, if it is left out."""

    model_config = ConfigDict(extra="forbid")

    regions: list[Region] = Field(default=[], max_length=300)
    purposes: list[Word] = Field(default=[], max_length=20)
    media: list[Word] = Field(default=["video"], max_length=20)
    at: AwareDatetime | None = None


class Answer(BaseModel):
    """Whether a use is allowed. `reasons`: sentences against it."""

    allowed: bool
    reasons: list[str]
    duties: list[str]


class Asked(BaseModel):
    """Which consents are listed. `asset`: SHA-256 of a clip or a picture."""

    asset: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    everybody: bool = Field(False, description="Of all owners, for admins.")
    limit: int = Field(50, ge=1, le=500)
    cursor: str | None = Field(None, max_length=10, description="`next` of the page before.")


def _view(kept: Kept) -> ConsentView:
    told = kept.told(datetime.now(UTC))
    return ConsentView(
        house=kept.owner == HOUSE, **{name: told[name] for name in ConsentView.model_fields if name in told}
    )


@router.get("/consents", summary="Consents", responses=refusals())
def listed(service: TheService, caller: Reader, asked: Annotated[Asked, Query()]) -> Rows[ConsentView]:
    """The last written first. The owner's, and the house's."""
    if asked.cursor is not None and not (asked.cursor.isascii() and asked.cursor.isdecimal()):
        raise wrong("cursor", "cursor: it is none that an answer gave.")
    owner = None if asked.everybody and caller.is_admin else caller.owner
    offset = int(asked.cursor or 0)
    found, total = service.consents.listed(owner, asked.asset, offset, asked.limit)
    behind = offset + len(found)
    return Rows(data=[_view(one) for one in found], next=str(behind) if found and behind < total else None, total=total)


@router.post("/consents", summary="Take in a consent", responses=refusals(429), status_code=201)
def add(service: TheService, caller: Submitter, request_id: RequestId, new: NewConsent) -> ConsentView:
    """The next version where there is one of this uid. The same record again changes nothing."""
    if new.house and not caller.is_admin:
        raise ServiceError(403, "AccessDenied", "Only admins take in consents for the house.", "house")
    owner = HOUSE if new.house else caller.owner
    try:
        kept = service.consents.add(consent_of(new.consent), owner, caller.owner)
    except InputError as error:
        raise of_input(error) from error
    service.log(caller, request_id, "consent.add", kept.consent.id, version=kept.version)
    return _view(kept)


@router.get("/consents/{consent_id:path}", summary="One consent", responses=refusals(404))
def one(service: TheService, caller: Reader, consent_id: ConsentId) -> WholeConsent:
    versions = [_view(kept) for kept in service.consents.versions(consent_id, _whose(caller))]
    if not versions:
        raise missing("consent")
    return WholeConsent(**versions[-1].model_dump(), versions=versions)


@router.post("/consents/{consent_id:path}/check", summary="Whether it allows a use", responses=refusals(404, 429))
def check(service: TheService, caller: Submitter, consent_id: ConsentId, use: AskedUse) -> Answer:
    """One use more than have left so far."""
    kept = _kept(service, caller, consent_id)
    wanted = Use(use.regions, use.purposes, use.media)
    reasons = kept.consent.allows(wanted, use.at or datetime.now(UTC), kept.used)
    return Answer(allowed=not reasons, reasons=reasons, duties=kept.consent.duties)


@router.post("/consents/{consent_id:path}/withdraw", summary="Withdraw a consent", responses=refusals(404, 429))
def withdraw(service: TheService, caller: Submitter, request_id: RequestId, consent_id: ConsentId) -> Withdrawal:
    """From now on, and for good. Entries of the library that name it are retired, and approvals that rest on it are revoked."""
    kept = _kept(service, caller, consent_id)
    if kept.owner != caller.owner and not caller.is_admin:
        raise ServiceError(403, "AccessDenied", "Only admins withdraw the house's consents.")
    try:
        kept = service.consents.withdraw(consent_id, _whose(caller), caller.owner)
    except InputError as error:
        raise of_input(error) from error
    who = replace(Reviewer.of_key(caller, None, request_id), owner=None)
    records, left = service.reviews.decisions.withdraw(who, consent_id, f"The consent {consent_id} is withdrawn.")
    service.log(caller, request_id, "consent.withdraw", consent_id, version=kept.version)
    back = [one.release.id for one in left if one.state == "to_be_taken_back"]
    return Withdrawal(**_view(kept).model_dump(), revoked=[record.id for record in records], to_be_taken_back=back)


def _whose(caller: Caller) -> str | None:
    return None if caller.is_admin else caller.owner


def _kept(service: Service, caller: Caller, consent_id: str) -> Kept:
    kept = service.consents.find(consent_id, _whose(caller))
    if kept is None:
        raise missing("consent")
    return kept
