"""Decisions: added to the chain of a shot, about the very bytes of a version's file."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from wanimate.approval.leaving import Leaving
from wanimate.approval.standing import Asked, Standing, roles_of, standing
from wanimate.review import chain
from wanimate.review.records import State
from wanimate.serve.approvals import releases
from wanimate.serve.approvals.hashes import stored_hash
from wanimate.serve.approvals.origin import origin_of_version
from wanimate.serve.approvals.releases import Gone
from wanimate.serve.errors import ServiceError, away, missing
from wanimate.serve.reviews.desk import REVOKED, Desk, Reviewer
from wanimate.serve.reviews.stacks import settle
from wanimate.serve.storage import NotStored, StorageAway
from wanimate.serve.tables import DAY, ConsentUse, Job, Release, Shot, ShotDecision, ShotVersion, storable

MOST = 2000
"""Decisions of a shot."""


@dataclass(frozen=True)
class _Wanted:
    """What is decided about a file. regions: for which, beside the policy's. file: itself, where its marks are looked at."""

    output: str
    state: State
    reason: str
    regions: tuple[str, ...] = ()
    file: Path | None = None


class Decisions:
    """Every method raises ServiceError: 404 for what is not there or is somebody else's, 403 for a right that is missing."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def decide(
        self, who: Reviewer, shot_id: str, job_id: str, state: State, reason: str = "", regions: tuple[str, ...] = ()
    ) -> chain.Record:
        """Approve a version, ask for changes, or take back what was decided (`State.NEEDS_REVIEW`).

        `regions`: what an approval is for, beside the regions of the policy.

        A version may be approved by several people; each is a record. It is approved when there are as many as the policy asks
        for. What left under decisions that are taken back is to be taken back, too.

        Raises:
            ServiceError: 409 the file is not kept any more or is another one than was made or decided on before, the chain was
                changed, the clock was set back, or nothing was decided that could be taken back. 503 the storage is away.
        """
        with self._desk.database.read() as session:
            shot = self._desk.opened(session, who, shot_id, "decide")
            known = self._desk.version(session, shot, job_id)
            job = session.get(Job, storable(job_id))
        if state is State.NEEDS_REVIEW and known.digest is not None:
            return self._add_decision(
                who, shot_id, job_id, _Wanted(known.digest, state, reason)
            )  # also of a file that is gone
        stored = None if job is None else job.result.get("video")
        if job is None or stored is None:
            raise ServiceError(409, "InvalidParameter", "The version's file is not kept any more.", "version")
        output = self._hash(stored, bool(job.facts.get("pictures")))
        with self._file(stored, state, regions) as file:
            return self._add_decision(who, shot_id, job_id, _Wanted(output, state, reason, regions, file))

    def _add_decision(self, who: Reviewer, shot_id: str, job_id: str, wanted: _Wanted) -> chain.Record:
        with self._desk.database.write() as session:
            shot = self._desk.opened(session, who, shot_id, "decide", lock=True)
            version = self._desk.version(session, shot, job_id)
            if version.digest not in (None, wanted.output):
                text = "The file is another one than was made or decided on before."
                raise ServiceError(409, "InvalidParameter", text, "version")
            record = self._decided(session, who, shot, version, wanted)
        self._desk.approvals.heads.add(shot_id, record)
        return record

    def withdraw(self, who: Reviewer, consent_id: str, reason: str) -> tuple[list[chain.Record], list[Gone]]:
        """A consent was withdrawn: what was approved on its strength is revoked, and what left under it is to be taken back,
        whosever it is. Returns the records, and everything that left."""
        naming = sa.select(ShotDecision).where(ShotDecision.record.contains(consent_id, autoescape=True))
        uses = sa.select(ConsentUse.output).where(ConsentUse.consent_id == consent_id)
        made = list[tuple[str, chain.Record]]()
        with self._desk.database.write() as session:
            resting = [row for row in session.scalars(naming) if consent_id in _consents(row)]
            outputs = {*session.scalars(uses), *(row.output for row in resting)}
            for job_id, shot_id in {row.job_id: row.shot_id for row in resting}.items():
                shot = session.scalars(sa.select(Shot).where(Shot.id == shot_id).with_for_update()).one()
                version = session.get(ShotVersion, job_id)
                if (
                    version is None
                    or version.digest is None
                    or not self._stands(session, version, version.digest).decided
                ):
                    continue
                wanted = _Wanted(version.digest, State.NEEDS_REVIEW, reason)
                made.append((shot.id, self._decided(session, who, shot, version, wanted)))
            at = self._desk.approvals.clock()
            left = [one for output in sorted(outputs) for one in releases.recall(session, output, consent_id[:64], at)]
        for shot_id, record in made:
            self._desk.approvals.heads.add(shot_id, record)
        return [record for _, record in made], left

    def gone(self, who: Reviewer, shot_id: str) -> list[Gone]:
        """Where results of a shot went, oldest first."""
        with self._desk.database.read() as session:
            shot = self._desk.opened(session, who, shot_id, "manage")
            return releases.of(session, _outputs(session, shot))

    def recalled(self, who: Reviewer, shot_id: str, release_id: str, note: str = "") -> Gone:
        """Somebody says that what left is taken back.

        Raises:
            ServiceError: 409 nothing of it is revoked.
        """
        with self._desk.database.write() as session:
            shot = self._desk.opened(session, who, shot_id, "manage", lock=True)
            row = session.get(Release, storable(release_id))
            if row is None or row.output not in _outputs(session, shot):
                raise missing("release")
            found = releases.confirm(session, row, who.identity, note, self._desk.approvals.clock())
            self._desk.changed(session, who, shot, "recalled", None, release=row.id)
            return found

    def _decided(
        self, session: Session, who: Reviewer, shot: Shot, version: ShotVersion, wanted: _Wanted
    ) -> chain.Record:
        """Add a decision, and what follows of it: the version's state, what is to be taken back, what is told."""
        approvals, output, state = self._desk.approvals, wanted.output, wanted.state
        house = approvals.house
        before = self._stands(session, version, output)
        if state is State.NEEDS_REVIEW and not before.decided:
            raise ServiceError(409, "InvalidParameter", "Nothing was decided that could be taken back.", "state")
        faults = approvals.clock_faults(session)
        if faults:
            raise ServiceError(409, "ClockSetBack", f"{faults[0]} Nothing is decided until it is right.")
        origin = origin_of_version(session, version)
        regions = tuple(dict.fromkeys((*house.policy.regions, *wanted.regions)))
        found = approvals.judged(origin, Leaving(output, "release", "", regions), wanted.file)
        at = approvals.clock()
        by = chain.By(
            name=who.name, role=who.role, identity=who.identity, roles=roles_of(who.identity, house.policy),
        )  # fmt: skip
        ends = min(one for one in (at + house.policy.approval_days * DAY, found.expires) if one is not None)
        record = self._add(
            session, shot, id=f"decision_{secrets.token_hex(12)}", job=version.job_id, output_sha256=output,
            mode=version.facts["mode"], regions=regions, policy=house.record, checks=found.checks,
            consent_ids=found.consent_ids, decision=chain.decision_of(state), by=by, at=chain.utc(at),
            reason=wanted.reason, expires=chain.utc(ends) if state is State.APPROVED else None,
        )  # fmt: skip
        version.digest = output
        session.flush()
        version.state = self._stands(session, version, output).state
        session.flush()
        settle(session, shot)
        if state is not State.NEEDS_REVIEW:
            self._desk.changed(session, who, shot, "decide", version.job_id, state=state.value, record=record.id)
            return record
        left = releases.recall(session, output, record.id, at)
        data = {"record": record.id, "output_sha256": output, "to_be_taken_back": [one.release.place for one in left]}
        self._desk.changed(session, who, shot, REVOKED, version.job_id, **data)
        return record

    def _stands(self, session: Session, version: ShotVersion, output: str) -> Standing:
        """By what was decided about this version. The gate asks about the file, whichever versions have its bytes."""
        asked = Asked(
            self._desk.approvals.house.policy, self._desk.approvals.clock(), origin_of_version(session, version).maker
        )
        ordered = (
            sa.select(ShotDecision.record).where(ShotDecision.shot_id == version.shot_id).order_by(ShotDecision.seq)
        )
        try:
            records = [one for one in map(chain.read, session.scalars(ordered)) if one.job == version.job_id]
        except ValueError:  # `_add` tells of it
            records = []
        return standing([records], output, asked)

    @contextmanager
    def _file(self, stored: str, state: State, regions: tuple[str, ...]) -> Iterator[Path | None]:
        """The version's file on this machine, where an approval has to look at its marks."""
        if state is not State.APPROVED or not (regions or self._desk.approvals.house.policy.regions):
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="wanimate-approval-") as folder:
            place = Path(folder) / Path(stored).name
            self._desk.storage.fetch(stored, place)
            yield place

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

    def _hash(self, stored: str, pictures: bool) -> str:
        try:
            return stored_hash(self._desk.storage, stored, pictures)
        except NotStored as error:
            raise ServiceError(
                409, "InvalidParameter", "The version's file is not kept any more.", "version"
            ) from error
        except StorageAway as error:
            raise away("The storage does not answer.") from error


def _consents(row: ShotDecision) -> tuple[str, ...]:
    """Consents that a decision rests on; none where it is no record any more."""
    try:
        return chain.read(row.record).consent_ids
    except ValueError:
        return ()


def _outputs(session: Session, shot: Shot) -> list[str]:
    """SHA-256 of every file that a shot has had decisions about, or has versions of."""
    decided = sa.select(ShotDecision.output).where(ShotDecision.shot_id == shot.id)
    versions = sa.select(ShotVersion.digest).where(ShotVersion.shot_id == shot.id, ShotVersion.digest.is_not(None))
    return sorted({*session.scalars(decided), *(one for one in session.scalars(versions) if one is not None)})
