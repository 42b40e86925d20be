"""A small HTTP client for services that take results: retries, limits of calls, and a token that only the service sees.

A token goes to the service's own address and nowhere else: redirects are not followed, and pages of lists are asked for at
that address. Errors carry no exception of the HTTP library, whose frames hold headers.
"""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx

from wanimate.errors import InputError
from wanimate.handoff.remote.limits import CallClass, Clock, Limits, pause_after, retry_after
from wanimate.handoff.remote.secret import Secret
from wanimate.media.json_file import parse_json

PATIENCE = 900.0
"""Seconds for which a call is tried again."""
_TRIES = 12
_LARGEST_ANSWER = 32 * 2**20
_TIMEOUTS = httpx.Timeout(60.0, connect=10.0)
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_AGAIN = (408, 429, 500, 502, 503, 504)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class RemoteError(InputError):
    """A service does not do what was asked. `status`: its HTTP status, None where it gave no answer."""

    status: int | None = None


class UnsureError(RemoteError):
    """A call that makes something broke off; nobody here knows whether it was made. `wait`: seconds before the next try."""

    wait = 0.0


class Token(Protocol):
    """Where the token comes from."""

    def value(self) -> Secret: ...

    def renew(self) -> bool:
        """Get another one, as the service refuses this one. Returns whether there is another one."""
        ...


class _Plain:
    """Drops what signs an address from the HTTP library's log."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(arg.copy_with(query=None) if isinstance(arg, httpx.URL) else arg for arg in record.args)
        return True


logging.getLogger("httpx").addFilter(_Plain())


class _Bearer(httpx.Auth):
    """Puts the token into a request, so that no frame of ours holds it as text."""

    def __init__(self, secret: Secret) -> None:
        self._secret = secret

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._secret.reveal()}"
        yield request


@dataclass(frozen=True)
class Ask:
    """One request. `body`: makes its bytes anew for each try. `again`: it may be sent twice without harm. `secret`: the token
    that it carries, if any. `hidden`: what else no answer may show."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    body: Callable[[], Iterable[bytes]] | None = None
    again: bool = True
    secret: Secret | None = None
    hidden: tuple[Secret, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What came back, without the secrets that were sent."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300

    def data(self) -> Any:
        """Its JSON; None where there is none."""
        try:
            return parse_json(self.body) if self.body else None
        except ValueError:
            return None


class Wire:
    """Sends requests, each until it is answered.

    Args:
        name: of the service, as errors call it.
        clock: what tells the time.
    """

    def __init__(self, name: str, clock: Clock, patience: float = PATIENCE) -> None:
        self.name, self.clock, self._patience = name, clock, patience
        self.limits = Limits(clock)
        headers = {"User-Agent": "wanimate"}
        self._http = httpx.Client(timeout=_TIMEOUTS, follow_redirects=False, headers=headers, verify=_tls())

    def close(self) -> None:
        self._http.close()

    def send(self, ask: Ask, kind: CallClass | None = None) -> Answer:
        """Send a request, again after failures that pass. Any answer that stays is returned, whatever its status.

        Raises:
            UnsureError: the request may not be sent twice, and broke off after it was sent. RemoteError: no answer came.
        """
        began, failures = self.clock.now(), 0
        while True:
            if kind is not None:
                self.limits.wait(kind)
            answer, trouble, sent = self._once(ask)
            wait = 0.0
            if answer is not None:
                pause = 0.0 if kind is None else self.limits.told(kind, answer.headers)
                if answer.status not in _AGAIN:
                    return answer
                trouble = f"it answered {answer.status}"
                wait = pause if answer.status == 429 else 0.0
                wait = max(wait, retry_after(answer.headers, self.clock.now()) or 0.0)
                sent = answer.status != 429
            if sent and not ask.again:
                unsure = UnsureError("to", self.name, f"{trouble} to a request that makes something", _LATER)
                unsure.wait = wait
                raise unsure
            failures += 1
            wait = max(wait, pause_after(failures))
            if failures >= _TRIES or self.clock.now() + wait - began > self._patience:
                if answer is not None:
                    return answer
                raise RemoteError("to", self.name, f"it cannot be reached: {trouble}", _LATER)
            self.clock.sleep(wait)

    def _once(self, ask: Ask) -> tuple[Answer | None, str, bool]:
        """The answer, or what went wrong and whether the request may have arrived."""
        auth = None if ask.secret is None else _Bearer(ask.secret)
        content = None if ask.body is None else ask.body()
        try:
            with self._http.stream(
                ask.method,
                ask.url,
                headers=dict(ask.headers),
                params=dict(ask.params) or None,
                content=content,
                auth=auth,
            ) as response:
                body = _bounded(response)
                for secret in (*ask.hidden, *([] if ask.secret is None else [ask.secret])):
                    body = secret.hide(body)
                return Answer(response.status_code, _lower(response.headers), body), "", True
        except _NOT_SENT as error:
            return None, _words(error), False
        except (httpx.TransportError, httpx.DecodingError) as error:
            return None, _words(error), True


class Service:
    """A service at one address, with a token.

    Args:
        base: where it is, for instance "https://api.frame.io".

    Every method raises RemoteError.
    """

    def __init__(self, wire: Wire, base: str, token: Token) -> None:
        self.wire, self.name, self._token = wire, wire.name, token
        self.base = checked(base, wire.name).rstrip("/")

    def get(self, kind: CallClass, path: str, params: Mapping[str, str] | None = None) -> Any:
        return self._called(kind, "GET", path, None, params or {})

    def post(self, kind: CallClass, path: str, data: object) -> Any:
        """Make something. Raises UnsureError, too: see `made`."""
        return self._called(kind, "POST", path, data, {})

    def patch(self, kind: CallClass, path: str, data: object) -> Any:
        return self._called(kind, "PATCH", path, data, {})

    def delete(self, kind: CallClass, path: str) -> None:
        self._called(kind, "DELETE", path, None, {})

    def put(self, url: str, headers: Mapping[str, str], body: Callable[[], Iterator[bytes]]) -> Answer:
        """Send bytes to a signed address, which is given no token."""
        return self.wire.send(Ask("PUT", checked(url, self.name, self.base), headers, body=body))

    def here(self, link: str) -> str:
        """Path and query of a link that the service has given. Raises RemoteError where it leads to another place."""
        found, own = urlsplit(link), urlsplit(self.base)
        if (found.scheme or found.netloc) and (found.scheme, found.netloc) != (own.scheme, own.netloc):
            raise RemoteError("to", self.name, f"it sends us to another place ({found.hostname})", _TELL)
        return found.path + (f"?{found.query}" if found.query else "")

    def wrong(self, answer: Answer, what: str) -> RemoteError:
        """The error that an answer stands for."""
        rule, remedy = _refusal(answer, what)
        error = RemoteError("to", self.name, rule, remedy)
        error.status = answer.status
        return error

    def _called(self, kind: CallClass, method: str, path: str, data: object, params: Mapping[str, str]) -> Any:
        headers, body = {"Accept": "application/json"}, None
        if data is not None:
            text = json.dumps(data).encode()
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(text))}
            body = lambda: [text]  # noqa: E731
        answer = None
        for renewed in (False, True):
            secret = self._token.value()
            ask = Ask(method, self.base + path, headers, params, body, method != "POST", secret)
            answer = self.wire.send(ask, kind)
            if answer.status != 401 or renewed or not self._token.renew():
                break
        assert answer is not None
        if not answer.good:
            raise self.wrong(answer, f"{method} {path}")
        found = answer.data()
        if found is None and answer.status != 204:
            raise RemoteError("to", self.name, f"its answer to {method} {path} is no JSON", _TELL)
        return found


_LATER = "Run the same command again later; it goes on where it was"
_TELL = "The service has changed, or something stands in between; report it with this message"
_REMEDIES = {
    401: "Make a new token at the service and give it by the environment or a file",
    402: "Buy minutes at the service, then run the same command again",
    403: "Ask for the right at the service, or take a token that has it",
    404: "Look at the service whether it is still there",
    429: _LATER,
}
_RULES = {
    401: "the token is refused", 402: "the account has no minutes left", 403: "the token may not do this",
    404: "there is no such thing", 429: "it has been called too often",
}  # fmt: skip


def _refusal(answer: Answer, what: str) -> tuple[str, str]:
    if 300 <= answer.status < 400:
        host = urlsplit(answer.headers.get("location", "")).hostname or "another place"
        return f"{what}: it sends us to {host}, where the token does not go", _TELL
    rule = _RULES.get(answer.status, f"it answered {answer.status}")
    said = _said(answer.data())
    remedy = _REMEDIES.get(answer.status, _LATER if answer.status >= 500 else "Look at the message of the service")
    return f"{what}: {rule}{f' ({said})' if said else ''}", remedy


def _said(data: Any) -> str:
    """What the service tells of an error, as one short text."""
    if not isinstance(data, dict):
        return ""
    errors = data.get("errors")
    parts = errors if isinstance(errors, list) else [data]
    texts = [
        next((str(part[name]) for name in ("detail", "message", "title", "error") if part.get(name)), "")
        for part in parts
        if isinstance(part, dict)
    ]
    return "; ".join(text for text in texts if text)[:300]


def checked(url: str, name: str, base: str = "") -> str:
    """An address that bytes may go to: encrypted, unless it is this machine's own. `base`: what has given it, if anybody.

    Raises:
        RemoteError: it is not.
    """
    try:
        found = urlsplit(url)
        host = found.hostname
    except ValueError:
        host = None
    near = host in _LOOPBACK and (not base or urlsplit(base).hostname in _LOOPBACK)
    if host is None or found.username is not None or not (found.scheme == "https" or (found.scheme == "http" and near)):
        raise RemoteError("to", name, f"it names an address that is not encrypted ({host or 'none'})", _TELL)
    return url


@cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def _lower(headers: httpx.Headers) -> dict[str, str]:
    return {key.lower(): value for key, value in headers.items()}


def _bounded(response: httpx.Response) -> bytes:
    found = bytearray()
    for piece in response.iter_bytes():
        found += piece
        if len(found) > _LARGEST_ANSWER:
            raise httpx.DecodingError("the answer is too large")
    return bytes(found)


def _words(error: Exception) -> str:
    """What went wrong on the way, in few words and without what was sent."""
    if isinstance(error, httpx.TimeoutException):
        return "it takes too long"
    return "nobody answers there" if isinstance(error, httpx.ConnectError) else "the connection broke off"
