"""The one road by which URLs of strangers are fetched: clips, pictures and webhooks.

Every connection is judged on the IP address that is connected to. Names are resolved once for it, and every address found
must be public. A refusal never tells whether there is something behind an address. No proxy, cookie, password or netrc of
this machine is used.
"""

from __future__ import annotations

import base64
import hashlib
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

import httpcore
import httpx

from wanimate.errors import WanimateError
from wanimate.media.files import AtomicFile
from wanimate.serve.addresses import Allowed, Target, is_public, join_url, parse_url
from wanimate.serve.content import safe_name
from wanimate.serve.places import on_disk

_CONNECT_SECONDS = 5.0
"""For one address of a host, so that others have a turn where a network drops packets."""
_REDIRECTS = (301, 302, 303, 307, 308)
_CODED_NAME = re.compile(r"filename\*\s*=\s*utf-8'[^']*'([^;\s]+)", re.IGNORECASE)
_PLAIN_NAME = re.compile(r'filename\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s"]+))', re.IGNORECASE)
_HEADERS = {"User-Agent": "wanimate", "Accept": "*/*", "Accept-Encoding": "identity", "Connection": "close"}


class FetchError(WanimateError):
    """A URL could not be fetched. `code`: the hosted contract's."""

    code = "InvalidURL"


class FetchInvalid(FetchError):
    """The text is no URL that is fetched here, whatever lies behind it."""


class FetchRefused(FetchError):
    """The address is not to be fetched, or nobody there speaks HTTP. Which of them is not told."""

    code = "InvalidURL.ConnectionRefused"

    def __init__(self) -> None:
        super().__init__("The download from this URL was refused. Give a URL that is available to everybody.")


class FetchTimeout(FetchError):
    """The server was too slow."""

    code = "InvalidURL.Timeout"

    def __init__(self) -> None:
        super().__init__("The download took too long. Give a URL that answers faster.")


class FetchTooLarge(FetchError):
    """The file is larger than `limit` bytes."""

    code = "InvalidFile.Size"

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"The file behind the URL is larger than {limit} bytes.")


class FetchFailed(FetchError):
    """A server answered, but not with the file. `status`: its HTTP status; 200 where the file broke off or was compressed."""

    code = "BadRequest.InputDownloadFailed"

    def __init__(self, status: int, what: str) -> None:
        self.status = status
        super().__init__(f"The file could not be downloaded: {what}.")


@dataclass(frozen=True)
class FetchLimits:
    """Bytes of a file, seconds in all, redirects that are followed, and seconds without a byte."""

    max_bytes: int
    seconds: float = 120.0
    redirects: int = 3
    read_seconds: float = 20.0


@dataclass(frozen=True)
class Fetched:
    """A file that was fetched. `content_type`: as the server says, in lower case and without parameters, "" where it does not.
    `filename`: safe to show, never a path. `url`: where it lay after redirects. `sha256`: in hex."""

    size: int
    sha256: str
    content_type: str
    filename: str
    url: str


def fetch(url: str, into: Path, limits: FetchLimits, allowed: Allowed = Allowed()) -> Fetched:
    """Bring the file behind a URL to a local path, whole or not at all.

    Raises:
        FetchInvalid, FetchRefused, FetchTimeout, FetchTooLarge, FetchFailed: see there. StorageAway: the local disk is full.
    """
    deadline = time.monotonic() + limits.seconds
    target = _parsed(url)
    for _ in range(limits.redirects + 1):
        with _answer("GET", target, b"", _HEADERS, _Backend(target, allowed, deadline, limits)) as response:
            headers = _headers(response)
            if response.status in _REDIRECTS and "location" in headers:
                try:
                    target = join_url(target, headers["location"])
                except ValueError:
                    raise FetchRefused from None
                continue
            if response.status != 200:
                raise FetchFailed(response.status, f"the server answered {response.status}")
            if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
                raise FetchFailed(200, "the server sent it compressed, which was not asked for")
            if _declared(headers) > limits.max_bytes:
                raise FetchTooLarge(limits.max_bytes)
            size, digest = _save(response, into, limits.max_bytes)
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()[:100]
            return Fetched(size, digest, kind, _filename(headers, target), target.url)
    raise FetchFailed(response.status, "it was redirected too often")


def post(url: str, body: bytes, headers: Mapping[str, str], limits: FetchLimits, allowed: Allowed = Allowed()) -> int:
    """Send a webhook and return the HTTP status of the answer, whose body is not read. A redirect is a status like others.

    Raises:
        FetchInvalid, FetchRefused, FetchTimeout: see there.
    """
    target = _parsed(url)
    backend = _Backend(target, allowed, time.monotonic() + limits.seconds, limits)
    sent = {**_HEADERS, **headers, "Content-Length": str(len(body))}
    with _answer("POST", target, body, sent, backend) as response:
        return int(response.status)


def decode_data_uri(text: str, max_bytes: int) -> bytes:
    """The bytes of a picture written into the request: `data:image/png;base64,...`.

    Raises:
        FetchInvalid: it is no such text, or no picture by its media type. FetchTooLarge: it holds more than `max_bytes`.
    """
    head, comma, data = text.partition(",")
    words = [word.strip() for word in head.lower().split(";")]
    if not comma or not words[0].startswith("data:image/") or "svg" in words[0] or words[-1] != "base64":
        raise FetchInvalid("A data: URI has to hold a picture in base64, as in data:image/png;base64,....")
    if len(data) > max_bytes * 4:  # base64 takes 4 bytes for 3, and %-signs take 3 for 1
        raise FetchTooLarge(max_bytes)
    try:
        found = base64.b64decode(unquote_to_bytes(data), validate=True)
    except ValueError as e:
        raise FetchInvalid("The data: URI is not in base64.") from e
    if len(found) > max_bytes:
        raise FetchTooLarge(max_bytes)
    return found


def resolve(host: str, port: int) -> list[str]:
    """The IP addresses of a host, as the system knows them, each once. Raises OSError or UnicodeError where there are none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _parsed(url: str) -> Target:
    try:
        return parse_url(url)
    except ValueError as e:
        raise FetchInvalid(f"The URL cannot be used: {e}.") from e


@contextmanager
def _answer(
    method: str, target: Target, body: bytes, headers: Mapping[str, str], backend: _Backend
) -> Iterator[httpcore.Response]:
    """The answer to one request over a connection of its own."""
    sent = {**headers, "Host": target.authority}
    url = httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path)
    pool = httpcore.ConnectionPool(ssl_context=_tls(), network_backend=backend, retries=0, max_connections=1)
    status = None
    with pool:
        try:
            with pool.stream(method, url, headers=list(sent.items()), content=body) as response:
                status = response.status
                yield response
        except (httpcore.ReadTimeout, httpcore.WriteTimeout) as e:
            raise FetchTimeout from e
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as e:
            if status is None:
                raise FetchRefused from e
            raise FetchFailed(status, "it broke off") from e


@cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def _headers(response: httpcore.Response) -> dict[str, str]:
    return {key.decode("latin-1").lower(): _text(value) for key, value in response.headers}


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _declared(headers: Mapping[str, str]) -> int:
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def _filename(headers: Mapping[str, str], target: Target) -> str:
    said = headers.get("content-disposition", "")
    if found := _CODED_NAME.search(said):
        return safe_name(unquote(found[1]))
    if found := _PLAIN_NAME.search(said):
        return safe_name(re.sub(r"\\(.)", r"\1", found[1]) if found[1] is not None else found[2])
    return safe_name(unquote(target.path.partition(b"?")[0].decode("ascii").rpartition("/")[2]))


def _save(response: httpcore.Response, into: Path, max_bytes: int) -> tuple[int, str]:
    """Bytes and SHA-256 of the file that an answer holds."""
    size, digest = 0, hashlib.sha256()
    with on_disk():
        file = AtomicFile(into)
    try:
        for piece in response.iter_stream():
            size += len(piece)
            if size > max_bytes:
                raise FetchTooLarge(max_bytes)
            digest.update(piece)
            with on_disk():
                file.write(piece)
        with on_disk():
            file.commit()
    finally:
        file.discard()
    return size, digest.hexdigest()


class _Backend(httpcore.NetworkBackend):
    """Connects for one request, to addresses that were judged, within its time."""

    def __init__(self, target: Target, allowed: Allowed, deadline: float, limits: FetchLimits) -> None:
        self._is_allowed = allowed.covers(target)
        self._deadline, self._pause = deadline, limits.read_seconds
        self._network = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        addresses = self._resolved(host, port)
        if not self._is_allowed and not all(map(is_public, addresses)):
            raise FetchRefused
        for address in addresses:
            try:
                seconds = min(self.left(), _CONNECT_SECONDS)
                stream = self._network.connect_tcp(address, port, timeout=seconds, socket_options=socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
            return _Stream(stream, self)
        raise FetchRefused

    def left(self) -> float:
        """Seconds that the next step may take.

        Raises:
            FetchTimeout: none are left.
        """
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise FetchTimeout
        return min(left, self._pause)

    def _resolved(self, host: str, port: int) -> list[str]:
        """The addresses of a host. The system's resolver knows no time limit, so a thread waits for it."""
        found: queue.SimpleQueue[list[str]] = queue.SimpleQueue()

        def ask() -> None:
            try:
                found.put(resolve(host, port))
            except (OSError, UnicodeError):
                found.put([])

        threading.Thread(target=ask, name="wanimate-resolve", daemon=True).start()
        try:
            return found.get(timeout=self.left())
        except queue.Empty:
            return []


class _Stream(httpcore.NetworkStream):
    """A connection on which no step outlasts the request's time."""

    def __init__(self, stream: httpcore.NetworkStream, backend: _Backend) -> None:
        self._stream, self._backend = stream, backend

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._backend.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), 1 << 16):
            self._stream.write(buffer[start : start + (1 << 16)], self._backend.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, self._backend.left()), self._backend)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
