"""What rules and consents say of a result: `approval.judgement` with what the database knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from wanimate.approval.consents import Consent
from wanimate.approval.judgement import Case, Marks, judge
from wanimate.approval.policy import House
from wanimate.provenance.verify import verify
from wanimate.review import chain
from wanimate.serve.approvals.origin import Origin
from wanimate.serve.tables import Release, ShotDecision


@dataclass(frozen=True)
class Found:
    """What rules and consents say of a result. missing: sentences; empty where nothing speaks against it. expires: when the
    first thing ends that it rests on, in milliseconds since 1970."""

    checks: tuple[chain.Check, ...] = ()
    missing: tuple[str, ...] = ()
    consent_ids: tuple[str, ...] = ()
    expires: int | None = None


def judged(
    session: Session, house: House, output: str, origin: Origin, consents: Mapping[str, Consent], regions: Sequence[str],
    at: int, file: Path | None,
) -> Found:  # fmt: skip
    """Ask rules and consents.

    Args:
        output: SHA-256 of the result. file: the result itself, whose marks are looked at where a region is asked about.
        at: milliseconds since 1970.

    Raises:
        InputError: the house's rules cannot be read.
    """
    asks = bool(regions or house.policy.regions)
    marks = Marks.found(verify(file).parts, origin.label) if asks and file is not None else Marks()
    mode = next(iter(origin.modes)) if len(origin.modes) == 1 else "replacement"
    used = {one: _used(session, one, output) for one in consents}
    case = Case(mode, origin.clip, origin.image, origin.consent_ids, regions, marks=marks, used=used)
    verdict = judge(case, house.policy, house.rules(), consents, datetime.fromtimestamp(at / 1000, UTC))
    until = None if verdict.until is None else round(verdict.until.timestamp() * 1000)
    return Found(verdict.checks, verdict.missing, verdict.consent_ids, until)


def _used(session: Session, consent: str, output: str) -> int:
    """How many other results have left under a consent."""
    decided = sa.select(ShotDecision).where(ShotDecision.record.contains(consent, autoescape=True))
    outputs = {
        row.output for row in session.scalars(decided)
        if row.output != output and consent in chain.read(row.record).consent_ids
    }  # fmt: skip
    left = sa.select(sa.func.count(sa.distinct(Release.output))).where(Release.output.in_(outputs))
    return session.scalar(left) or 0
