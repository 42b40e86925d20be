"""The application: faces, and what every request goes through.

request id -> limits of the body -> the face -> `service.Service` -> answer in the face's own form
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wanimate.errors import InputError
from wanimate.serve.background import Background
from wanimate.serve.database import is_away
from wanimate.serve.errors import ServiceError, away, wrong
from wanimate.serve.faces import hosted, openai, own
from wanimate.serve.faces.common import new_request_id
from wanimate.serve.files import router as files_router
from wanimate.serve.limits import BodyLimit, Refusal, SlowBody
from wanimate.serve.ops import health, metrics, telemetry
from wanimate.serve.ops.logs import access_log
from wanimate.serve.service import Service
from wanimate.serve.settings import ServeSettings
from wanimate.serve.storage import StorageAway
from wanimate.serve.studio import pages, session
from wanimate.versions import version_of

_log = logging.getLogger(__name__)
_REFUSED: tuple[type[Exception], ...] = (
    ServiceError, RequestValidationError, HTTPException, ClientDisconnect, StorageAway, OperationalError, InterfaceError,
    PoolTimeout, DBAPIError,
)  # fmt: skip
_LEAST = (16 * 1024, 30.0)
"""Bytes that a body has to bring in so many seconds of waiting."""
_HOSTED = "/api/v1"
_HOUSE = ("policy", "rules", "serve.heads")
"""Fields of errors about files that no client has a hand in."""
_FACES = ((_HOSTED, hosted.error_body), ("/v1/videos", openai.error_body))


def create_app(settings: ServeSettings, service: Service | None = None) -> FastAPI:
    """The application over a service; without one it opens its own, and brings the tables up to date.

    Raises:
        InputError: the database or the storage cannot be opened.
    """
    if settings.telemetry:
        telemetry.set_up("api")
    service = service or Service(settings)
    background = Background(service)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        background.start()
        yield
        background.stop()

    app = FastAPI(
        title="wanimate", version=version_of("wanimate") or "0", lifespan=lifespan, redirect_slashes=False, docs_url=None,
        redoc_url=None,
        description="Character animation on your own GPUs: the hosted animate contract, OpenAI's videos routes, and more.",
    )  # fmt: skip
    app.state.service = service
    for router in (
        hosted.router,
        openai.router,
        own.router,
        session.router,
        health.router,
        metrics.router,
        pages.router,
    ):
        app.include_router(router)
    app.include_router(files_router(service.storage, service.serving.check))
    for kind in _REFUSED:
        app.add_exception_handler(kind, _refused)
    app.add_middleware(SlowBody, least_bytes=_LEAST[0], seconds=_LEAST[1], shape=_told)
    app.add_middleware(BodyLimit, limit_of=_limit_of(service), shape=_told)
    app.add_middleware(_Requests)
    return app


class _Requests:
    """Gives each request its id and its line in the log, counts it, and answers where nobody has foreseen what went wrong.

    An error that came to the server would close the connection, which clients keep for their next request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = new_request_id(given or None)
        scope.setdefault("state", {})["request_id"] = request_id
        status, begun = 500, False

        async def answer(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        with access_log(scope, request_id) as entry:
            try:
                await self._app(scope, receive, answer)
            except Exception as error:
                if begun:
                    raise
                _log.exception("%s %s", scope["method"], scope["path"])
                await _refusal(scope["path"], request_id, _understood(error))(scope, receive, answer)
            finally:
                entry.status = status


def _understood(error: Exception) -> ServiceError:
    """Any error that a request may end with, as one of ours."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:]) or "body"
        reason = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
        return ServiceError(400, "InvalidParameter", f"{field}: {reason}.", field)
    if isinstance(error, HTTPException):
        codes = {404: "NotFound", 405: "MethodNotAllowed"}
        code = codes.get(error.status_code, "InvalidParameter")
        return ServiceError(error.status_code, code, f"{str(error.detail).rstrip('.')}.")
    if isinstance(error, ClientDisconnect):
        return wrong("body", "The body ended before it was whole.")
    if isinstance(error, StorageAway):
        return away("The storage does not answer.")
    if isinstance(error, InputError) and error.field in _HOUSE:
        return ServiceError(503, "PolicyUnreadable", f"What the house asks of results cannot be read: {error.rule}.")
    if isinstance(error, DataError):  # of values that SQLite holds and Postgres does not
        return ServiceError(400, "InvalidParameter", "A value of the request cannot be stored.")
    if is_away(error):
        return away("The database does not answer.")
    return ServiceError(500, "InternalError", "Something went wrong inside; the log has it under the request's id.")


def _body_of(path: str, request_id: str, error: ServiceError) -> dict[str, Any]:
    """An error in the form of the face that was asked."""
    metrics.refused(error.code)
    return next((form for prefix, form in _FACES if path.startswith(prefix)), own.error_body)(error, request_id)


def _told(scope: Scope, refusal: Refusal) -> tuple[int, dict[str, Any]]:
    """A body that was refused before any face read it. The hosted contract answers 400 to all that is wrong with one."""
    code = {413: "BadRequest.TooLarge", 408: "RequestTimeOut"}.get(refusal.status, "BadRequest.IllegalInput")
    status = 400 if scope["path"].startswith(_HOSTED) and refusal.status in (413, 415) else refusal.status
    return status, _body_of(scope["path"], scope["state"]["request_id"], ServiceError(status, code, refusal.message))


def _refusal(path: str, request_id: str, error: ServiceError) -> Response:
    headers = {} if error.retry_after is None else {"Retry-After": str(max(1, round(error.retry_after)))}
    return JSONResponse(_body_of(path, request_id, error), error.status, headers)


async def _refused(request: Request, error: Exception) -> Response:
    found = _understood(error)
    if found.status >= 500:
        _log.warning("%s %s: %s", request.method, request.url.path, error)
    return _refusal(request.url.path, request.scope["state"]["request_id"], found)


def _limit_of(service: Service) -> Callable[[Scope], int]:
    """Bytes that the body of a request may have, by its path."""
    settings = service.settings
    files = settings.largest_clip + settings.largest_picture + 2**20

    def limit(scope: Scope) -> int:
        path: str = scope["path"]
        kind = dict(scope["headers"]).get(b"content-type", b"")
        takes_files = path.startswith(("/v1/videos", "/v1/uploads", "/api/v1/uploads")) and kind.startswith(
            (b"multipart/", b"application/octet-stream")
        )
        return files if takes_files or path.startswith("/v1/uploads") else settings.largest_body

    return limit
