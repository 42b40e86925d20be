"""Consents in the database: versions that are only added, withdrawal, and how often results have left under them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from wanimate.approval.consents import Consent, consent_of
from wanimate.approval.judgement import Case, Verdict, judge
from wanimate.approval.leaving import Leaving
from wanimate.approval.policy import House
from wanimate.approval.times import instant
from wanimate.errors import InputError
from wanimate.media.json_file import parse_json
from wanimate.review.chain import Check
from wanimate.serve.database import Database
from wanimate.serve.settings import ServeSettings
from wanimate.serve.tables import ConsentUse, ConsentVersion, LibraryEntry, now

HOUSE = ""
"""Owner of consents that count for everybody of the service."""
_SKEW = 300_000
"""Milliseconds by which clocks of machines may differ."""


@dataclass(frozen=True)
class Kept:
    """A consent as it is kept. `by`, `at`: who has written this version down, and when (ms). `used`: results that have left."""

    consent: Consent
    version: int
    owner: str
    by: str
    at: int
    used: int = 0

    def state(self, at: datetime) -> str:
        """withdrawn, expired, not signed yet, or valid."""
        consent = self.consent
        if consent.withdrawn_at is not None and at >= instant(consent.withdrawn_at):
            return "withdrawn"
        if consent.expires is not None and at >= instant(consent.expires):
            return "expired"
        return "valid" if at >= instant(consent.signed_at) else "not signed yet"

    def told(self, at: datetime) -> dict[str, Any]:
        """As JSON tells it; `record` is the record itself."""
        one = self.consent
        return {
            "id": one.id, "version": self.version, "owner": self.owner, "state": self.state(at), "asset": one.asset,
            "subject": one.subject.id, "permitted": [rule.words for rule in one.agreement.permission],
            "prohibited": [rule.words for rule in one.agreement.prohibition], "duties": one.duties, "expires": one.expires,
            "withdrawn_at": one.withdrawn_at, "recorded_by": self.by, "recorded_at": self.at, "used": self.used,
            "record": one.data(),
        }  # fmt: skip


class Consents:
    """Consents of one database. `owner` of its methods: whose are seen beside the house's; None sees all.

    Methods raise InputError where something cannot be done as asked.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def close(self) -> None:
        self._database.close()

    # Keeping

    def add(self, consent: Consent, owner: str, by: str) -> Kept:
        """Write down a new consent, or the next version of one. The same record again changes nothing.

        Raises:
            InputError: the id is somebody else's, the record is about another person or file, or the consent is withdrawn.
        """
        try:
            with self._database.write() as session:
                before = _newest(session, consent.id)
                if before is not None and before.record == consent.text():
                    return _kept(session, before)
                if before is not None:
                    _check_follows(before, consent, owner)
                return _kept(session, _write(session, consent, owner, by, before))
        except IntegrityError as error:
            rule = "somebody has written it down at this moment"
            raise InputError("consent", consent.id, rule, "Look at it, and try again.") from error

    def withdraw(self, consent_id: str, owner: str | None, by: str) -> Kept:
        """Withdraw a consent from now on. Entries of the library that name it are retired.

        Raises:
            InputError: there is no such consent, or it is withdrawn already.
        """
        with self._database.write() as session:
            before = _own(session, consent_id, owner)
            consent = _consent(before)
            if consent.withdrawn_at is not None:
                raise InputError("consent", consent_id, f"it was withdrawn at {consent.withdrawn_at}", "Leave it so.")
            at = max(datetime.now(UTC).replace(microsecond=0), instant(consent.signed_at))
            data = consent.data() | {"withdrawn_at": at.isoformat().replace("+00:00", "Z")}
            row = _write(session, consent_of(data), before.owner, by, before)
            for entry in session.scalars(sa.select(LibraryEntry).where(LibraryEntry.sha256 == row.asset)):
                if consent_id in entry.consent_ids:
                    entry.status = "retired"
            return _kept(session, row)

    # Looking

    def find(self, consent_id: str, owner: str | None) -> Kept | None:
        """The newest version of a consent."""
        with self._database.read() as session:
            row = _newest(session, consent_id)
            return _kept(session, row) if row is not None and _sees(row, owner) else None

    def versions(self, consent_id: str, owner: str | None) -> list[Kept]:
        """All versions of a consent, oldest first; none where there is no such consent."""
        wanted = (
            sa.select(ConsentVersion).where(ConsentVersion.consent_id == consent_id).order_by(ConsentVersion.version)
        )
        with self._database.read() as session:
            return [_kept(session, row) for row in session.scalars(wanted) if _sees(row, owner)]

    def listed(
        self, owner: str | None, asset: str | None = None, offset: int = 0, limit: int = 100
    ) -> tuple[list[Kept], int]:
        """Newest versions, the last written first, and how many there are. `asset`: SHA-256 of a clip or a picture."""
        conditions = [_is_newest(), *_seen_by(owner)]
        if asset is not None:
            conditions.append(ConsentVersion.asset == asset)
        rows = sa.select(ConsentVersion).where(*conditions).order_by(ConsentVersion.seq.desc())
        with self._database.read() as session:
            total = session.scalar(sa.select(sa.func.count()).select_from(ConsentVersion).where(*conditions)) or 0
            return [_kept(session, row) for row in session.scalars(rows.offset(offset).limit(limit))], total

    # Judging

    def judge(
        self, case: Case, house: House, owner: str | None, leaving: Leaving | None = None, at: datetime | None = None
    ) -> Verdict:
        """Whether a result may leave: with the consents that the case names, and all that are known of its clip and image.

        Args:
            leaving: how it is to leave; what has left in this very way before is no use more.
            at: now, if it is left out.
        """
        with self._database.read() as session:
            return _judged(session, case, house, owner, leaving, at or datetime.now(UTC))

    def leave(
        self, case: Case, house: House, owner: str | None, leaving: Leaving, at: datetime | None = None
    ) -> Verdict:
        """The same, and count the use: call it before the first byte leaves. The same result at the same place counts once.
        Of two that leave at once under a consent for one, the second is refused.

        Raises:
            InputError: it may not leave.
        """
        moment = at or datetime.now(UTC)
        with self._database.write() as session:
            verdict = _judged(session, case, house, owner, leaving, moment, lock=True)
            if not verdict.allowed:
                rule = f"it may not leave: {' '.join(verdict.missing)}"
                raise InputError("result", leaving.output_sha256, rule, "Settle what is missing, then try again.")
            key = _mark(leaving)
            for one in verdict.consent_ids:
                if session.get(ConsentUse, (one, leaving.output_sha256, key)) is None:
                    session.add(
                        ConsentUse(
                            consent_id=one, output=leaving.output_sha256, mark=key, way=leaving.way, place=leaving.place,
                            at=int(moment.timestamp() * 1000),
                        )
                    )  # fmt: skip
        return verdict


def open_consents(settings: ServeSettings) -> Consents:
    """Consents of this machine's service, whether it runs or not. `close` gives the database back.

    Raises:
        InputError: the database cannot be opened.
    """
    database = Database(settings.database_url)
    database.open()
    return Consents(database)


def _judged(
    session: Session, case: Case, house: House, owner: str | None, leaving: Leaving | None, at: datetime, lock: bool = False
) -> Verdict:  # fmt: skip
    assets = [one for one in (case.clip, case.image) if one is not None]
    concerned = sa.or_(ConsentVersion.consent_id.in_(case.consent_ids), ConsentVersion.asset.in_(assets))
    wanted = sa.select(ConsentVersion).where(_is_newest(), concerned, *_seen_by(owner)).order_by(ConsentVersion.seq)
    rows = session.scalars(wanted.with_for_update() if lock else wanted).all()
    consents = {row.consent_id: _consent(row) for row in rows}
    used = _used(session, consents, leaving)
    verdict = judge(replace(case, used=used), house.policy, house.rules(), consents, at)
    newest = max((row.at for row in rows), default=0)
    if at.timestamp() * 1000 < newest - _SKEW:
        why = f"The clock says {at.isoformat(timespec='seconds')}, but a consent was written down after that."
        check = Check(rule="clock", result="behind", evidence=why)
        missing = (f"{why} Set the clock right.", *verdict.missing)
        return replace(verdict, checks=(*verdict.checks, check), missing=missing)
    return verdict


def _check_follows(before: ConsentVersion, consent: Consent, owner: str) -> None:
    """Raises InputError: the record is no next version of the one before."""
    earlier = _consent(before)
    if before.owner != owner:
        raise InputError("consent", consent.id, "the id is taken", "Give the agreement another uid.")
    if (earlier.asset, earlier.subject.id) != (consent.asset, consent.subject.id):
        rule = "a consent with this id is about another person or another file"
        raise InputError("consent", consent.id, rule, "Give the agreement another uid.")
    if earlier.withdrawn_at is not None:
        rule = f"it was withdrawn at {earlier.withdrawn_at}, and stays so"
        raise InputError("consent", consent.id, rule, "A new agreement needs another uid.")


def _write(
    session: Session, consent: Consent, owner: str, by: str, before: ConsentVersion | None
) -> ConsentVersion:  # fmt: skip
    row = ConsentVersion(
        consent_id=consent.id, version=1 if before is None else before.version + 1, owner=owner, asset=consent.asset,
        ends=_milliseconds(consent.expires), withdrawn=_milliseconds(consent.withdrawn_at), record=consent.text(),
        by=by, at=now(),
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row


def _newest(session: Session, consent_id: str) -> ConsentVersion | None:
    wanted = sa.select(ConsentVersion).where(ConsentVersion.consent_id == consent_id)
    return session.scalar(wanted.order_by(ConsentVersion.version.desc()).limit(1))


def _own(session: Session, consent_id: str, owner: str | None) -> ConsentVersion:
    """One that `owner` may change. Raises InputError."""
    row = _newest(session, consent_id)
    if row is None or not _sees(row, owner):
        raise InputError("consent", consent_id, "there is no such consent", "`wanimate consent list` shows them.")
    if owner is not None and row.owner != owner:
        raise InputError("consent", consent_id, "it is the house's", "Ask an admin.")
    return row


def _is_newest() -> sa.ColumnElement[bool]:
    newest = sa.select(sa.func.max(ConsentVersion.seq)).group_by(ConsentVersion.consent_id)
    return ConsentVersion.seq.in_(newest)


def _sees(row: ConsentVersion, owner: str | None) -> bool:
    return owner is None or row.owner in (owner, HOUSE)


def _seen_by(owner: str | None) -> list[sa.ColumnElement[bool]]:
    return [] if owner is None else [ConsentVersion.owner.in_((owner, HOUSE))]


def _consent(row: ConsentVersion) -> Consent:
    return consent_of(parse_json(row.record))


def _kept(session: Session, row: ConsentVersion) -> Kept:
    used = _used(session, [row.consent_id], None)[row.consent_id]
    return Kept(_consent(row), row.version, row.owner, row.by, row.at, used)


def _used(session: Session, ids: Iterable[str], leaving: Leaving | None) -> Mapping[str, int]:
    """Consent -> how many results have left under it; `leaving` itself does not count."""
    known: Sequence[str] = list(ids)
    wanted = sa.select(ConsentUse.consent_id, sa.func.count()).where(ConsentUse.consent_id.in_(known))
    if leaving is not None:
        same = sa.and_(ConsentUse.output == leaving.output_sha256, ConsentUse.mark == _mark(leaving))
        wanted = wanted.where(sa.not_(same))
    counted = {row[0]: int(row[1]) for row in session.execute(wanted.group_by(ConsentUse.consent_id))}
    return {one: counted.get(one, 0) for one in known}


def _mark(leaving: Leaving) -> str:
    return sha256(f"{leaving.way}\0{leaving.place}".encode("utf-8", "surrogatepass")).hexdigest()


def _milliseconds(moment: str | None) -> int | None:
    return None if moment is None else int(instant(moment).timestamp() * 1000)
