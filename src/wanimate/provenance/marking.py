"""Marks a finished file: XMP and signature, in it where its form allows, else beside it."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from wanimate.config import MarkSettings
from wanimate.errors import InputError, one_line
from wanimate.media.files import AtomicFile, output_error
from wanimate.provenance import boxes, signing, xmp
from wanimate.provenance.about import About, Source
from wanimate.provenance.certificates import identity
from wanimate.provenance.forms import EMBEDS, MOV, MP4, PNG, ZIP, manifest_beside, media_type, xmp_beside, zip_of
from wanimate.provenance.frames import key_of
from wanimate.provenance.sample import sample
from wanimate.provenance.watermark import detect
from wanimate.weights.fingerprint import fingerprint

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Time of every file in a zip, so that the same pictures give the same bytes."""


def mark_file(
    source: Path, out: Path, about: About, settings: MarkSettings, watermarked: bool, into: Path | None = None
) -> dict[str, Any]:
    """Write XMP and signature of a finished file or a folder of pictures. Returns what its record should say under `marks`.

    Args:
        source: the finished file. out: its name; sidecars lie beside it, and the zip of a folder.
        about: what is told of it. A `source` that is signed already is what the new manifest starts from.
        watermarked: the frames were given the invisible watermark. It is read back; one that cannot be read is told, and not
            claimed in the signature.
        into: where the marked file goes, where that is not `out`: a job's temporary file, which may be `source` itself.

    Raises:
        InputError: source, certificate or settings cannot be used. OutputError: something cannot be written.
    """
    signer = identity(settings)
    made: dict[str, Any] = {
        "id": about.id, "payload": f"{about.payload:08x}" if watermarked else None, "label": settings.label,
        "xmp": None, "c2pa": None, "notices": [],
    }  # fmt: skip
    about = _unchanged(about, made["notices"])
    if watermarked and not _reads(source, about, settings):
        watermarked, made["payload"] = False, None
        made["notices"].append(
            "the invisible watermark cannot be read back: the frames are too small, too few or too flat"
        )
    folder = source.is_dir()
    target = zip_of(out) if folder else into or out
    with workplace(target) as place:
        current = place / ("pictures.zip" if folder else source.name)
        if folder:
            _zip(source, current, _packet(about, settings, ZIP))
            made["xmp"] = f"{source.name}.xmp in {target.name}" if settings.metadata else None
        elif not settings.metadata:
            current = source
        elif (packet := _packet(about, settings, media_type(source))) is not None and _embed(source, current, packet):
            made["xmp"] = "in the file"
        else:
            current = source
            made["xmp"] = xmp_beside(out).name
            write_whole(xmp_beside(out), packet or b"")
        if signer is not None:
            form = media_type(current)
            if not folder and is_signed(source):
                about = replace(about, sources=(Source("finished", source),))
            signed = place / "signed"
            made["notices"] += signing.sign(current, signed, about, settings, signer, watermarked)
            embeds = form in EMBEDS
            made["c2pa"] = {"in": "the file" if embeds else manifest_beside(out).name, "test": signer.test}
            if embeds:
                current = signed
            else:
                write_whole(manifest_beside(out), signed.read_bytes())
        if current != source or source != target:
            _put(current, target)
    return made


def _packet(about: About, settings: MarkSettings, form: str) -> bytes | None:
    return xmp.packet(about, settings.producer, form) if settings.metadata else None


def _embed(source: Path, target: Path, packet: bytes) -> bool:
    """Put XMP into a copy of the file; False where its form has no place for it."""
    writers = {MP4: boxes.write_bmff, MOV: boxes.write_bmff, PNG: boxes.write_png}
    writer = writers.get(media_type(source))
    if writer is None:
        return False
    try:
        writer(source, target, packet)
    except ValueError as error:
        raise InputError("file", source, f"it is damaged: {error}", "Make it again.") from error
    except OSError as error:
        raise output_error(target, error) from error
    return True


def _unchanged(about: About, notices: list[str]) -> About:
    """`about` without the sources that are no more what the record says."""
    kept = tuple(one for one in about.sources if one.sha256 in (None, fingerprint(one.path)))
    if lost := [one.role for one in about.sources if one not in kept]:
        notices.append(f"inputs that changed since the job are not named in the signature: {', '.join(lost)}")
    return replace(about, sources=kept)


def _reads(source: Path, about: About, settings: MarkSettings) -> bool:
    """Whether the watermark of this result can be read in the file."""
    form = "" if source.is_dir() else media_type(source)
    return detect(sample(source, form), key_of(settings)).payload == about.payload


def is_signed(path: Path) -> bool:
    try:
        return signing.read(path) is not None
    except ValueError as error:
        rule = f"it has a manifest that cannot be read ({one_line(str(error))})"
        raise InputError("file", path, rule, "Make it again, or take the manifest away.") from error


def _zip(folder: Path, target: Path, packet: bytes | None) -> None:
    """All files of a folder of pictures in order, not compressed, and the XMP."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            with (
                path.open("rb") as file,
                archive.open(zipfile.ZipInfo(f"{folder.name}/{path.name}", _EPOCH), "w") as inside,
            ):
                shutil.copyfileobj(file, inside, 1 << 20)
        if packet is not None:
            archive.writestr(zipfile.ZipInfo(f"{folder.name}.xmp", _EPOCH), packet)


@contextmanager
def workplace(out: Path) -> Iterator[Path]:
    """A hidden folder beside `out` that is gone afterwards."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".wanimate-marks-", dir=out.parent) as place:
            yield Path(place)
    except OSError as error:
        raise output_error(out, error) from error


def _put(made: Path, target: Path) -> None:
    """Give a made file its name; a source, which stays, is copied."""
    with AtomicFile(target) as file, open(made, "rb") as data:
        while piece := data.read(1 << 20):
            file.write(piece)


def write_whole(path: Path, data: bytes) -> None:
    with AtomicFile(path) as file:
        file.write(data)
