"""The hosted API's contract, as its SDK's clients know it: create, poll, list, cancel. `uploads` has the files."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Request

from wanimate.serve.errors import ServiceError, wrong
from wanimate.serve.faces.common import Base, Reader, RequestId, Submitter, TheService
from wanimate.serve.faces.hosted_uploads import MODELS, known_model
from wanimate.serve.faces.hosted_uploads import router as uploads
from wanimate.serve.forms import is_clean, json_object
from wanimate.serve.keys import Caller
from wanimate.serve.service import Service
from wanimate.serve.submission import Source, Submission
from wanimate.serve.tables import Job, State

FACE = "hosted"
_CREATE = ("image2video", "video-generation")
_STATUS = {
    State.PENDING: "PENDING", State.RUNNING: "RUNNING", State.SUCCEEDED: "SUCCEEDED", State.FAILED: "FAILED",
    State.CANCELLED: "CANCELED",
}  # fmt: skip
_DAY = timedelta(days=1)
_REGION = "local"
_STAMP = "%Y%m%d%H%M%S"

router = APIRouter(tags=["hosted contract"])
router.include_router(uploads)


def _route(method: Callable[..., Any], path: str, summary: str, **more: Any) -> Callable[[Any], Any]:
    """A route in both spellings, with and without a trailing slash. Neither redirects."""

    def add(answer: Any) -> Any:
        method(path, summary=summary, **more)(answer)
        method(f"{path}/", include_in_schema=False)(answer)
        return answer

    return add


def error_body(error: ServiceError, request_id: str) -> dict[str, Any]:
    """An error as the contract has it."""
    return {"request_id": request_id, "code": error.code, "message": error.message}


# Create


def _asynchronous(request: Request) -> None:
    if request.headers.get("x-dashscope-async", "").strip().lower() != "enable":
        raise ServiceError(403, "AccessDenied", "current user api does not support synchronous calls.")


async def _body(request: Request) -> dict[str, Any]:
    return await json_object(request)


_SCHEMA: dict[str, Any] = {
    "type": "object", "required": ["model", "input", "parameters"],
    "properties": {
        "model": {"type": "string", "enum": list(MODELS)},
        "input": {
            "type": "object", "required": ["image_url", "video_url"],
            "properties": {
                "image_url": {"type": "string"}, "video_url": {"type": "string"}, "watermark": {"type": "boolean"},
            },
        },
        "parameters": {
            "type": "object", "required": ["mode"],
            "properties": {"mode": {"type": "string"}, "check_image": {"type": "boolean"}},
        },
    },
}  # fmt: skip
_DESCRIBED = {"requestBody": {"required": True, "content": {"application/json": {"schema": _SCHEMA}}}}


def create(
    request: Request, service: TheService, request_id: RequestId, caller: Submitter,
    _: Annotated[None, Depends(_asynchronous)], body: Annotated[dict[str, Any], Depends(_body)],
) -> dict[str, Any]:  # fmt: skip
    """Store a job. Needs the header `X-DashScope-Async: enable`."""
    service.check_rate(caller, creation=True)
    resolves = request.headers.get("x-dashscope-ossresourceresolve", "").strip().lower() == "enable"
    model, submission = _submission(service, caller, body, resolves)
    job = service.submit(caller, submission, FACE, request_id, model=model)
    return {"request_id": request_id, "output": {"task_id": job.id, "task_status": _STATUS[State(job.state)]}}


for _task in _CREATE:
    _route(
        router.post, f"/api/v1/services/aigc/{_task}/video-synthesis", "Create a task",
        openapi_extra=_DESCRIBED,
    )(create)  # fmt: skip


def _submission(service: Service, caller: Caller, body: dict[str, Any], resolves: bool) -> tuple[str, Submission]:
    """Raises ServiceError (400) with the contract's code. Fields that are not known are let pass, as clients send many."""
    model = known_model(body.get("model"))
    given = _object(body, "input", "BadRequest.EmptyInput")
    parameters = _object(body, "parameters", "BadRequest.EmptyParameters")
    image, video = (
        _source(service, caller, given.get(name), f"input.{name}", resolves) for name in ("image_url", "video_url")
    )
    tier = _text(parameters.get("mode"), "parameters.mode")
    if tier not in service.settings.tiers:
        known = " or ".join(service.settings.tiers)
        raise wrong("parameters.mode", f"parameters.mode: it has to be {known}.")
    watermark = _switch(given, "watermark", "input") or (
        given.get("watermark") is None and _switch(parameters, "watermark", "parameters")
    )
    output = {"watermark": True} if watermark else {}
    check_image = _switch(parameters, "check_image", "parameters", True)
    return model, Submission(
        mode=MODELS[model], image=image, video=video, tier=tier, contract=True, check_image=check_image, output=output
    )


def _object(body: dict[str, Any], name: str, empty: str) -> dict[str, Any]:
    found = body.get(name)
    if found is None:
        raise wrong(name, f"Field required: {name}.", empty)
    if not isinstance(found, dict):
        raise wrong(name, f"{name}: it has to be an object.")
    return found


def _text(found: Any, name: str) -> str:
    if found is None or found == "":
        raise wrong(name, f"Field required: {name}.")
    if not isinstance(found, str):
        raise wrong(name, f"{name}: it has to be a string.")
    return found


def _switch(place: dict[str, Any], name: str, where: str, default: bool = False) -> bool:
    found = place.get(name)
    if found is None:
        return default
    if not isinstance(found, bool):
        raise wrong(f"{where}.{name}", f"{where}.{name}: it has to be true or false.")
    return found


def _source(service: Service, caller: Caller, found: Any, name: str, resolves: bool) -> Source:
    address = _text(found, name)
    if not is_clean(address):
        raise wrong(name, f"{name}: the address has signs that cannot be in one.", "InvalidURL")
    scheme = address.partition(":")[0].lower()
    if scheme == "oss":
        if not resolves:
            raise wrong(name, f"{name}: an oss:// address needs the header X-DashScope-OssResourceResolve: enable.")
        upload = service.upload(caller.owner, address)
        if upload is None:
            raise wrong(name, f"{name}: there is no such upload, or it has expired.")
        return Source(upload=upload.id)
    if scheme not in ("http", "https", "data"):
        raise wrong(name, f"{name}: it has to be an http://, https:// or oss:// address.", "InvalidURL")
    return Source(url=address)


# Poll


@_route(router.get, "/api/v1/tasks/{task_id}", "How a task stands")
def poll(task_id: str, service: TheService, request_id: RequestId, caller: Reader, base: Base) -> dict[str, Any]:
    """200 also for a task that is not there, has expired or is somebody else's: its status is UNKNOWN."""
    try:
        job = service.job(caller, task_id)
    except ServiceError as error:
        if error.status != 404:
            raise
        return {"request_id": request_id, "output": {"task_id": task_id, "task_status": "UNKNOWN"}}
    return {"request_id": request_id, **_told(service, job, base)}


def _told(service: Service, job: Job, base: str) -> dict[str, Any]:
    output: dict[str, Any] = {"task_id": job.id, "task_status": _STATUS[State(job.state)], **_times(job)}
    if job.state == State.FAILED:
        return {"output": output | {"code": job.code or "InternalError", "message": job.message or ""}}
    if job.state != State.SUCCEEDED:
        return {"output": output}
    url = service.result_link(job, "video", base)
    if url is not None:
        output |= {"results": {"video_url": url}, "video_url": url}
    seconds = job.facts.get("seconds", job.clip_seconds) or 0.0
    ratio = "standard" if job.tier != "wan-pro" else "pro"
    return {"output": output, "usage": {"video_duration": round(float(seconds), 2), "video_ratio": ratio}}


def _times(job: Job) -> dict[str, str]:
    """In this machine's time zone, as the contract names none."""
    told = {"submit_time": job.created, "scheduled_time": job.scheduled, "end_time": job.ended}
    return {
        name: datetime.fromtimestamp(at / 1000).isoformat(" ", "milliseconds")
        for name, at in told.items()
        if at is not None
    }


# Cancel


@_route(router.post, "/api/v1/tasks/{task_id}/cancel", "Cancel a task that is PENDING")
def cancel(task_id: str, service: TheService, request_id: RequestId, caller: Submitter) -> dict[str, Any]:
    """400 `UnsupportedOperation` for everything else: a task that runs or has ended, and one that is not there."""
    try:
        service.cancel(caller, task_id, request_id, only_pending=True)
    except ServiceError as error:
        if error.status != 404:
            raise
        text = "Failed to cancel the task, please confirm if the task is in PENDING status."
        raise ServiceError(400, "UnsupportedOperation", text) from error
    return {"request_id": request_id}


# List


@_route(router.get, "/api/v1/tasks", "Tasks of the account")
def tasks(request: Request, service: TheService, request_id: RequestId, caller: Reader) -> dict[str, Any]:
    """Filters: `task_id`, `start_time` and `end_time` (YYYYMMDDhhmmss, at most 24 h apart; the last 24 h), `model_name`,
    `status`, `api_key_id`; `page_no`, `page_size` (at most 100)."""
    asked = {name: value for name, value in request.query_params.items() if value != ""}
    page, size = _number(asked, "page_no", 1, 10**6), _number(asked, "page_size", 10, 100)
    found = service.jobs(caller, *_conditions(asked), offset=(page - 1) * size, limit=size)
    rows = [_row(job) for job in found.jobs]
    return {
        "request_id": request_id, "total": found.total, "total_page": math.ceil(found.total / size), "page_no": page,
        "page_size": size, "data": [row | _milliseconds(job) for row, job in zip(rows, found.jobs, strict=True)],
        "tasks": [row | _times(job) for row, job in zip(rows, found.jobs, strict=True)],
    }  # fmt: skip


def _conditions(asked: dict[str, str]) -> list[sa.ColumnElement[bool]]:
    """Raises ServiceError (400)."""
    found: list[sa.ColumnElement[bool]] = []
    for name, column in (("task_id", Job.id), ("model_name", Job.model), ("api_key_id", Job.key_id)):
        if name in asked:
            found.append(column == asked[name].replace("\0", ""))
    if "status" in asked:
        states = [state for state, status in _STATUS.items() if status == asked["status"]]
        if not states and asked["status"] != "UNKNOWN":
            raise wrong("status", f"status: it has to be one of {', '.join(_STATUS.values())}, UNKNOWN.")
        found.append(Job.state.in_(states))
    if "task_id" in asked and not {"start_time", "end_time"} & set(asked):
        return found
    start, end = _stamp(asked, "start_time"), _stamp(asked, "end_time")
    if end is None:
        end = datetime.now() if start is None else start + _DAY
    start = end - _DAY if start is None else start
    if not timedelta(0) <= end - start <= _DAY:
        raise wrong("start_time", "start_time and end_time: the first has to lie at most 24 h before the second.")
    after = int(end.timestamp() * 1000) + (1000 if "end_time" in asked or "start_time" in asked else 60_000)
    return [*found, Job.created >= int(start.timestamp() * 1000), Job.created < after]


def _stamp(asked: dict[str, str], name: str) -> datetime | None:
    if name not in asked:
        return None
    try:
        if len(asked[name]) != 14 or not asked[name].isascii():
            raise ValueError(name)
        found = datetime.strptime(asked[name], _STAMP)
        found.timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise wrong(name, f"{name}: it has to be written as YYYYMMDDhhmmss.") from error
    if not 1970 < found.year < 9999:
        raise wrong(name, f"{name}: no task is from that time.")
    return found


def _number(asked: dict[str, str], name: str, default: int, most: int) -> int:
    text = asked.get(name, str(default))
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= most:
        raise wrong(name, f"{name}: it has to be a whole number from 1 to {most}.")
    return int(text)


def _row(job: Job) -> dict[str, Any]:
    return {
        "task_id": job.id, "status": _STATUS[State(job.state)], "model_name": job.model, "region": _REGION,
        "request_id": job.request_id, "api_key_id": job.key_id, "caller_uid": job.owner, "caller_parent_id": job.owner,
        "user_api_unique_key": f"apikey:v1:aigc:image2video:video-synthesis:{job.model}",
    }  # fmt: skip


def _milliseconds(job: Job) -> dict[str, int]:
    told = {"gmt_create": job.created, "start_time": job.scheduled, "end_time": job.ended}
    return {name: at for name, at in told.items() if at is not None}
