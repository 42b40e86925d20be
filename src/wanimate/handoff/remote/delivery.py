"""A package on its way to Frame.io: its files, the version stack, fields."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from wanimate.errors import InputError
from wanimate.handoff.remote.base import (
    REVIEW,
    Item,
    Options,
    Package,
    Sent,
    SentFile,
    Shipment,
    Steps,
    Target,
    place_of,
)
from wanimate.handoff.remote.frameio import FrameIo, Place
from wanimate.handoff.remote.journal import Journal, journals_folder
from wanimate.handoff.remote.upload import Uploads

_KINDS = {"text": str, "text_area": str, "long_text": str, "number": float}
"""Types of fields that a text can be given to, and what becomes of it."""


def to_frameio(
    api: FrameIo,
    package: Package,
    target: Target,
    shipment: Shipment,
    options: Options,
    leave: Callable[[Journal], None],
) -> Steps[Sent]:
    """Send a package to a folder. The caller has asked the gate, and has looked at the bytes.

    Args:
        leave: called before the first file is made there.

    Raises:
        InputError: the folder is not there. RemoteError: Frame.io does not do what it is asked. HeldError: another process is
            at it.
    """
    place = api.find(target, options.make_folders)
    about = {"service": "frameio", "shot": shipment.shot, "folder": place.folder, "project": place.project}
    path = journal_path(options, shipment, "frameio", place.folder)
    with Journal(path, {**about, "account": place.account}) as journal:
        leave(journal)
        delivery = _Delivery(api, journal, place, shipment, options)
        files = []
        for item in chosen(package, options):
            sent = yield from delivery.file(package, item)
            files.append((item, sent))
        yield from delivery.stack(files)
        yield from delivery.fields([sent.id for _, sent in files])
        if options.until == "ready":
            delivery.ready(files)
    return Sent(target.text, place.url, tuple(sent for _, sent in files), ())


def chosen(package: Package, options: Options) -> list[Item]:
    """The files that are sent, the one for review last, so that a version appears when all of it is there.

    Raises:
        InputError: there are none of these roles.
    """
    roles = options.roles or {item.role for item in package.files}
    found = [item for item in package.files if item.role in roles]
    if not found:
        known = ", ".join(sorted({item.role for item in package.files})) or "none"
        raise InputError("roles", ", ".join(options.roles), f"the package has the roles {known}", "Name some of these.")
    return sorted(found, key=lambda item: item.role == REVIEW)


def journal_path(options: Options, shipment: Shipment, service: str, place: str) -> Path:
    """Where the journal of a shot's hand-offs to a place lies."""
    digest = hashlib.sha256("\0".join((service, place, shipment.shot)).encode()).hexdigest()[:16]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", shipment.shot).strip("-.")[:40]
    return (options.journals or journals_folder()) / f"{service}-{name or 'shot'}-{digest}.jsonl"


class _Delivery:
    def __init__(self, api: FrameIo, journal: Journal, place: Place, shipment: Shipment, options: Options) -> None:
        self._api, self._journal, self._place = api, journal, place
        self._shipment, self._options = shipment, options
        self._uploads = Uploads(api, journal, shipment, options)
        self._folders: dict[str, Place] = {"": place}

    def file(self, package: Package, item: Item) -> Steps[SentFile]:
        place = self._below(str(Path(item.name).parent))
        if item.name in self._options.links:
            return (yield from self._uploads.fetch(place, item, self._options.links[item.name]))
        return (yield from self._uploads.send(place, item, place_of(package, item)))

    def _below(self, folder: str) -> Place:
        """The folder of the target that a folder of the package becomes."""
        folder = "" if folder == "." else folder
        if folder not in self._folders:
            above, _, name = folder.rpartition("/")
            found = self._api.make_folder(self._below(above), name)
            self._folders[folder] = Place(self._place.account, self._place.project, found.id, found.url)
        return self._folders[folder]

    def stack(self, files: Sequence[tuple[Item, SentFile]]) -> Iterator[str]:
        """Put the file for review on top of its earlier versions."""
        reviews = [(item, sent) for item, sent in files if item.role == REVIEW]
        if len(reviews) != 1:
            return
        ((item, review),) = reviews
        place = self._below(str(Path(item.name).parent))
        sent = {one["id"] for one in self._journal.all("arrived")}
        earlier = {
            one["version"]: one["id"]
            for one in self._journal.all("file", role=REVIEW, folder=place.folder)
            if one["id"] in sent and one["version"] != self._shipment.version
        }
        if not earlier:
            return
        stack, left = self._api.stack(place, [*earlier.values(), review.id])
        if left:
            yield f"{len(left)} earlier versions lie in another folder now and are not in the stack"
        if stack is not None and not self._journal.has("stacked", id=review.id, stack=stack):
            self._journal.add("stacked", id=review.id, stack=stack)
            yield f"{review.name} is the newest version of its stack"

    def fields(self, files: Sequence[str]) -> Iterator[str]:
        """Give the files their fields. Definitions are made where they are missing."""
        values = dict(self._options.fields)
        if not values or self._journal.has("fields", files=list(files), values=values):
            return
        known, told = self._api.definitions(self._place.account), {}
        for name, value in values.items():
            field, kind = known.get(name) or (self._api.define(self._place.account, name), "text")
            try:
                told[field] = _KINDS[kind](value)
            except (KeyError, ValueError):
                yield f"the field {name} is of the type {kind} at Frame.io and stays as it is"
        if told:
            self._api.set_fields(self._place, files, told)
        self._journal.add("fields", files=list(files), values=values)

    def ready(self, files: Sequence[tuple[Item, SentFile]]) -> None:
        for item, sent in files:
            if item.media_type.startswith("video/"):
                self._uploads.ready(self._place, sent.id, sent.name)
