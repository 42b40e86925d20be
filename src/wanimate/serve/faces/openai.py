"""OpenAI's videos contract: create, retrieve, list, content, delete, remix, edits. `openai_inputs` reads what clients send."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from wanimate.serve.errors import ServiceError, missing, wrong
from wanimate.serve.faces.common import Reader, RequestId, Submitter, TheService
from wanimate.serve.faces.openai_inputs import asked_for, read
from wanimate.serve.files import file_response
from wanimate.serve.keys import Caller
from wanimate.serve.service import Service
from wanimate.serve.storage import NotStored, Signed
from wanimate.serve.submission import Submission
from wanimate.serve.tables import Job, State

FACE = "openai"
_STATUS = {
    State.PENDING: "queued", State.RUNNING: "in_progress", State.SUCCEEDED: "completed", State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}  # fmt: skip
_TYPES = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 409: "conflict_error",
    429: "rate_limit_error",
}  # fmt: skip
_CODES = {"InvalidApiKey": "invalid_api_key", "NotFound": "not_found"}
_VARIANTS = {"video": "video", "thumbnail": "thumbnail", "spritesheet": "sheet"}
_VIDEO_KINDS = ("animate", "generate", "redraw", "finish")
_POLL = (0.5, 10.0)
"""Seconds between two looks at a job that clients are asked for, at least and at most."""

_TEXT, _FILE = {"type": "string"}, {"type": "string", "format": "binary"}
_FIELDS: dict[str, Any] = {
    "prompt": _TEXT, "model": _TEXT, "input_reference": _FILE, "input_video": _FILE, "reference_url": _TEXT,
    "video_url": _TEXT, "mode": _TEXT, "size": _TEXT, "seed": {"type": "integer"}, "person": _TEXT,
    "check_image": {"type": "boolean"}, "negative_prompt": _TEXT, "steps": {"type": "integer"}, "guidance": {"type": "number"},
    "watermark": {"type": "boolean"}, "preprocess": {"type": "object"}, "generate": {"type": "object"},
    "output": {"type": "object"},
}  # fmt: skip
_ADDRESSED = {name: kind for name, kind in _FIELDS.items() if kind is not _FILE}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": {"type": "object", "properties": _FIELDS}},
            "application/json": {"schema": {"type": "object", "properties": _ADDRESSED}},
        },
    }
}
_REMIX = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object", "properties": {"prompt": _TEXT}}}},
    }
}

router = APIRouter(prefix="/v1/videos", tags=["OpenAI's videos contract"])
_NO_SLASH, _SLASH = "", "/"


def error_body(error: ServiceError, request_id: str) -> dict[str, Any]:
    """An error as the contract has it."""
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    code = _CODES.get(error.code, error.code)
    return {"error": {"message": error.message, "type": kind, "param": error.field, "code": code}}


@router.post(_NO_SLASH, summary="Create a video", openapi_extra=_BODY)
@router.post(_SLASH, include_in_schema=False)
async def create(request: Request, service: TheService, request_id: RequestId, caller: Submitter) -> dict[str, Any]:
    """A form or JSON: the character's picture and the performer's clip, as files, addresses or ids of uploads."""
    return await _created(request, service, request_id, caller)


@router.post("/edits", summary="Put a character into a clip", openapi_extra=_BODY)
async def edit(request: Request, service: TheService, request_id: RequestId, caller: Submitter) -> dict[str, Any]:
    """As creation with mode `replacement`; `video` is the clip, `input_reference` the character's picture."""
    return await _created(request, service, request_id, caller, {"mode": "replacement"})


async def _created(
    request: Request, service: Service, request_id: str, caller: Caller, fixed: dict[str, Any] | None = None
) -> dict[str, Any]:
    service.check_rate(caller, creation=True)
    async with read(request, service) as given:
        given.fields |= fixed or {}

        def submit() -> dict[str, Any]:
            model, submission = asked_for(given, service, caller)
            again = request.headers.get("idempotency-key")
            return _video(service.submit(caller, submission, FACE, request_id, model=model, again=again))

        return await run_in_threadpool(submit)


@router.get(_NO_SLASH, summary="List videos")
@router.get(_SLASH, include_in_schema=False)
def videos(
    service: TheService, caller: Reader, after: str = "", limit: str = "20", order: str = "desc"
) -> dict[str, Any]:
    """Page by `after`, the id of the last video that is known; `limit` is 1 to 100, `order` asc or desc."""
    if not limit.isascii() or not limit.isdigit() or len(limit) > 9 or not 1 <= int(limit) <= 100:
        raise wrong("limit", "limit: it has to be a whole number from 1 to 100.")
    if order not in ("asc", "desc"):
        raise wrong("order", "order: it has to be asc or desc.")
    conditions: list[sa.ColumnElement[bool]] = [Job.kind.in_(_VIDEO_KINDS)]
    if after:
        conditions.append(_beyond(service, caller, after, order))
    page = service.jobs(caller, *conditions, limit=int(limit), oldest=order == "asc")
    data = [_video(job) for job in page.jobs]
    return {
        "object": "list", "data": data, "has_more": page.total > len(data),
        "first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None,
    }  # fmt: skip


def _beyond(service: Service, caller: Caller, after: str, order: str) -> sa.ColumnElement[bool]:
    try:
        job = service.job(caller, after)
    except ServiceError as error:
        raise wrong("after", "after: there is no such video.") from error
    place = sa.tuple_(Job.created, Job.id)
    mark = sa.tuple_(sa.literal(job.created, sa.BigInteger), sa.literal(job.id))
    return place > mark if order == "asc" else place < mark


@router.get("/{video_id}", summary="How a video stands")
def retrieve(video_id: str, service: TheService, caller: Reader) -> Response:
    """The header `openai-poll-after-ms` says when to look again."""
    job = _found(service, caller, video_id)
    headers = {}
    if not State(job.state).final:
        seconds = 1.0 if job.seconds_left is None else job.seconds_left / 10
        headers["openai-poll-after-ms"] = str(int(1000 * min(max(seconds, _POLL[0]), _POLL[1])))
    return JSONResponse(_video(job), headers=headers)


@router.get("/{video_id}/content", summary="The bytes of a video", response_class=Response)
def content(video_id: str, request: Request, service: TheService, caller: Reader, variant: str = "video") -> Response:
    """`variant`: `video`, `thumbnail`, or `spritesheet`, which is the contact sheet. Byte ranges are served."""
    job = _found(service, caller, video_id)
    if variant not in _VARIANTS:
        raise wrong("variant", f"variant: it has to be one of {', '.join(_VARIANTS)}.")
    if job.state != State.SUCCEEDED:
        text = f"The video is not there: its status is {_STATUS[State(job.state)]}."
        raise wrong("video_id", text, "video_not_ready")
    stored = job.result.get(_VARIANTS[variant])
    if stored is None:
        raise missing(variant)
    try:
        name = f"{job.id}.{stored.rpartition('.')[2]}"
        service.serving.check(stored)
        return file_response(service.storage, Signed(stored, name), request.method, request.headers)
    except NotStored as error:
        raise missing(variant) from error


@router.delete("/{video_id}", summary="Delete a video")
def delete(video_id: str, service: TheService, request_id: RequestId, caller: Submitter) -> dict[str, Any]:
    """Its job is stopped if it runs, and its files are removed."""
    _found(service, caller, video_id)
    service.delete(caller, video_id, request_id)
    return {"id": video_id, "object": "video.deleted", "deleted": True}


@router.post("/{video_id}/remix", summary="The same performance with another prompt", openapi_extra=_REMIX)
async def remix(
    video_id: str, request: Request, service: TheService, request_id: RequestId, caller: Submitter
) -> dict[str, Any]:
    """`prompt`. The new video is made from the guides of a completed one, with its settings."""
    service.check_rate(caller, creation=True)
    async with read(request, service) as given:

        def submit() -> dict[str, Any]:
            job = _found(service, caller, video_id)
            if job.state != State.SUCCEEDED:
                text = f"Only a completed video can be remixed; the status of this one is {_STATUS[State(job.state)]}."
                raise wrong("video_id", text, "video_not_ready")
            submission = _remixed(job, given.text("prompt"))
            again = request.headers.get("idempotency-key")
            return _video(service.submit(caller, submission, FACE, request_id, model=job.model, again=again))

        return await run_in_threadpool(submit)


def _remixed(job: Job, prompt: str) -> Submission:
    first = Submission.model_validate(job.submission)
    return Submission(
        kind="generate", mode=first.mode, parent=job.id, checkpoint=job.checkpoint, tier=first.tier, loras=first.loras,
        generate={name: value for name, value in first.generate.items() if name != "prompt"}, output=first.output,
        speed=first.speed, prompt=prompt,
    )  # fmt: skip


def _found(service: Service, caller: Caller, video_id: str) -> Job:
    """Raises ServiceError (404)."""
    try:
        job = service.job(caller, video_id)
    except ServiceError as error:
        raise (missing("video") if error.status == 404 else error) from error
    if job.kind not in _VIDEO_KINDS:
        raise missing("video")
    return job


def _video(job: Job) -> dict[str, Any]:
    state = State(job.state)
    size = "x".join(str(side) for side in job.facts["size"]) if "size" in job.facts else _size_asked(job)
    seconds = job.facts.get("seconds", job.clip_seconds) or 0.0
    error = {"code": job.code, "message": job.message} if state is State.FAILED else None
    completed = job.ended // 1000 if job.ended is not None and state is State.SUCCEEDED else None
    return {
        "id": job.id, "object": "video", "model": job.model, "status": _STATUS[state],
        "progress": 100 if state is State.SUCCEEDED else min(int(100 * job.fraction), 99),
        "created_at": job.created // 1000, "completed_at": completed,
        "expires_at": None if job.expires is None else job.expires // 1000, "seconds": f"{float(seconds):g}", "size": size,
        "prompt": job.submission.get("prompt") or None, "error": error,
        "remixed_from_video_id": job.submission.get("parent"), "mode": job.tier or job.mode, "warnings": job.warnings,
    }  # fmt: skip


def _size_asked(job: Job) -> str:
    asked = job.submission.get("preprocess", {}).get("area")
    return asked if isinstance(asked, str) else ""
