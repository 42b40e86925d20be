"""Whether the service lives, and whether it can serve. Both answer without a key and tell nothing of anybody."""

from __future__ import annotations

import logging

import sqlalchemy as sa
from fastapi import APIRouter
from starlette.responses import JSONResponse

from wanimate.serve.database import is_away
from wanimate.serve.faces.common import TheService
from wanimate.serve.service import Service
from wanimate.serve.storage import StorageAway
from wanimate.serve.tables import Stage, Worker, now

_LEASES = 3
"""A worker lives that was seen within so many leases: the machines' clocks may differ by some seconds."""
_log = logging.getLogger(__name__)
router = APIRouter()


@router.get("/healthz", tags=["operation"])
async def healthz() -> dict[str, str]:
    """The process lives: it answers though database and storage are away."""
    return {"status": "ok"}


@router.get("/readyz", tags=["operation"])
def readyz(service: TheService) -> JSONResponse:
    """200 where database and storage answer, else 503. `workers` counts those that live, by queue; without any, jobs are
    taken and wait, which `note` says."""
    workers = _workers(service)
    storage = _storage_answers(service)
    ready = workers is not None and storage
    told: dict[str, object] = {
        "status": "ready" if ready else "away", "database": workers is not None, "storage": storage, "workers": workers,
    }  # fmt: skip
    idle = [stage for stage, count in (workers or {}).items() if count == 0]
    if idle:
        told["note"] = f"No worker lives that does: {', '.join(idle)}. Jobs wait."
    return JSONResponse(told, 200 if ready else 503)


def alive(lease: float) -> sa.ColumnElement[bool]:
    """Whether a worker has been seen of late. `lease` is in seconds."""
    return Worker.seen >= now() - int(_LEASES * lease * 1000)


def _workers(service: Service) -> dict[str, int] | None:
    """Live workers by the queue that they serve; None where the database is away."""
    try:
        with service.database.read() as session:
            found = session.scalars(sa.select(Worker.stages).where(alive(service.settings.lease))).all()
    except Exception as error:
        if not is_away(error):
            raise
        _log.warning("the database is away: %s", str(error).partition("\n")[0])
        return None
    return {stage.value: sum(stage.value in stages for stages in found) for stage in Stage}


def _storage_answers(service: Service) -> bool:
    try:
        service.storage.list("ready")
    except StorageAway as error:
        _log.warning("the storage is away: %s", error)
        return False
    return True
