"""What a file is by its first bytes, in words for the user. Names of files are not believed."""

from __future__ import annotations

from pathlib import Path

HEIC, VIDEO = "a HEIC picture", "a video"
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_STARTS = (
    (b"\x89PNG", "a PNG picture"), (b"\xff\xd8\xff", "a JPEG picture"), (b"GIF8", "a GIF picture"),
    (b"II*\0", "a TIFF picture or a camera's raw file"), (b"MM\0*", "a TIFF picture or a camera's raw file"),
    (b"8BPS", "a Photoshop document"), (b"%PDF", "a PDF document"), (b"%!PS", "a PostScript document"),
    (b"\xff\x0a", "a JPEG XL picture"), (b"\0\0\0\x0cJXL ", "a JPEG XL picture"), (b"v/1\x01", "an OpenEXR picture"),
    (b"<svg", "an SVG drawing"), (b"<?xml", "an XML document"), (b"<!DOCTYPE html", "a web page"), (b"<html", "a web page"),
    (b"\x1aE\xdf\xa3", VIDEO), (b"PK\x03\x04", "a ZIP archive"),
)  # fmt: skip


def kind_of(path: Path) -> str | None:
    """What the file is ("a HEIC picture"), None where its first bytes say nothing known."""
    with open(path, "rb") as file:
        head = file.read(32)
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        return HEIC if brand in _HEIC_BRANDS else "an AVIF picture" if brand in (b"avif", b"avis") else VIDEO
    if head[:4] == b"RIFF":
        return {b"WEBP": "a WebP picture", b"AVI ": VIDEO}.get(head[8:12])
    return next((name for start, name in _STARTS if head.startswith(start)), None)
