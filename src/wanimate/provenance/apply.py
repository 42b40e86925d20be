"""Marks a finished file: XMP and signature, in it where its form allows, else beside it."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from wanimate.config import MarkSettings
from wanimate.errors import InputError, one_line, setting
from wanimate.media.files import AtomicFile, json_bytes, output_error, read_own_json
from wanimate.media.places import check_apart_from, check_file
from wanimate.provenance import boxes, signing, xmp
from wanimate.provenance.about import About, Source, about_job
from wanimate.provenance.anew import mark_frames
from wanimate.provenance.certificates import identity
from wanimate.provenance.forms import EMBEDS, MOV, MP4, PNG, ZIP, manifest_beside, media_type, xmp_beside, zip_of
from wanimate.provenance.frames import FrameMarks, key_of
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
    with _workplace(target) as place:
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
            _write(xmp_beside(out), packet or b"")
        if signer is not None:
            form = media_type(current)
            if not folder and _is_signed(source):
                about = replace(about, sources=(Source("finished", source),))
            signed = place / "signed"
            made["notices"] += signing.sign(current, signed, about, settings, signer, watermarked)
            embeds = form in EMBEDS
            made["c2pa"] = {"in": "the file" if embeds else manifest_beside(out).name, "test": signer.test}
            if embeds:
                current = signed
            else:
                _write(manifest_beside(out), signed.read_bytes())
        if current != source or source != target:
            _put(current, target)
    return made


def apply(
    file: Path, record: Path, out: Path, settings: MarkSettings, overwrite: bool = False, steps: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Mark a finished result of a job by itself. `out` and its record are written; `file` stays as it is.

    A label or a watermark means that the frames are encoded anew. A watermark that the record tells of is not put in twice.

    Args:
        record: the job's record. steps: what else was done to the file, in C2PA's words ("c2pa.resized").

    Returns:
        What `mark_file` does, with the names of what was written under `files`.

    Raises:
        InputError: the file is not the one that the record tells of. OutputError: a name is taken; something cannot be written.
    """
    data = _record(file, record)
    before: dict[str, Any] = data.get("marks") or {}
    about = replace(about_job(data), steps=steps)
    out = zip_of(out) if file.is_dir() else out
    _refuse(file, record, out, overwrite)
    identity(settings)  # before the frames are encoded anew
    fresh = settings.invisible and not before.get("payload")
    label = "none" if before.get("label", "none") != "none" else settings.label
    anew = not file.is_dir() and (fresh or label != "none") and media_type(file) != PNG
    if file.is_dir() or media_type(file) == PNG:
        fresh, label = False, "none"
    with _workplace(out) as place:
        source = file
        if anew:
            source = place / file.name
            what = settings.model_copy(update={"invisible": fresh, "label": label})
            width, height = data["size"]
            mark_frames(file, source, FrameMarks(what, width, height, float(Fraction(data["fps"])), about.id))
            if _is_signed(file):
                done = ("c2pa.transcoded", *(("c2pa.edited",) if label != "none" else ()))
                about = replace(about, sources=(Source("finished", file),), steps=(*steps, *done))
        told = mark_file(source, out, about, settings, fresh or bool(before.get("payload")))
    told["label"] = before["label"] if before.get("label", "none") != "none" else label
    if settings.invisible and not (anew or told["payload"]):
        told["notices"].append("pictures are not marked anew: the invisible watermark belongs into the job")
    result = {"name": out.name, "sha256": fingerprint(out), "replaces": None}
    beside = out.with_suffix(".json")
    _write(beside, json_bytes({**data, "out": out.name, "result": result, "sheet": None, "marks": told}, 2))
    sidecars = [path for path in (xmp_beside(out), manifest_beside(out)) if path.name in _beside(told)]
    if not file.is_dir() and media_type(file) not in EMBEDS:
        _remove_others(out, sidecars)
    files = [out, *sidecars, beside]
    return told | {"files": [str(path) for path in files]}


def _beside(told: dict[str, Any]) -> set[str]:
    return {str(told["xmp"]), str((told["c2pa"] or {}).get("in"))}


def _remove_others(out: Path, kept: list[Path]) -> None:
    """Sidecars of an older file of this name, which was written over, do not fit the new one."""
    for path in (xmp_beside(out), manifest_beside(out)):
        if path not in kept:
            path.unlink(missing_ok=True)


def _record(file: Path, path: Path) -> dict[str, Any]:
    """The record of a finished result. Raises InputError where it is none, or tells of another file."""
    try:
        found = None if file.is_dir() else fingerprint(file)
    except OSError as error:
        raise InputError("file", file, f"it cannot be read ({error.strerror})", "Name a finished result.") from error
    data = read_own_json(path)
    if (
        not isinstance(data, dict)
        or not isinstance(data.get("result"), dict)
        or not isinstance(data.get("inputs"), dict)
    ):
        rule = "it is no record of a job" if path.is_file() else "there is no record of the job"
        raise InputError("record", path, rule, "Give the JSON file that was written with the result.")
    if found not in (None, data["result"].get("sha256")):
        rule = "it is not the result that the record tells of, or was changed since"
        raise InputError("file", file, rule, f"Name its own record with {setting('record')}.")
    return data


def _refuse(file: Path, record: Path, out: Path, overwrite: bool) -> None:
    """Raise OutputError if a name that will be written is taken, or is read."""
    targets = (out, out.with_suffix(".json"), xmp_beside(out), manifest_beside(out))
    check_apart_from("out", targets, (file, record))
    for path in targets:
        check_file("out", path, False, overwrite)


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


def _is_signed(path: Path) -> bool:
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
def _workplace(out: Path) -> Iterator[Path]:
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


def _write(path: Path, data: bytes) -> None:
    with AtomicFile(path) as file:
        file.write(data)


def told_in_words(told: dict[str, Any]) -> str:
    """What was done, for people."""
    lines = [
        f"label: {told['label']}",
        f"invisible watermark: {told['payload'] or 'none'}",
        f"XMP: {told['xmp'] or 'none'}",
    ]
    signed = told["c2pa"]
    test = ", with a test certificate: verifiers elsewhere show it as unknown" if signed and signed["test"] else ""
    lines.append(f"C2PA: {'not signed' if signed is None else 'signed, in ' + signed['in'] + test}")
    return "\n".join([*lines, *(f"note: {notice}" for notice in told["notices"])])
