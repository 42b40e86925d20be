"""Decisions: added to the chain of a shot, about the very bytes of a version's file."""

from __future__ import annotations

import secrets
from hashlib import sha256

import sqlalchemy as sa
from sqlalchemy.orm import Session

from wanimate.review import chain
from wanimate.review.records import State
from wanimate.serve.errors import ServiceError, away
from wanimate.serve.reviews.desk import Desk, Reviewer
from wanimate.serve.reviews.stacks import settle
from wanimate.serve.storage import NotStored, StorageAway
from wanimate.serve.tables import Job, Shot, ShotDecision, now, storable

MOST = 2000
"""Decisions of a shot."""


class Decisions:
    """Every method raises ServiceError: 404 for what is not there or is somebody else's, 403 for a right that is missing."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def decide(self, who: Reviewer, shot_id: str, job_id: str, state: State, reason: str = "") -> chain.Record:
        """Approve a version, ask for changes, or take back what was decided (`State.NEEDS_REVIEW`).

        A version may be approved by several people; each is a record.

        Raises:
            ServiceError: 409 the file is not kept any more or is another one than was made or decided on before, the chain was
                changed, or nothing was decided that could be taken back. 503 the storage is away.
        """
        with self._desk.database.read() as session:
            shot = self._desk.opened(session, who, shot_id, "decide")
            self._desk.version(session, shot, job_id)
            job = session.get(Job, storable(job_id))
        stored = None if job is None else job.result.get("video")
        if job is None or stored is None:
            raise ServiceError(409, "InvalidParameter", "The version's file is not kept any more.", "version")
        output = self._hash(stored)
        with self._desk.database.write() as session:
            shot = self._desk.opened(session, who, shot_id, "decide", lock=True)
            version = self._desk.version(session, shot, job_id)
            if version.digest not in (None, output):
                text = "The file is another one than was made or decided on before."
                raise ServiceError(409, "InvalidParameter", text, "version")
            if state is State.NEEDS_REVIEW and version.state == state:
                raise ServiceError(409, "InvalidParameter", "Nothing was decided that could be taken back.", "state")
            by = chain.By(name=who.name, role=who.role, identity=who.identity)
            record = self._add(
                session, shot, id=f"decision_{secrets.token_hex(12)}", job=job_id, output_sha256=output, mode=job.mode,
                decision=chain.decision_of(state), by=by, at=chain.utc(now()), reason=reason,
            )  # fmt: skip
            version.state, version.digest = state, output
            session.flush()
            settle(session, shot)
            self._desk.changed(session, who, shot, "decide", job_id, state=state.value, record=record.id)
            return record

    def _add(self, session: Session, shot: Shot, **fields: object) -> chain.Record:
        ordered = sa.select(ShotDecision).where(ShotDecision.shot_id == shot.id).order_by(ShotDecision.seq)
        rows = session.scalars(ordered).all()
        faults = chain.faults([row.record for row in rows], shot.head)
        if faults:
            text = f"The decisions of this shot are not as they were written: {faults[0]} Nothing is added to them."
            raise ServiceError(409, "ChainBroken", text)
        if len(rows) >= MOST:
            raise ServiceError(409, "InvalidParameter", f"A shot has at most {MOST} decisions.")
        record = chain.Record.model_validate({**fields, "previous_sha256": shot.head})
        text = record.text()
        mark = chain.digest(text)
        session.add(
            ShotDecision(
                shot_id=shot.id,
                seq=len(rows) + 1,
                job_id=record.job,
                output=record.output_sha256,
                digest=mark,
                record=text,
            )
        )
        shot.head = mark
        return record

    def _hash(self, stored: str) -> str:
        told = sha256()
        try:
            for piece in self._desk.storage.read(stored):
                told.update(piece)
        except NotStored as error:
            raise ServiceError(
                409, "InvalidParameter", "The version's file is not kept any more.", "version"
            ) from error
        except StorageAway as error:
            raise away("The storage does not answer.") from error
        return told.hexdigest()
