"""What strangers send: kinds of files by their content, names that are safe to show and to store, uploads that are counted."""

from __future__ import annotations

import asyncio
import hashlib
import re
import unicodedata
from collections.abc import AsyncIterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wanimate.errors import WanimateError
from wanimate.media.files import AtomicFile
from wanimate.serve.places import on_disk

_HEAD = 64
_BLOCK = 1 << 20
_LONGEST_NAME = 120
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_QUICKTIME_ATOMS = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_UNFIT = frozenset('<>:"|?*%;`')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


class TooLarge(WanimateError):
    """More came than is allowed. `limit` is in bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"The file is larger than {limit} bytes.")


@dataclass(frozen=True)
class Kind:
    """A kind of file. `name`: as in "png"; `media_type`: as in "image/png"; `suffix`: as in ".png"."""

    name: str
    media_type: str
    suffix: str

    @property
    def family(self) -> Literal["picture", "clip"]:
        return "picture" if self.media_type.startswith("image/") else "clip"


PNG = Kind("png", "image/png", ".png")
JPEG = Kind("jpeg", "image/jpeg", ".jpg")
WEBP = Kind("webp", "image/webp", ".webp")
BMP = Kind("bmp", "image/bmp", ".bmp")
GIF = Kind("gif", "image/gif", ".gif")
TIFF = Kind("tiff", "image/tiff", ".tiff")
HEIC = Kind("heic", "image/heic", ".heic")
AVIF = Kind("avif", "image/avif", ".avif")
MP4 = Kind("mp4", "video/mp4", ".mp4")
MOV = Kind("mov", "video/quicktime", ".mov")
AVI = Kind("avi", "video/x-msvideo", ".avi")
MATROSKA = Kind("matroska", "video/x-matroska", ".mkv")

HOSTED_PICTURES = frozenset({PNG, JPEG, WEBP, BMP})
HOSTED_CLIPS = frozenset({MP4, MOV, AVI})
"""What the hosted contract takes (spec 1.8)."""


@dataclass(frozen=True)
class Received:
    """An upload on the disk: its bytes and their SHA-256 in hex."""

    size: int
    sha256: str


def sniff(path: Path) -> Kind | None:
    """What a file is by its first bytes; None where it is no picture or clip that is known here. Names are not believed.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return kind_of_head(file.read(_HEAD))


def kind_of_head(head: bytes) -> Kind | None:
    """The same from the first 64 bytes of a file."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if head.startswith(b"\xff\xd8\xff"):
        return JPEG
    if head.startswith((b"GIF87a", b"GIF89a")):
        return GIF
    if head.startswith((b"II*\0", b"MM\0*")):
        return TIFF
    if head.startswith(b"BM") and head[6:10] == b"\0\0\0\0":  # two letters alone could be a text
        return BMP
    if head.startswith(b"RIFF"):
        return {b"WEBP": WEBP, b"AVI ": AVI}.get(head[8:12])
    if head.startswith(b"\x1aE\xdf\xa3"):
        return MATROSKA
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        return HEIC if brand in _HEIC else AVIF if brand in (b"avif", b"avis") else MOV if brand == b"qt  " else MP4
    return MOV if head[4:8] in _QUICKTIME_ATOMS else None


def safe_name(text: str) -> str:
    """A stranger's file name to be shown and offered for saving: its last part, without control characters and signs that a
    file system or a header takes for its own, at most 120 characters; "file" where nothing is left. Never a path."""
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", text))[-1]
    shown = "".join(letter if _is_shown(letter) else "_" for letter in last)
    stem, dot, suffix = shown.strip(" .").rpartition(".")
    name = (
        f"{stem[: _LONGEST_NAME - 1 - len(suffix)]}.{suffix}" if stem and len(suffix) <= 12 else f"{stem}{dot}{suffix}"
    )
    name = name[:_LONGEST_NAME].strip(" .")
    return f"_{name}" if _RESERVED.fullmatch(name) else name or "file"


def storage_name(text: str) -> str:
    """A stranger's file name as one segment of a stored name: A-Z, a-z, 0-9, `.`, `_`, `-`; it does not begin with a dot.
    Letters of other scripts become `_`; the suffix stays."""
    plain = unicodedata.normalize("NFKD", safe_name(text)).encode("ascii", "replace").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "_", plain).lstrip(".")[:_LONGEST_NAME] or "file"


def _is_shown(letter: str) -> bool:
    return letter == " " or (unicodedata.category(letter)[0] not in "CZ" and letter not in _UNFIT)


async def receive(stream: AsyncIterable[bytes], path: Path, limit: int) -> Received:
    """Bring an upload to the disk. It is there whole or not at all; no more is read once it is larger than `limit` bytes.

    Raises:
        TooLarge: more came than `limit` bytes. StorageAway: the disk is full or not writable. What `stream` raises, too.
    """
    digest, size, waiting = hashlib.sha256(), 0, bytearray()
    with on_disk():
        file = AtomicFile(path)

    def write(block: bytes) -> None:
        digest.update(block)
        with on_disk():
            file.write(block)

    def commit() -> None:
        with on_disk():
            file.commit()

    try:
        async for piece in stream:
            size += len(piece)
            if size > limit:
                raise TooLarge(limit)
            waiting += piece
            if len(waiting) >= _BLOCK:
                block, waiting = bytes(waiting), bytearray()
                await asyncio.to_thread(write, block)
        await asyncio.to_thread(write, bytes(waiting))
        await asyncio.to_thread(commit)
    finally:
        file.discard()
    return Received(size, digest.hexdigest())
