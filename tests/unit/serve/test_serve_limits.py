"""Bodies of requests: too large, compressed, too slow. What is refused is answered unread."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request, UploadFile
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wanimate.serve.limits import BodyLimit, BodyRefused, Refusal, SlowBody


def shape(scope: Scope, refusal: Refusal) -> tuple[int, dict[str, Any]]:
    return refusal.status, {"code": refusal.status, "message": refusal.message, "path": scope["path"]}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the number of bytes that came."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


class Call:
    """One request of these pieces to an application, with `pause` seconds before each piece. `read`: those that were asked
    for before the answer."""

    def __init__(
        self, app: ASGIApp, pieces: list[bytes], headers: dict[str, str] | None = None, pause: float = 0.0
    ) -> None:
        self.read, self.sent = 0, list[Message]()
        encoded = [(key.lower().encode(), value.encode()) for key, value in (headers or {}).items()]
        scope = {"type": "http", "method": "POST", "path": "/x", "headers": encoded}

        async def receive() -> Message:
            if self.sent:  # what comes after the answer is thrown away
                return {"type": "http.disconnect"}
            await asyncio.sleep(pause)
            self.read += 1
            return {"type": "http.request", "body": pieces[self.read - 1], "more_body": self.read < len(pieces)}

        async def send(message: Message) -> None:
            self.sent.append(message)

        asyncio.run(self._run(app, scope, receive, send))

    async def _run(self, app: ASGIApp, *call: Any) -> None:
        await app(*call)

    @property
    def status(self) -> int:
        (start,) = [message for message in self.sent if message["type"] == "http.response.start"]
        return int(start["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent if message["type"] == "http.response.body")


def limited(app: ASGIApp = echo, most: int = 10) -> ASGIApp:
    return BodyLimit(app, lambda scope: most if scope["path"] == "/x" else 0, shape)


def test_a_body_within_the_limit() -> None:
    call = Call(limited(), [b"12345", b"67890"], {"Content-Length": "10", "Content-Encoding": "identity"})
    assert (call.status, call.body, call.read) == (200, b"10", 2)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Length": "11"}, 413), ({"Content-Length": "9" * 30}, 413), ({"Content-Length": "-1"}, 400),
        ({"Content-Length": "x"}, 400), ({"Content-Length": "1.5"}, 400), ({"Content-Encoding": "gzip"}, 415),
        ({"Content-Encoding": "identity, br"}, 415), ({"Content-Encoding": "ZSTD", "Content-Length": "1"}, 415),
    ],
)  # fmt: skip
def test_what_headers_tell_is_refused_unread(headers: dict[str, str], status: int) -> None:
    async def never(*_: object) -> None:
        raise AssertionError("the application was asked")

    call = Call(limited(never), [b"x"], headers)
    assert (call.status, call.read) == (status, 0)
    assert json.loads(call.body)["code"] == status
    assert json.loads(call.body)["path"] == "/x"
    assert dict(call.sent[0]["headers"])[b"connection"] == b"close"


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "5"}])
def test_a_body_is_counted_as_it_comes(headers: dict[str, str]) -> None:
    call = Call(limited(), [b"123456"] * 9, headers)
    assert (call.status, call.read) == (413, 2)
    assert json.loads(call.body)["message"] == "The body of the request is larger than 10 bytes."


def test_an_application_that_swallows_the_refusal_is_not_heard() -> None:
    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await echo(scope, receive, send)
        except BodyRefused:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"all well"})

    assert Call(limited(stubborn), [b"x" * 99]).status == 413


def test_an_answer_that_has_begun_is_not_answered_again() -> None:
    async def early(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await receive()

    call = Call(limited(early), [b"x" * 99])
    assert (call.status, call.body) == (200, b"")


def test_faults_of_the_application_are_its_own() -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    for app in (limited(broken), SlowBody(broken, 1, 1, shape)):
        with pytest.raises(RuntimeError, match="a defect"):
            Call(app, [b""])


def test_other_protocols_pass() -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    for guarded in (limited(app), SlowBody(app, 1, 1, shape)):
        asyncio.run(Call._run(guarded, guarded, {"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan", "lifespan"]


def slow(least: int, seconds: float) -> ASGIApp:
    return SlowBody(echo, least, seconds, shape)


def test_a_body_that_stops_is_left() -> None:
    start = time.monotonic()
    call = Call(slow(100, 0.2), [b"x", b"x"], pause=60)
    assert (call.status, json.loads(call.body)["code"]) == (408, 408)
    assert time.monotonic() - start < 2


def test_a_body_that_drips_is_left() -> None:
    start = time.monotonic()
    call = Call(slow(100, 0.2), [b"x"] * 1000, pause=0.02)
    assert call.status == 408
    assert call.read < 20
    assert time.monotonic() - start < 2


def test_a_body_that_comes_on_is_taken() -> None:
    call = Call(slow(10, 0.5), [b"1234567890"] * 10, pause=0.06)
    assert (call.status, call.body) == (200, b"100")


def test_a_small_body_is_whole_before_its_time() -> None:
    assert Call(slow(1000, 5), [b"x", b"y"]).body == b"2"


def test_an_application_that_takes_its_time_is_not_the_bodys_fault() -> None:
    async def busy(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await asyncio.sleep(0.3)
        await echo(scope, receive, send)

    assert Call(SlowBody(busy, 100, 0.2, shape), [b"x", b"y", b"z"]).status == 200


def test_waiting_for_the_client_to_go_is_not_slow() -> None:
    """After the body, applications that stream wait on `receive` for the end of the connection."""

    async def streaming(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0.3)
        assert not waiting.done()
        waiting.cancel()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def run() -> list[int]:
        sent = []
        messages: list[Message] = [{"type": "http.request", "body": b"x", "more_body": False}]

        async def receive() -> Message:
            if messages:
                return messages.pop()
            await asyncio.sleep(60)
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message["status"])

        await SlowBody(streaming, 100, 0.1, shape)({"type": "http", "path": "/", "headers": []}, receive, send)
        return sent

    assert asyncio.run(run()) == [200]


@contextmanager
def served(app: ASGIApp) -> Iterator[int]:
    """The port of a real server."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def test_a_real_server_and_real_forms() -> None:
    """FastAPI makes faults of its own of what a body's reading raises; ours is what arrives."""
    app = FastAPI()
    entered = []

    @app.post("/json")
    async def take_json(body: dict[str, Any]) -> int:
        entered.append("json")
        return len(body)

    @app.post("/form")
    async def take_form(file: UploadFile) -> int:
        entered.append("form")
        return file.size or 0

    @app.post("/stream")
    async def take_stream(request: Request) -> int:
        return sum([len(piece) async for piece in request.stream()])

    guarded = BodyLimit(SlowBody(app, 100, 0.4, shape), lambda scope: 10_000, shape)

    def chunks() -> Iterator[bytes]:
        for _ in range(200):
            yield b"x" * 100_000

    with served(guarded) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        assert client.post("/json", json={"a": 1}).json() == 1
        assert client.post("/form", files={"file": b"x" * 9000}).json() == 9000
        entered.clear()
        for path in ("/json", "/form", "/stream"):
            known = client.post(path, content=b"x" * 20_000_000)
            assert (known.status_code, known.json()["code"]) == (413, 413)
            form = (
                {"Content-Type": "multipart/form-data; boundary=b"}
                if path == "/form"
                else {"Content-Type": "application/json"}
            )
            unknown = client.post(path, content=chunks(), headers=form)
            assert (unknown.status_code, unknown.json()["path"]) == (413, path)
        assert client.post("/json", content=b"x", headers={"Content-Encoding": "gzip"}).status_code == 415
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(b"POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\nx")
            raw.settimeout(3)
            assert raw.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert client.post("/stream", content=b"still there").json() == 11
    assert entered == []
