"""What the house asks of a result, and how a result stands: policy, chains of decisions, rules and consents together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sqlalchemy.orm import Session

from wanimate.approval.policy import HousePolicy
from wanimate.approval.standing import Asked, Standing, standing, terms
from wanimate.review import chain
from wanimate.serve.approvals import chains
from wanimate.serve.approvals.chains import Heads
from wanimate.serve.approvals.origin import Origin
from wanimate.serve.settings import ServeSettings
from wanimate.serve.tables import now

TOLERANCE = 5_000
"""Milliseconds by which clocks of several machines may differ."""


@dataclass(frozen=True)
class Found:
    """What rules and consents say of a result. missing: sentences; empty where nothing speaks against it. expires: when the
    first thing ends that it rests on, in milliseconds since 1970."""

    checks: tuple[chain.Check, ...] = ()
    missing: tuple[str, ...] = ()
    consent_ids: tuple[str, ...] = ()
    expires: int | None = None


class Judge(Protocol):
    """Rules and consents, asked whenever something is decided or leaves."""

    def __call__(
        self, session: Session, policy: HousePolicy, origin: Origin, regions: Sequence[str], at: int
    ) -> Found: ...


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


class House:
    """Policy and heads of a service, read anew whenever they have changed.

    Args:
        clock: milliseconds since 1970.
    """

    def __init__(self, settings: ServeSettings, judge: Judge, clock: Callable[[], int] = now) -> None:
        self._file, self._judge, self.clock = settings.policy, judge, clock
        self._known: tuple[tuple[int, int], HousePolicy] | None = None
        self.heads = Heads(settings.heads)

    @property
    def is_given(self) -> bool:
        """Whether a policy file is in force."""
        return self._file is not None

    @property
    def policy(self) -> HousePolicy:
        """The policy in force; the usual one without a file. Raises InputError: the file cannot be used."""
        if self._file is None:
            return HousePolicy()
        mark = _mark(self._file)
        if self._known is None or mark is None or self._known[0] != mark:
            policy = read_policy(self._file)
            if mark is None:
                return policy
            self._known = (mark, policy)
        return self._known[1]

    @property
    def terms(self) -> chain.Policy:
        """The policy as records name it."""
        return terms(self.policy)

    def stand(
        self, session: Session, output: str, origin: Origin, regions: Sequence[str] = (),
        more: Sequence[chain.Record] = (),
    ) -> Stand:  # fmt: skip
        """How the file with this SHA-256 stands now. `more`: records that are about to be added.

        Raises:
            InputError: policy or heads cannot be read.
        """
        policy, at, heads = self.policy, self.clock(), self.heads.lines()
        told = chains.about(session, output, heads)
        asked = Asked(policy, at, origin.maker, tuple(regions))
        stands = standing([*told.records, *([more] if more else [])], output, asked)
        held = origin.is_held(policy.held)
        found = self._judge(session, policy, origin, regions, at)
        missing = [*told.faults, *self.clock_faults(session)]
        missing += stands.missing if held else stands.stopped
        missing += found.missing if held or policy.consents else ()
        return Stand(held, stands, found, tuple(one.rstrip(".") for one in missing))

    def clock_faults(self, session: Session) -> list[str]:
        """What is wrong with this machine's clock, as sentences."""
        last = chains.newest(session, self.heads.lines())
        if self.clock() >= last - TOLERANCE:
            return []
        return [f"The clock of this machine is behind the newest record of {chain.utc(last)}: it was set back."]


def _mark(file: Path) -> tuple[int, int] | None:
    """What changes when the file does."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
