"""The library: clips and characters that are used again, with their approval. A worker looks into what is added."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Field

from wanimate.errors import InputError
from wanimate.library import places
from wanimate.library.entries import About, File, Wanted
from wanimate.library.names import HOUSE, Kind, Shelf, Status
from wanimate.serve.content import kind_of_head
from wanimate.serve.errors import ServiceError, missing, of_input, wrong
from wanimate.serve.faces.common import Admin, Base, Reader, RequestId, Submitter, TheService
from wanimate.serve.faces.own.forms import Done, Rows, refusals
from wanimate.serve.faces.own.jobs import FACE
from wanimate.serve.keys import Caller
from wanimate.serve.service import Service
from wanimate.serve.storage import NotStored
from wanimate.serve.submission import Submission
from wanimate.serve.tables import DAY, LibraryEntry, now

router = APIRouter(tags=["library"])
_FIRST = 50
"""Priority of looking into a file: it takes seconds."""
_HEAD = 64
EntryId = Annotated[str, InPath(max_length=64, description="As `id` of an entry.")]
Tag = Annotated[str, Field(max_length=200)]


class Loop(BaseModel):
    """Frames `start` to `stop` - 1, again and again. `seam`: how far the frame after the seam is from the one that would have
    come, in steps of the motion."""

    start: int
    stop: int
    seam: float


class EntryView(BaseModel):
    """A clip or a character. `name` is what `library` of a source names. `house`: everybody sees and uses it; admins change it.
    `looking`: no worker has looked into the file yet. `trouble`: why it cannot be used. `camera`: null until it is analysed.
    `file`, `preview` and `poster` are links that need no key."""

    object: Literal["library.entry"] = "library.entry"
    id: str
    owner: str
    house: bool
    shelf: Shelf
    name: str
    title: str
    kind: Kind | None
    tags: list[str]
    sha256: str
    size: int
    width: int | None
    height: int | None
    seconds: float | None
    fps: str | None
    people: int | None
    loopable: bool
    loop: Loop | None
    camera: dict[str, Any] | None
    licence: str | None
    consent_ids: list[str]
    status: Status
    approved_by: str | None
    approved_at: int | None
    looking: bool
    trouble: str | None
    created: int
    file: str
    preview: str | None
    poster: str | None


class Said(BaseModel):
    """What people say of an entry. `licence`: an SPDX id, or LicenseRef-NAME for one of the house."""

    model_config = ConfigDict(extra="forbid")

    title: str | None = Field(default=None, max_length=200)
    kind: Kind | None = None
    tags: list[Tag] | None = Field(default=None, max_length=100)
    licence: str | None = Field(default=None, max_length=200)
    consent_ids: list[Tag] | None = Field(default=None, max_length=200)

    def about(self, name: str | None = None) -> About:
        """Raises ServiceError (400)."""
        try:
            return About(name, self.title, self.kind, self.tags, self.licence, self.consent_ids)
        except InputError as error:
            raise of_input(error) from error


class NewEntry(Said):
    """A file for the library: an upload, or the clip (`part` video) or picture (image) that a job was asked with. Its content
    tells the shelf. `name`: jobs call it so; the file's, if it is left out. `house`: for everybody; admins only."""

    upload: str | None = Field(default=None, max_length=64)
    job: str | None = Field(default=None, max_length=64)
    part: Literal["video", "image"] = "video"
    name: str | None = Field(default=None, max_length=63)
    house: bool = False


class Asked(BaseModel):
    """Which entries are listed."""

    shelf: Shelf | None = None
    search: str = Field("", max_length=200, description="Beginnings of words in name, title, kind and tags.")
    tag: list[Tag] | None = Field(None, max_length=20, description="All of these; repeatable.")
    kind: Kind | None = None
    status: Status | None = None
    everybody: bool = Field(False, description="Entries of all owners, for admins.")
    limit: int = Field(50, ge=1, le=500)
    cursor: str | None = Field(None, max_length=10, description="`next` of the page before.")

    def wanted(self) -> Wanted:
        """Raises ServiceError (400)."""
        if self.cursor is not None and not (self.cursor.isascii() and self.cursor.isdecimal()):
            raise wrong("cursor", "cursor: it is none that an answer gave.")
        return Wanted(
            self.shelf or "", self.search, tuple(tag.casefold() for tag in self.tag or ()), self.kind or "",
            self.status or "", int(self.cursor or 0), self.limit,
        )  # fmt: skip


class Count(BaseModel):
    tag: str
    entries: int


def _view(service: Service, row: LibraryEntry, base: str) -> EntryView:
    until = (now() // DAY + 2) * DAY  # the same address all day, so that browsers keep what they have

    def link(stored: str, name: str) -> str:
        return service.link(stored, name, until, base)

    ready = row.width is not None
    preview, poster = places.beside(row.sha256, places.PREVIEW), places.beside(row.sha256, places.POSTER)
    same = (
        "id", "owner", "shelf", "name", "title", "kind", "tags", "sha256", "size", "width", "height", "seconds", "fps",
        "people", "loop", "camera", "licence", "consent_ids", "status", "approved_by", "approved_at", "trouble", "created",
    )  # fmt: skip
    return EntryView(
        **{name: getattr(row, name) for name in same}, house=row.owner == HOUSE, loopable=row.loop is not None,
        looking=not ready and row.trouble is None,
        file=link(places.file_of(row.sha256, row.suffix), f"{row.name}{row.suffix}"),
        preview=link(preview, f"{row.name}.mp4") if ready and row.shelf == "clip" else None,
        poster=link(poster, f"{row.name}.webp") if ready else None,
    )  # fmt: skip


@router.get("/library", summary="Clips and characters", responses=refusals())
def listed(service: TheService, caller: Reader, base: Base, asked: Annotated[Asked, Query()]) -> Rows[EntryView]:
    """The best match first; without a search the newest. The owner's, and the house's."""
    wanted = asked.wanted()
    everybody = asked.everybody and caller.is_admin
    found = service.library.search(wanted, None if everybody else caller.owner)
    behind = wanted.offset + len(found.entries)
    more = str(behind) if found.entries and behind < found.total else None
    return Rows(data=[_view(service, row, base) for row in found.entries], next=more, total=found.total)


@router.get("/library/tags", summary="Tags and how many entries have them", responses=refusals())
def tags(
    service: TheService, caller: Reader, shelf: Shelf | None = None,
    everybody: Annotated[bool, Query(description="Of all owners, for admins.")] = False,
) -> Rows[Count]:  # fmt: skip
    """The most used first."""
    owner = None if everybody and caller.is_admin else caller.owner
    return Rows(data=[Count(tag=tag, entries=count) for tag, count in service.library.tags(shelf or "", owner)])


@router.post("/library", summary="Add a clip or a character", responses=refusals(404, 409, 429), status_code=201)
def add(service: TheService, caller: Submitter, request_id: RequestId, base: Base, new: NewEntry) -> EntryView:
    """It is proposed until an admin approves it. `looking` until a worker has looked into the file."""
    if new.house and not caller.is_admin:
        raise ServiceError(403, "AccessDenied", "Only admins add entries for the house.", "house")
    if (new.upload is None) == (new.job is None):
        raise wrong("upload", "upload: give either upload or job.")
    about, owner = new.about(new.name), HOUSE if new.house else caller.owner
    file = _uploaded(service, caller, new.upload) if new.upload is not None else _of_job(service, caller, new)
    if service.library.bytes_of(owner) + file.size > service.settings.largest_library:
        text = f"The library of one owner may take {service.settings.largest_library / 2**20:g} MB."
        raise ServiceError(429, "Throttling.AllocationQuota", text, retry_after=600)
    try:
        row = service.library.add(owner, file, about)
    except InputError as error:
        raise of_input(error) from error
    except NotStored as error:
        raise wrong("upload", "upload: the file is not kept any more.") from error
    field = "video" if row.shelf == "clip" else "image"
    look = Submission.of({"kind": "library", field: {"library": row.id}, "priority": _FIRST})
    try:
        job = service.submit(caller, look, FACE, request_id)
    except ServiceError:
        service.library.remove(row.id)
        raise
    service.library.asked(row.id, job.id)
    service.log(caller, request_id, "library.add", row.id, name=row.name)
    return _view(service, row, base)


def _uploaded(service: Service, caller: Caller, upload: str) -> File:
    row = service.upload(caller.owner, upload)
    if row is None:
        raise wrong("upload", "upload: there is no such upload.")
    return _file(service, row.stored, row.filename, row.digest)


def _of_job(service: Service, caller: Caller, new: NewEntry) -> File:
    """The file that a job was asked with; of a clip from an address, what the job has kept of it."""
    assert new.job is not None
    job = service.job(caller, new.job)
    stored = job.facts.get("uploads", {}).get(new.part)
    if stored is None or not service.storage.exists(stored):
        kept = service.storage.list(job.guides) if job.guides and new.part == "video" else []
        stored = next((file.name for file in kept if file.name.startswith(f"{job.guides}/clip.")), None)
    if stored is None:
        raise wrong("job", f"job: its {new.part} is not kept any more.")
    title = job.submission["name"] or stored.rpartition("/")[2]
    return _file(service, stored, title, None)


def _file(service: Service, stored: str, filename: str, digest: str | None) -> File:
    head = b"".join(service.storage.read(stored, 0, _HEAD))
    kind = kind_of_head(head)
    if kind is None:
        raise wrong("upload", "upload: it is no picture and no clip of a known kind.", "InvalidFile.Format")
    shelf: Shelf = "clip" if kind.family == "clip" else "character"
    digest = digest or _digest(service.storage.read(stored))
    return File(shelf, filename, kind.suffix, digest, service.storage.size(stored), service.storage.read(stored))


def _digest(pieces: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _entry(service: Service, caller: Caller, entry_id: str, changes: bool = False) -> LibraryEntry:
    """One that the caller sees; one that they may change. Raises ServiceError (403, 404)."""
    row = service.library.find(entry_id, None if caller.is_admin else caller.owner)
    if row is None or row.id != entry_id:
        raise missing("entry")
    if changes and row.owner != caller.owner and not caller.is_admin:
        raise ServiceError(403, "AccessDenied", "Only admins change the house's entries.")
    return row


@router.get("/library/{entry_id}", summary="One entry", responses=refusals(404))
def one(service: TheService, caller: Reader, entry_id: EntryId, base: Base) -> EntryView:
    return _view(service, _entry(service, caller, entry_id), base)


@router.patch("/library/{entry_id}", summary="Change title, tags, licence, consents", responses=refusals(404))
def change(
    service: TheService, caller: Submitter, request_id: RequestId, entry_id: EntryId, base: Base, said: Said
) -> EntryView:
    """Fields that are left out stay. `licence` null takes it back. An approved entry with another licence or other consents is
    proposed again, unless an admin changes it."""
    _entry(service, caller, entry_id, changes=True)
    clear = [name for name in ("licence",) if name in said.model_fields_set and getattr(said, name) is None]
    try:
        row = service.library.change(entry_id, said.about(), clear, decides=caller.is_admin)
    except InputError as error:
        raise of_input(error) from error
    service.log(caller, request_id, "library.change", entry_id, fields=sorted(said.model_fields_set))
    return _view(service, row, base)


@router.post("/library/{entry_id}/approve", summary="Approve an entry", responses=refusals(404))
def approve(service: TheService, caller: Admin, request_id: RequestId, entry_id: EntryId, base: Base) -> EntryView:
    """It needs a licence, and a file that can be used."""
    return _decided(service, caller, request_id, entry_id, base, "approved")


@router.post("/library/{entry_id}/retire", summary="Retire an entry", responses=refusals(404))
def retire(service: TheService, caller: Admin, request_id: RequestId, entry_id: EntryId, base: Base) -> EntryView:
    """No new job may take it."""
    return _decided(service, caller, request_id, entry_id, base, "retired")


def _decided(service: Service, caller: Caller, request_id: str, entry_id: str, base: str, status: Status) -> EntryView:
    _entry(service, caller, entry_id)
    try:
        row = service.library.decide(entry_id, status, caller.owner)
    except InputError as error:
        raise of_input(error) from error
    service.log(
        caller, request_id, f"library.{'approve' if status == 'approved' else 'retire'}", entry_id, name=row.name
    )
    return _view(service, row, base)


@router.delete("/library/{entry_id}", summary="Remove an entry", responses=refusals(404))
def delete(service: TheService, caller: Submitter, request_id: RequestId, entry_id: EntryId) -> Done:
    """Its files go with it, unless a job that is kept needs them."""
    row = _entry(service, caller, entry_id, changes=True)
    service.library.remove(entry_id)
    service.log(caller, request_id, "library.delete", entry_id, name=row.name)
    return Done(id=entry_id)
