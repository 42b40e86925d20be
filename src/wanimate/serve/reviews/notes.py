"""Comments: pinned to a frame and a place, answered, resolved, changed and removed by who wrote them."""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from sqlalchemy.orm import Session

from wanimate.review.records import Remark
from wanimate.serve.errors import ServiceError, missing, wrong
from wanimate.serve.reviews.desk import Desk, Reviewer
from wanimate.serve.tables import Shot, ShotComment, now, storable

MOST = 2000
"""Comments of a shot, answers included."""


class Notes:
    """Every method raises ServiceError: 404 for what is not there or is somebody else's, 403 for a right that is missing."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def add(self, who: Reviewer, shot_id: str, job_id: str, remark: Remark) -> str:
        """Say something of a version. Returns the comment's id.

        Raises:
            ServiceError: 400 the version has no such frames, 409 the shot is full.
        """
        with self._desk.database.write() as session:
            shot = self._desk.opened(session, who, shot_id, "comment", lock=True)
            version = self._desk.version(session, shot, job_id)
            frames = version.facts["frames"]
            if frames is not None and remark.frame >= frames:
                raise wrong("frame", f"frame: the version has the frames 0 to {frames - 1}.")
            if frames is not None and remark.frame + remark.duration > frames:
                raise wrong("duration", f"duration: behind frame {remark.frame} there are {frames - remark.frame}.")
            return self._kept(session, who, shot, ShotComment(job_id=job_id, said=remark.model_dump(mode="json")))

    def reply(self, who: Reviewer, shot_id: str, comment_id: str, text: str) -> str:
        """Answer a comment. Returns the answer's id."""
        with self._desk.database.write() as session:
            shot = self._desk.opened(session, who, shot_id, "comment", lock=True)
            above = self._found(session, shot, comment_id)
            if above.parent is not None:
                raise wrong("comment", "comment: an answer is not answered; answer its comment.")
            return self._kept(
                session, who, shot, ShotComment(job_id=above.job_id, parent=above.id, said={"text": text})
            )

    def change(
        self, who: Reviewer, shot_id: str, comment_id: str, text: str | None = None, resolved: bool | None = None
    ) -> None:
        """Change what was said (one's own only), or whether it is resolved."""
        with self._desk.database.write() as session:
            shot = self._desk.opened(session, who, shot_id, "comment", lock=True)
            row = self._found(session, shot, comment_id)
            if text is not None:
                self._own(who, row)
                row.said = {**row.said, "text": text}
            if resolved is not None:
                if row.parent is not None:
                    raise wrong("resolved", "resolved: an answer is not resolved; its comment is.")
                row.resolved, row.resolved_by = (now(), who.name) if resolved else (None, None)
            self._desk.changed(session, who, shot, "comment", row.job_id, comment=row.id)

    def remove(self, who: Reviewer, shot_id: str, comment_id: str) -> None:
        """Remove a comment of one's own, with its answers."""
        with self._desk.database.write() as session:
            shot = self._desk.opened(session, who, shot_id, "comment", lock=True)
            row = self._found(session, shot, comment_id)
            self._own(who, row)
            gone = sa.or_(ShotComment.id == row.id, ShotComment.parent == row.id)
            session.execute(sa.delete(ShotComment).where(gone))
            self._desk.changed(session, who, shot, "comment.remove", row.job_id, comment=row.id)

    def _kept(self, session: Session, who: Reviewer, shot: Shot, row: ShotComment) -> str:
        count = session.scalar(sa.select(sa.func.count()).where(ShotComment.shot_id == shot.id)) or 0
        if count >= MOST:
            raise ServiceError(409, "InvalidParameter", f"A shot has at most {MOST} comments.")
        row.id, row.shot_id, row.at = f"comment_{secrets.token_hex(12)}", shot.id, now()
        row.author, row.role, row.identity = who.name, who.role, who.identity
        session.add(row)
        self._desk.changed(session, who, shot, "comment", row.job_id, comment=row.id)
        return row.id

    def _found(self, session: Session, shot: Shot, comment_id: str) -> ShotComment:
        row = session.get(ShotComment, storable(comment_id))
        if row is None or row.shot_id != shot.id:
            raise missing("comment")
        return row

    def _own(self, who: Reviewer, row: ShotComment) -> None:
        if row.identity != who.identity:
            raise ServiceError(403, "AccessDenied", "Somebody else has written it.")
