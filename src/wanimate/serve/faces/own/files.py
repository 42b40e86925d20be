"""Files of jobs: results, guides and the newest preview."""

from __future__ import annotations

import mimetypes

from fastapi import APIRouter, Response

from wanimate.serve.errors import away, missing
from wanimate.serve.faces.common import Base, Reader, TheService
from wanimate.serve.faces.own.forms import FileView, JobId, Rows, refusals
from wanimate.serve.service import OF_ONE_NAME, Service
from wanimate.serve.storage import NotStored, StorageAway
from wanimate.serve.tables import Job, now

router = APIRouter(tags=["jobs"])
_HOUR = 3_600_000


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
    return FileView(
        name=name, filename=filename, media_type=mimetypes.guess_type(filename)[0] or "application/octet-stream",
        size=service.storage.size(stored), url=service.link(stored, filename, until, base), expires=until,
    )  # fmt: skip


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
