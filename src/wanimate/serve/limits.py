"""Bodies of requests, bounded before anything reads them: too large, compressed, or too slow. Pure ASGI middleware.

What is refused reaches no application. The answer is sent at once. What still comes of the body is thrown away for some
seconds, and then the connection is closed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True)
class Refusal:
    """Why a body is refused: HTTP status (400, 408, 413 or 415) and a sentence for people."""

    status: int
    message: str


Shape = Callable[[Scope, Refusal], tuple[int, Mapping[str, Any]]]
"""The status and the JSON that a refusal is told in; each face of the service has its own."""


_LINGER = 2.0
"""Seconds in which the rest of a refused body is thrown away."""


class BodyRefused(Exception):
    """Raised into the application where it reads a body that is refused. Its own answer is not sent."""


class BodyLimit:
    """Refuses bodies larger than a route takes (413) and compressed ones (415), which could grow to any size.

    Args:
        limit_of: scope -> the most bytes of a body.
        shape: how a refusal is told.
    """

    def __init__(self, app: ASGIApp, limit_of: Callable[[Scope], int], shape: Shape) -> None:
        self._app, self._limit_of, self._shape = app, limit_of, shape

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit_of(scope)
        guard = _Guard(scope, receive, send, self._shape)
        if refusal := _refused_by_headers(scope, limit):
            await guard.refuse(refusal)
            return
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > limit:
                guard.stop(_too_large(limit))
            return message

        await guard.run(self._app, counted)


class SlowBody:
    """Refuses bodies that come too slowly (408): less than `least_bytes` in `seconds` of waiting for them.

    Time in which the application does not ask for more does not count.
    """

    def __init__(self, app: ASGIApp, least_bytes: int, seconds: float, shape: Shape) -> None:
        self._app, self._least, self._seconds, self._shape = app, least_bytes, seconds, shape

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        guard = _Guard(scope, receive, send, self._shape)
        clock = asyncio.get_running_loop().time
        waited, came, is_whole = 0.0, 0, False

        async def timed() -> Message:
            nonlocal waited, came, is_whole
            if is_whole:
                return await receive()
            start = clock()
            try:
                message = await asyncio.wait_for(receive(), max(self._seconds - waited, 0))
            except TimeoutError:
                guard.stop(Refusal(408, "The body of the request came too slowly."))
            waited += clock() - start
            came += len(message.get("body", b""))
            is_whole = message["type"] != "http.request" or not message.get("more_body", False)
            if came >= self._least:
                waited, came = 0.0, 0
            return message

        await guard.run(self._app, timed)


class _Guard:
    """Runs the application until a body is refused; then the refusal is what is sent, if the answer has not begun."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, shape: Shape) -> None:
        self._scope, self._receive, self._send, self._shape = scope, receive, send, shape
        self._refusal: Refusal | None = None
        self._has_begun = False

    def stop(self, refusal: Refusal) -> NoReturn:
        """End the application's reading. Raises BodyRefused."""
        self._refusal = refusal
        raise BodyRefused(refusal.message)

    async def run(self, app: ASGIApp, receive: Receive) -> None:
        async def send(message: Message) -> None:
            if self._refusal is None or self._has_begun:
                self._has_begun = True
                await self._send(message)

        try:
            await app(self._scope, receive, send)
        except Exception:
            if self._refusal is None:
                raise
        if self._refusal is not None and not self._has_begun:
            await self.refuse(self._refusal)

    async def refuse(self, refusal: Refusal) -> None:
        status, told = self._shape(self._scope, refusal)
        body = json.dumps(dict(told)).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
        encoded = [(key.encode(), value.encode()) for key, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        await self._linger()
        await self._send({"type": "http.response.body", "body": b""})

    async def _linger(self) -> None:
        """Throw away what still comes: a connection that is closed while its client sends takes the answer with it."""
        with suppress(TimeoutError, BodyRefused):
            async with asyncio.timeout(_LINGER):
                more = True
                while more:
                    message = await self._receive()
                    more = message["type"] == "http.request" and message.get("more_body", False)


def _too_large(limit: int) -> Refusal:
    return Refusal(413, f"The body of the request is larger than {limit} bytes.")


def _refused_by_headers(scope: Scope, limit: int) -> Refusal | None:
    """What the headers alone tell about a body."""
    for key, value in scope["headers"]:
        text = value.decode("latin-1").strip().lower()
        if key == b"content-encoding" and text not in ("", "identity"):
            return Refusal(415, "The body of a request may not be compressed.")
        if key == b"content-length":
            if not text.isascii() or not text.isdigit():
                return Refusal(400, "The Content-Length of the request is no number.")
            if len(text) > 18 or int(text) > limit:
                return _too_large(limit)
    return None
