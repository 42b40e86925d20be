"""The service's own face, under `/v1`: everything that the others have no words for. Times are milliseconds since 1970."""

from __future__ import annotations

from fastapi import APIRouter

from wanimate.serve.faces.own import (
    batches,
    check,
    consents,
    files,
    guest,
    jobs,
    keys,
    library,
    machine,
    people,
    queue,
    review,
    stream,
    uploads,
)
from wanimate.serve.faces.own.forms import error_body

__all__ = ["error_body", "router"]

router = APIRouter(prefix="/v1")
for part in (
    jobs, batches, files, stream, queue, uploads, people, check, library, consents, machine, keys, review, guest,
):  # fmt: skip
    router.include_router(part.router)
