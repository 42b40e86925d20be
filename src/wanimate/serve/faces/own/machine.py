"""What there is to work with: checkpoints, LoRAs, tiers, this machine, workers; and whether a job would fit."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from typing import Any, Literal

import sqlalchemy as sa
from anyio.to_thread import run_sync
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from wanimate.serve.errors import ServiceError, wrong
from wanimate.serve.faces.common import Admin, Reader, TheService
from wanimate.serve.faces.own.forms import Rows, refusals
from wanimate.serve.keys import Caller
from wanimate.serve.service import Service
from wanimate.serve.settings import ServeSettings, Tier
from wanimate.serve.submission import Submission
from wanimate.serve.tables import Job, State, Worker, now
from wanimate.serve.usage import seconds_left
from wanimate.weights.locate import embedded_path
from wanimate.weights.relighting import find_relighting

router = APIRouter()
_PLANS_A_SECOND = 2.0


class Model(BaseModel):
    """A checkpoint; its first four fields are those of OpenAI's list. `relights`: it has a relighting LoRA."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "wanimate"
    default: bool
    relights: bool


class Models(BaseModel):
    """`data`: checkpoints. `loras`: names that a job's `loras` may have. `tiers`: names that its `tier` may have.
    `largest_upload`: bytes that a file may have. `clips`: approved where jobs may take only approved clips of the library."""

    object: Literal["list"] = "list"
    data: list[Model]
    loras: list[str]
    tiers: dict[str, Tier]
    largest_upload: int
    clips: Literal["any", "approved"]


class Wanted(BaseModel):
    """Which job is planned: `job` with its settings (files may be left out), and what its clip is like. `clip`: the id of an
    answer of `/v1/people`, which knows seconds, rate and size. `width` and `height` give the aspect: of the picture in
    animation, of the clip in replacement."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    job: Submission = Submission()
    clip: str | None = Field(default=None, max_length=64)
    seconds: float | None = Field(default=None, gt=0, le=36_000)
    frames: int | None = Field(default=None, ge=1, le=10**6)
    fps: float | None = Field(default=None, gt=0, le=240, description="The clip's rate; 30 where nothing tells.")
    width: int | None = Field(default=None, ge=1, le=32_768)
    height: int | None = Field(default=None, ge=1, le=32_768)


class Plan(BaseModel):
    """A forecast for this machine. Where it does not fit, `message` names the nearest setting that does. Memory is the peak,
    in bytes. `seconds`: of finding the performer and generating, once the job begins. `clip_seconds`: of video that are used,
    which is what the key's day counts; `left_today`: of those it has left, null where there is no limit."""

    fits: bool
    message: str | None
    warning: str | None
    frames: int
    size: tuple[int, int]
    segments: int
    steps: int
    device: str | None = None
    weights: str | None = None
    placement: str | None = None
    gpu_bytes: int | None = None
    gpu_room_bytes: int | None = None
    host_bytes: int | None = None
    step_seconds: float | None = None
    prepare_seconds: float | None = None
    generate_seconds: float | None = None
    seconds: float | None = None
    clip_seconds: float
    left_today: float | None


class WorkerView(BaseModel):
    """A worker process. `holds`: checkpoint and LoRAs in its memory."""

    id: str
    host: str
    pid: int
    stages: list[str]
    device: str
    holds: str
    job: str | None
    facts: dict[str, Any]
    started: int
    seen: int


class Keeps(BaseModel):
    """How long files are kept, and the disk they lie on; its bytes are null where the storage is no folder."""

    results_hours: float
    uploads_hours: float
    free_bytes: int | None
    total_bytes: int | None


class Stats(BaseModel):
    """Jobs by state; those that wait by stage, and for how many seconds the oldest of them has waited."""

    paused: bool
    states: dict[str, int]
    waiting: dict[str, int]
    oldest_seconds: float | None
    workers: int
    keeps: Keeps


@router.get("/models", summary="Checkpoints, LoRAs and tiers", tags=["machine"], responses=refusals())
def models(service: TheService, _caller: Reader) -> Models:
    settings = service.settings
    data = [
        Model(
            id=name, default=name == settings.default_checkpoint,
            relights=find_relighting(folder or embedded_path()) is not None,
        )
        for name, folder in settings.known_checkpoints.items()
    ]  # fmt: skip
    return Models(
        data=data, loras=list(settings.loras), tiers=settings.tiers, largest_upload=settings.largest_clip,
        clips=settings.clips,
    )  # fmt: skip


@router.get("/doctor", summary="What this machine can run", tags=["machine"], responses=refusals())
async def doctor(service: TheService, _caller: Reader) -> dict[str, Any]:
    """Of the machine that answers; `/v1/workers` tells of the others. Parts: machine, backends, jobs, patches."""
    return await run_sync(service.forecaster.doctor, limiter=service.forecaster.turn, abandon_on_cancel=True)


@router.post("/plan", summary="Will it fit, and how long", tags=["machine"], responses=refusals(404, 429))
async def plan(service: TheService, caller: Reader, wanted: Wanted) -> Plan:
    """For the machine that answers, as if it had nothing else to do. Nothing is stored, and no weights are read."""
    wait = service.rates.wait(f"plan {caller.key_id}", _PLANS_A_SECOND, burst=10)
    if wait:
        raise ServiceError(429, "Throttling.RateQuota", "Plans are asked for too fast.", retry_after=wait)
    shape, count, used = await run_sync(_frames, service, caller, wanted)
    forecaster = service.forecaster
    found = await run_sync(forecaster.plan, wanted.job, shape, count, limiter=forecaster.turn, abandon_on_cancel=True)
    left = await run_sync(seconds_left, service.database, caller)
    return Plan(**found, clip_seconds=used, left_today=left)


def _frames(service: Service, caller: Caller, wanted: Wanted) -> tuple[tuple[int, int], int, float]:
    """(width, height), frames, seconds of the clip. Raises ServiceError (400, 404)."""
    wanted.job.check_settings(service.settings)
    known: dict[str, Any] = {}
    if wanted.clip is not None:
        look = service.job(caller, wanted.clip)
        if look.kind != "people" or look.state != State.SUCCEEDED:
            raise wrong("clip", "clip: it is no finished answer of /v1/people.")
        known = look.facts
    width, height = wanted.width, wanted.height
    if (width is None) != (height is None):
        raise wrong("width", "width: give width and height, or none of them.")
    shape = (width, height) if width is not None and height is not None else tuple(known.get("size", (16, 9)))
    settings = wanted.job.preprocess_settings(service.settings)
    rate = settings.fps or min(Fraction(wanted.fps or known.get("fps", 30)), settings.max_fps)
    if wanted.frames is not None:
        return (shape[0], shape[1]), wanted.frames, float(wanted.frames / rate)
    seconds = wanted.seconds or known.get("seconds")
    if seconds is None:
        raise wrong("seconds", "seconds: give seconds, frames or clip.")
    if settings.start >= seconds:
        raise wrong("start", f"start: the clip is {seconds:.2f} s long.")
    used = min(settings.end or seconds, seconds) - settings.start
    return (shape[0], shape[1]), max(1, round(used * rate)), used


@router.get("/workers", summary="Workers that live", tags=["admin"], responses=refusals())
def workers(service: TheService, _caller: Admin) -> Rows[WorkerView]:
    with service.database.read() as session:
        rows = session.scalars(sa.select(Worker).order_by(Worker.started)).all()
    data = [
        WorkerView(
            id=row.id, host=row.host, pid=row.pid, stages=row.stages, device=row.device, holds=row.holds, job=row.job_id,
            facts=row.facts, started=row.started, seen=row.seen,
        )
        for row in rows
    ]  # fmt: skip
    return Rows(data=data)


@router.get("/stats", summary="The queue in numbers", tags=["admin"], responses=refusals())
def stats(service: TheService, _caller: Admin) -> Stats:
    count = sa.func.count()
    open_ = Job.state.in_((State.PENDING, State.RUNNING))
    with service.database.read() as session:
        states = session.execute(sa.select(Job.state, count).group_by(Job.state)).all()
        waits = sa.select(Job.stage, count).where(open_, Job.worker.is_(None)).group_by(Job.stage)
        waiting = session.execute(waits).all()
        oldest = session.scalar(
            sa.select(sa.func.min(Job.created)).where(open_, Job.worker.is_(None), Job.held.is_(False))
        )
        living = session.scalar(sa.select(count).select_from(Worker)) or 0
    return Stats(
        paused=service.queue.paused, workers=living,
        states=_counts(states), waiting=_counts(waiting),
        oldest_seconds=None if oldest is None else (now() - oldest) / 1000, keeps=_keeps(service.settings),
    )  # fmt: skip


def _keeps(settings: ServeSettings) -> Keeps:
    free = total = None
    if "://" not in settings.storage_url:
        with suppress(OSError):
            disk = shutil.disk_usage(settings.storage_url)
            free, total = disk.free, disk.total
    return Keeps(
        results_hours=settings.keep_results, uploads_hours=settings.keep_uploads, free_bytes=free, total_bytes=total
    )


def _counts(rows: Sequence[Sequence[Any]]) -> dict[str, int]:
    return {row[0]: row[1] for row in rows}
