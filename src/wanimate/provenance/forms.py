"""What form a file has, told by its first bytes, and how marks are kept with it."""

from __future__ import annotations

from pathlib import Path

from wanimate.config import MarkSettings

MP4, MOV, PNG, ZIP = "video/mp4", "video/quicktime", "image/png", "application/x-zip"
MATROSKA, EXR, OTHER = "video/x-matroska", "image/x-exr", "application/octet-stream"
EMBEDS = frozenset({MP4, MOV, PNG, "image/jpeg", "image/tiff", "image/webp", "image/gif", "video/avi", ZIP})
"""Forms that hold a manifest inside. For others it lies beside the file."""
_STARTS = (
    (b"\x89PNG\r\n\x1a\n", PNG), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"), (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"), (b"PK\x03\x04", ZIP), (b"\x1aE\xdf\xa3", MATROSKA), (b"v/1\x01", EXR),
)  # fmt: skip
_PICTURES = {b"heic": "image/heic", b"heix": "image/heic", b"mif1": "image/heif", b"avif": "image/avif"}


def media_type(path: Path) -> str:
    """The media type of a file; `OTHER` where its first bytes say nothing known. Raises OSError where it cannot be read."""
    with open(path, "rb") as file:
        head = file.read(16)
    if head[4:8] == b"ftyp":
        return MOV if head[8:12] == b"qt  " else _PICTURES.get(head[8:12], MP4)
    if head[:4] == b"RIFF":
        return {b"WEBP": "image/webp", b"AVI ": "video/avi"}.get(head[8:12], OTHER)
    return next((form for start, form in _STARTS if head.startswith(start)), OTHER)


def manifest_beside(path: Path) -> Path:
    """Where the manifest of a file lies that cannot hold one: shot.mkv -> shot.c2pa."""
    return path.with_suffix(".c2pa")


def zip_of(folder: Path) -> Path:
    """Where the zip of a folder of pictures goes: frames -> frames.zip. A name that is a zip's already stays."""
    return folder if folder.suffix == ".zip" else folder.with_name(f"{folder.name}.zip")


def xmp_beside(path: Path) -> Path:
    """Where the XMP of a file lies that cannot hold it: shot.mkv -> shot.xmp."""
    return path.with_suffix(".xmp")


def record_beside(path: Path) -> Path:
    """Where the record of a result lies: shot.mp4 -> shot.json, frames -> frames.json."""
    return path.with_name(f"{path.stem}.json")


def every_beside(path: Path) -> tuple[Path, ...]:
    """All names that files with marks can have beside a result."""
    return xmp_beside(path), manifest_beside(path), zip_of(path)


def written_beside(path: Path, marks: MarkSettings | None) -> tuple[Path, ...]:
    """Those of them that a job with these marks may write. Whether it signs can depend on a certificate that is there."""
    if marks is None or not marks.whole:
        return ()
    xmp, manifest = marks.metadata, marks.sign is not False
    if not path.suffix:
        return (zip_of(path),) if xmp or manifest else ()
    if path.suffix.lower() != ".mkv":
        return ()
    return (*((xmp_beside(path),) if xmp else ()), *((manifest_beside(path),) if manifest else ()))
