"""The queue: what is next, in which order, and whether it goes on."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from wanimate.serve.errors import wrong
from wanimate.serve.faces.common import Admin, Reader, RequestId, Submitter, TheService
from wanimate.serve.faces.own.forms import JobView, placed, refusals
from wanimate.serve.keys import Caller
from wanimate.serve.lineup import Lineup
from wanimate.serve.service import Service

router = APIRouter(tags=["queue"])


class QueueView(BaseModel):
    """Unfinished jobs: those that wait in their order, then those in work. `paused`: workers take no new jobs."""

    object: Literal["queue"] = "queue"
    paused: bool
    jobs: list[JobView]


class Order(BaseModel):
    """Either `ids`: these jobs exchange their places and come in this order. Or `id` with `before` or `after`: one job is
    brought next to another one, whose priority it takes."""

    model_config = ConfigDict(extra="forbid")

    ids: list[str] = Field(default=[], max_length=1000)
    id: str | None = None
    before: str | None = None
    after: str | None = None


def _view(service: Service, caller: Caller, everybody: bool = False) -> QueueView:
    jobs = [placed(place) for place in Lineup(service).view(caller, everybody)]
    return QueueView(paused=service.queue.paused, jobs=jobs)


@router.get("/queue", summary="Unfinished jobs in their order", responses=refusals())
def queue(
    service: TheService,
    caller: Reader,
    everybody: Annotated[bool, Query(description="Of all owners, for admins.")] = False,
) -> QueueView:
    return _view(service, caller, everybody)


@router.post("/queue/order", summary="Reorder waiting jobs", responses=refusals(404, 409))
def order(service: TheService, caller: Submitter, request_id: RequestId, wanted: Order) -> QueueView:
    """Jobs exchange places among themselves, so that those of other owners keep theirs. Higher priorities come first
    whatever the order is."""
    lineup = Lineup(service)
    if wanted.ids and wanted.id is None and wanted.before is None and wanted.after is None:
        lineup.order(caller, wanted.ids, request_id)
    elif not wanted.ids and wanted.id is not None and (wanted.before is None) != (wanted.after is None):
        target = wanted.before if wanted.before is not None else wanted.after
        assert target is not None
        lineup.move(caller, wanted.id, target, wanted.before is not None, request_id)
    else:
        raise wrong("ids", "Give either ids, or id with one of before and after.")
    return _view(service, caller)


@router.post("/queue/pause", summary="Let workers take no new jobs", responses=refusals())
def pause(service: TheService, caller: Admin, request_id: RequestId) -> QueueView:
    """Jobs in work go on."""
    return _paused(service, caller, request_id, True)


@router.post("/queue/resume", summary="Let workers take jobs again", responses=refusals())
def resume(service: TheService, caller: Admin, request_id: RequestId) -> QueueView:
    return _paused(service, caller, request_id, False)


def _paused(service: Service, caller: Caller, request_id: str, paused: bool) -> QueueView:
    service.queue.pause(paused)
    with service.database.write() as session:
        service.audit(session, caller, request_id, "queue.pause" if paused else "queue.resume", None)
    return _view(service, caller, everybody=True)
