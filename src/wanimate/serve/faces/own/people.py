"""The people of a clip, to choose the performer among. A worker looks: nothing that strangers send is decoded here."""

from __future__ import annotations

import time
from typing import Annotated

import anyio
import sqlalchemy as sa
from anyio.to_thread import run_sync
from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from wanimate.serve.errors import ServiceError, missing
from wanimate.serve.faces.common import Base, Reader, RequestId, Submitter, TheService
from wanimate.serve.faces.own.forms import Answers, JobId, refusals
from wanimate.serve.faces.own.jobs import FACE
from wanimate.serve.keys import Caller
from wanimate.serve.ops.health import alive
from wanimate.serve.service import Service
from wanimate.serve.submission import Source, Submission
from wanimate.serve.tables import Job, Stage, State, Worker

router = APIRouter(tags=["people"])
_PACE = 0.2
FIRST = 50
"""Priority of looking: somebody waits for it, and it takes seconds."""


class Look(BaseModel):
    """Which clip, and where: `at` in seconds; the first frame with people, from `start` on, if it is left out. `wait`: seconds
    to wait for the answer."""

    model_config = ConfigDict(extra="forbid")

    video: Source
    at: Annotated[float | None, Field(ge=0, le=36_000, allow_inf_nan=False)] = None
    start: Annotated[float, Field(ge=0, le=36_000, allow_inf_nan=False)] = 0.0
    wait: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = 20.0


class Person(BaseModel):
    """`number`: what `preprocess.person` takes. `box`: left, top, right, bottom in pixels."""

    number: int
    box: tuple[float, float, float, float]


class People(BaseModel):
    """Everybody in one frame, numbered from left to right. `picture` shows them with their numbers, and needs no key.
    While `state` is pending or running, ask `/v1/people/{id}` again."""

    id: str
    state: str
    people: list[Person] = []
    frame: int | None = None
    size: tuple[int, int] | None = Field(default=None, description="Of the clip, in pixels.")
    seconds: float | None = Field(default=None, description="Of the clip.")
    fps: str | None = Field(default=None, description="Of the clip, as a fraction.")
    picture: str | None = None


_LATER: Answers = {202: {"model": People, "description": "Nobody has looked yet; ask again."}}


@router.post("/people", summary="Find the people of a clip", responses={**refusals(404, 429), **_LATER})
async def look(
    service: TheService, caller: Submitter, request_id: RequestId, base: Base, wanted: Look, response: Response
) -> People:
    """A clip that cannot be used is refused with what is wrong with it."""
    service.check_rate(caller, creation=True)
    chosen = {"start": wanted.start} if wanted.at is None else {"person": f"1@{wanted.at:.3f}"}
    submission = Submission(kind="people", video=wanted.video, priority=FIRST, preprocess=chosen)
    job = await run_sync(service.submit, caller, submission, FACE, request_id)
    job = await waited(service, caller, job, wanted.wait)
    if not State(job.state).final:
        response.status_code = 202
    return _view(service, job, base)


@router.get("/people/{job_id}", summary="What was found", responses=refusals(404))
def found(service: TheService, caller: Reader, job_id: JobId, base: Base) -> People:
    job = service.job(caller, job_id)
    if job.kind != "people":
        raise missing("look at a clip")
    return _view(service, job, base)


async def waited(service: Service, caller: Caller, job: Job, seconds: float) -> Job:
    """The job once it has ended, or after so many seconds; as it is at once where no worker lives that could do it."""
    until = time.monotonic() + (seconds if await run_sync(_is_somebody_there, service) else 0.0)
    while not State(job.state).final and time.monotonic() < until and not service.streams.closing:
        await anyio.sleep(_PACE)
        job = await run_sync(service.job, caller, job.id)
    return job


def _is_somebody_there(service: Service) -> bool:
    """Whether a worker lives that could look; without one there is nothing to wait for."""
    with service.database.read() as session:
        stages = session.scalars(sa.select(Worker.stages).where(alive(service.settings.lease))).all()
    return any(Stage.PREPARE in found for found in stages)


def _view(service: Service, job: Job, base: str) -> People:
    if job.state == State.FAILED:
        raise ServiceError(400, job.code or "InvalidFile.Content", job.message or "", "video")
    if job.state != State.SUCCEEDED:
        return People(id=job.id, state=job.state)
    facts = job.facts
    people = [Person(number=i, box=box) for i, box in enumerate(facts["people"], 1)]
    return People(
        id=job.id, state=job.state, people=people, frame=facts["frame"], size=facts["size"], seconds=facts["seconds"],
        fps=facts["fps"], picture=service.result_link(job, "picture", base),
    )  # fmt: skip
