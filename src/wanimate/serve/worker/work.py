"""A claimed job in a worker's hands: its files, and what may go wrong with it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from wanimate.errors import Cancelled
from wanimate.events import Event
from wanimate.jobs.cancel import CancelToken
from wanimate.serve.queue import Claim
from wanimate.serve.settings import ServeSettings
from wanimate.serve.storage import Storage, StorageAway
from wanimate.serve.submission import Submission
from wanimate.serve.tables import Job

STORAGE_PATIENCE = 120.0
"""Seconds for which a storage that is away is waited for with a file that is ready."""
_PAUSE = 1.0


class Refused(Exception):
    """The job cannot be done, whoever tries: its input is at fault. `code` is the hosted contract's."""

    def __init__(self, code: str, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(message)


class Broken(Exception):
    """This attempt failed, and another one may not: the storage was away, the GPU failed."""


@dataclass
class Work:
    """One attempt. What the runner leaves here goes into the job's row when it is done.

    scratch: a folder of this attempt alone. guides: storage prefix of the guides. result: name -> storage name. facts: see
    `tables.Job`.
    """

    claim: Claim
    submission: Submission
    settings: ServeSettings
    storage: Storage
    cancel: CancelToken
    scratch: Path
    guides: str | None = None
    result: dict[str, str] = field(default_factory=dict)
    facts: dict[str, object] = field(default_factory=dict)
    clip_seconds: float | None = None

    @property
    def job(self) -> Job:
        return self.claim.job

    @property
    def uploads(self) -> dict[str, str]:
        """Storage names of the inputs that are uploads, by field."""
        return dict(self.job.facts.get("uploads", {}))

    @property
    def place(self) -> str:
        """Storage prefix of this attempt's results. Attempts share none, so that a late one spoils nothing."""
        return f"jobs/{self.job.id}/{self.claim.attempt}"

    @property
    def kept(self) -> str:
        """Storage prefix of finished segments, which every attempt goes on from."""
        return f"jobs/{self.job.id}/work"

    def fetch(self, prefix: str, folder: Path) -> bool:
        """Copy everything below a storage prefix into a folder. Returns whether there was anything."""
        found = self.storage.list(prefix)
        for stored in found:
            place = folder / Path(stored.name).relative_to(prefix)
            place.parent.mkdir(parents=True, exist_ok=True)
            self.storage.fetch(stored.name, place)
        return bool(found)

    def put(self, folder: Path, prefix: str) -> None:
        """Copy every file of a folder below a storage prefix."""
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            self.keep(file, f"{prefix}/{file.relative_to(folder).as_posix()}")

    def keep(self, file: Path, name: str) -> None:
        """Store a file. A storage that is away is waited for: what was computed is worth more than a minute.

        Raises:
            StorageAway: it does not come back. Cancelled: somebody stopped the job meanwhile.
        """
        until = time.monotonic() + STORAGE_PATIENCE
        while True:
            try:
                self.storage.put(name, file)
                return
            except StorageAway:
                if time.monotonic() > until:
                    raise
            if self.cancel.is_cancelled:
                raise Cancelled("stopped")
            time.sleep(_PAUSE)

    def clean(self) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)


class Runner(Protocol):
    """What does the work of a job. Both are generators of events; closing one stops it, and keeps finished segments."""

    @property
    def holds(self) -> str:
        """Checkpoint and LoRAs in memory, as `Queue.claim` takes it."""
        ...

    def prepare(self, work: Work) -> Iterator[Event]:
        """Inputs to guides in the storage. Raises Refused, Broken, WanimateError, StorageAway."""
        ...

    def generate(self, work: Work) -> Iterator[Event]:
        """Guides to a result in the storage. Raises as `prepare`."""
        ...

    def store(self, work: Work) -> bool:
        """Bring finished segments to the storage. Returns whether a new one was among them."""
        ...

    def close(self) -> None: ...
