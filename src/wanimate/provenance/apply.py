"""Marks a finished result of a job by itself, beside its record."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from wanimate.config import MarkSettings
from wanimate.config.marks import LabelKind
from wanimate.errors import InputError, setting
from wanimate.media.files import json_bytes, read_own_json
from wanimate.media.places import check_apart_from, check_file
from wanimate.provenance.about import Source, about_job
from wanimate.provenance.anew import mark_frames
from wanimate.provenance.certificates import identity
from wanimate.provenance.forms import EMBEDS, PNG, manifest_beside, media_type, xmp_beside, zip_of
from wanimate.provenance.frames import FrameMarks
from wanimate.provenance.marking import is_signed, mark_file, workplace, write_whole
from wanimate.weights.fingerprint import fingerprint


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
    about = about_job(data)
    out = zip_of(out) if file.is_dir() else out
    _refuse(file, record, out, overwrite)
    signer = identity(settings)  # before the frames are encoded anew
    signed = signer is not None and not file.is_dir() and is_signed(file)
    about = replace(about, steps=steps if signed else (*about.steps, *steps))
    fresh = settings.invisible and not about.watermarked
    label = "none" if about.label != "none" else settings.label
    anew = not file.is_dir() and (fresh or label != "none") and media_type(file) != PNG
    if file.is_dir() or media_type(file) == PNG:
        fresh, label = False, "none"
    with workplace(out) as place:
        source = file
        if anew:
            source = place / file.name
            mark_frames(file, source, _frame_marks(data, settings, fresh, label, about.id))
            if signed:
                done = ("c2pa.transcoded", *(("c2pa.edited",) if label != "none" else ()))
                about = replace(about, sources=(Source("finished", file),), steps=(*steps, *done))
        about = replace(about, label=label if about.label == "none" else about.label)
        what = settings.model_copy(update={"label": label})
        told = mark_file(source, out, about, what, fresh or about.watermarked)
    if settings.invisible and not (anew or told["payload"]):
        told["notices"].append("pictures are not marked anew: the invisible watermark belongs into the job")
    result = {"name": out.name, "sha256": fingerprint(out), "replaces": None}
    sidecars = [path for path in (xmp_beside(out), manifest_beside(out)) if path.name in _beside(told)]
    made = {**data, "out": out.name, "result": result, "sheet": None, "marks": told}
    made |= {"beside": [{"name": path.name, "sha256": fingerprint(path), "replaces": None} for path in sidecars]}
    record = out.with_suffix(".json")
    write_whole(record, json_bytes(made, 2))
    if not file.is_dir() and media_type(file) not in EMBEDS:
        _remove_others(out, sidecars)
    files = [out, *sidecars, record]
    return told | {"files": [str(path) for path in files]}


def _frame_marks(data: dict[str, Any], settings: MarkSettings, fresh: bool, label: LabelKind, id: str) -> FrameMarks:
    """What is put on the frames of a finished file that has some marks already."""
    what = settings.model_copy(update={"invisible": fresh, "label": label})
    delivered = {**data, **(data.get("delivered") or {})}
    width, height = delivered["size"]
    return FrameMarks(what, width, height, float(Fraction(delivered["fps"])), id)


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


def marked_words(told: dict[str, Any]) -> str:
    """The same in a few words: "marked: label eu, watermark, XMP, signed"."""
    signed = told["c2pa"]
    found = {
        f"label {told['label']}": told["label"] != "none", "watermark": told["payload"], "XMP": told["xmp"],
        "signed with a test certificate": signed and signed["test"], "signed": signed and not signed["test"],
    }  # fmt: skip
    return f"marked: {', '.join(name for name, there in found.items() if there) or 'nothing'}"


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
