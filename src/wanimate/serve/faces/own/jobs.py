"""Jobs: made, looked at, changed, stopped."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Body, Query
from pydantic import BaseModel, ConfigDict, Field

from wanimate.serve.errors import wrong
from wanimate.serve.faces.common import Reader, RequestId, Submitter, TheService
from wanimate.serve.faces.own.forms import Again, Done, JobId, JobView, Rows, refusals, view
from wanimate.serve.lineup import Lineup
from wanimate.serve.submission import ASIDE, Kind, Submission
from wanimate.serve.tables import Job, State, storable

router = APIRouter(tags=["jobs"])
FACE = "own"
_PARTS = ("preprocess", "generate", "output")
_EXAMPLES = {
    "animate": {
        "summary": "A character performs a clip",
        "value": {"image": {"upload": "file_1"}, "video": {"upload": "file_2"}, "generate": {"seed": 7}},
    },
    "redraw": {
        "summary": "One segment anew",
        "value": {"kind": "redraw", "parent": "JOB", "segment": 2, "generate": {"seed": 8}},
    },
    "finish": {
        "summary": "The same frames, larger and at another rate",
        "value": {"kind": "finish", "parent": "JOB", "output": {"upscale": "1080p", "fps_out": 30}},
    },
}


class Changes(BaseModel):
    """What of a waiting job may change. `held`: true keeps it from starting, false lets it go on."""

    model_config = ConfigDict(extra="forbid")

    priority: int | None = Field(default=None, ge=-100, le=100)
    held: bool | None = None


@router.post("/jobs", summary="Make a job", responses=refusals(409, 413, 429), status_code=201)
def create(
    service: TheService, caller: Submitter, request_id: RequestId,
    submission: Annotated[Submission, Body(openapi_examples=_EXAMPLES)], again: Again = None,
) -> JobView:  # fmt: skip
    """Files are given by address or as uploads, checkpoints and LoRAs by the names of `/v1/models`. `preprocess`, `generate`
    and `output` take what the command line takes; `/v1/settings` describes it. The same body with the same key within seconds
    is the same job."""
    service.check_rate(caller, creation=True)
    job = service.submit(caller, submission, FACE, request_id, again=again)
    return view(job, Lineup(service).position(job), whole=True)


class Wanted(BaseModel):
    """Which jobs are listed."""

    state: list[State] | None = Field(None, description="Any of these; repeatable.")
    kind: list[Kind] | None = Field(
        None, description="Any of these; all but `people`, `check`, `relight` and `library` where none is given."
    )
    mode: Literal["animation", "replacement"] | None = None
    model: str | None = Field(None, max_length=100)
    batch: str | None = Field(None, max_length=64)
    parent: str | None = Field(None, max_length=64, description="Made from this job's guides, or redrawn from it.")
    search: str | None = Field(None, max_length=200, description="In name, prompt and id.")
    everybody: bool = Field(False, description="Jobs of all owners, for admins.")
    limit: int = Field(50, ge=1, le=500)
    cursor: str | None = Field(None, max_length=100, description="`next` of the page before.")

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """Without the cursor's."""
        wanted: list[sa.ColumnElement[bool]] = [Job.kind.in_(self.kind) if self.kind else Job.kind.not_in(ASIDE)]
        if self.state:
            wanted.append(Job.state.in_(self.state))
        parent = Job.submission["parent"].as_string()
        values = (
            (Job.mode, self.mode),
            (Job.model, self.model),
            (Job.batch, self.batch),
            (parent, storable(self.parent)),
        )
        wanted += [column == value for column, value in values if value is not None]
        if self.search:
            texts = (Job.submission["name"].as_string(), Job.submission["prompt"].as_string(), Job.id)
            wanted.append(sa.or_(*(text.icontains(storable(self.search), autoescape=True) for text in texts)))
        return wanted


@router.get("/jobs", summary="List jobs, newest first", responses=refusals())
def listed(service: TheService, caller: Reader, wanted: Annotated[Wanted, Query()]) -> Rows[JobView]:
    conditions, limit, everybody = wanted.conditions(), wanted.limit, wanted.everybody
    total = service.jobs(caller, *conditions, limit=0, everybody=everybody).total
    if wanted.cursor is not None:
        created, job_id = _place_of(wanted.cursor)
        conditions.append(sa.or_(Job.created < created, sa.and_(Job.created == created, Job.id < job_id)))
    found = service.jobs(caller, *conditions, limit=limit + 1, everybody=everybody).jobs
    more = _cursor(found[limit - 1]) if len(found) > limit else None
    return Rows(data=[view(job) for job in found[:limit]], next=more, total=total)


def _cursor(job: Job) -> str:
    return base64.urlsafe_b64encode(f"{job.created} {job.id}".encode()).decode()


def _place_of(cursor: str) -> tuple[int, str]:
    try:
        created, _, job_id = base64.urlsafe_b64decode(cursor).decode("ascii").partition(" ")
        if len(created) > 15 or not job_id.isprintable():
            raise ValueError(cursor)
        return int(created), job_id
    except ValueError as error:
        raise wrong("cursor", "cursor: it is none that an answer gave.") from error


@router.get("/jobs/{job_id}", summary="One job", responses=refusals(404))
def one(service: TheService, caller: Reader, job_id: JobId) -> JobView:
    job = service.job(caller, job_id)
    return view(job, Lineup(service).position(job), whole=True)


@router.patch("/jobs/{job_id}", summary="Change priority, hold or release", responses=refusals(404, 409))
def change(service: TheService, caller: Submitter, request_id: RequestId, job_id: JobId, changes: Changes) -> JobView:
    """A job that is held is not begun. One that a worker has goes on, and is held before its next stage."""
    lineup = Lineup(service)
    job = lineup.change(caller, job_id, request_id, changes.priority, changes.held)
    return view(job, lineup.position(job), whole=True)


@router.post("/jobs/{job_id}/cancel", summary="Stop a job", responses=refusals(404))
def cancel(service: TheService, caller: Submitter, request_id: RequestId, job_id: JobId) -> JobView:
    """Waiting jobs stop at once, running ones after their step. A finished job is a 400."""
    return view(service.cancel(caller, job_id, request_id), whole=True)


@router.delete("/jobs/{job_id}", summary="Stop a job and remove it with its files", responses=refusals(404))
def delete(service: TheService, caller: Submitter, request_id: RequestId, job_id: JobId) -> Done:
    service.delete(caller, job_id, request_id)
    return Done(id=job_id)


@router.post(
    "/jobs/{job_id}/again", summary="The same again with changes", responses=refusals(404, 409, 429), status_code=201
)
def repeat(
    service: TheService, caller: Submitter, request_id: RequestId, job_id: JobId,
    changes: Annotated[dict[str, Any] | None, Body(examples=[{"generate": {"seed": 8}}])] = None, again: Again = None,
) -> JobView:  # fmt: skip
    """A new job with the submission of an earlier one. Fields of the body take the place of its own; `preprocess`, `generate`
    and `output` are changed setting by setting, and null takes a setting back."""
    service.check_rate(caller, creation=True)
    earlier = service.job(caller, job_id)
    changes = changes or {}
    whole = {**earlier.submission, "version_of": job_id, **changes}
    for part in _PARTS:
        given = changes.get(part)
        if isinstance(given, dict):
            merged = earlier.submission[part] | given
            whole[part] = {name: value for name, value in merged.items() if value is not None or name not in given}
    job = service.submit(caller, Submission.of(whole), FACE, request_id, again=again, origin=job_id)
    return view(job, Lineup(service).position(job), whole=True)


@router.get("/settings", summary="What preprocess, generate and output take", responses=refusals())
def settings(_caller: Reader) -> dict[str, Any]:
    """JSON schemas of the three groups of settings."""
    properties = Submission.model_json_schema()["properties"]
    return {part: properties[part] for part in _PARTS}
