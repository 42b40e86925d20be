"""How a file stands: which of the decisions about it count under the house's policy, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wanimate.approval.policy import HousePolicy
from wanimate.approval.regions import lies_in
from wanimate.review import chain
from wanimate.review.records import State

_DAY = 86_400_000


@dataclass(frozen=True)
class Asked:
    """What an approval is asked for. maker: identity of who made the result, where that is known. regions: where it will be
    shown; empty is where the policy says. at: now, in milliseconds since 1970."""

    policy: HousePolicy
    at: int
    maker: str | None = None
    regions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Standing:
    """How a file stands.

    counted: approvals that count, one a person, oldest first. missing: what an approval still needs, as sentences without their
    stop; empty where there is enough. stopped: who has rejected or revoked, as such sentences; they are in `missing`, too.
    decided: somebody's decision stands. expires: when the approval ends, in milliseconds since 1970; None where there is none.
    """

    counted: tuple[chain.Record, ...] = ()
    missing: tuple[str, ...] = ()
    stopped: tuple[str, ...] = ()
    rejected: bool = False
    decided: bool = False
    expires: int | None = None

    @property
    def approved(self) -> bool:
        return not self.missing

    @property
    def state(self) -> State:
        if self.rejected:
            return State.CHANGES_ASKED
        return State.APPROVED if self.approved else State.NEEDS_REVIEW


def roles_of(identity: str, policy: HousePolicy) -> tuple[str, ...]:
    """What somebody decides as. What they call themselves has no say in it."""
    found = {role for one in policy.people if _place(one.identity) == _place(identity) for role in one.roles}
    return tuple(sorted(found))


def person_of(identity: str, policy: HousePolicy) -> str:
    """What tells people apart. A guest link is one person, however often it is opened and under whatever name; so are the
    identities that the policy gives one name."""
    place = _place(identity)
    known = next((one.name for one in policy.people if _place(one.identity) == place), None)
    return place if known is None else f"person:{known.casefold()}"


def standing(chains: Sequence[Sequence[chain.Record]], output_sha256: str, asked: Asked) -> Standing:
    """How a file stands. `chains`: every one that tells of the file, each oldest first."""
    newest: dict[str, chain.Record] = {}
    revoked: chain.Record | None = None
    for one in _in_order(chains, output_sha256):
        if one.decision == "revoked":
            newest, revoked = {}, one
        else:
            person = person_of(one.by.identity, asked.policy)
            newest.pop(person, None)
            newest[person] = one
    rejections = [one for one in newest.values() if one.decision == "rejected"]
    approvals = [one for one in newest.values() if one.decision == "approved"]
    flaws = {one.id: _flaw(one, asked) for one in approvals}
    counted = tuple(one for one in approvals if flaws[one.id] is None)
    stopped = [f"{one.by.name} has asked for changes, and has not approved since" for one in rejections]
    if revoked is not None and not approvals:
        stopped.append(f"{revoked.by.name} has taken back what was decided, on {revoked.at[:10]}")
    missing = [*stopped, *(flaw for flaw in flaws.values() if flaw is not None), *_lacking(counted, asked.policy)]
    expires = min((_end(one, asked.policy) for one in counted), default=None)
    return Standing(counted, tuple(missing), tuple(stopped), bool(rejections), bool(newest), expires)


def _in_order(chains: Sequence[Sequence[chain.Record]], output_sha256: str) -> list[chain.Record]:
    """Records about a file, oldest first. Within a chain its order counts: a clock may have been set back meanwhile."""
    placed = list[tuple[int, chain.Record]]()
    for records in chains:
        latest = 0
        for one in records:
            latest = max(latest, chain.milliseconds(one.at))
            placed.append((latest, one))
    placed.sort(key=lambda pair: pair[0])
    return [one for _, one in placed if one.output_sha256 == output_sha256]


def _lacking(counted: Sequence[chain.Record], policy: HousePolicy) -> list[str]:
    """Approvals that are not there, as sentences."""
    found = list[str]()
    if policy.approvals == 1 and not counted:
        found.append("nobody has approved it")
    elif len(counted) < policy.approvals:
        found.append(f"there are {len(counted)} of {policy.approvals} approvals by different people")
    for role in policy.roles:
        # who was not legal when they approved did not look at it as legal, and who is not any more does not count as such
        if not any(role in one.by.roles and role in roles_of(one.by.identity, policy) for one in counted):
            found.append(f"nobody has approved it as {role}")
    return found


def _flaw(record: chain.Record, asked: Asked) -> str | None:
    """Why an approval does not count."""
    policy, who = asked.policy, f"the approval of {record.by.name}"
    if record.policy is not None and record.policy.id != policy.id:
        return f"{who} was given under the policy {record.policy.id}, and {policy.id} is in force"
    end = _end(record, policy)
    if end <= asked.at:
        return f"{who} has expired on {chain.utc(end)[:10]}"
    maker = None if policy.maker_may_approve or asked.maker is None else person_of(asked.maker, policy)
    if maker == person_of(record.by.identity, policy):
        return f"{who} does not count, as they made it"
    wanted = asked.regions or policy.regions
    missing = [region for region in wanted if not any(lies_in(region, one) for one in record.regions)]
    if missing and (record.regions or policy.regions):
        return f"{who} is not for {', '.join(missing)} (`wanimate review approve --region` names more)"
    return None


def _end(record: chain.Record, policy: HousePolicy) -> int:
    """When an approval ends: as it says, or sooner where the policy in force lets none live so long."""
    longest = chain.milliseconds(record.at) + policy.approval_days * _DAY
    return longest if record.expires is None else min(longest, chain.milliseconds(record.expires))


def _place(identity: str) -> str:
    """An identity without what tells two browsers of one guest link apart."""
    return ":".join(identity.split(":")[:2]) if identity.startswith("guest:") else identity
