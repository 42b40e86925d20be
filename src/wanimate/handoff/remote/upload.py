"""Files on their way to Frame.io: made, sent part by part in order, and waited for, each step in the journal."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wanimate.errors import InputError
from wanimate.handoff.remote.base import Item, Options, SentFile, Shipment, Steps
from wanimate.handoff.remote.frameio import FrameIo, LostError, Part, Place, RemoteFile, made
from wanimate.handoff.remote.http import Answer, RemoteError
from wanimate.handoff.remote.journal import Entry, Journal
from wanimate.handoff.remote.limits import done_within

_PIECE = 1 << 20
_ANEW = 3
"""How often one run makes a file whose addresses have expired."""
_FRESH = 3600.0
"""Seconds in which signed addresses hold in any case."""


@dataclass(frozen=True)
class Stretch:
    """A part of a local file that is sent. It has to stay as it was when the hand-off began."""

    path: Path
    start: int
    size: int
    stamp: tuple[int, int, int]

    def pieces(self) -> Iterator[bytes]:
        """Its bytes. Raises InputError where the file has changed."""
        with open(self.path, "rb") as file:
            file.seek(self.start)
            left = self.size
            while left and (piece := file.read(min(left, _PIECE))):
                left -= len(piece)
                yield piece
            if left or stamp(self.path) != self.stamp:
                rule = "it changes while it is sent"
                raise InputError("package", self.path, rule, "Leave the package alone, then run the command again.")


def stamp(path: Path) -> tuple[int, int, int]:
    """What tells a file that was written to: its number, size and time."""
    found = os.stat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns


class Uploads:
    """Sends files of one version to one folder.

    Args:
        api: Frame.io.
        journal: of this hand-off.
        shipment: what the files are of.
    """

    def __init__(self, api: FrameIo, journal: Journal, shipment: Shipment, options: Options) -> None:
        self._api, self._journal, self._options = api, journal, options
        self._version, self._lead = shipment.version, shipment.lead
        self._clock = api.clock

    def send(self, place: Place, item: Item, path: Path) -> Steps[SentFile]:
        """Bring a file to Frame.io, from where an earlier run has stopped."""
        name, tries = Path(item.name).name, _ANEW
        while True:
            entry = yield from self._known(place, item, name)
            entry = entry or (yield from self._new(place, item, name))
            try:
                if not self._journal.has("sent", id=entry["id"]):
                    yield from self._send_parts(entry, item, path)
                yield from self._arrived(place, entry, name)
                return SentFile(item.name, entry["id"], entry["url"])
            except LostError:
                self._journal.add("lost", id=entry["id"])
                self._api.remove(place.account, entry["id"])
                tries -= 1
                if not tries:
                    raise
                yield f"{name} is sent anew"

    def fetch(self, place: Place, item: Item, url: str) -> Steps[SentFile]:
        """Let Frame.io get a file from an address."""
        name = Path(item.name).name
        entry = yield from self._known(place, item, name)
        if entry is None:
            entry = self._remember(place, item, self._api.fetch(place, name, url))
        try:
            yield from self._arrived(place, entry, name)
        except LostError:
            self._journal.add("lost", id=entry["id"])
            raise
        found = self._api.file(place.account, entry["id"])
        if found is None or found.size != item.size:
            self._journal.add("lost", id=entry["id"])
            rule = f"the address gives {0 if found is None else found.size} bytes, the package has {item.size}"
            raise InputError("links", name, rule, "Give an address of the very file, open for 12 hours and more.")
        return SentFile(item.name, entry["id"], entry["url"])

    def ready(self, place: Place, file: str, name: str) -> None:
        """Wait until a file can be played."""

        def done() -> bool:
            found = self._api.file(place.account, file)
            return found is not None and found.status == "transcoded"

        self._wait(f"{name} has arrived, but is not ready to be played", done)

    def _known(self, place: Place, item: Item, name: str) -> Steps[Entry | None]:
        """What an earlier run has begun of these very bytes. What it has begun of others is given up."""
        entry = self._journal.last("file", version=self._version, folder=place.folder, name=item.name)
        if entry is None or self._journal.has("lost", id=entry["id"]):
            return None
        there = self._api.file(place.account, entry["id"])
        if there is not None and entry["sha256"] == item.sha256:
            return entry
        self._journal.add("lost", id=entry["id"])
        if there is not None and not self._journal.has("sent", id=entry["id"]):
            yield f"{name} has changed and is sent anew"
            self._api.remove(place.account, entry["id"])
        return None

    def _new(self, place: Place, item: Item, name: str) -> Steps[Entry]:
        what = {"version": self._version, "folder": place.folder, "name": item.name}

        def make() -> RemoteFile:
            self._journal.add("creating", **what)
            return self._api.create(place, name, item.size)

        found = made(lambda: None, make, self._clock)
        room = sum(part.size for part in found.parts)
        if room != item.size or not found.media_type:
            self._api.remove(place.account, found.id)
            rule = f"it has room for {room} bytes of {name} as {found.media_type or 'nothing'}, not for {item.size}"
            raise RemoteError("to", self._api.service.name, rule, "Run the same command again later.")
        entry = self._remember(place, item, found)
        if len(list(self._journal.all("creating", **what))) > len(list(self._journal.all("file", **what))):
            yield from self._leftovers(place, item, name)
        return entry

    def _leftovers(self, place: Place, item: Item, name: str) -> Iterator[str]:
        """Name files without bytes that a run has made and could not write down. They may be somebody else's, so they stay."""
        ours = {one["id"] for one in self._journal.all("file")}
        for one in self._api.children(place, "file"):
            if (one.name, one.size, one.status) == (name, item.size, "created") and one.id not in ours:
                yield f"{name} ({one.id}) lies there without its bytes, maybe from a run that broke off"

    def _remember(self, place: Place, item: Item, found: RemoteFile) -> Entry:
        self._journal.add(
            "file", id=found.id, lead=self._lead, version=self._version, folder=place.folder, account=place.account,
            name=item.name, role=item.role, sha256=item.sha256, size=item.size, media_type=found.media_type, url=found.url,
            at=round(self._clock.now()), parts=[[part.size, part.url] for part in found.parts],
        )  # fmt: skip
        entry = self._journal.last("file", id=found.id)
        assert entry is not None
        return entry

    def _arrived(self, place: Place, entry: Entry, name: str) -> Iterator[str]:
        if self._journal.has("arrived", id=entry["id"]):
            return
        self._wait(f"{name} has not arrived", lambda: self._api.uploaded(place.account, entry["id"]))
        self._journal.add("arrived", id=entry["id"])
        yield f"{name} has arrived"

    def _send_parts(self, entry: Entry, item: Item, path: Path) -> Iterator[str]:
        start, now = 0, stamp(path)
        parts = [Part(size, url) for size, url in entry["parts"]]
        headers = {"Content-Type": entry["media_type"], "x-amz-acl": "private"}
        done = {one["number"] for one in self._journal.all("part", id=entry["id"])}
        for number, part in enumerate(parts):
            if number not in done:
                stretch = Stretch(path, start, part.size, now)
                answer = self._api.service.put(part.url, {**headers, "Content-Length": str(part.size)}, stretch.pieces)
                if self._expired(answer, entry):
                    raise LostError(
                        "to", self._api.service.name, "its addresses have expired", "Run the command again."
                    )
                if not answer.good:
                    raise self._api.service.wrong(answer, f"part {number + 1} of {item.name}")
                self._journal.add("part", id=entry["id"], number=number)
                yield f"{item.name}: {start + part.size} of {item.size} bytes"
            start += part.size
        self._journal.add("sent", id=entry["id"])

    def _expired(self, answer: Answer, entry: Entry) -> bool:
        """Whether a signed address is of no use any more. A refusal of a fresh one has another cause."""
        if answer.status == 403:
            return b"expired" in answer.body.lower() or self._clock.now() - entry["at"] > _FRESH
        return answer.status in (404, 410)

    def _wait(self, rule: str, done: Callable[[], bool]) -> None:
        patience = self._options.patience
        if not done_within(patience, done, self._clock):
            remedy = "Run the same command again later; nothing is sent twice."
            raise RemoteError("to", self._api.service.name, f"{rule} after {patience:g} s", remedy)
