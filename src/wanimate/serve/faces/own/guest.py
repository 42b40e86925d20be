"""Reviews for guests: one shot, behind a link. No other route knows a guest's cookie, and no key opens these."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, Field
from starlette.responses import StreamingResponse

from wanimate.review.records import Form, Name
from wanimate.serve.errors import ServiceError, away, missing
from wanimate.serve.events import EventStream
from wanimate.serve.faces.common import RequestId, TheService, base_of, cookie_name, from_same_origin, service_of
from wanimate.serve.faces.own import review_forms as forms
from wanimate.serve.faces.own.files import is_played
from wanimate.serve.faces.own.forms import Done, refusals
from wanimate.serve.faces.own.review import newest, remark_of
from wanimate.serve.faces.own.review_forms import CommentId
from wanimate.serve.faces.own.stream import STREAM, After, LastSeen, answer, last_seen_of
from wanimate.serve.files import file_response
from wanimate.serve.reviews import Reviewer
from wanimate.serve.reviews.guests import RIGHTS, Right
from wanimate.serve.service import Service
from wanimate.serve.storage import NotStored, Signed, StorageAway
from wanimate.serve.tables import GuestLink, Job, now

router = APIRouter(prefix="/guest", tags=["guest"])
_SAFE = ("GET", "HEAD")
_TRIES_A_SECOND, _TRIES = 1.0, 20
_CHANGES_A_SECOND, _CHANGES = 1.0, 30
_PATH = "/v1/guest"


class Opened(Form):
    """The token of a link. With `name` a session begins."""

    token: str = Field(max_length=200)
    name: Name | None = None


class Welcome(BaseModel):
    """Which shot a link is for. `you`: what this browser's guest is called; null where nobody has said yet."""

    shot: str
    rights: list[Right]
    expires: int
    you: str | None


class Guest(BaseModel):
    """Who asks, and by which link."""

    model_config = {"arbitrary_types_allowed": True}

    who: Reviewer
    link: GuestLink
    token: str


def _cookie(service: Service) -> str:
    return f"{cookie_name(service)}_guest"


def guest_of(request: Request) -> Guest:
    """The guest of the request's cookie. Raises ServiceError (401, 403, 429)."""
    service = service_of(request)
    token = request.cookies.get(_cookie(service), "")
    found = service.reviews.guests.find(token) if token else None
    if found is None:
        raise ServiceError(401, "InvalidApiKey", "The link has expired or was revoked. Ask for a new one.")
    who, link = found
    if request.method not in _SAFE:
        if not from_same_origin(request):
            raise ServiceError(403, "AccessDenied", "A guest's session may be used by its own page only.")
        wait = service.rates.wait(f"guest {link.id}", _CHANGES_A_SECOND, _CHANGES)
        if wait:
            raise ServiceError(429, "Throttling.RateQuota", "Too many changes by this link.", retry_after=wait)
    return Guest(who=replace(who, request_id=request.scope["state"]["request_id"]), link=link, token=token)


TheGuest = Annotated[Guest, Depends(guest_of)]


def _shown(service: Service, guest: Guest) -> forms.ShotView:
    def own(job: Job, name: Literal["video", "thumbnail"]) -> str | None:
        return f"{_PATH}/versions/{job.id}/{name}" if name in job.result else None

    who = guest.who
    found = service.reviews.shots.look(who, guest.link.shot_id)
    return forms.guest_view(found, who.name, who.rights, own, guest.link.expires)


@router.post("", summary="Open a guest link", responses=refusals(429))
def open_link(
    request: Request, response: Response, service: TheService, _request_id: RequestId, given: Opened
) -> Welcome:
    """Says what the link is for. With a name it sets a cookie that scripts cannot read, other sites cannot use, and browsers
    send to guests' routes only; it ends with the link."""
    if not from_same_origin(request, strict=False):
        raise ServiceError(403, "AccessDenied", "Another site may not open a link here.")
    place = request.client.host if request.client is not None else ""
    wait = service.rates.wait(f"guest link {place}", _TRIES_A_SECOND, _TRIES)
    if wait:
        raise ServiceError(429, "Throttling.RateQuota", "Too many tries to open a link.", retry_after=wait)
    guests = service.reviews.guests
    link = guests.link(given.token)
    if link is None:
        raise ServiceError(401, "InvalidApiKey", "The link has expired or was revoked. Ask for a new one.")
    if given.name is not None:
        response.set_cookie(
            _cookie(service), guests.begin(link, given.name), max_age=max(1, (link.expires - now()) // 1000),
            path=_PATH, httponly=True, samesite="strict", secure=base_of(request).startswith("https:"),
        )  # fmt: skip
    known = guests.find(request.cookies.get(_cookie(service), ""))
    you = given.name or (known[0].name if known is not None and known[1].id == link.id else None)
    inside = Reviewer("", "guest", "", frozenset({"view"}), shot=link.shot_id)
    name = service.reviews.shots.look(inside, link.shot_id).shot.name
    return Welcome(shot=name, rights=[right for right in RIGHTS if right in link.rights], expires=link.expires, you=you)


@router.get("", summary="The shot of a guest's link", responses=refusals())
def look(service: TheService, guest: TheGuest) -> forms.ShotView:
    return _shown(service, guest)


@router.delete("", summary="Leave", responses=refusals())
def leave(response: Response, service: TheService, guest: TheGuest) -> Done:
    service.reviews.guests.end(guest.token)
    response.delete_cookie(_cookie(service), path=_PATH)
    return Done(id=guest.link.id)


@router.post("/comments", summary="Comment as a guest", responses=refusals(404, 409, 429), status_code=201)
def comment(service: TheService, guest: TheGuest, given: forms.NewComment) -> forms.ShotView:
    version = newest(service, guest.who, guest.link.shot_id, given.version)
    service.reviews.notes.add(guest.who, guest.link.shot_id, version, remark_of(given))
    return _shown(service, guest)


@router.post(
    "/comments/{comment_id}/replies", summary="Answer as a guest", responses=refusals(404, 409, 429), status_code=201
)
def reply(service: TheService, guest: TheGuest, comment_id: CommentId, given: forms.NewReply) -> forms.ShotView:
    service.reviews.notes.reply(guest.who, guest.link.shot_id, comment_id, given.text)
    return _shown(service, guest)


@router.patch("/comments/{comment_id}", summary="Resolve or change as a guest", responses=refusals(404, 429))
def change(service: TheService, guest: TheGuest, comment_id: CommentId, given: forms.CommentChanges) -> forms.ShotView:
    service.reviews.notes.change(guest.who, guest.link.shot_id, comment_id, given.text, given.resolved)
    return _shown(service, guest)


@router.delete("/comments/{comment_id}", summary="Remove as a guest", responses=refusals(404, 429))
def remove(service: TheService, guest: TheGuest, comment_id: CommentId) -> Done:
    service.reviews.notes.remove(guest.who, guest.link.shot_id, comment_id)
    return Done(id=comment_id)


@router.post("/decisions", summary="Decide as a guest", responses=refusals(404, 409, 429), status_code=201)
def decide(service: TheService, guest: TheGuest, given: forms.NewDecision) -> forms.ShotView:
    """Where the link allows it."""
    version = newest(service, guest.who, guest.link.shot_id, given.version)
    service.reviews.decisions.decide(guest.who, guest.link.shot_id, version, given.state, given.reason, given.regions)
    return _shown(service, guest)


@router.get(
    "/versions/{job_id}/{name}", summary="A version's video or thumbnail", response_class=Response,
    responses={**refusals(404), 200: {"description": "The file."}, 206: {"description": "A byte range of it."}},
)  # fmt: skip
def file(
    request: Request, service: TheService, guest: TheGuest, job_id: Annotated[str, Path(max_length=64)],
    name: Literal["video", "thumbnail"],
) -> Response:  # fmt: skip
    stored = service.reviews.guests.file(guest.who, job_id, name)
    suffix = stored.rpartition("/")[2].partition(".")[2]
    if name == "video" and not is_played(stored):
        service.serving.check(stored)
    try:
        return file_response(service.storage, Signed(stored, f"{name}.{suffix}"), request.method, request.headers)
    except NotStored as error:
        raise missing("file") from error
    except StorageAway as error:
        raise away("The storage does not answer.") from error


@router.get(
    "/events",
    summary="Events of a guest's shot",
    response_class=StreamingResponse,
    responses={**refusals(429), **STREAM},
)
async def events(
    service: TheService, guest: Annotated[Guest, Depends(guest_of)], last_seen: LastSeen = None, after: After = None
) -> Response:
    """What is said and decided in the shot from now on, as `review` events. It ends with the link."""
    seen = last_seen_of(last_seen, after)
    found = await run_sync(EventStream, service.database, None, None, seen, guest.link.shot_id)

    def gone() -> str | None:
        known = service.reviews.guests.find(guest.token)
        return None if known is not None else ": the link is not valid any more\n\n"

    return await answer(service, guest.link.id, found, gone)
