"""Where results went, and what of it has to be taken back."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from wanimate.approval.leaving import Leaving
from wanimate.serve.errors import ServiceError
from wanimate.serve.tables import Recall, Release


@dataclass(frozen=True)
class Gone:
    """A release and, where it was revoked, what became of it."""

    release: Release
    recall: Recall | None

    @property
    def state(self) -> str:
        """left, to_be_taken_back or taken_back."""
        if self.recall is None:
            return "left"
        return "to_be_taken_back" if self.recall.confirmed is None else "taken_back"

    def told(self) -> dict[str, object]:
        """As JSON can hold it."""
        row, recall = self.release, self.recall
        names = ("id", "at", "output", "way", "place", "regions", "derived", "decisions", "by")
        found = {name: getattr(row, name) for name in names} | {"state": self.state}
        return found | {
            name: None if recall is None else getattr(recall, name)
            for name in ("asked", "confirmed", "confirmed_by", "note")
        }


def write(session: Session, leaving: Leaving, decisions: Sequence[str], by: str, at: int) -> Release:
    """Write down that a result leaves."""
    row = Release(
        id=f"release_{secrets.token_hex(12)}", at=at, output=leaving.output_sha256, way=leaving.way, place=leaving.place,
        regions=list(leaving.regions), derived=[list(one) for one in leaving.derived], decisions=list(decisions), by=by,
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row


def of(session: Session, outputs: Sequence[str]) -> list[Gone]:
    """Everything that left of these files, oldest first."""
    wanted = sa.select(Release, Recall).outerjoin(Recall, Recall.release_id == Release.id)
    rows = session.execute(wanted.where(Release.output.in_(outputs)).order_by(Release.at, Release.id))
    return [Gone(release, recall) for release, recall in rows.all()]


def recall(session: Session, output: str, decision: str, at: int) -> list[Gone]:
    """A file's approval is revoked: what left of it is to be taken back. Returns all of it."""
    for one in of(session, [output]):
        if one.recall is None:
            session.add(Recall(release_id=one.release.id, decision=decision, asked=at, note=""))
    session.flush()
    return of(session, [output])


def confirm(session: Session, row: Release, by: str, note: str, at: int) -> Gone:
    """Somebody has taken a release back.

    Raises:
        ServiceError: 409 nobody has asked for it back.
    """
    found = session.get(Recall, row.id)
    if found is None:
        raise ServiceError(409, "InvalidParameter", "Its approval is not revoked, so that it may stay out.", "release")
    if found.confirmed is None:
        found.confirmed, found.confirmed_by, found.note = at, by, note
    return Gone(row, found)
