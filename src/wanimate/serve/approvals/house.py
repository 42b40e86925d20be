"""How results stand: the house's policy, chains of decisions, rules and consents together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.orm import Session

from wanimate.approval.judgement import Marks
from wanimate.approval.leaving import Leaving
from wanimate.approval.policy import House
from wanimate.approval.standing import Asked, Standing, standing
from wanimate.review import chain
from wanimate.serve.approvals import chains
from wanimate.serve.approvals.chains import Heads
from wanimate.serve.approvals.judging import Found, judged, marks_of
from wanimate.serve.approvals.origin import Origin
from wanimate.serve.consents import Consents
from wanimate.serve.database import Database
from wanimate.serve.settings import ServeSettings
from wanimate.serve.tables import now

TOLERANCE = 5_000
"""Milliseconds by which clocks of several machines may differ."""


@dataclass(frozen=True)
class Stand:
    """How a result stands. held: whether it needs an approval. missing: why it may not leave, as sentences without their stop;
    empty where it may."""

    held: bool
    standing: Standing
    found: Found
    missing: tuple[str, ...]

    @property
    def expires(self) -> str | None:
        """When what allows it ends (UTC)."""
        ends = [one for one in (self.standing.expires, self.found.expires) if self.held and one is not None]
        return chain.utc(min(ends)) if ends else None


class Approvals:
    """Policy and chains of a service. Both are read anew each time.

    Args:
        clock: milliseconds since 1970.
    """

    def __init__(self, settings: ServeSettings, database: Database, clock: Callable[[], int] = now) -> None:
        self._file, self.clock = settings.policy, clock
        self.heads, self.consents = Heads(settings.heads), Consents(database)

    @property
    def house(self) -> House:
        """The policy in force. Raises InputError: its file cannot be used."""
        return House.read(self._file)

    @property
    def holds(self) -> bool:
        """Whether a policy file is in force, so that results are held back. Raises InputError."""
        return self.house.path is not None

    def judged(
        self, origin: Origin, leaving: Leaving, file: Path | None = None, marks: Marks | None = None
    ) -> Found:  # fmt: skip
        """What rules and consents say of a result now. `marks`: of the file, where they are known already.
        Raises InputError: policy or rules cannot be read."""
        house = self.house
        known = marks_of(house, origin, leaving.regions, file) if marks is None else marks
        return judged(self.consents, house, origin, leaving, self.clock(), known)

    def used(self, found: Found, leaving: Leaving) -> None:
        """Count a use of the consents that a result rests on. Raises InputError: they do not allow it any more."""
        self.consents.leave(found.case, self.house, None, leaving, datetime.fromtimestamp(self.clock() / 1000, UTC))

    def stand(
        self, session: Session, output: str, origin: Origin, found: Found, regions: Sequence[str] = (),
        more: Sequence[chain.Record] = (),
    ) -> Stand:  # fmt: skip
        """How the file with this SHA-256 stands now. `more`: a record that is about to be added.

        Raises:
            InputError: policy or heads cannot be read.
        """
        policy, heads = self.house.policy, self.heads.lines()
        told = chains.about(session, output, heads)
        asked = Asked(policy, self.clock(), origin.maker, tuple(regions))
        stands = standing([*told.records, *([more] if more else [])], output, asked)
        held = origin.is_held(policy.held)
        missing = [*told.faults, *self.clock_faults(session)]
        missing += stands.missing if held else stands.stopped
        missing += found.missing
        return Stand(held, stands, found, tuple(one.rstrip(".") for one in missing))

    def clock_faults(self, session: Session) -> list[str]:
        """What is wrong with this machine's clock, as sentences."""
        last = chains.newest(session, self.heads.lines())
        if self.clock() >= last - TOLERANCE:
            return []
        return [f"The clock of this machine is behind the newest record of {chain.utc(last)}: it was set back."]
