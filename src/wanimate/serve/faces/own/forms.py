"""Forms of the own face: what it answers, and how it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi import Header, Path, Query
from pydantic import BaseModel, Field

from wanimate.serve.errors import ServiceError
from wanimate.serve.lineup import Place
from wanimate.serve.ops.telemetry import PARENT
from wanimate.serve.tables import Job, Stage, State, Upload

_LONGEST_URI = 200
_Row = TypeVar("_Row")


class Trouble(BaseModel):
    """Why a request is refused. `field`: the field of the request that it is about."""

    code: str = Field(examples=["InvalidParameter"])
    message: str
    field: str | None = None
    request_id: str


class Refusal(BaseModel):
    error: Trouble


def error_body(error: ServiceError, request_id: str) -> dict[str, Any]:
    """An error in the own face's form."""
    said = {"code": error.code, "message": error.message, "field": error.field, "request_id": request_id}
    return {"error": said}


_SAID = {
    400: "A field is wrong.", 401: "The key is missing or wrong.", 403: "The key has no such scope.",
    404: "There is none, or it is somebody else's.", 409: "Its state does not allow it.", 413: "The body is too large.",
    429: "Too many; `Retry-After` says when.", 503: "Storage or database do not answer; try again.",
}  # fmt: skip


Answers = dict[int | str, dict[str, Any]]
"""Answers of a route by status, as FastAPI describes them."""


def refusals(*statuses: int) -> Answers:
    """The errors of a route, for its description. Every route may answer 400, 401, 403 and 503."""
    every = sorted({400, 401, 403, 503, *statuses})
    return {status: {"model": Refusal, "description": _SAID[status]} for status in every}


JobId = Annotated[str, Path(max_length=64, description="As `id` of a job.")]
Again = Annotated[
    str | None,
    Header(alias="Idempotency-Key", max_length=255, description="The same key with the same body is the same job."),
]
Limit = Annotated[int, Query(ge=1, le=500, description="Rows of the answer.")]
Cursor = Annotated[
    str | None, Query(max_length=100, description="`next` of the answer before, for the rows after those.")
]


class Rows(BaseModel, Generic[_Row]):
    """A page of a list. `next`: what `cursor` is for the following one; null at the end. `total`: rows of all pages."""

    object: Literal["list"] = "list"
    data: list[_Row]
    next: str | None = None
    total: int | None = None


class Progress(BaseModel):
    """`fraction`: of the whole stage, 0 to 1. `doing`: the stage's part that runs."""

    fraction: float
    seconds_left: float | None
    doing: str | None


class JobView(BaseModel):
    """A job. `submission`: what it was asked with, where one job is asked for. `stage`: prepare (find the performer) or
    generate. `position`: among those that wait, from 1. `results`: names of its files, see `/v1/jobs/{id}/files`."""

    object: Literal["job"] = "job"
    id: str
    owner: str
    kind: str
    mode: str
    model: str
    checkpoint: str
    tier: str | None
    loras: list[dict[str, Any]]
    name: str
    prompt: str
    batch: str | None
    parent: str | None
    face: str
    state: State
    stage: Stage
    held: bool
    cancelling: bool
    in_work: bool
    priority: int
    position: int | None = None
    attempt: int
    progress: Progress
    warnings: list[str]
    error: dict[str, str | None] | None
    results: list[str]
    facts: dict[str, Any]
    created: int
    scheduled: int | None
    ended: int | None
    expires: int | None
    submission: dict[str, Any] | None = None


def view(job: Job, position: int | None = None, whole: bool = False) -> JobView:
    """A row as its owner sees it. `whole`: with the submission."""
    asked = job.submission
    error = None if job.state != "failed" else {"code": job.code, "message": job.message}
    facts = {name: value for name, value in job.facts.items() if name not in ("uploads", PARENT)}
    return JobView(
        id=job.id, owner=job.owner, kind=job.kind, mode=job.mode, model=job.model, checkpoint=job.checkpoint, tier=job.tier,
        loras=asked["loras"], name=asked["name"], prompt=asked["prompt"], batch=job.batch, parent=asked["parent"],
        face=job.face, state=State(job.state), stage=Stage(job.stage), held=job.held, cancelling=job.cancelling,
        in_work=job.worker is not None, priority=job.priority, position=position, attempt=job.attempt,
        progress=Progress(fraction=job.fraction, seconds_left=job.seconds_left, doing=job.doing), warnings=job.warnings,
        error=error, results=sorted(job.result), facts=facts, created=job.created, scheduled=job.scheduled,
        ended=job.ended, expires=job.expires, submission=_told(asked) if whole else None,
    )  # fmt: skip


def placed(place: Place) -> JobView:
    return view(place.job, place.position)


def _told(submission: Mapping[str, Any]) -> dict[str, Any]:
    """A submission without the pictures that are written into it."""
    told = dict(submission)
    for field in ("image", "video", "mask"):
        url = (told[field] or {}).get("url") or ""
        if url.startswith("data:") and len(url) > _LONGEST_URI:
            told[field] = {**told[field], "url": f"{url[:64]}…"}
    return told


class FileView(BaseModel):
    """A file of a job. `url` needs no key, and works until `expires`; while it is `withheld`, once the result is approved.
    `watch`: where the page's player has it until then."""

    name: str = Field(examples=["video"])
    filename: str
    media_type: str
    size: int
    url: str
    expires: int
    withheld: bool = False
    watch: str | None = None


class UploadView(BaseModel):
    """A file that was sent. `id` is what `upload` of a source names. `url` shows it without a key until it expires."""

    object: Literal["upload"] = "upload"
    id: str
    filename: str
    media_type: str
    size: int
    sha256: str
    created: int
    expires: int
    url: str


def upload_view(row: Upload, media_type: str, url: str) -> UploadView:
    return UploadView(
        id=row.id, filename=row.filename, media_type=media_type, size=row.size, sha256=row.digest, created=row.created,
        expires=row.expires, url=url,
    )  # fmt: skip


class Done(BaseModel):
    """What was done to which."""

    id: str
    deleted: bool = True
