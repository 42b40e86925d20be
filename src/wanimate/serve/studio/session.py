"""Signing in to the page: a key, or the link that `wanimate studio` opens, once; then a cookie."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from wanimate.serve.errors import ServiceError, wrong
from wanimate.serve.faces.common import RequestId, TheService, base_of, cookie_name, from_same_origin
from wanimate.serve.faces.own.forms import refusals
from wanimate.serve.sessions import HOURS

router = APIRouter(prefix="/v1", tags=["session"])
_TRIES_A_SECOND, _BURST = 1.0, 20


class SignIn(BaseModel):
    """Either a key, or the token of a link."""

    model_config = ConfigDict(extra="forbid")

    key: str | None = Field(default=None, max_length=200)
    link: str | None = Field(default=None, max_length=200)


class SessionView(BaseModel):
    """Whether the page is signed in, and as whom."""

    signed_in: bool
    owner: str | None = None
    scopes: list[str] = []


@router.get("/session", summary="Whether the page is signed in", responses=refusals())
def look(request: Request, service: TheService) -> SessionView:
    caller = service.sessions.find(request.cookies.get(cookie_name(service), ""))
    if caller is None:
        return SessionView(signed_in=False)
    return SessionView(signed_in=True, owner=caller.owner, scopes=sorted(caller.scopes))


@router.post("/session", summary="Sign the page in", responses=refusals(429))
def begin(
    request: Request, response: Response, service: TheService, request_id: RequestId, given: SignIn
) -> SessionView:
    """Sets a cookie that scripts cannot read and other sites cannot use. It holds no key, ends after seven days, when its
    key is revoked, or by signing out."""
    if (given.key is None) == (given.link is None):
        raise wrong("key", "key: give either key or link.")
    if not from_same_origin(request, strict=False):
        raise ServiceError(403, "AccessDenied", "Another site may not sign in here.")
    place = request.client.host if request.client is not None else ""
    wait = service.rates.wait(f"sign-in {place}", _TRIES_A_SECOND, _BURST)
    if wait:
        raise ServiceError(429, "Throttling.RateQuota", "Too many tries to sign in.", retry_after=wait)
    if given.key is not None:
        caller = service.keys.find(given.key.strip())
        text = "There is no such key, or it was revoked."
    else:
        caller = service.sessions.redeem(given.link or "")
        text = "The link was used already, or is too old."
    if caller is None:
        raise ServiceError(401, "InvalidApiKey", text)
    token = service.sessions.begin(caller.key_id)
    service.log(caller, request_id, "session.begin", caller.key_id)
    response.set_cookie(
        cookie_name(service), token, max_age=HOURS * 3600, path="/", httponly=True, samesite="strict",
        secure=base_of(request).startswith("https:"),
    )  # fmt: skip
    return SessionView(signed_in=True, owner=caller.owner, scopes=sorted(caller.scopes))


@router.delete("/session", summary="Sign the page out", responses=refusals())
def end(request: Request, response: Response, service: TheService) -> SessionView:
    token = request.cookies.get(cookie_name(service))
    if token is not None:
        if not from_same_origin(request):
            raise ServiceError(403, "AccessDenied", "Another site may not sign out here.")
        service.sessions.end(token)
    response.delete_cookie(cookie_name(service), path="/")
    return SessionView(signed_in=False)
