"""Comments both ways between a shot's review and Frame.io, each once.

The journal of the hand-off knows which comment here is which one there. Where a run was killed between saying something and
writing it down, the comment is found by its words.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from wanimate.errors import InputError
from wanimate.handoff.remote import drawing
from wanimate.handoff.remote.base import REVIEW, Steps
from wanimate.handoff.remote.frameio import FrameIo, made
from wanimate.handoff.remote.journal import Entry, Journal, journals_of
from wanimate.review.records import LONGEST_NAME, LONGEST_TEXT, Comment, Remark, Reply, Shot, Version

_DRAWN = "(drawn)"
"""Text of a comment that has only marks."""


class Desk(Protocol):
    """The review of one shot."""

    def shot(self) -> Shot:
        """As it is now."""
        ...

    def add(self, version: str, author: str, identity: str, remark: Remark) -> str:
        """Say something of a version for somebody. Returns the comment's id."""
        ...

    def reply(self, comment: str, author: str, identity: str, text: str) -> str:
        """Answer a comment for somebody. Returns the answer's id."""
        ...


@dataclass(frozen=True)
class Synced:
    """How many comments and answers went over: to Frame.io, and from there."""

    out: int
    back: int


@dataclass(frozen=True)
class _Theirs:
    """A comment or an answer at Frame.io."""

    id: str
    text: str
    author: str
    identity: str
    frame: int
    duration: int
    data: Mapping[str, Any]


def syncing(api: FrameIo, desk: Desk, folder: Path) -> Steps[Synced]:
    """Bring comments over, both ways, for every version of a shot that is at Frame.io, and tell what cannot be.

    Args:
        desk: the review.
        folder: of the journals.

    Raises:
        InputError: the shot was not handed off there. RemoteError: Frame.io does not do what it is asked. HeldError: another
            process is at it.
    """
    shot = desk.shot()
    found = journals_of(folder, shot.id, "frameio")
    if not found:
        rule = "no version of it was handed off to Frame.io from here"
        raise InputError("shot", shot.name, rule, "Hand it off first, with --to frameio:PROJECT/FOLDER.")
    out = back = 0
    for path, first in found:
        about = {name: value for name, value in first.items() if name not in ("kind", "format")}
        with Journal(path, about) as journal:
            for entry in _files(journal):
                version = desk.shot().version(entry["version"])
                if version is None:
                    yield f"{entry['name']} is no version of this shot any more"
                elif api.file(entry["account"], entry["id"]) is None:
                    yield f"{entry['name']} is gone from Frame.io"
                else:
                    one = _File(api, desk, journal, entry, version)
                    back += yield from one.fetch()
                    out += one.say()
    return Synced(out, back)


def _files(journal: Journal) -> Iterator[Entry]:
    """The newest file for review of each version, as far as it has arrived."""
    arrived = {one["id"] for one in journal.all("arrived")} - {one["id"] for one in journal.all("lost")}
    files = {one["version"]: one for one in journal.all("file", role=REVIEW) if one["id"] in arrived}
    return iter(files.values())


class _File:
    """One version at Frame.io, and its comments there and here."""

    def __init__(self, api: FrameIo, desk: Desk, journal: Journal, entry: Entry, version: Version) -> None:
        self._api, self._desk, self._journal = api, desk, journal
        self._entry, self._version, self._lead = entry, version, entry["lead"]
        self._ours = {one.id: one for one in desk.shot().comments if one.job == version.job}
        self._new = set[str]()
        """Comments that this run has brought here; they have no answers here yet."""
        self._there: dict[str, str] = {one["ours"]: one["theirs"] for one in journal.all("comment")}
        self._here = {theirs: ours for ours, theirs in self._there.items()}

    def _listed(self) -> list[tuple[_Theirs, tuple[_Theirs, ...]]]:
        return [_threaded(one, self._lead) for one in self._api.comments(self._entry["account"], self._entry["id"])]

    def _same(self, ours: str, theirs: str) -> None:
        """Write down that two comments are one."""
        self._journal.add("comment", ours=ours, theirs=theirs)
        self._there[ours], self._here[theirs] = theirs, ours

    def fetch(self) -> Steps[int]:
        """Bring theirs here."""
        count = 0
        for theirs, answers in self._listed():
            if theirs.id not in self._here and not self._adopted(theirs):
                count += yield from self._added(theirs)
            ours = self._here.get(theirs.id)
            if ours in self._ours or ours in self._new:
                count += sum(self._answered(ours or "", one) for one in answers if one.id not in self._here)
        return count

    def _adopted(self, theirs: _Theirs) -> bool:
        """Whether a run that could not write it down has said theirs for us, or has brought it here."""
        said = (
            ours
            for ours, data in self._outgoing()
            if (data["text"], data["timestamp"] - self._lead) == (theirs.text, theirs.frame)
        )
        brought = (
            one.id
            for one in self._ours.values()
            if (one.author, one.text, one.frame) == (theirs.author, theirs.text, theirs.frame)
        )
        found = next((ours for ours in (*said, *brought) if ours not in self._there), None)
        if found is not None:
            self._same(found, theirs.id)
        return found is not None

    def _added(self, theirs: _Theirs) -> Steps[int]:
        remark = self._remark(theirs)
        if remark is None:
            yield f"a comment of {theirs.author} at frame {theirs.frame} cannot be taken over"
            return 0
        ours = self._desk.add(self._version.job, theirs.author, theirs.identity, remark)
        self._new.add(ours)
        self._same(ours, theirs.id)
        return 1

    def _answered(self, ours: str, answer: _Theirs) -> int:
        replies = self._ours[ours].replies if ours in self._ours else ()
        same = (one.id for one in replies if (one.author, one.text) == (answer.author, answer.text))
        found = next((one for one in same if one not in self._there), None)
        self._same(found or self._desk.reply(ours, answer.author, answer.identity, answer.text), answer.id)
        return int(found is None)

    def _remark(self, theirs: _Theirs) -> Remark | None:
        last = None if self._version.frames is None else self._version.frames - 1
        frame = theirs.frame if last is None else min(theirs.frame, last)
        duration = theirs.duration if last is None else min(theirs.duration, last - frame + 1)
        anchor = theirs.data.get("anchor")
        x, y = (_share(anchor.get(name)) for name in ("x", "y")) if isinstance(anchor, dict) else (None, None)
        if x is None or y is None:
            x = y = None
        marks = drawing.read(theirs.data.get("annotation"))
        try:
            return Remark(text=theirs.text, frame=frame, duration=duration, x=x, y=y, marks=marks)
        except ValidationError:
            return None

    def say(self) -> int:
        """Say ours there. Answers are said as comments at the same frame, since Frame.io has no call for them here."""
        new = [(ours, data) for ours, data in self._outgoing() if ours not in self._there]
        for ours, data in new:
            self._say(ours, data)
        return len(new)

    def _say(self, ours: str, data: Mapping[str, Any]) -> None:
        tried: list[bool] = []

        def look() -> str | None:
            wanted = (data["text"], data["timestamp"] - self._lead)
            found = (one.id for one, _ in (self._listed() if tried else ()) if (one.text, one.frame) == wanted)
            return next((theirs for theirs in found if theirs not in self._here), None)

        def make() -> str:
            tried.append(True)
            return self._api.comment(self._entry["account"], self._entry["id"], data)

        self._same(ours, made(look, make, self._api.clock))

    def _outgoing(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What is said here, by its id, as Frame.io takes it."""
        for comment in self._ours.values():
            yield comment.id, _data(comment, self._lead)
            for reply in comment.replies:
                yield reply.id, _answer(comment, reply, self._lead)


def _data(comment: Comment, lead: int) -> dict[str, Any]:
    """A comment of ours as Frame.io takes it."""
    data: dict[str, Any] = {"text": _text(comment), "timestamp": comment.frame + lead, "duration": comment.duration}
    if comment.x is not None and comment.y is not None:
        data["anchor"] = {"x": comment.x, "y": comment.y}
    drawn = drawing.written(comment.marks)
    return data if drawn is None else {**data, "annotation": drawn}


def _answer(comment: Comment, reply: Reply, lead: int) -> dict[str, Any]:
    text = f"{reply.author} to {comment.author}: {reply.text}"
    return {"text": _plain(text), "timestamp": comment.frame + lead, "duration": comment.duration}


def _text(comment: Comment) -> str:
    """What is said there; whoever has the token is its author there, so the text names ours."""
    return _plain(f"{comment.author}: {comment.text}")


def _threaded(data: Mapping[str, Any], lead: int) -> tuple[_Theirs, tuple[_Theirs, ...]]:
    replies = data.get("replies")
    answers = [one for one in replies if isinstance(one, dict)] if isinstance(replies, list) else []
    return _theirs(data, lead), tuple(_theirs(one, lead) for one in answers)


def _theirs(data: Mapping[str, Any], lead: int) -> _Theirs:
    owner = data.get("owner")
    owner = owner if isinstance(owner, dict) else {}
    name = " ".join(_plain(str(owner.get("name") or "")).split())[:LONGEST_NAME].strip() or "Frame.io"
    frame, duration = data.get("timestamp"), data.get("duration")
    identity = f"frameio:{owner.get('id') or 'unknown'}"[:100]
    return _Theirs(
        str(data.get("id")), _plain(str(data.get("text") or "")) or _DRAWN, name, identity,
        max(frame - lead, 0) if isinstance(frame, int) else 0, max(duration, 1) if isinstance(duration, int) else 1, data,
    )  # fmt: skip


def _plain(text: str) -> str:
    """A text as reviews keep it: no control characters, not too long."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    kept = (letter for letter in text if letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cs"))
    return "".join(kept).strip()[:LONGEST_TEXT].strip()


def _share(value: object) -> float | None:
    return min(max(float(value), 0.0), 1.0) if isinstance(value, int | float) else None
