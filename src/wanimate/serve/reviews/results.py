"""What a version's job has made: its record, its timecode, and its file with the record beside it."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from wanimate.finish.labels import first_label
from wanimate.finish.lock import record_path
from wanimate.serve.errors import ServiceError, away
from wanimate.serve.reviews.desk import Desk
from wanimate.serve.storage import NotStored, StorageAway
from wanimate.serve.tables import Job, now, storable

_LARGEST = 2**24
"""Bytes of a record that are read."""


class Results:
    """Files of versions. Whoever asks has looked at the shot before, so that nothing is asked about rights here."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def record(self, job_id: str) -> dict[str, Any]:
        """The record of a finished job; empty where it is not kept, or is none."""
        stored = self._made(job_id).get("record")
        if stored is None:
            return {}
        try:
            found = json.loads(b"".join(self._desk.storage.read(stored, 0, _LARGEST)))
        except (NotStored, StorageAway, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def start(self, job_id: str) -> str | None:
        """The timecode of the first frame of a job's video; None where it has none."""
        return first_label(self.record(job_id))

    def fetch(self, job_id: str, folder: Path) -> Path:
        """Bring a job's video and its record into a folder, the record beside the video. Returns the video.

        Raises:
            ServiceError: 409 they are not kept any more, or the result is no video file. 503 the storage is away.
        """
        made = self._made(job_id)
        if not {"video", "record"} <= made.keys():
            raise ServiceError(409, "InvalidParameter", "The version's file is not kept any more.", "version")
        path = folder / PurePosixPath(made["video"]).name
        if path.suffix == ".zip":
            text = "The version is a zip of pictures. Fetch it, and hand its folder off."
            raise ServiceError(409, "InvalidParameter", text, "version")
        try:
            self._desk.storage.fetch(made["video"], path)
            self._desk.storage.fetch(made["record"], record_path(path))
        except NotStored as error:
            text = "The version's file is not kept any more."
            raise ServiceError(409, "InvalidParameter", text, "version") from error
        except StorageAway as error:
            raise away("The storage does not answer.") from error
        return path

    def _made(self, job_id: str) -> dict[str, str]:
        """Storage names of what a job has made, by what it is; empty where it is gone."""
        with self._desk.database.read() as session:
            job = session.get(Job, storable(job_id))
            if job is None or (job.expires is not None and job.expires < now()):
                return {}
            return dict(job.result)
