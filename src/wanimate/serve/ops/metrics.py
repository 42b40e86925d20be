"""Metrics in Prometheus' text format: what this process has answered, and what the database says of jobs and workers."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from sqlalchemy.orm import Session
from starlette.responses import Response

from wanimate.serve.database import is_away
from wanimate.serve.errors import ServiceError
from wanimate.serve.faces.common import TheService, caller_of
from wanimate.serve.ops.health import alive
from wanimate.serve.service import Service
from wanimate.serve.tables import Job, Stage, State, Worker, now

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")
_SECONDS = (0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600, 1200, 3600, 7200)
_SETTLED = 10_000
"""Milliseconds after which no transaction brings an earlier end of a job any more."""

registry = CollectorRegistry()
_requests = Counter(
    "wanimate_requests", "Requests answered.", ("method", "route", "status"), registry=registry
)  # fmt: skip
_request_seconds = Histogram(
    "wanimate_request_seconds", "Seconds from a request to the end of its answer.", ("route",), registry=registry,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60),
)  # fmt: skip
_refusals = Counter("wanimate_refusals", "Requests refused, by the code of their error.", ("code",), registry=registry)
_stage_seconds = Histogram(
    "wanimate_stage_seconds", "Seconds of the stages of jobs that succeeded while this process ran.", ("stage",),
    registry=registry, buckets=_SECONDS,
)  # fmt: skip
router = APIRouter()


def refused(code: str) -> None:
    """Count a refused request by its code."""
    _refusals.labels(code).inc()


def answered(method: str, route: str, status: int, seconds: float) -> None:
    """Count an answered request. `route`: its pattern, not its path, so that there are few."""
    _requests.labels(method if method in _METHODS else "other", route, str(status)).inc()
    _request_seconds.labels(route).observe(seconds)


@router.get("/metrics", include_in_schema=False)
def metrics(request: Request, service: TheService) -> Response:
    """Open to callers of this machine, and to admin keys. A caller that a proxy brings is of another machine."""
    if not _is_local(request) and not caller_of(request).is_admin:
        raise ServiceError(403, "AccessDenied", "Metrics need a key with the scope `admin`.")
    known = CollectorRegistry(auto_describe=False)
    known.register(_Known(service))
    return Response(generate_latest(known) + generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class EndedJobs:
    """Takes the seconds of stages from the facts of jobs that have succeeded since it was made, each job once."""

    def __init__(self) -> None:
        self._from = now()
        self._taken: dict[str, int] = {}
        self._lock = threading.Lock()

    def take(self, session: Session) -> None:
        """Observe the jobs that have ended since the last call."""
        wanted = sa.select(Job.id, Job.ended, Job.facts).where(
            Job.state == State.SUCCEEDED, Job.ended >= self._from - _SETTLED
        )
        with self._lock:
            rows = session.execute(wanted).all()
            for job_id, ended, facts in rows:
                if job_id not in self._taken:
                    self._taken[job_id] = ended
                    for stage, seconds in stage_seconds(facts):
                        _stage_seconds.labels(stage).observe(seconds)
            self._from = max([self._from, *(row.ended for row in rows)])
            self._taken = {job: ended for job, ended in self._taken.items() if ended >= self._from - 2 * _SETTLED}


_ended = EndedJobs()


def stage_seconds(facts: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """(stage, seconds) of a job: `prepare` and `generate` as a whole, and the stages within."""
    for stage in Stage:
        seconds = facts.get(f"{stage}_seconds")
        if isinstance(seconds, (int, float)):
            yield stage.value, seconds
    stages = facts.get("stages")
    for name, seconds in (stages if isinstance(stages, dict) else {}).items():
        if isinstance(seconds, (int, float)):
            yield str(name), seconds


class _Known(Collector):
    """What the database says at this moment."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("wanimate_database_up", "1 where the database answers.")
        try:
            with self._service.database.read() as session:
                _ended.take(session)
                found = [*_jobs(session), *_queue(session), *_workers(session, self._service.settings.lease)]
        except Exception as error:
            if not is_away(error):
                raise
            found = []
        up.add_metric((), float(bool(found)))
        yield up
        yield from found


def _jobs(session: Session) -> Iterator[Metric]:
    family = GaugeMetricFamily("wanimate_jobs", "Jobs that are kept.", labels=("state", "mode", "tier"))
    kinds = (Job.state, Job.mode, sa.func.coalesce(Job.tier, ""))
    for *labels, count in session.execute(sa.select(*kinds, sa.func.count()).group_by(*kinds)):
        family.add_metric(labels, count)
    yield family


def _queue(session: Session) -> Iterator[Metric]:
    length = GaugeMetricFamily("wanimate_queue_length", "Jobs that wait for a worker.", labels=("stage",))
    age = GaugeMetricFamily("wanimate_queue_age_seconds", "How long the oldest waiting job waits.", labels=("stage",))
    waiting = (Job.state.in_((State.PENDING, State.RUNNING)), Job.worker.is_(None), Job.held.is_(False))
    counted = sa.select(Job.stage, sa.func.count(), sa.func.min(Job.waits_since)).where(*waiting).group_by(Job.stage)
    found = {stage: (count, since) for stage, count, since in session.execute(counted)}
    for stage in Stage:
        count, since = found.get(stage.value, (0, now()))
        length.add_metric((stage.value,), count)
        age.add_metric((stage.value,), max(0, now() - since) / 1000)
    yield from (length, age)


def _workers(session: Session, lease: float) -> Iterator[Metric]:
    workers = GaugeMetricFamily("wanimate_workers", "Workers that live.", labels=("stage", "doing"))
    memory = GaugeMetricFamily(
        "wanimate_gpu_memory_bytes", "Memory of a worker's GPU.", labels=("worker", "device", "kind")
    )
    count = {(stage.value, doing): 0 for stage in Stage for doing in ("working", "idle")}
    for worker in session.scalars(sa.select(Worker).where(alive(lease))):
        for stage in worker.stages:
            count[stage, "idle" if worker.job_id is None else "working"] += 1
        for kind in ("used", "total"):
            if f"gpu_{kind}" in worker.facts:
                memory.add_metric((worker.id, worker.device, kind), worker.facts[f"gpu_{kind}"])
    for labels, number in count.items():
        workers.add_metric(labels, number)
    yield from (workers, memory)


def _is_local(request: Request) -> bool:
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
