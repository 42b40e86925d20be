"""The files that a job is asked with: uploads, and entries of the library. Who may use which is decided here."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from wanimate.errors import InputError
from wanimate.library import places
from wanimate.library.entries import check_use, entry_of
from wanimate.serve.errors import of_input, wrong
from wanimate.serve.keys import Caller
from wanimate.serve.settings import ServeSettings
from wanimate.serve.submission import LOOKS, Source, Submission
from wanimate.serve.tables import Job, LibraryEntry, Upload, now

FIELDS = ("image", "video", "mask")


def found(session: Session, caller: Caller, job: Job, submission: Submission) -> dict[str, Any]:
    """Facts of the job: where the storage has its files (`uploads`), and which are of the library (`library`), by field.

    Raises:
        ServiceError: 400, one is not there, or may not be used.
    """
    stored: dict[str, str] = {}
    entries: dict[str, dict[str, Any]] = {}
    for field in FIELDS:
        source: Source | None = getattr(submission, field)
        if source is None:
            continue
        if source.upload is not None:
            stored[field] = _uploaded(session, caller, job, source.upload, field)
        elif source.library is not None:
            entry = _entry(session, caller, submission, source.library, field)
            stored[field] = places.file_of(entry.sha256, entry.suffix)
            entries[field] = {"id": entry.id, "name": entry.name, "sha256": entry.sha256}
    return {"uploads": stored} | ({"library": entries} if entries else {})


def check_clip(session: Session, job: Job, settings: ServeSettings) -> None:
    """Where only approved clips may be used: refuse a job with another one, or with the guides of one. Raises ServiceError
    (400)."""
    if settings.clips == "any" or job.kind in LOOKS:
        return
    field = "parent" if job.submission.get("parent") else "video"
    entries = job.facts.get("library", {})
    if "video" not in entries:
        raise wrong(field, f"{field}: only approved clips of the library may be used here. Take one of those.")
    for part, named in entries.items():
        try:
            check_use(entry_of(session, named["id"], None), named["name"], part, approved_only=True)
        except InputError as error:
            raise wrong(field if part == "video" else part, str(error)) from error


def _uploaded(session: Session, caller: Caller, job: Job, upload: str, field: str) -> str:
    row = session.get(Upload, upload)
    if row is None or row.owner != caller.owner or row.expires < now():
        raise wrong(field, f"{field}: there is no such upload.")
    if row.model is not None and row.model != job.model:
        raise wrong(field, f"{field}: the upload was made for the model {row.model}.")
    return row.stored


def _entry(session: Session, caller: Caller, submission: Submission, name: str, field: str) -> LibraryEntry:
    if field == "mask":
        raise wrong(field, "mask: the library has none.")
    entry = entry_of(session, name, caller.owner)
    if entry is not None and submission.kind == "library":
        return entry
    try:
        return check_use(entry, name, field, approved_only=False)
    except InputError as error:
        raise of_input(error) from error
