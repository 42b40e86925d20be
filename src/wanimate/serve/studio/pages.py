"""The page's own files, with headers that let a browser run nothing else.

Files lie under an address that has a digest of all of them, so that browsers keep them for good and never mix two versions.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.responses import FileResponse
from starlette.routing import Route

from wanimate.serve.errors import missing

STATIC = Path(__file__).parent / "static"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
PROTECTION = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_KINDS = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
_FOR_GOOD, _ASK_AGAIN = "public, max-age=31536000, immutable", "no-cache"
_MODULES = "<!-- modules -->"


@dataclass(frozen=True)
class _File:
    """`packed` is what it is as gzip."""

    kind: str
    plain: bytes
    packed: bytes

    @classmethod
    def of(cls, name: str, plain: bytes) -> _File:
        kind = _KINDS.get(Path(name).suffix) or mimetypes.guess_type(name)[0] or "text/plain; charset=utf-8"
        return cls(kind, plain, gzip.compress(plain, 9, mtime=0))

    def answer(self, request: Request, caching: str) -> Response:
        tag = f'"{hashlib.sha256(self.plain).hexdigest()[:32]}"'
        headers = {**PROTECTION, "Cache-Control": caching, "ETag": tag, "Vary": "Accept-Encoding"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        packs = "gzip" in request.headers.get("accept-encoding", "")
        if packs:
            headers["Content-Encoding"] = "gzip"
        return Response(self.packed if packs else self.plain, media_type=self.kind, headers=headers)


@dataclass(frozen=True)
class _Site:
    """All files by name, the page itself, and the digest that their address has."""

    digest: str
    files: dict[str, _File]
    page: _File


@cache
def site() -> _Site:
    """The files, read once."""
    plain = {
        path.relative_to(STATIC).as_posix(): path.read_bytes() for path in sorted(STATIC.rglob("*")) if path.is_file()
    }
    told = hashlib.sha256()
    for name, content in plain.items():
        told.update(f"{name}\0{len(content)}\0".encode() + content)
    digest = told.hexdigest()[:16]
    scripts = [f'<link rel="modulepreload" href="/studio/{digest}/{name}">' for name in plain if name.endswith(".js")]
    page = plain.pop("index.html").decode().replace(_MODULES, "\n  ".join(scripts)).replace("{digest}", digest)
    return _Site(
        digest,
        {name: _File.of(name, content) for name, content in plain.items()},
        _File.of("index.html", page.encode()),
    )


def _page(request: Request) -> Response:
    return site().page.answer(request, _ASK_AGAIN)


def _file(request: Request) -> Response:
    given = request.path_params
    found = site().files.get(given["name"]) if given["digest"] == site().digest else None
    if found is None:
        raise missing("file")
    return found.answer(request, _FOR_GOOD)


def demo_files() -> list[Path]:
    """The packaged characters and the performer's clip."""
    return sorted(
        path
        for path in Path(str(files("wanimate.weights") / "embedded" / "demo")).iterdir()
        if path.suffix in (".png", ".mp4")
    )


def _demo(request: Request) -> Response:
    known = {path.name: path for path in demo_files()}
    path = known.get(request.path_params["name"])
    if path is None:
        raise missing("file")
    return FileResponse(path, headers={**PROTECTION, "Cache-Control": "public, max-age=3600"})


router = APIRouter()
router.routes += [
    Route("/", _page, methods=["GET"]),
    Route("/studio/demo/{name}", _demo, methods=["GET"]),
    Route("/studio/{digest}/{name:path}", _file, methods=["GET"]),
]
