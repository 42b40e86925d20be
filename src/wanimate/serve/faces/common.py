"""What all faces share: who asks, which request it is, and the service behind it."""

from __future__ import annotations

import hashlib
import re
import uuid
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request

from wanimate.serve.errors import ServiceError
from wanimate.serve.keys import Caller, Scope
from wanimate.serve.service import Service

_SAFE = ("GET", "HEAD", "OPTIONS")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def service_of(request: Request) -> Service:
    """The service of the application."""
    found: Service = request.app.state.service
    return found


def request_id_of(request: Request) -> str:
    """The id of this request, which logs, records and answers name."""
    found: str = request.scope["state"]["request_id"]
    return found


def new_request_id(given: str | None) -> str:
    """The client's `X-Request-Id`, if it can be used, else a new one."""
    return given if given is not None and _REQUEST_ID.fullmatch(given) else str(uuid.uuid4())


def base_of(request: Request) -> str:
    """How the client reached the service: scheme, host and port."""
    service = service_of(request)
    return (service.settings.public_url or str(request.base_url)).rstrip("/")


def caller_of(request: Request) -> Caller:
    """Who asks, by `Authorization: Bearer KEY`, or, of the page, by its cookie. Raises ServiceError (401, 403)."""
    service = service_of(request)
    given = request.headers.get("authorization")
    if given is not None:
        kind, _, key = given.partition(" ")
        caller = service.keys.find(key.strip()) if kind.lower() == "bearer" and key.strip() else None
    else:
        token = request.cookies.get(cookie_name(service))
        caller = service.sessions.find(token) if token else None
        if caller is not None and request.method not in _SAFE and not from_same_origin(request):
            raise ServiceError(403, "AccessDenied", "A session may be used by its own page only.")
    if caller is None:
        raise ServiceError(401, "InvalidApiKey", "Invalid API-key provided.")
    return caller


def cookie_name(service: Service) -> str:
    """The cookie of the page's session. It names the service: browsers send cookies to every port of a machine."""
    return f"wanimate_{hashlib.sha256(b'cookie' + service.secret).hexdigest()[:12]}"


def from_same_origin(request: Request, strict: bool = True) -> bool:
    """Whether a browser says that a page of this very service asks. `strict`: who says nothing does not count as one."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        return site == "same-origin"
    if origin is None:
        return not strict
    return origin in {_origin_of(base_of(request)), _origin_of(str(request.base_url))}


def _origin_of(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"


def needs(scope: Scope) -> object:
    """A dependency: the caller, whose key has `scope`. Raises ServiceError (401, 403; 429 where something changes)."""

    def found(request: Request, caller: Annotated[Caller, Depends(caller_of)]) -> Caller:
        if scope not in caller.scopes and not caller.is_admin:
            raise ServiceError(403, "AccessDenied", f"The key has no scope `{scope}`.")
        if scope == "submit":
            service_of(request).check_rate(caller)
        return caller

    return Depends(found)


Reader = Annotated[Caller, needs("read")]
Submitter = Annotated[Caller, needs("submit")]
Admin = Annotated[Caller, needs("admin")]
TheService = Annotated[Service, Depends(service_of)]
RequestId = Annotated[str, Depends(request_id_of)]
Base = Annotated[str, Depends(base_of)]
