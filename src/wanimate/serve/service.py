"""The layer under every face: what an owner may do with jobs, uploads and results. Faces translate, nothing more."""

from __future__ import annotations

import hashlib
import re
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from wanimate.library import places
from wanimate.library.entries import Library
from wanimate.serve import shot_records, sources
from wanimate.serve.approvals.serving import Serving
from wanimate.serve.consents import Consents
from wanimate.serve.content import safe_name, storage_name
from wanimate.serve.database import Database
from wanimate.serve.errors import ServiceError, away, missing, wrong
from wanimate.serve.events import tell
from wanimate.serve.forecast import Forecaster
from wanimate.serve.keys import Caller, Keys, Rate
from wanimate.serve.ops import telemetry
from wanimate.serve.queue import Queue
from wanimate.serve.reviews import Reviews
from wanimate.serve.reviews.stacks import forgotten
from wanimate.serve.sessions import Sessions
from wanimate.serve.settings import ServeSettings
from wanimate.serve.shot_records import ShotRecords
from wanimate.serve.storage import Storage, StorageAway
from wanimate.serve.streams import Streams
from wanimate.serve.submission import FROM_SEGMENTS, GENERATED_ONLY, Submission
from wanimate.serve.tables import DAY, Audit, Creation, Event, Hook, Job, Setting, Stage, State, Upload, now
from wanimate.serve.usage import remove, seconds_today

_SECRET = "links"
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
OF_ONE_NAME = ("video", "xmp", "c2pa")
"""Results that are told apart by their endings alone: marks beside a video are found by its name."""


@dataclass(frozen=True)
class Page:
    """Some of many jobs, newest first unless asked otherwise."""

    jobs: Sequence[Job]
    total: int


@dataclass(frozen=True)
class _Asked:
    """How jobs were asked for; as `Service.submit` says."""

    face: str
    request_id: str
    model: str = ""
    again: str | None = None
    origin: str = ""
    batch: str | None = None

    def digest(self, submissions: Sequence[Submission]) -> str:
        """The same for the same request, in hex."""
        how = (self.face, self.model, self.origin, "" if self.batch is None else "batch")
        parts = [*how, *(submission.model_dump_json() for submission in submissions)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


class Service:
    """Everything that faces call. Methods raise ServiceError; nothing here knows HTTP beyond its status numbers."""

    def __init__(self, settings: ServeSettings, database: Database | None = None) -> None:
        self.settings = settings
        self.database = database or Database(settings.database_url)
        self.database.open()
        self.keys = Keys(self.database, settings)
        self.sessions = Sessions(self.database, self.keys)
        self.queue = Queue(self.database, settings)
        self.secret = shared_secret(self.database)
        self.storage = Storage(settings.storage_url, self.secret)
        self.reviews = Reviews(self.database, self.storage, settings)
        self.serving = Serving(self.database, self.storage, self.reviews.approvals)
        self.shot_records = ShotRecords(self.database, self.storage)
        self.rates = Rate()
        self.library = Library(self.database, self.storage)
        self.consents = Consents(self.database)
        self.streams = Streams()
        self.forecaster = Forecaster(settings, self.database)

    # Creation

    def submit(
        self, caller: Caller, submission: Submission, face: str, request_id: str, model: str = "",
        again: str | None = None, origin: str = "",
    ) -> Job:  # fmt: skip
        """Store a job, or find the one that the same request has made a moment ago.

        Everything that can be refused is refused before the row is there; nothing can fail after it.

        Args:
            model: as the face names it.
            again: the client's `Idempotency-Key`, if it sent one.
            origin: what tells this request from another one with the same submission.

        Raises:
            ServiceError: 400 what is wrong, 409 the key was used with another body, 429 too many.
        """
        (job,) = self._submitted(caller, [submission], _Asked(face, request_id, model, again, origin))
        return job

    def submit_all(
        self, caller: Caller, submissions: Sequence[Submission], face: str, request_id: str, again: str | None = None
    ) -> Sequence[Job]:
        """Store a batch: all of its jobs, or none. As `submit`; the jobs have one `batch`."""
        asked = _Asked(face, request_id, again=again, batch=f"batch_{secrets.token_hex(12)}")
        return self._submitted(caller, submissions, asked)

    def _submitted(self, caller: Caller, submissions: Sequence[Submission], asked: _Asked) -> Sequence[Job]:
        for submission in submissions:
            submission.check(self.settings)
        digest = asked.digest(submissions)
        mark, keeps = self._fingerprint(caller, digest, asked.again)
        jobs = [self._row(caller, submission, asked) for submission in submissions]
        for place, job in enumerate(jobs):
            job.order_key += place
        try:
            with self.database.write() as session:
                found = self._made_before(session, mark, digest, asked)
                if found:
                    return found
                self._check_quotas(session, caller, len(jobs))
                for job, submission in zip(jobs, submissions, strict=True):
                    job.facts = telemetry.carried() | sources.found(session, caller, job, submission)
                    self._take_over(session, caller, job, submission)
                    sources.check_clip(session, job, self.settings)
                session.add_all(jobs)
                session.flush()
                session.add(Creation(fingerprint=mark, job_id=jobs[0].id, body=digest, expires=now() + keeps))
                for job in jobs:
                    tell(session, job, "created")
                    self.audit(session, caller, asked.request_id, "job.create", job.id, face=asked.face)
        except IntegrityError:  # the same request came twice at once, and the other one was first
            with self.database.read() as session:
                found = self._made_before(session, mark, digest, asked)
            if not found:
                raise
            return found
        return jobs

    def _fingerprint(self, caller: Caller, digest: str, again: str | None) -> tuple[str, int]:
        if again is not None:
            return hashlib.sha256(f"{caller.key_id}\0key\0{again}".encode()).hexdigest(), DAY
        keeps = int(self.settings.repeated_within * 1000)
        unique = digest if keeps else f"{digest}{secrets.token_hex(8)}"
        return hashlib.sha256(f"{caller.key_id}\0body\0{unique}".encode()).hexdigest(), keeps

    def _made_before(self, session: Session, mark: str, digest: str, asked: _Asked) -> Sequence[Job]:
        """The jobs that the same request has made, none if it is a new one. Who has cancelled and asks again wants new ones."""
        creation = session.get(Creation, mark)
        if creation is None:
            return ()
        if creation.expires < now():
            session.delete(creation)
            session.flush()
            return ()
        if creation.body != digest:
            text = "The Idempotency-Key was used with another body."
            raise ServiceError(409, "InvalidParameter", text, "Idempotency-Key")
        first = session.get(Job, creation.job_id)
        if first is None:
            return ()
        batch = sa.select(Job).where(Job.batch == first.batch).order_by(Job.order_key, Job.id)
        jobs = (first,) if first.batch is None else session.scalars(batch).all()
        if asked.again is None and all(job.cancelling or job.state == State.CANCELLED for job in jobs):
            session.delete(creation)
            session.flush()
            return ()
        return jobs

    def _row(self, caller: Caller, submission: Submission, asked: _Asked) -> Job:
        at = now()
        checkpoint = submission.checkpoint or self.settings.default_checkpoint
        return Job(
            id=str(uuid.uuid4()), owner=caller.owner, key_id=caller.key_id, request_id=asked.request_id, face=asked.face,
            kind=submission.kind, mode=submission.mode, model=asked.model or checkpoint, tier=submission.tier,
            checkpoint=checkpoint, loras=submission.lora_key, submission=submission.model_dump(mode="json"),
            batch=asked.batch,
            state=State.PENDING, stage=Stage.GENERATE if submission.kind in GENERATED_ONLY else Stage.PREPARE,
            held=False, priority=submission.priority, order_key=at, not_before=0, attempt=0, beat=0, failures=0,
            cancelling=False, fraction=0.0, result={}, facts={}, warnings=[], created=at,
        )  # fmt: skip

    def _check_quotas(self, session: Session, caller: Caller, more: int) -> None:
        waiting = (Job.key_id == caller.key_id, Job.state == State.PENDING)
        most = caller.quotas.queued
        if most is not None and (session.scalar(sa.select(sa.func.count()).where(*waiting)) or 0) + more > most:
            text = f"No more than {most} jobs of this key may wait."
            raise ServiceError(429, "Throttling.AllocationQuota", text, retry_after=30)
        seconds = caller.quotas.seconds_a_day
        if seconds is not None and seconds_today(session, caller.key_id) >= seconds:
            text = f"The {seconds:g} seconds of video a day are used up."
            raise ServiceError(429, "Throttling.AllocationQuota", text, retry_after=600)

    def _take_over(self, session: Session, caller: Caller, job: Job, submission: Submission) -> None:
        """What a job has from the one that it goes on from."""
        if submission.version_of is not None:
            earlier = session.get(Job, submission.version_of)
            if earlier is None or earlier.owner != caller.owner:
                raise wrong("version_of", "version_of: there is no such job.")
        if submission.parent is None:
            return
        parent = session.get(Job, submission.parent)
        if parent is None or parent.owner != caller.owner:
            raise wrong("parent", "parent: there is no such job.")
        if parent.state != State.SUCCEEDED or not parent.guides:
            raise wrong("parent", "parent: that job has no guides; it has to have succeeded.")
        if submission.kind in FROM_SEGMENTS and "video" not in parent.result:
            raise wrong("parent", "parent: that job has made no video.")
        job.guides, job.mode, job.clip_seconds = parent.guides, parent.mode, parent.clip_seconds
        known = ("frames", "fps", "size", "no_person", "start", "library", "sources", "shots")
        taken: dict[str, Any] = {name: parent.facts[name] for name in known if name in parent.facts}
        if said := shot_records.taken_along(session, parent):
            taken["shot_said"] = said
        job.facts = {**job.facts, **taken}
        if submission.kind in FROM_SEGMENTS:
            job.checkpoint, job.loras = parent.checkpoint, parent.loras
            made = _redrawn if submission.kind == "redraw" else _finished
            job.submission = made(parent, submission)

    # Looking

    def job(self, caller: Caller, job_id: str) -> Job:
        """Raises ServiceError (404) for one that is not there, has expired, or is somebody else's."""
        with self.database.read() as session:
            found = session.get(Job, job_id) if _ID.fullmatch(job_id) else None
        if found is None or not (caller.is_admin or found.owner == caller.owner):
            raise missing("job")
        if found.expires is not None and found.expires < now():
            raise missing("job")
        return found

    def jobs(
        self, caller: Caller, *conditions: sa.ColumnElement[bool], offset: int = 0, limit: int = 50, oldest: bool = False,
        everybody: bool = False,
    ) -> Page:  # fmt: skip
        """Jobs of the caller's owner. `everybody`: those of all, for admins."""
        wanted = [*conditions, sa.or_(Job.expires.is_(None), Job.expires >= now())]
        if not (everybody and caller.is_admin):
            wanted.append(Job.owner == caller.owner)
        order = (Job.created, Job.id) if oldest else (Job.created.desc(), Job.id.desc())
        with self.database.read() as session:
            total = session.scalar(sa.select(sa.func.count()).select_from(Job).where(*wanted)) or 0
            rows = session.scalars(sa.select(Job).where(*wanted).order_by(*order).offset(offset).limit(limit)).all()
        return Page(rows, total)

    def link(self, stored: str, filename: str, until: int, base: str) -> str:
        """An address that serves a stored file to whoever has it, until it expires (ms). `base`: how the caller reached us."""
        token = self.storage.sign(stored, until // 1000, filename)
        return f"{(self.settings.public_url or base).rstrip('/')}/files/{token}/{quote(filename)}"

    def result_link(self, job: Job, name: str, base: str) -> str | None:
        """The address of one of a job's results (`video`, `sheet`, `thumbnail`, `record` ...); None where it has none."""
        stored = job.result.get(name)
        if stored is None:
            return None
        suffix = Path(stored).suffix
        filename = f"{job.id}{suffix}" if name in OF_ONE_NAME else f"{job.id}-{name}{suffix}"
        return self.link(stored, filename, job.expires or now() + DAY, base)

    # Changing

    def cancel(self, caller: Caller, job_id: str, request_id: str, only_pending: bool = False) -> Job:
        """Cancel a job. `only_pending`: as the hosted contract has it. Raises ServiceError (404; 400 if it cannot be)."""
        job = self.job(caller, job_id)
        done = self.queue.cancel_pending(job_id) if only_pending else not State(job.state).final
        if not done:
            text = "Failed to cancel the task, please confirm if the task is in PENDING status."
            raise ServiceError(400, "UnsupportedOperation", text)
        if not only_pending:
            self.queue.cancel(job_id)
        self.log(caller, request_id, "job.cancel", job_id)
        return self.job(caller, job_id)

    def delete(self, caller: Caller, job_id: str, request_id: str) -> None:
        """Stop a job if it runs, and remove its row and files. Raises ServiceError (404)."""
        job = self.job(caller, job_id)
        self.queue.cancel(job_id)
        self.forget(job)
        self.log(caller, request_id, "job.delete", job_id)

    def forget(self, job: Job) -> None:
        """Remove everything of a job. A worker that still has it finds its row gone."""
        self.library.settle()
        with self.database.write() as session:
            session.execute(sa.delete(Creation).where(Creation.job_id == job.id))
            forgotten(session, job.id)
            remove(session, job)
            for table in (Event, Hook):  # after the row, for which a worker's last report may have had to be waited
                session.execute(sa.delete(table).where(table.job_id == job.id))
            shared = session.scalar(
                sa.select(sa.func.count()).select_from(Job).where(Job.guides == job.guides, Job.id != job.id)
            )
            if job.guides and not shared and not places.is_shared(job.guides):
                shot_records.forgotten(session, job.guides, job.owner)
        try:
            self.storage.remove_tree(f"jobs/{job.id}")
            if job.guides and not shared and not places.is_shared(job.guides):
                self.storage.remove_tree(job.guides)
        except StorageAway:
            pass  # the sweeper finds files whose job is gone

    # Uploads

    def add_upload(
        self,
        caller_owner: str,
        path: Path,
        filename: str,
        digest: str,
        name: str | None = None,
        model: str | None = None,
    ) -> Upload:
        """Keep a received file. `name`: what it is called by; its id if None. Raises ServiceError (503; 409: name taken;
        429: no room)."""
        at = now()
        id_ = f"file_{secrets.token_hex(12)}"
        row = Upload(
            id=id_, owner=caller_owner, name=name or id_, model=model, filename=safe_name(filename), size=path.stat().st_size,
            stored=f"uploads/{id_}/{storage_name(filename)}", digest=digest, created=at,
            expires=at + int(self.settings.keep_uploads * 3_600_000),
        )  # fmt: skip
        try:
            self.storage.put(row.stored, path)
        except StorageAway as error:
            raise away("The file could not be stored.") from error
        try:
            with self.database.write() as session:
                self._check_room(session, row)
                session.add(row)
        except ServiceError:
            self.storage.remove(row.stored)
            raise
        except IntegrityError as error:
            self.storage.remove(row.stored)
            raise ServiceError(409, "FileAlreadyExists", "A file of that name was uploaded already.", "key") from error
        return row

    def _check_room(self, session: Session, more: Upload) -> None:
        mine = (Upload.owner == more.owner, Upload.expires >= now())
        held = session.scalar(sa.select(sa.func.coalesce(sa.func.sum(Upload.size), 0)).where(*mine)) or 0
        most = self.settings.largest_uploads
        if held + more.size > most:
            text = f"Uploads of one owner may take {most / 2**20:g} MB, and {held / 2**20:.1f} MB are taken."
            raise ServiceError(429, "Throttling.AllocationQuota", text, retry_after=600)

    def upload(self, owner: str, name: str) -> Upload | None:
        """An upload by its id or its name; None where there is none, it has expired, or it is somebody else's."""
        with self.database.read() as session:
            row = session.scalar(sa.select(Upload).where(sa.or_(Upload.name == name, Upload.id == name)))
        return row if row is not None and row.owner == owner and row.expires >= now() else None

    # Rates, audit

    def check_rate(self, caller: Caller, creation: bool = False) -> None:
        """Whether the key may change something now. Looking at jobs has no rate: a client that polls would take its job for
        lost. Raises ServiceError (429)."""
        what, rate = (
            ("create", caller.quotas.creations_a_second) if creation else ("ask", caller.quotas.requests_a_second)
        )
        seconds = self.rates.wait(f"{what} {caller.key_id}", rate)
        if seconds:
            text = (
                "Requests to create jobs come too fast for this key."
                if creation
                else "Requests come too fast for this key."
            )
            raise ServiceError(429, "Throttling.RateQuota", text, retry_after=seconds)

    def audit(
        self,
        session: Session,
        caller: Caller | None,
        request_id: str | None,
        what: str,
        target: str | None,
        **data: Any,
    ) -> None:
        """Write who did what, in the transaction of what was done."""
        owner, key_id = (caller.owner, caller.key_id) if caller is not None else ("", None)
        session.add(
            Audit(at=now(), owner=owner, key_id=key_id, request_id=request_id, what=what, target=target, data=data)
        )

    def log(self, caller: Caller, request_id: str, what: str, target: str, **data: Any) -> None:
        """As `audit`, in a transaction of its own."""
        with self.database.write() as session:
            self.audit(session, caller, request_id, what, target, **data)

    def close(self) -> None:
        self.streams.close()
        self.forecaster.close()
        self.database.close()


def _redrawn(parent: Job, asked: Submission) -> dict[str, Any]:
    """The submission of a redraw: the settings of its job, and a seed of its own. Raises ServiceError (400)."""
    segments = parent.facts.get("segments")
    if segments is not None and asked.segment is not None and asked.segment > segments:
        raise wrong("segment", f"segment: that job has {segments} segments.")
    before = Submission.model_validate(parent.submission)
    for field in ("generate", "output"):
        told, own = getattr(before, field), getattr(asked, field)
        other = sorted(name for name in own if name != "seed" and own[name] != told.get(name))
        if other:
            text = f"{field}.{other[0]}: a redraw has the settings of its job; only its seed may differ."
            raise wrong(f"{field}.{other[0]}", text)
    kept = {name: value for name, value in before.generate.items() if name != "seed"}
    generate = kept | {name: value for name, value in asked.generate.items() if name == "seed"}
    return _like(before, asked, generate=generate, output=before.output)


def _finished(parent: Job, asked: Submission) -> dict[str, Any]:
    """The submission of a job that brings another one's frames to a file anew: its settings and its seed, and an output of its
    own. Raises ServiceError (400)."""
    if asked.generate:
        name = next(iter(asked.generate))
        raise wrong(
            f"generate.{name}", f"generate.{name}: the frames are those of the job; only its output may differ."
        )
    before = Submission.model_validate(parent.submission)
    seed = before.generate.get("seed") if before.segment is not None else parent.facts.get("seed")
    if seed is None:
        raise wrong("parent", "parent: a seed was drawn for its segment; finish the job that it was redrawn from.")
    generate = before.generate | {"seed": seed}
    return _like(before, asked, segment=before.segment, generate=generate, output=asked.output)


def _like(before: Submission, asked: Submission, **own: Any) -> dict[str, Any]:
    """`asked` with the settings of an earlier job."""
    of_parent = {name: getattr(before, name) for name in ("mode", "tier", "loras", "speed", "checkpoint", "prompt")}
    return asked.model_copy(update=of_parent | own).model_dump(mode="json")


def shared_secret(database: Database) -> bytes:
    """What signs links: random, made once, in the database, so that all processes have the same."""

    def made() -> str:
        with database.write() as session:
            row = session.get(Setting, _SECRET)
            if row is None:
                row = Setting(name=_SECRET, value=secrets.token_hex(32))
                session.add(row)
            return row.value

    try:
        return bytes.fromhex(made())
    except IntegrityError:  # another process was first
        return bytes.fromhex(made())
