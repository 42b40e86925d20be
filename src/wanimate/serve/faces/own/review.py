"""Reviews for who has a key: shots, comments, decisions, exports, and links for guests."""

from __future__ import annotations

import base64
import re
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.background import BackgroundTask
from starlette.responses import FileResponse

from wanimate.errors import InputError
from wanimate.review.exports import Format, exported
from wanimate.review.records import Remark, State
from wanimate.serve.content import safe_name
from wanimate.serve.errors import missing, of_input, wrong
from wanimate.serve.faces.common import Base, Reader, RequestId, Submitter, TheService, base_of
from wanimate.serve.faces.own import review_forms as forms
from wanimate.serve.faces.own.files import watch_path
from wanimate.serve.faces.own.forms import Answers, Done, Rows, refusals
from wanimate.serve.faces.own.review_forms import CommentId, LinkId, ShotId
from wanimate.serve.keys import Caller
from wanimate.serve.reviews import Reviewer
from wanimate.serve.reviews.shots import Listed, Wanted
from wanimate.serve.service import Service
from wanimate.serve.tables import Job, now

router = APIRouter(prefix="/shots", tags=["review"])
_KINDS: dict[Format, str] = {
    "json": "application/json", "csv": "text/csv; charset=utf-8", "edl": "text/plain; charset=utf-8",
}  # fmt: skip
_EXPORT: Answers = {
    200: {"content": {kind.partition(";")[0]: {} for kind in _KINDS.values()}, "description": "A file to be saved."}
}


def shown(service: Service, request: Request, caller: Caller, shot_id: str) -> forms.ShotView:
    """A shot as the caller sees it."""
    who = Reviewer.of_key(caller, None)
    return forms.shot_view(service.reviews.shots.look(who, shot_id), who.name, who.rights, _links(service, request))


def newest(service: Service, who: Reviewer, shot_id: str, version: str | None) -> str:
    """The job of a version; of the newest one if None. Raises ServiceError (404)."""
    if version is not None:
        return version
    found = service.reviews.shots.look(who, shot_id).shot.versions
    if not found:
        raise missing("version")
    return found[-1].job


def remark_of(given: forms.NewComment) -> Remark:
    return Remark.model_validate(given.model_dump(exclude={"version", "name"}))


def _links(service: Service, request: Request) -> forms.FileOf:
    base = base_of(request)

    def link(job: Job, name: Literal["video", "thumbnail"]) -> str | None:
        if name == "video" and service.serving.is_withheld(job):
            return watch_path(job.id)
        return service.result_link(job, name, base)

    return link


class Asked(BaseModel):
    """Which shots are listed."""

    state: State | None = None
    search: str = Field("", max_length=200, description="In names and ids.")
    everybody: bool = Field(False, description="Shots of all owners, for admins.")
    limit: int = Field(50, ge=1, le=200)
    cursor: str | None = Field(None, max_length=200, description="`next` of the page before.")


@router.get("", summary="List shots, the last changed first", responses=refusals())
def listed(
    service: TheService, caller: Reader, request: Request, asked: Annotated[Asked, Query()]
) -> Rows[forms.ShotRow]:
    before = None if asked.cursor is None else _place_of(asked.cursor)
    wanted = Wanted(asked.state, asked.search, asked.everybody, asked.limit, before)
    found = service.reviews.shots.listed(Reviewer.of_key(caller, None), caller.owner, wanted)
    rows, link = found[: asked.limit], _links(service, request)
    more = _cursor(rows[-1]) if len(found) > asked.limit else None
    return Rows(data=[forms.row_view(row, link) for row in rows], next=more)


def _cursor(row: Listed) -> str:
    return base64.urlsafe_b64encode(f"{row.shot.changed} {row.shot.id}".encode()).decode()


def _place_of(cursor: str) -> tuple[int, str]:
    try:
        text = base64.urlsafe_b64decode(cursor).decode("ascii")
    except ValueError:
        text = ""
    found = re.fullmatch(r"(\d{1,15}) (\w{1,64})", text)
    if found is None:
        raise wrong("cursor", "cursor: it is none that an answer gave.")
    return int(found[1]), found[2]


@router.post("", summary="The shot of a job", responses=refusals(404, 409))
def of_job(
    service: TheService, caller: Submitter, request: Request, request_id: RequestId, given: forms.OfJob
) -> forms.ShotView:
    """Every finished video is a version of a shot: redraws, videos from the same guides and jobs made `again` stack by
    themselves. With `alone` the job begins a shot of its own."""
    who = Reviewer.of_key(caller, None, request_id)
    return shown(service, request, caller, service.reviews.shots.of_job(who, given.job, given.alone))


@router.get("/{shot_id}", summary="A shot with its versions, comments and decisions", responses=refusals(404))
def one(service: TheService, caller: Reader, request: Request, shot_id: ShotId) -> forms.ShotView:
    return shown(service, request, caller, shot_id)


@router.patch("/{shot_id}", summary="Name a shot, or put it into a project", responses=refusals(404))
def name(
    service: TheService, caller: Submitter, request: Request, request_id: RequestId, shot_id: ShotId,
    given: forms.NewName,
) -> forms.ShotView:  # fmt: skip
    service.reviews.shots.name(Reviewer.of_key(caller, None, request_id), shot_id, given.name, given.project)
    return shown(service, request, caller, shot_id)


@router.post("/{shot_id}/versions", summary="Stack a job's result by hand", responses=refusals(404, 409))
def put(
    service: TheService, caller: Submitter, request: Request, request_id: RequestId, shot_id: ShotId,
    given: forms.OfJob,
) -> forms.ShotView:  # fmt: skip
    """It becomes the newest version, and leaves the stack that it was on, with its comments. One that was decided on stays
    where it is (409)."""
    service.reviews.shots.put(Reviewer.of_key(caller, None, request_id), shot_id, given.job)
    return shown(service, request, caller, shot_id)


@router.post("/{shot_id}/comments", summary="Comment on a version", responses=refusals(404, 409), status_code=201)
def comment(
    service: TheService, caller: Submitter, request: Request, request_id: RequestId, shot_id: ShotId,
    given: forms.NewComment,
) -> forms.ShotView:  # fmt: skip
    """Pinned to a frame, to a place of the picture where `x` and `y` are given, with drawn lines (`marks`)."""
    who = Reviewer.of_key(caller, given.name, request_id)
    version = newest(service, who, shot_id, given.version)
    service.reviews.notes.add(who, shot_id, version, remark_of(given))
    return shown(service, request, caller, shot_id)


@router.post(
    "/{shot_id}/comments/{comment_id}/replies", summary="Answer a comment", responses=refusals(404, 409),
    status_code=201,
)  # fmt: skip
def reply(
    service: TheService, caller: Submitter, request: Request, request_id: RequestId, shot_id: ShotId,
    comment_id: CommentId, given: forms.NewReply,
) -> forms.ShotView:  # fmt: skip
    who = Reviewer.of_key(caller, given.name, request_id)
    service.reviews.notes.reply(who, shot_id, comment_id, given.text)
    return shown(service, request, caller, shot_id)


@router.patch("/{shot_id}/comments/{comment_id}", summary="Resolve or change a comment", responses=refusals(404))
def change(
    service: TheService, caller: Submitter, request: Request, request_id: RequestId, shot_id: ShotId,
    comment_id: CommentId, given: forms.CommentChanges,
) -> forms.ShotView:  # fmt: skip
    who = Reviewer.of_key(caller, given.name, request_id)
    service.reviews.notes.change(who, shot_id, comment_id, given.text, given.resolved)
    return shown(service, request, caller, shot_id)


@router.delete("/{shot_id}/comments/{comment_id}", summary="Remove a comment of one's own", responses=refusals(404))
def remove(
    service: TheService, caller: Submitter, request_id: RequestId, shot_id: ShotId, comment_id: CommentId
) -> Done:
    service.reviews.notes.remove(Reviewer.of_key(caller, None, request_id), shot_id, comment_id)
    return Done(id=comment_id)


@router.post(
    "/{shot_id}/decisions", summary="Approve, or ask for changes", responses=refusals(404, 409), status_code=201
)
def decide(
    service: TheService, caller: Submitter, request: Request, request_id: RequestId, shot_id: ShotId,
    given: forms.NewDecision,
) -> forms.ShotView:  # fmt: skip
    """About the very file: its SHA-256 becomes part of the record. Records are only added, and each holds the hash of the one
    before it; a chain that was changed takes no more (409)."""
    who = Reviewer.of_key(caller, given.name, request_id)
    version = newest(service, who, shot_id, given.version)
    service.reviews.decisions.decide(who, shot_id, version, given.state, given.reason, given.regions)
    return shown(service, request, caller, shot_id)


@router.get("/{shot_id}/releases", summary="Where results of a shot went", responses=refusals(404))
def gone(service: TheService, caller: Submitter, shot_id: ShotId) -> Rows[forms.ReleaseView]:
    """`to_be_taken_back`: its approval is revoked, and nobody has confirmed that it is gone from there."""
    found = service.reviews.decisions.gone(Reviewer.of_key(caller, None), shot_id)
    return Rows(data=[forms.release_view(one) for one in found])


@router.post(
    "/{shot_id}/releases/{release_id}/recalled",
    summary="Say that what left is taken back",
    responses=refusals(404, 409),
)
def recalled(
    service: TheService, caller: Submitter, request_id: RequestId, shot_id: ShotId, release_id: forms.ReleaseId,
    given: forms.Recalled,
) -> forms.ReleaseView:  # fmt: skip
    who = Reviewer.of_key(caller, given.name, request_id)
    return forms.release_view(service.reviews.decisions.recalled(who, shot_id, release_id, given.note))


@router.get(
    "/{shot_id}/export", summary="Comments for other programs", response_class=Response,
    responses={**refusals(404), **_EXPORT},
)  # fmt: skip
def export(
    service: TheService, caller: Reader, shot_id: ShotId, format: Format = "json",
    version: Annotated[str | None, Query(max_length=64, description="Its job; the newest version if left out.")] = None,
) -> Response:  # fmt: skip
    """`json` has everything of all versions, `csv` and `edl` the comments of one version as markers."""
    shot = service.reviews.shots.look(Reviewer.of_key(caller, None), shot_id).shot
    chosen = shot.versions[-1] if version is None and shot.versions else shot.version(version or "")
    if chosen is None:
        raise missing("version")
    try:
        start = None if format == "json" else service.reviews.results.start(chosen.job)
        text = exported(shot, format, chosen, start)
    except InputError as error:
        raise of_input(error) from error
    filename = f"{re.sub(r'[^A-Za-z0-9]+', '-', shot.name).strip('-').lower()[:60] or 'shot'}-v{chosen.number}.{format}"
    encoding = "utf-8-sig" if format == "csv" else "utf-8"  # spreadsheets take other files for the system's own letters
    headers = {"Content-Disposition": f'attachment; filename="{filename}"', "X-Content-Type-Options": "nosniff"}
    return Response(text.encode(encoding), media_type=_KINDS[format], headers=headers)


@router.post(
    "/{shot_id}/handoff", summary="A package for editing programs", response_class=FileResponse,
    responses={**refusals(404, 409), 200: {"content": {"application/zip": {}}, "description": "A zip to be saved."}},
)  # fmt: skip
def hand_off(
    service: TheService, caller: Submitter, request_id: RequestId, shot_id: ShotId, given: forms.HandOff
) -> FileResponse:
    """What `wanimate handoff` makes of a version, where that takes little (409 otherwise): review copy, thumbnails, timelines
    with markers, record, hashes. Results that have to be approved and are not are refused (409)."""
    who = Reviewer.of_key(caller, None, request_id)
    shot = service.reviews.shots.look(who, shot_id).shot
    chosen = shot.version(newest(service, who, shot_id, given.version))
    if chosen is None:
        raise missing("version")
    folder = Path(tempfile.mkdtemp(prefix="wanimate-handoff-"))
    gone = BackgroundTask(shutil.rmtree, folder, ignore_errors=True)
    try:
        made = service.reviews.packages.zipped(who, (shot, chosen), given.mezzanine, given.regions, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    headers = {"X-Content-Type-Options": "nosniff"}
    return FileResponse(made, 200, headers, "application/zip", gone, safe_name(made.name))


@router.post("/{shot_id}/links", summary="Invite guests", responses=refusals(404, 409), status_code=201)
def invite(
    service: TheService, caller: Submitter, request_id: RequestId, base: Base, shot_id: ShotId, given: forms.NewLink
) -> forms.MadeLink:
    """Whoever has the link sees this shot and nothing else, until it expires or is revoked."""
    who = Reviewer.of_key(caller, given.name, request_id)
    link, token = service.reviews.guests.invite(who, shot_id, given.label, given.rights, given.days)
    return forms.MadeLink(**forms.link_view(link, now()).model_dump(), url=f"{base}/#/guest/{token}")


@router.get("/{shot_id}/links", summary="Guest links of a shot", responses=refusals(404))
def links(service: TheService, caller: Submitter, shot_id: ShotId) -> Rows[forms.LinkView]:
    found = service.reviews.guests.links(Reviewer.of_key(caller, None), shot_id)
    return Rows(data=[forms.link_view(link, now()) for link in found])


@router.delete("/{shot_id}/links/{link_id}", summary="Revoke a guest link", responses=refusals(404))
def revoke(service: TheService, caller: Submitter, request_id: RequestId, shot_id: ShotId, link_id: LinkId) -> Done:
    """Who has opened it is shut out at once."""
    service.reviews.guests.revoke(Reviewer.of_key(caller, None, request_id), shot_id, link_id)
    return Done(id=link_id)
