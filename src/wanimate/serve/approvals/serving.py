"""Results that the service keeps to itself until they are approved, and a line for each that it has given away."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from wanimate.approval.judgement import Marks
from wanimate.approval.leaving import Leaving
from wanimate.serve.approvals import releases
from wanimate.serve.approvals.hashes import stored_hash
from wanimate.serve.approvals.house import Approvals, Stand
from wanimate.serve.approvals.judging import marks_of
from wanimate.serve.approvals.origin import Origin, origin_of_version
from wanimate.serve.database import Database
from wanimate.serve.errors import ServiceError
from wanimate.serve.storage import NotStored, Storage
from wanimate.serve.tables import Job, Recall, Release, ShotVersion

CODE = "ApprovalRequired"
FREE = ("record", "thumbnail")
"""What a job with a video has beside it that shows no result, or is too small to be one."""
_KNOWN = 4096
"""Hashes of files that are kept in memory."""


class Serving:
    """Asked before a result's file is served. It may be asked from several threads.

    Args:
        by: how releases call the service.
    """

    def __init__(self, database: Database, storage: Storage, approvals: Approvals, by: str = "service") -> None:
        self._database, self._storage, self._approvals, self._by = database, storage, approvals, by
        self._hashes: dict[tuple[str, int, float], str] = {}
        self._marks: dict[str, Marks] = {}

    def is_withheld(self, job: Job) -> bool:
        """Whether a job's video is not served now, as far as is known without reading it. Raises InputError: the policy cannot
        be read."""
        if "video" not in job.result or not self._approvals.holds:
            return False
        with self._database.read() as session:
            version = session.get(ShotVersion, job.id)
            output = version.digest if version is not None else None
            if output is None:
                return _origin(session, job).is_held(self._approvals.house.policy.held)
        try:
            with self._file(output, job.result["video"]) as file, self._database.read() as session:
                return bool(self._stand(session, job, output, file).missing)
        except NotStored:
            return True

    def check(self, stored: str) -> None:
        """Let a stored file be served to who has a link, and write down that it left.

        Raises:
            ServiceError: 403 it is a result that needs an approval. InputError: the policy cannot be read. NotStored,
                StorageAway.
        """
        if not stored.startswith("jobs/") or not self._approvals.holds:
            return
        with self._database.read() as session:
            job = session.get(Job, stored.split("/")[1])
        if job is None:  # nobody knows any more what it was
            raise NotStored(stored)
        if "video" not in job.result:  # what is asked for on the way to a job shows no result
            return
        if stored not in [one for name, one in job.result.items() if name not in FREE]:
            return
        video = job.result["video"]
        output = self._hash(video, bool(job.facts.get("pictures")))
        with self._file(output, video) as file, self._database.read() as session:
            stand = self._stand(session, job, output, file)
            last = self._last(session, output, job.owner)
        if stand.missing:
            what = "needs an approval" if stand.held else "may not leave"
            text = f"This result {what}: {'; '.join(stand.missing)}."
            raise ServiceError(403, CODE, text)
        if last is None:
            ids = [one.id for one in stand.standing.counted] if stand.held else []
            leaving = _leaving(job, output)
            self._approvals.used(stand.found, leaving)
            with self._database.write() as session:
                session.scalar(sa.select(Job.id).where(Job.id == job.id).with_for_update())  # two may ask at once
                if self._last(session, output, job.owner) is None:
                    releases.write(session, leaving, ids, self._by, self._approvals.clock())

    def _stand(self, session: Session, job: Job, output: str, file: Path | None = None) -> Stand:
        """Marks stay as they are with the bytes; all else is asked anew each time."""
        origin, leaving = _origin(session, job), _leaving(job, output)
        if file is not None:
            marks = marks_of(self._approvals.house, origin, (), file)
            self._marks = {**(self._marks if len(self._marks) < _KNOWN else {}), output: marks}
        found = self._approvals.judged(origin, leaving, marks=self._marks.get(output))
        return self._approvals.stand(session, output, origin, found)

    def _last(self, session: Session, output: str, owner: str) -> str | None:
        """The release of this file to this owner that has not been asked back."""
        back = sa.select(Recall.release_id)
        same = Release.output == output, Release.way == "download", Release.place == _place(owner)
        return session.scalar(sa.select(Release.id).where(*same, Release.id.not_in(back)).limit(1))

    def _hash(self, stored: str, pictures: bool) -> str:
        """Of the very bytes that are there: hashed again where size or time have changed."""
        found = self._storage.stat(stored)
        key = (found.name, found.size, found.modified)
        known = self._hashes.get(key)
        if known is None:
            known = stored_hash(self._storage, stored, pictures)
            self._hashes = {**(self._hashes if len(self._hashes) < _KNOWN else {}), key: known}
        return known

    @contextmanager
    def _file(self, output: str, stored: str) -> Iterator[Path | None]:
        """The file on this machine, where its marks have not been looked at and a region asks for some."""
        if not self._approvals.house.policy.regions or output in self._marks:
            yield None
            return
        local = self._storage.local_path(stored)
        if local is not None:
            yield local
            return
        with tempfile.TemporaryDirectory(prefix="wanimate-approval-") as folder:
            place = Path(folder) / Path(stored).name
            self._storage.fetch(stored, place)
            yield place


def _leaving(job: Job, output: str) -> Leaving:
    return Leaving(output, "download", _place(job.owner))


def _place(owner: str) -> str:
    return f"owner {owner}"


def _origin(session: Session, job: Job) -> Origin:
    version = session.get(ShotVersion, job.id)
    return Origin(frozenset({job.mode})) if version is None else origin_of_version(session, version)
