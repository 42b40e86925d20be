"""Uploads: pictures and clips that jobs name."""

from __future__ import annotations

import mimetypes
import secrets
from collections.abc import AsyncIterator
from typing import Annotated

import sqlalchemy as sa
from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request
from fastapi import Path as InPath
from starlette.datastructures import UploadFile

from wanimate.serve.content import TooLarge, receive, sniff
from wanimate.serve.errors import ServiceError, missing, wrong
from wanimate.serve.faces.common import Base, Reader, RequestId, Submitter, TheService
from wanimate.serve.faces.own.forms import Done, Rows, UploadView, refusals, upload_view
from wanimate.serve.service import Service
from wanimate.serve.tables import Job, State, Upload, now

router = APIRouter(tags=["uploads"])
_PIECE = 1 << 20
_SHOWN = 1000
UploadId = Annotated[str, InPath(max_length=64)]
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object", "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}  # fmt: skip


def _view(service: Service, row: Upload, base: str) -> UploadView:
    kind = mimetypes.guess_type(row.stored)[0] or "application/octet-stream"
    return upload_view(row, kind, service.link(row.stored, row.filename, row.expires, base))


@router.post(
    "/uploads", summary="Send a picture or a clip", responses=refusals(413), status_code=201, openapi_extra=_BODY
)
async def create(
    request: Request, service: TheService, caller: Submitter, base: Base, request_id: RequestId,
    filename: Annotated[str | None, Query(max_length=300, description="Of a raw body.")] = None,
) -> UploadView:  # fmt: skip
    """As a form with a part `file`, or as the raw body with `filename` in the query. What the file is, its content tells."""
    place = service.settings.scratch / f"upload-{secrets.token_hex(12)}"
    await run_sync(lambda: place.parent.mkdir(parents=True, exist_ok=True, mode=0o700))
    limit = service.settings.largest_clip
    try:
        if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            async with request.form(max_files=1, max_fields=20) as form:
                file = form.get("file")
                if not isinstance(file, UploadFile):
                    raise wrong("file", "Field required: file.")
                filename = filename or file.filename
                received = await receive(_pieces(file), place, limit)
        else:
            received = await receive(request.stream(), place, limit)
        if await run_sync(sniff, place) is None:
            text = "file: it is no picture and no clip of a known kind."
            raise wrong("file", text, "InvalidFile.Format")
        row = await run_sync(service.add_upload, caller.owner, place, filename or "file", received.sha256)
    except TooLarge as error:
        raise ServiceError(413, "BadRequest.TooLarge", str(error), "file") from error
    finally:
        await run_sync(lambda: place.unlink(missing_ok=True))
    await run_sync(service.log, caller, request_id, "upload.create", row.id)
    return _view(service, row, base)


async def _pieces(file: UploadFile) -> AsyncIterator[bytes]:
    while piece := await file.read(_PIECE):
        yield piece


@router.get("/uploads", summary="The owner's uploads, newest first", responses=refusals())
def listed(service: TheService, caller: Reader, base: Base) -> Rows[UploadView]:
    """At most 1000."""
    mine = (Upload.owner == caller.owner, Upload.expires >= now())
    with service.database.read() as session:
        rows = session.scalars(
            sa.select(Upload).where(*mine).order_by(Upload.created.desc(), Upload.id).limit(_SHOWN)
        ).all()
    return Rows(data=[_view(service, row, base) for row in rows])


def _mine(service: Service, owner: str, upload_id: str) -> Upload:
    row = service.upload(owner, upload_id)
    if row is None:
        raise missing("upload")
    return row


@router.get("/uploads/{upload_id}", summary="One upload", responses=refusals(404))
def one(service: TheService, caller: Reader, upload_id: UploadId, base: Base) -> UploadView:
    return _view(service, _mine(service, caller.owner, upload_id), base)


@router.delete("/uploads/{upload_id}", summary="Remove an upload", responses=refusals(404, 409))
def delete(service: TheService, caller: Submitter, request_id: RequestId, upload_id: UploadId) -> Done:
    """One that an unfinished job was asked with stays: it is a 409."""
    row = _mine(service, caller.owner, upload_id)
    with service.database.write() as session:
        busy = sa.select(Job.facts).where(Job.owner == caller.owner, Job.state.in_((State.PENDING, State.RUNNING)))
        if any(row.stored in facts.get("uploads", {}).values() for facts in session.scalars(busy)):
            raise ServiceError(409, "UnsupportedOperation", "The upload is used by a job that is not finished.")
        session.execute(sa.delete(Upload).where(Upload.id == row.id))
        service.audit(session, caller, request_id, "upload.delete", row.id)
    service.storage.remove(row.stored)
    return Done(id=row.id)
