"""Stored files over HTTP: signed links, byte ranges, and headers that keep a browser from taking a file for a page."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from wanimate.serve.content import safe_name
from wanimate.serve.errors import ServiceError
from wanimate.serve.places import NotStored, StorageAway
from wanimate.serve.storage import Signed, Storage

_TYPES = {
    ".mp4": "video/mp4", ".mov": "video/quicktime", ".webm": "video/webm", ".mkv": "video/x-matroska",
    ".avi": "video/x-msvideo",
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".bmp": "image/bmp",
    ".json": "application/json", ".txt": "text/plain; charset=utf-8", ".log": "text/plain; charset=utf-8",
    ".zip": "application/zip", ".wav": "audio/wav",
}  # fmt: skip
_INLINE = ("video/", "image/png", "image/jpeg", "image/webp")
_PROTECTION = {
    "X-Content-Type-Options": "nosniff",
    # Opened alone, a video or picture is a page of the browser's own making, to which this policy applies, too.
    "Content-Security-Policy": "sandbox; default-src 'none'; media-src 'self'; img-src 'self'; style-src 'unsafe-inline'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-cache",
}
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_LINK = "/files/{token}/{filename}"


def link_path(storage: Storage, name: str, expires: int, download_as: str) -> str:
    """Path of the URL that opens a stored file until `expires` (seconds since 1970), for everybody who knows it."""
    filename = safe_name(download_as)
    return f"/files/{storage.sign(name, expires, filename)}/{quote(filename)}"


def file_response(storage: Storage, signed: Signed, method: str, headers: Mapping[str, str]) -> Response:
    """The answer to a GET or HEAD of a stored file: 200, 206 for one byte range, 304 where the client has it, 416.

    Several ranges at once are answered with the whole file, as RFC 9110 allows. A HEAD knows no ranges.

    Args:
        headers: of the request, with names in any case (starlette's `Headers`) or in lower case.

    Raises:
        NotStored, StorageAway: before anything is sent.
    """
    found = storage.stat(signed.name)
    etag = f'"{hashlib.sha256(f"{found.name} {found.size} {found.modified}".encode()).hexdigest()[:24]}"'
    given = {**_PROTECTION, "ETag": etag, "Accept-Ranges": "bytes", **_presented(signed.filename)}
    if _is_known(headers.get("if-none-match", ""), etag):
        return Response(None, 304, given)
    span = None
    if method == "GET" and headers.get("if-range", etag).strip() == etag:
        span = _span(headers.get("range", ""), found.size)
    if span is not None and span.start >= found.size:
        return Response(None, 416, {**_PROTECTION, "Content-Range": f"bytes */{found.size}", "Accept-Ranges": "bytes"})
    start, stop = (0, found.size) if span is None else (span.start, span.stop)
    given["Content-Length"] = str(stop - start)
    if span is not None:
        given["Content-Range"] = f"bytes {start}-{stop - 1}/{found.size}"
    status = 200 if span is None else 206
    if method == "HEAD":
        return Response(None, status, given)
    return StreamingResponse(_begun(storage.read(signed.name, start, stop)), status, given)


def router(storage: Storage, check: Callable[[str], None] = lambda stored: None) -> APIRouter:
    """`GET` and `HEAD /files/{token}/{filename}`. The token is the permission; the file name is for people. `check` raises
    ServiceError for a stored file that may not be served now."""
    found = APIRouter(tags=["files"])

    def get_file(token: str, filename: str, request: Request) -> Response:
        signed = storage.opened(token, time.time())
        if signed is None:
            return _refused(403, "InvalidLink", "This link has expired, or is not one of this service.")
        try:
            check(signed.name)
            return file_response(storage, signed, request.method, request.headers)
        except ServiceError as error:
            return _refused(error.status, error.code, error.message)
        except NotStored:
            return _refused(404, "NotFound", "This file is not kept any more.")
        except StorageAway:
            return _refused(503, "ServiceUnavailable", "The storage is away. Try again later.", {"Retry-After": "5"})

    said = {
        206: "a byte range",
        304: "not modified",
        403: "expired, foreign, or not approved",
        404: "not kept",
        416: "no such range",
        503: "away",
    }
    responses: dict[int | str, dict[str, Any]] = {status: {"description": text} for status, text in said.items()}
    found.get(_LINK, summary="A file by its signed link", response_class=Response, responses=responses)(get_file)
    found.head(_LINK, include_in_schema=False)(get_file)
    return found


def _refused(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)


def _presented(filename: str) -> dict[str, str]:
    """Content-Type by suffix, and whether a browser shows the file or saves it (RFC 6266)."""
    shown = safe_name(filename)
    kind = _TYPES.get(PurePosixPath(shown).suffix.lower(), "application/octet-stream")
    plain = shown.encode("ascii", "replace").decode().replace("?", "_")
    how = "inline" if kind.startswith(_INLINE) else "attachment"
    coded = "" if plain == shown else f"; filename*=UTF-8''{quote(shown, safe='')}"
    return {"Content-Type": kind, "Content-Disposition": f'{how}; filename="{plain}"{coded}'}


def _is_known(text: str, etag: str) -> bool:
    """Whether If-None-Match names this file, by weak comparison."""
    return text.strip() == "*" or etag in (one.strip().removeprefix("W/") for one in text.split(","))


def _span(text: str, size: int) -> range | None:
    """The bytes that a Range header asks for; beginning at `size` where there are none of them; None: the whole file."""
    found = _RANGE.fullmatch(text.replace(" ", ""))
    if found is None or found[1] == found[2] == "":
        return None
    if found[1] == "":
        last = int(found[2])
        return range(max(size - last, 0), size) if last else range(size, size)
    start, stop = int(found[1]), min(int(found[2]) + 1, size) if found[2] else size
    if found[2] and int(found[2]) < start:
        return None
    return range(start, stop) if start < size else range(size, size)


def _begun(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same pieces, the first of them read already, so that a file that is gone is told in the answer's status."""
    return chain([next(pieces, b"")], pieces)
