"""Batches: one clip with many characters, one character with many clips, or any list of jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Body, Path
from pydantic import BaseModel, ConfigDict, Field

from wanimate.serve.errors import ServiceError, missing, wrong
from wanimate.serve.faces.common import Reader, RequestId, Submitter, TheService
from wanimate.serve.faces.own.forms import Again, JobView, refusals, view
from wanimate.serve.faces.own.jobs import FACE
from wanimate.serve.keys import Caller
from wanimate.serve.service import Service
from wanimate.serve.submission import Source, Submission
from wanimate.serve.tables import Job, State

router = APIRouter(tags=["batches"])
_MOST = 200
BatchId = Annotated[str, Path(max_length=64)]
_EXAMPLES = {
    "characters": {
        "summary": "One clip, two characters",
        "value": {"images": [{"upload": "file_1"}, {"upload": "file_2"}], "videos": [{"upload": "file_3"}]},
    },
}


class Batch(BaseModel):
    """Either `jobs`, or `images` and `videos`: then there is a job for each pair of them, with what `job` says besides."""

    model_config = ConfigDict(extra="forbid")

    jobs: list[Submission] = Field(default=[], max_length=_MOST)
    images: list[Source] = Field(default=[], max_length=_MOST)
    videos: list[Source] = Field(default=[], max_length=_MOST)
    job: Submission = Submission()

    def submissions(self) -> list[Submission]:
        """Raises ServiceError (400)."""
        if self.jobs:
            if self.images or self.videos or self.job != Submission():
                raise wrong("jobs", "jobs: give either jobs, or images and videos.")
            return self.jobs
        for field in ("images", "videos"):
            if not getattr(self, field):
                raise wrong(field, f"Field required: {field}.")
        if self.job.image is not None or self.job.video is not None:
            raise wrong("job", "job: its picture and clip are those of images and videos.")
        if len(self.images) * len(self.videos) > _MOST:
            raise wrong("images", f"images: a batch has at most {_MOST} jobs.")
        return [
            self.job.model_copy(update={"image": image, "video": video})
            for image in self.images
            for video in self.videos
        ]


class BatchView(BaseModel):
    """A batch and its jobs, in their order. `states`: how many jobs are in which."""

    object: Literal["batch"] = "batch"
    id: str
    states: dict[str, int]
    jobs: list[JobView]


def _view(batch: str, jobs: Sequence[Job]) -> BatchView:
    return BatchView(id=batch, states=Counter(job.state for job in jobs), jobs=[view(job) for job in jobs])


def _jobs(service: Service, caller: Caller, batch: str) -> list[Job]:
    found = service.jobs(caller, Job.batch == batch, limit=_MOST, everybody=True).jobs
    if not found:
        raise missing("batch")
    return sorted(found, key=lambda job: (job.created, job.order_key, job.id))


@router.post("/batches", summary="Make several jobs at once", responses=refusals(409, 413, 429), status_code=201)
def create(
    service: TheService, caller: Submitter, request_id: RequestId,
    batch: Annotated[Batch, Body(openapi_examples=_EXAMPLES)], again: Again = None,
) -> BatchView:  # fmt: skip
    """All of them are made, or none."""
    service.check_rate(caller, creation=True)
    jobs = service.submit_all(caller, batch.submissions(), FACE, request_id, again=again)
    return _view(jobs[0].batch or "", jobs)


@router.get("/batches/{batch_id}", summary="A batch and its jobs", responses=refusals(404))
def one(service: TheService, caller: Reader, batch_id: BatchId) -> BatchView:
    return _view(batch_id, _jobs(service, caller, batch_id))


@router.post("/batches/{batch_id}/cancel", summary="Stop what is not finished of a batch", responses=refusals(404))
def cancel(service: TheService, caller: Submitter, request_id: RequestId, batch_id: BatchId) -> BatchView:
    for job in _jobs(service, caller, batch_id):
        if not State(job.state).final:
            try:
                service.cancel(caller, job.id, request_id)
            except ServiceError as error:
                if error.status not in (400, 404):  # it ended meanwhile
                    raise
    return _view(batch_id, _jobs(service, caller, batch_id))
