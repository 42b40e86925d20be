"""What a job would be told of its picture and its clip, before a GPU is used. A worker looks."""

from __future__ import annotations

from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from wanimate.serve.errors import ServiceError, missing
from wanimate.serve.faces.common import Reader, RequestId, Submitter, TheService
from wanimate.serve.faces.own.forms import Answers, JobId, refusals
from wanimate.serve.faces.own.jobs import FACE
from wanimate.serve.faces.own.people import FIRST, waited
from wanimate.serve.submission import Submission
from wanimate.serve.tables import Job, State

router = APIRouter(tags=["people"])


class Wanted(BaseModel):
    """`job`: as it would be submitted, with its files. `wait`: seconds to wait for the answer."""

    model_config = ConfigDict(extra="forbid")

    job: Submission
    wait: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = 20.0


class Span(BaseModel):
    """Frames [first, stop) of the clip, from `start` to `end` in seconds."""

    first: int
    stop: int
    start: float
    end: float


class Finding(BaseModel):
    """One thing to know. `kind`: `nobody` (nobody is found in `spans`), `others` (up to `count` other people, first in
    `spans`), `proportions` (they differ by `factor`), `character` (nobody is in the picture), `cuts` (the clip is cut where
    `spans` begin), `light` (what to do about its light), `hdr` (colours are tone mapped), or `other`. `text`: as a job
    tells it."""

    kind: str
    text: str
    spans: list[Span] = []
    count: int | None = None
    factor: float | None = None


class Checked(BaseModel):
    """`frames` were looked at, at the rate `fps`; `seconds` of the clip would be used. While `state` is pending or running,
    ask `/v1/check/{id}` again."""

    id: str
    state: str
    frames: int | None = None
    fps: str | None = None
    seconds: float | None = None
    findings: list[Finding] = []


_LATER: Answers = {202: {"model": Checked, "description": "Nobody has looked yet; ask again."}}


@router.post("/check", summary="What a job would be told of its inputs", responses={**refusals(404, 429), **_LATER})
async def check(
    service: TheService, caller: Submitter, request_id: RequestId, wanted: Wanted, response: Response
) -> Checked:
    """The performer is looked for as the job would do it. Inputs that cannot be used are refused with what is wrong."""
    service.check_rate(caller, creation=True)
    kept = {name: getattr(wanted.job, name) for name in ("mode", "image", "video", "tier", "checkpoint", "preprocess")}
    submission = Submission(kind="check", priority=FIRST, **kept)
    job = await run_sync(service.submit, caller, submission, FACE, request_id)
    job = await waited(service, caller, job, wanted.wait)
    if not State(job.state).final:
        response.status_code = 202
    return _view(job)


@router.get("/check/{job_id}", summary="What was found", responses=refusals(404))
def checked(service: TheService, caller: Reader, job_id: JobId) -> Checked:
    job = service.job(caller, job_id)
    if job.kind != "check":
        raise missing("check")
    return _view(job)


def _view(job: Job) -> Checked:
    if job.state == State.FAILED:
        raise ServiceError(400, job.code or "InvalidFile.Content", job.message or "", "video")
    if job.state != State.SUCCEEDED:
        return Checked(id=job.id, state=job.state)
    facts = job.facts
    return Checked(
        id=job.id, state=job.state, frames=facts["frames"], fps=facts["fps"], seconds=facts["seconds"],
        findings=facts["findings"],
    )  # fmt: skip
