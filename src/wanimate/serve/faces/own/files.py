"""Files of jobs: results, guides and the newest preview."""

from __future__ import annotations

import mimetypes
from pathlib import PurePosixPath

from fastapi import APIRouter, Request, Response

from wanimate.serve.errors import ServiceError, away, missing
from wanimate.serve.faces.common import Base, Reader, TheService
from wanimate.serve.faces.own.forms import FileView, JobId, Rows, refusals
from wanimate.serve.files import file_response
from wanimate.serve.service import OF_ONE_NAME, Service
from wanimate.serve.storage import NotStored, Signed, StorageAway
from wanimate.serve.tables import Job, now

router = APIRouter(tags=["jobs"])
_HOUR = 3_600_000


def watch_path(job_id: str) -> str:
    """Where the page's player has a result that is not served to others yet."""
    return f"/v1/jobs/{job_id}/watch"


def is_played(stored: str) -> bool:
    """Whether a browser shows a stored file. Others can only be saved, which is no look at them."""
    return (mimetypes.guess_type(stored)[0] or "").startswith("video/")


def preview_name(job_id: str) -> str:
    """Where the storage has the newest picture of what is being made."""
    return f"jobs/{job_id}/preview.png"


@router.get("/jobs/{job_id}/files", summary="Files of a job", responses=refusals(404))
def files(service: TheService, caller: Reader, job_id: JobId, base: Base) -> Rows[FileView]:
    """Results (`video`, `sheet`, `thumbnail`, `record`; of a marked Matroska file `xmp` and `c2pa`), the guides that they were
    made from (`guides/...`), those and the clip as small videos that browsers play (`previews/...`), and `preview`, the newest
    picture of what is being made."""
    job = service.job(caller, job_id)
    stored = dict(job.result)
    try:
        if job.guides:
            known = set(stored.values())
            for part in ("guides", "previews"):
                for file in service.storage.list(f"{job.guides}/{part}"):
                    if file.name not in known:
                        stored[file.name.removeprefix(f"{job.guides}/")] = file.name
        if "video" not in stored and service.storage.exists(preview_name(job_id)):
            stored["preview"] = preview_name(job_id)
        return Rows(data=[_view(service, job, name, place, base) for name, place in sorted(stored.items())])
    except NotStored as error:  # it was removed meanwhile
        raise missing("file") from error


def _view(service: Service, job: Job, name: str, stored: str, base: str) -> FileView:
    suffix = stored.rpartition("/")[2].partition(".")[2]
    filename = (
        f"{job.id}.{suffix}" if name in OF_ONE_NAME else f"{job.id}-{name.replace('/', '-').partition('.')[0]}.{suffix}"
    )
    until = job.expires or now() + _HOUR
    withheld = name == "video" and service.serving.is_withheld(job)
    return FileView(
        name=name, filename=filename, media_type=mimetypes.guess_type(filename)[0] or "application/octet-stream",
        size=service.storage.size(stored), url=service.link(stored, filename, until, base), expires=until,
        withheld=withheld, watch=watch_path(job.id) if withheld else None,
    )  # fmt: skip


@router.get(
    "/jobs/{job_id}/watch", summary="A result in the page's player", response_class=Response,
    responses={**refusals(404), 200: {"description": "The video."}, 206: {"description": "A byte range of it."}},
)  # fmt: skip
def watch(request: Request, service: TheService, caller: Reader, job_id: JobId) -> Response:
    """Also of results that are not approved, so that they can be reviewed. The page's session opens it, and no key does."""
    if "authorization" in request.headers:
        raise ServiceError(403, "AccessDenied", "This is for the page's player. Take the link of `/v1/jobs/ID/files`.")
    job = service.job(caller, job_id)
    stored = job.result.get("video")
    if stored is None:
        raise missing("video")
    if not is_played(stored):
        service.serving.check(stored)
    try:
        signed = Signed(stored, f"{job.id}{PurePosixPath(stored).suffix}")
        return file_response(service.storage, signed, request.method, request.headers)
    except NotStored as error:
        raise missing("file") from error
    except StorageAway as error:
        raise away("The storage does not answer.") from error


@router.get(
    "/jobs/{job_id}/preview.png", summary="The newest picture of what is being made", response_class=Response,
    responses={**refusals(404), 200: {"content": {"image/png": {}}, "description": "A PNG."}},
)  # fmt: skip
def preview(service: TheService, caller: Reader, job_id: JobId) -> Response:
    job = service.job(caller, job_id)
    try:
        picture = b"".join(service.storage.read(preview_name(job.id)))
    except NotStored as error:
        raise missing("preview of this job") from error
    except StorageAway as error:
        raise away("The storage does not answer.") from error
    return Response(picture, media_type="image/png", headers={"Cache-Control": "no-store"})
