"""A service on loopback that enforces its contract, counts calls, and fails by a seed. Its time is the test's."""

from __future__ import annotations

import json
import random
import re
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit


class TestClock:
    """Time that passes only by sleeping. `sleeps`: for how long."""

    __test__ = False

    def __init__(self) -> None:
        self.time = 1_800_000_000.0
        self.sleeps: list[float] = []

    def now(self) -> float:
        self.time += 0.001
        return self.time

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.time += seconds


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found


@dataclass
class Reply:
    data: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


Route = tuple[str, str, Callable[..., Reply]]


class StandIn:
    """Routes are (method, pattern, what is called with the request and the pattern's groups).

    Attributes:
        asked: "METHOD path" of every request, in order.
        violations: what no client may do.
        faults: share of requests that fail, half of them after they were done; `rng` decides.
        limited: how many requests were refused for their number.
        hold: says when a PUT is kept waiting; `held` is set while one is, until `go` is.
        token: which one is valid.
    """

    routes: ClassVar[list[tuple[str, str, str]]] = []

    def __init__(self, now: Callable[[], float], token: str) -> None:
        self.now, self.token = now, token
        self.asked: list[str] = []
        self.violations: list[str] = []
        self.faults, self.rng, self.limited = 0.0, random.Random(0), 0
        self.hold: Callable[[], bool] = lambda: False
        self.held, self.go = threading.Event(), threading.Event()
        self.redirect: str | None = None
        self.url = ""
        self._calls: dict[str, deque[float]] = defaultdict(deque)
        self.lock = threading.RLock()

    def limit_of(self, method: str, path: str) -> tuple[str, int, float] | None:
        raise NotImplementedError

    def handle(self, request: Request) -> Reply:
        if self.redirect is not None and request.headers.get("authorization"):
            return Reply(None, 302, {"Location": self.redirect})
        limit = self.limit_of(request.method, request.path)
        headers = {}
        if limit is not None:
            self._authorised(request)
            headers = self._counted(*limit)
            if "refused" in headers:
                self.limited += 1
                del headers["refused"]
                return Reply({"errors": [{"detail": "Too many requests"}]}, 429, headers)
        for method, pattern, name in self.routes:
            found = re.fullmatch(pattern, request.path)
            if method == request.method and found is not None:
                reply: Reply = getattr(self, name)(request, *found.groups())
                return Reply(reply.data, reply.status, {**headers, **reply.headers})
        self.violations.append(f"no such call: {request.method} {request.path}")
        raise Refused(404, "Not Found")

    def _authorised(self, request: Request) -> None:
        if request.headers.get("authorization") != f"Bearer {self.token}":
            raise Refused(401, f"not good: {request.headers.get('authorization')}")

    def _counted(self, name: str, calls: int, seconds: float) -> dict[str, str]:
        made, now = self._calls[name], self.now()
        while made and made[0] <= now - seconds:
            made.popleft()
        full = len(made) >= calls
        if not full:
            made.append(now)
        return self.told(calls, calls - len(made), seconds) | ({"refused": "yes"} if full else {})

    def told(self, calls: int, left: int, seconds: float) -> dict[str, str]:
        """Headers about limits."""
        window = str(round(seconds * 1000))
        return {"x-ratelimit-limit": str(calls), "x-ratelimit-remaining": str(left), "x-ratelimit-window": window}

    def fault(self) -> str:
        """What goes wrong with a request: "", "before" or "after" it is done, or "cut" in between."""
        if self.rng.random() >= self.faults:
            return ""
        return self.rng.choice(["before", "after", "cut"])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    standin: StandIn

    def _serve(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        parts = urlsplit(self.path)
        headers = {key.lower(): value for key, value in self.headers.items()}
        with self.standin.lock:
            fault = self.standin.fault()
            self.standin.asked.append(f"{self.command} {parts.path}")
        if fault == "cut":
            self.rfile.read(length // 2)
            self.close_connection = True
            self.connection.close()
            return
        body = self.rfile.read(length)
        if len(body) < length:  # the client is gone
            self.close_connection = True
            return
        if self.command == "PUT" and self.standin.hold():
            self.standin.held.set()
            self.standin.go.wait(60)
        request = Request(self.command, parts.path, dict(parse_qsl(parts.query)), headers, body)
        with self.standin.lock:
            if fault == "before":
                reply = Reply({"message": "try again"}, self.standin.rng.choice([500, 502, 503]))
            else:
                try:
                    reply = self.standin.handle(request)
                except Refused as refused:
                    reply = Reply({"errors": [{"detail": str(refused)}], "message": str(refused)}, refused.status)
                if fault == "after":
                    self.close_connection = True
                    self.connection.close()
                    return
        data = b"" if reply.status == 204 else json.dumps(reply.data).encode()
        self.send_response(reply.status)
        for key, value in {"Content-Type": "application/json", **reply.headers}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients go away."""


@contextmanager
def serving(standin: StandIn) -> Iterator[str]:
    """The address of a stand-in within the block."""
    handler = type("Handler", (_Handler,), {"standin": standin})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    standin.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield standin.url
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
