"""The shot record of a job that has guides: camera, light and size of each shot, and what people say of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from wanimate.errors import InputError
from wanimate.preprocess.shot.record import LONGEST_NAME, ShotRecord
from wanimate.preprocess.shot.terms import ANGLES, MOVES, PLACES, SIZES, TIMES
from wanimate.serve.errors import of_input
from wanimate.serve.faces.common import Reader, RequestId, Submitter, TheService
from wanimate.serve.faces.own.forms import JobId, refusals

router = APIRouter(tags=["jobs"])
CHOICES = {
    "xmpDM:cameraMove": MOVES, "xmpDM:cameraAngle": ANGLES, "xmpDM:shotSize": SIZES, "timeOfDay": TIMES, "place": PLACES,
}  # fmt: skip
Name = Annotated[str, Field(max_length=60)]


class ShotRecordView(ShotRecord):
    """Values of each shot and of the clip, each with its confidence, who says it and when; the advice; and what stood there
    before. `choices`: what fields with a closed list may be."""

    object: Literal["shot_record"] = "shot_record"
    choices: dict[str, list[str]] = Field(default_factory=dict)


class Said(BaseModel):
    """What somebody says of a record. `shot`: from 1; may be left out where there is only one. `confirm`: fields whose values
    are right; `set`: field -> its value. `by`: who says so; the key's owner if it is left out."""

    model_config = ConfigDict(extra="forbid")

    shot: int | None = Field(default=None, ge=1, le=10_000)
    confirm: list[Name] = Field(default=[], max_length=100)
    set: dict[Name, Any] = Field(default={}, max_length=100)
    by: str | None = Field(default=None, max_length=LONGEST_NAME)


@router.get("/jobs/{job_id}/shot", summary="The shot record of a job's clip", responses=refusals(404))
def shot(service: TheService, caller: Reader, job_id: JobId) -> ShotRecordView:
    """A job whose guides were made without the analysis has none."""
    return _view(service.shot_records.of_job(service.job(caller, job_id)))


@router.patch("/jobs/{job_id}/shot", summary="Confirm or correct a shot record", responses=refusals(404))
def say(service: TheService, caller: Submitter, request_id: RequestId, job_id: JobId, said: Said) -> ShotRecordView:
    """What was proposed stays in `history`. Jobs that are made from these guides afterwards have it in their records."""
    job, by = service.job(caller, job_id), said.by or caller.owner[:LONGEST_NAME]

    def changed(record: ShotRecord) -> ShotRecord:
        for field in said.confirm:
            record = record.confirmed(said.shot, field, by)
        for field, value in said.set.items():
            record = record.corrected(said.shot, field, value, by)
        return record

    try:
        record = service.shot_records.change(caller, job, changed)
    except InputError as error:
        raise of_input(error) from error
    service.log(caller, request_id, "shot.say", job_id, confirm=said.confirm, set=said.set, by=by)
    return _view(record)


def _view(record: ShotRecord) -> ShotRecordView:
    return ShotRecordView(**record.model_dump(), choices={field: list(words) for field, words in CHOICES.items()})
