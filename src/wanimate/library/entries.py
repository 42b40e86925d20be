"""The entries of the library, in the service's database, with their files in its storage."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from wanimate.config.job import LIBRARY
from wanimate.errors import InputError
from wanimate.library import names, places
from wanimate.library.names import HOUSE, KINDS, Shelf, Status
from wanimate.library.search import Index, Wanted
from wanimate.serve.database import Database
from wanimate.serve.storage import Storage, StorageAway
from wanimate.serve.tables import ConsentVersion, Job, LibraryEntry, State, now

__all__ = ["About", "File", "Found", "Library", "Wanted"]
_TRIES = 50
_GUARDED = ("licence", "consent_ids")
"""What an approval was given for: who changes it asks for another one."""


@dataclass(frozen=True)
class About:
    """What people say of an entry. None is not said: of a new one `name` and `title` come from the file then.

    Raises:
        InputError: a value breaks its rule.
    """

    name: str | None = None
    title: str | None = None
    kind: str | None = None
    tags: Sequence[str] | None = None
    licence: str | None = None
    consent_ids: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            names.checked_name(self.name)
        if self.title is not None:
            object.__setattr__(self, "title", names.checked_title(self.title))
        if self.kind is not None:
            names.checked_choice("kind", self.kind, KINDS)
        if self.tags is not None:
            object.__setattr__(self, "tags", names.checked_tags(self.tags))
        object.__setattr__(self, "licence", names.checked_licence(self.licence))
        if self.consent_ids is not None:
            object.__setattr__(self, "consent_ids", names.checked_consents(self.consent_ids))

    def said(self) -> dict[str, Any]:
        """The fields that are said."""
        return {one.name: value for one in fields(self) if (value := getattr(self, one.name)) is not None}


@dataclass(frozen=True)
class File:
    """A file that comes into the library. `filename`: as people call it. `pieces`: a path, or its bytes."""

    shelf: Shelf
    filename: str
    suffix: str
    sha256: str
    size: int
    pieces: Path | Iterable[bytes]


@dataclass(frozen=True)
class Found:
    """Some of many entries."""

    entries: Sequence[LibraryEntry]
    total: int


class Library:
    """Entries of one database. `owner` of its methods: whose entries are seen beside the house's; None sees all.

    Methods raise InputError where something cannot be done as asked, and StorageAway.
    """

    def __init__(self, database: Database, storage: Storage, full_text: bool | None = None) -> None:
        self.database, self.storage = database, storage
        self.index = Index(database, full_text)

    # Looking

    def search(self, wanted: Wanted, owner: str | None) -> Found:
        """The entries that are wanted: the best match first, without a search the newest."""
        self.settle()
        matching, order = self.index.matching(wanted.search)
        conditions = [*wanted.conditions(), *matching, *_seen_by(owner)]
        rows = sa.select(LibraryEntry).where(*conditions).order_by(*order).offset(wanted.offset).limit(wanted.limit)
        with self.database.read() as session:
            total = session.scalar(sa.select(sa.func.count()).select_from(LibraryEntry).where(*conditions)) or 0
            return Found(session.scalars(rows).all(), total)

    def tags(self, shelf: str, owner: str | None) -> list[tuple[str, int]]:
        """Every tag with the number of its entries, the most used first."""
        wanted = sa.select(LibraryEntry.tags).where(*Wanted(shelf).conditions(), *_seen_by(owner))
        with self.database.read() as session:
            counted = Counter(tag for tags in session.scalars(wanted) for tag in tags)
        return sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))

    def find(self, name: str, owner: str | None) -> LibraryEntry | None:
        """An entry by its name or its id: the owner's own before the house's."""
        self.settle()
        with self.database.read() as session:
            return entry_of(session, name, owner)

    def having(self, sha256: str, owner: str) -> LibraryEntry | None:
        """The entry of the owner or the house with this very file."""
        wanted = sa.select(LibraryEntry).where(LibraryEntry.sha256 == sha256, *_seen_by(owner))
        with self.database.read() as session:
            return session.scalar(wanted.limit(1))

    def bytes_of(self, owner: str) -> int:
        """How much an owner's files take."""
        with self.database.read() as session:
            return session.scalar(sa.select(sa.func.sum(LibraryEntry.size)).where(LibraryEntry.owner == owner)) or 0

    # Changing

    def add(self, owner: str, file: File, about: About, values: dict[str, Any] | None = None) -> LibraryEntry:
        """A new entry, proposed.

        Args:
            values: what is known of the file (`look.Seen.values`); None while nobody has looked into it.

        Raises:
            InputError: the name is taken, the library has this very file, or a consent is not known or about another file.
        """
        if about.kind is not None and file.shelf == "character":
            raise InputError("kind", about.kind, "only clips have one", "Leave it out.")
        same = self.having(file.sha256, owner)
        if same is not None:
            rule = f"the library has this very file, as {same.name}"
            raise InputError("file", file.filename, rule, "Change that entry, or remove it first.")
        stem = Path(file.filename).stem
        said = {"title": names.checked_title(_printable(stem) or "untitled")[:200], "tags": [], "consent_ids": []}
        said |= {"kind": "other" if file.shelf == "clip" else None, "licence": None} | about.said()
        wanted = about.name or names.name_of(stem)
        for number in range(1, _TRIES):
            said["name"] = wanted if number == 1 else names.another(wanted, number)
            entry = LibraryEntry(
                id=f"lib_{secrets.token_hex(12)}", owner=owner, shelf=file.shelf, sha256=file.sha256, suffix=file.suffix,
                size=file.size, status="proposed", created=now(), words="", **said, **(values or {}),
            )  # fmt: skip
            entry.words = _words(entry)
            try:
                with self.database.write() as session:
                    _check_consents(session, entry)
                    session.add(entry)
                    session.flush()
                    self.index.put(session, entry)
            except IntegrityError as error:
                if about.name is not None:
                    raise InputError("name", wanted, "it is taken", "Give another name.") from error
                continue
            self._store(entry, file)
            return entry
        raise InputError("name", wanted, f"it is taken, and so are its first {_TRIES} successors", "Give a name.")

    def _store(self, entry: LibraryEntry, file: File) -> None:
        """Store the file of a new entry: after its row, so that nobody who removes an equal one takes it along."""
        stored = places.file_of(file.sha256, file.suffix)
        try:
            if not self.storage.exists(stored):
                self.storage.put(stored, file.pieces)
        except BaseException:
            self.remove(entry.id)
            raise

    def change(self, entry_id: str, about: About, clear: Sequence[str] = (), decides: bool = False) -> LibraryEntry:
        """What people say of an entry. A new licence or consent needs a new approval, unless who changes it `decides`.

        Args:
            clear: fields of `About` that are to be empty: licence, kind.

        Raises:
            InputError: the name is to change, which jobs have written down, or a consent is not known or about another file.
        """
        if about.name is not None:
            raise InputError("name", about.name, "jobs name entries by it, so it stays", "Change the title.")
        with self.database.write() as session:
            entry = _locked(session, entry_id)
            if about.kind is not None and entry.shelf == "character":
                raise InputError("kind", about.kind, "only clips have one", "Leave it out.")
            said = dict.fromkeys(clear) | about.said()
            before = [getattr(entry, field) for field in _GUARDED]
            for field, value in said.items():
                setattr(entry, field, value)
            if [getattr(entry, field) for field in _GUARDED] != before and entry.status == "approved" and not decides:
                entry.status, entry.approved_by, entry.approved_at = "proposed", None, None
            if about.consent_ids is not None:
                _check_consents(session, entry)
            entry.words = _words(entry)
            self.index.put(session, entry)
        return entry

    def decide(self, entry_id: str, status: Status, by: str) -> LibraryEntry:
        """Approve or retire an entry.

        Raises:
            InputError: an entry that cannot be used, whose licence nobody knows, or whose consents do not hold, is to be
                approved.
        """
        self.settle()
        with self.database.write() as session:
            entry = _locked(session, entry_id)
            if status == "approved":
                check_whole(entry, "entry")
                if entry.licence is None:
                    remedy = "Say under which licence it may be used, CC-BY-4.0 or LicenseRef-NAME for instance."
                    raise InputError(
                        "licence", None, f"nobody has said under which one {entry.name} may be used", remedy
                    )
                _check_consents(session, entry, at=now())
                entry.approved_by, entry.approved_at = by, now()
            entry.status = status
        return entry

    def remove(self, entry_id: str) -> None:
        """Remove an entry. Its files go, unless another entry or a job needs them."""
        with self.database.write() as session:
            entry = _locked(session, entry_id)
            self.index.drop(session, entry)
            session.delete(entry)
        with self.database.read() as session:
            needed = needed_contents(session, [entry.sha256])
        if not needed:
            with suppress(StorageAway):  # the service's sweeper finds files whose entry is gone
                self.storage.remove_tree(places.place_of(entry.sha256))

    # Looking into files

    def asked(self, entry_id: str, job_id: str) -> None:
        """A job will look into the entry's file."""
        with self.database.write() as session:
            _locked(session, entry_id).look_job = job_id

    def settle(self) -> None:
        """Write down what jobs have found that looked into files."""
        waits = LibraryEntry.look_job.is_not(None)
        with self.database.read() as session:
            if session.scalar(sa.select(LibraryEntry.seq).where(waits).limit(1)) is None:
                return
        with self.database.write() as session:
            for entry in session.scalars(sa.select(LibraryEntry).where(waits)):
                job = session.get(Job, entry.look_job)
                if job is not None and not State(job.state).final:
                    continue
                entry.look_job = None
                seen = {} if job is None else job.facts.get("look", {})
                for field, value in seen.items():
                    setattr(entry, field, value)
                if not seen:
                    entry.trouble = (None if job is None else job.message) or "Nobody has looked into the file."


def entry_of(session: Session, name: str, owner: str | None) -> LibraryEntry | None:
    """An entry by its name or its id: the owner's own before the house's."""
    called = sa.or_(LibraryEntry.name == name, LibraryEntry.id == name)
    wanted = sa.select(LibraryEntry).where(called, *_seen_by(owner))
    own_first = (LibraryEntry.owner == HOUSE) if owner is not None else (LibraryEntry.owner != HOUSE)
    return session.scalar(wanted.order_by(own_first, LibraryEntry.seq).limit(1))


def check_whole(entry: LibraryEntry, field: str) -> None:
    """Raises InputError: nobody could look into its file, or has so far."""
    if entry.trouble is not None:
        raise InputError(field, entry.name, f"it cannot be used: {entry.trouble}", "Add the file again.")
    if entry.width is None:
        rule = "nobody has looked into the file yet"
        raise InputError(field, entry.name, rule, "Wait until a worker has; it takes seconds.")


def check_use(entry: LibraryEntry | None, name: str, field: str, approved_only: bool) -> LibraryEntry:
    """An entry that a job may take as its `field`, image or video.

    Raises:
        InputError: there is none, it is of the other shelf, retired, or not approved where it has to be.
    """
    if entry is None:
        raise InputError(field, LIBRARY + name, "the library has no such entry", "Search the library for it.")
    shelf = "character" if field == "image" else "clip"
    if entry.shelf != shelf:
        raise InputError(field, LIBRARY + name, f"it is a {entry.shelf}", f"Name a {shelf}.")
    if entry.status == "retired":
        raise InputError(field, LIBRARY + name, "it is retired", "Take another one, or have it approved again.")
    if approved_only and entry.status != "approved":
        rule = f"it is {entry.status}, and only what is approved may be used here"
        raise InputError(field, LIBRARY + name, rule, "Have it approved, or take another one.")
    return entry


def _check_consents(session: Session, entry: LibraryEntry, at: int | None = None) -> None:
    """Whether there are the consents that an entry names, for its very file; with `at` (ms) whether they hold then.

    Raises:
        InputError: one is not there, is about another file, or does not hold.
    """
    seen = ConsentVersion.owner.in_((entry.owner, HOUSE))
    for one in entry.consent_ids:
        wanted = sa.select(ConsentVersion).where(ConsentVersion.consent_id == one, seen)
        found = session.scalar(wanted.order_by(ConsentVersion.version.desc()).limit(1))
        if found is None:
            remedy = "Take its record in first: `wanimate consent add FILE`, or POST /v1/consents."
            raise InputError("consent_ids", one, "there is no such consent", remedy)
        if found.asset != entry.sha256:
            remedy = f"Name a consent whose target is sha256:{entry.sha256}."
            raise InputError("consent_ids", one, "it is about another file", remedy)
        if at is None:
            continue
        for ends, what in ((found.withdrawn, "withdrawn"), (found.ends, "expired")):
            if ends is not None and at >= ends:
                raise InputError(
                    "consent_ids", one, f"it is {what}", "Take another entry, or have a new consent signed."
                )


def needed_contents(session: Session, contents: Iterable[str]) -> set[str]:
    """Those of these files (SHA-256) that an entry has, or a job that is kept."""
    wanted = set(contents)
    needed = set(session.scalars(sa.select(LibraryEntry.sha256).where(LibraryEntry.sha256.in_(wanted))))
    open_ = Job.state.in_((State.PENDING, State.RUNNING))
    prefix = f"{places.ROOT}/"
    used = [name for name in session.scalars(sa.select(Job.guides).where(Job.guides.startswith(prefix))) if name]
    for facts in session.scalars(sa.select(Job.facts).where(open_)):
        used += facts.get("uploads", {}).values()
    return needed | ({places.content_of(name) for name in used if name.startswith(prefix)} & wanted)


def _seen_by(owner: str | None) -> list[sa.ColumnElement[bool]]:
    return [] if owner is None else [LibraryEntry.owner.in_((owner, HOUSE))]


def _locked(session: Session, entry_id: str) -> LibraryEntry:
    found = session.scalar(sa.select(LibraryEntry).where(LibraryEntry.id == entry_id).with_for_update())
    if found is None:
        raise InputError("entry", entry_id, "the library has no such entry", "Search the library for it.")
    return found


def _words(entry: LibraryEntry) -> str:
    return names.words_of(entry.name, entry.title, entry.kind or "", *entry.tags)


def _printable(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable()).strip()[:200]
