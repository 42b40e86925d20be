"""Logs: one line of JSON (or text) each, with the ids of what it is about, and without what is secret.

The ids of a request (`request_id`) and of a job (`job_id`, `attempt`, `worker`, and the `request_id` of its creation) are bound
to the thread or task that works on it, so that every line in between carries them.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.types import Scope

from wanimate.serve.ops import metrics, telemetry

_bound: ContextVar[dict[str, Any]] = ContextVar("bound")
_OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_QUIET = ("uvicorn.access", "httpx", "httpcore", "botocore", "aiobotocore", "alembic", "s3fs", "urllib3")
_SECRETS = (
    (re.compile(r"\bwan_[A-Za-z0-9_-]{16,}"), "wan_***"),
    (re.compile(r"\bwhsec_[A-Za-z0-9+/=_-]{8,}"), "whsec_***"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}"), r"\1 ***"),
    (re.compile(r"/files/[A-Za-z0-9_=-]+"), "/files/***"),
    (re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://[^\s/@:'\"]*):[^\s/@'\"]+@"), r"\1:***@"),
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s?#'\"]+|(?<![\w:])/[\w./~%-]*)\?[^\s'\"]+"), r"\1?***"),
)
_log = logging.getLogger("wanimate.serve.access")


@contextmanager
def bound(**ids: Any) -> Iterator[None]:
    """Every line of this thread or task carries these ids within the block, beside those of a block around it."""
    token = _bound.set({**_bound.get({}), **ids})
    try:
        yield
    finally:
        _bound.reset(token)


def without_secrets(text: str) -> str:
    """A text without keys, signed links, passwords of addresses and what follows the `?` of addresses."""
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text


class JsonLines(logging.Formatter):
    """A record as one object of JSON: `time`, `level`, `logger`, `message`, the ids bound to it, what `extra` gave, and
    `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        line = _fields(record, self) | {name: value for name, value in vars(record).items() if name not in _OWN}
        return json.dumps({name: _plain(value) for name, value in line.items()}, ensure_ascii=False)


class TextLines(logging.Formatter):
    """The same for people: `12:00:00 INFO logger: message [request_id=...]`."""

    def format(self, record: logging.LogRecord) -> str:
        line = _fields(record, self)
        ids = " ".join(f"{name}={value}" for name, value in _bound.get({}).items())
        text = f"{line['time'][11:19]} {line['level']} {line['logger']}: {line['message']}"
        text += f" [{ids}]" if ids else ""
        return without_secrets(text + (f"\n{line['exception']}" if "exception" in line else ""))


def set_up(json: bool | None = None, level: int = logging.INFO) -> None:
    """Send the logs of this process to stderr, as JSON lines or as text; None is text on a terminal."""
    handler = logging.StreamHandler(sys.stderr)
    lines = not sys.stderr.isatty() if json is None else json
    handler.setFormatter(JsonLines() if lines else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:  # they would tell every request again, some with its query
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


@dataclass
class Access:
    """One request, to be told of when it is answered."""

    status: int = 500


@contextmanager
def access_log(scope: Scope, request_id: str) -> Iterator[Access]:
    """Binds the id of a request, and tells and counts the request at its end. `scope`: of ASGI."""
    entry, began = Access(), time.perf_counter()
    with bound(request_id=request_id), telemetry.span(f"request {scope['method']}", request_id=request_id) as span:
        try:
            yield entry
        finally:
            if span is not None:
                span.update_name(f"{scope['method']} {route_of(scope)}")
                span.set_attribute("http.response.status_code", entry.status)
            seconds = time.perf_counter() - began
            metrics.answered(scope["method"], route_of(scope), entry.status, seconds)
            client = scope.get("client")
            told = {
                "method": scope["method"], "path": scope["path"], "status": entry.status, "seconds": round(seconds, 4),
                "client": client[0] if client else None,
            }  # fmt: skip
            _log.info("%s %s %s", scope["method"], scope["path"], entry.status, extra=told)


def route_of(scope: Scope) -> str:
    """The route's pattern, `/api/v1/tasks/{task_id}`; "unmatched" where there is none."""
    pattern = getattr(scope.get("route"), "path", None)
    if pattern is None:
        return "unmatched"
    if ":path}" in pattern:
        return str(pattern)
    asked, known = scope["path"].split("/"), pattern.split("/")
    prefix = asked[: max(0, len(asked) - len(known) + 1)]  # of the router: the pattern may begin after it
    return "/".join([*prefix, *known[1:]])


def _fields(record: logging.LogRecord, formatter: logging.Formatter) -> dict[str, Any]:
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    line: dict[str, Any] = {
        "time": at, "level": record.levelname, "logger": record.name, "message": record.getMessage(), **_bound.get({}),
    }  # fmt: skip
    if record.exc_info:
        line["exception"] = formatter.formatException(record.exc_info)
    return line


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, int, float)) else without_secrets(str(value))
