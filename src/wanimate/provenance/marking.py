"""Marks a finished file: XMP and signature, in it where its form allows, else beside it."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wanimate.config import MarkSettings
from wanimate.errors import InputError, one_line
from wanimate.media.files import AtomicFile, output_error
from wanimate.media.names import remove, temporary_name
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


@dataclass(frozen=True)
class Marked:
    """A finished file's marks before anything has its name.

    told: what the record says under `marks`. file: the marked file in the workplace, of a folder its zip; None where the file
    stays as it is. beside: what lies beside the result, by name.
    """

    told: dict[str, Any]
    file: Path | None
    beside: dict[Path, bytes]


def mark_file(source: Path, out: Path, about: About, settings: MarkSettings, watermarked: bool) -> dict[str, Any]:
    """Write `out` and what lies beside it: a finished file, or the zip of a folder of pictures, with XMP and signature.

    Arguments, errors and what is returned: as `marked`, of which it is what the record should say under `marks`.
    """
    target = zip_of(out) if source.is_dir() else out
    with workplace(target) as place:
        found = marked(source, out, about, settings, watermarked, place)
        for path, data in found.beside.items():
            write_whole(path, data)
        if found.file is not None or source != target:
            _put(found.file or source, target)
    return found.told


def marked(
    source: Path, out: Path, about: About, settings: MarkSettings, watermarked: bool, place: Path
) -> Marked:  # fmt: skip
    """XMP and signature of a finished file or a folder of pictures, which stays as it is.

    Args:
        source: the finished file. out: its name; sidecars lie beside it, and the zip of a folder.
        about: what is told of it. A `source` that is signed already is what the new manifest starts from.
        watermarked: the frames were given the invisible watermark. It is read back; one that cannot be read is told, and not
            claimed in the signature.
        place: an empty folder for what is made.

    Raises:
        InputError: source, certificate or settings cannot be used. OutputError: something cannot be written.
    """
    signer = identity(settings)
    told: dict[str, Any] = {
        "id": about.id, "payload": f"{about.payload:08x}" if watermarked else None,
        "label": about.label if about.label != "none" else settings.label, "xmp": None, "c2pa": None, "notices": [],
    }  # fmt: skip
    about = _unchanged(about, told["notices"])
    if watermarked and not _reads(source, about, settings):
        watermarked, told["payload"] = False, None
        told["notices"].append(
            "the invisible watermark cannot be read back: the frames are too small, too few or too flat"
        )
    beside: dict[Path, bytes] = {}
    current, folder = source, source.is_dir()
    packet = _packet(about, settings, ZIP if folder else media_type(source))
    if folder and (packet is not None or signer is not None):
        name = source.name if zip_of(out) == out else out.name
        current = place / "pictures.zip"
        _zip(source, current, name, packet)
        told["xmp"] = None if packet is None else f"{name}.xmp in {zip_of(out).name}"
    elif packet is not None and not folder:
        within = place / "told"
        if _embed(source, within, packet):
            current, told["xmp"] = within, "in the file"
        else:
            beside[xmp_beside(out)], told["xmp"] = packet, xmp_beside(out).name
    if signer is not None:
        if not folder and is_signed(source):
            about = replace(about, sources=(Source("finished", source),))
        form, signed = media_type(current), place / "signed"
        told["notices"] += signing.sign(current, signed, about, settings, signer, watermarked)
        embeds = form in EMBEDS
        told["c2pa"] = {"in": "the file" if embeds else manifest_beside(out).name, "test": signer.test}
        if embeds:
            if current != source:
                current.unlink()
            current = signed
        else:
            beside[manifest_beside(out)] = signed.read_bytes()
    return Marked(told, None if current == source else current, beside)


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


def _zip(folder: Path, target: Path, name: str, packet: bytes | None) -> None:
    """All files of a folder of pictures in order, not compressed, and the XMP. `name`: of the folder in it."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            with path.open("rb") as file, archive.open(zipfile.ZipInfo(f"{name}/{path.name}", _EPOCH), "w") as inside:
                shutil.copyfileobj(file, inside, 1 << 20)
        if packet is not None:
            archive.writestr(zipfile.ZipInfo(f"{name}.xmp", _EPOCH), packet)


@contextmanager
def workplace(out: Path) -> Iterator[Path]:
    """A hidden folder beside `out` that is gone afterwards. What a killed process leaves of it is a leftover of `out`."""
    place = temporary_name(out)
    try:
        place.mkdir(parents=True)
        yield place
    except OSError as error:
        raise output_error(out, error) from error
    finally:
        remove(place)


def _put(made: Path, target: Path) -> None:
    """Give a made file its name; a source, which stays, is copied."""
    with AtomicFile(target) as file, open(made, "rb") as data:
        while piece := data.read(1 << 20):
            file.write(piece)


def write_whole(path: Path, data: bytes) -> None:
    with AtomicFile(path) as file:
        file.write(data)
