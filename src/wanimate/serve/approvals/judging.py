"""What rules and consents say of a result: `approval.judgement` with what the database knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from wanimate.approval.judgement import Case, Marks
from wanimate.approval.leaving import Leaving
from wanimate.approval.policy import House
from wanimate.provenance.verify import verify
from wanimate.review import chain
from wanimate.serve.approvals.origin import Origin
from wanimate.serve.consents import Consents


@dataclass(frozen=True)
class Found:
    """What rules and consents say of a result.

    case: what was judged. missing: sentences; empty where nothing speaks against it. expires: when the first thing ends that it
    rests on, in milliseconds since 1970.
    """

    case: Case
    checks: tuple[chain.Check, ...] = ()
    missing: tuple[str, ...] = ()
    consent_ids: tuple[str, ...] = ()
    expires: int | None = None


def judged(
    consents: Consents, house: House, origin: Origin, leaving: Leaving, at: int, marks: Marks
) -> Found:  # fmt: skip
    """Ask rules and consents.

    Args:
        marks: what the result carries (`marks_of`).
        at: milliseconds since 1970.

    Raises:
        InputError: the house's rules cannot be read.
    """
    case = _case(origin, leaving.regions, marks)
    verdict = consents.judge(case, house, None, leaving, datetime.fromtimestamp(at / 1000, UTC))
    until = None if verdict.until is None else round(verdict.until.timestamp() * 1000)
    return Found(case, verdict.checks, verdict.missing, verdict.consent_ids, until)


def marks_of(house: House, origin: Origin, regions: Sequence[str], file: Path | None) -> Marks:
    """What a result carries. It is looked at where a region is asked about: nothing else asks for marks."""
    asks = bool(regions or house.policy.regions)
    return Marks.found(verify(file).parts, origin.label) if asks and file is not None else Marks()


def _case(origin: Origin, regions: Sequence[str], marks: Marks) -> Case:
    """What is judged of a result. One of no known mode counts as a replacement."""
    mode = next(iter(origin.modes)) if len(origin.modes) == 1 else "replacement"
    return Case(mode, origin.clip, origin.image, origin.consent_ids, regions, marks=marks)
