"""The house's policy: what has to be approved, by whom, for where. A TOML file; without one these defaults hold."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from wanimate.review.records import Form

Region = Annotated[str, Field(pattern=r"^[A-Z]{2}(-[A-Z]{2,3})?$", examples=["EU", "US-NY"])]


class Person(Form):
    """Somebody whom the policy names. `identity`: as in `review.chain.By`; `roles`: what they decide as."""

    name: str
    identity: str
    roles: tuple[str, ...] = ()


class HousePolicy(Form):
    """What the house asks of a result before it leaves.

    held: modes whose results need an approval. quarantine: whether such results are written under a quarantined name first.
    regions, purposes: where and for what results are shown unless a job says otherwise. roles: each of these has to approve;
    empty is anybody who may decide. people: who has which role. approvals: how many different people have to approve.
    maker_may_approve: whether who made a result counts. consents: whether each performer and depicted person needs a valid
    consent. approval_days: how long an approval holds. rules_days: after how many days a rule that nobody has looked at again
    counts as missing. clips: as `ServeSettings.clips`.
    """

    id: str = "default"
    version: str = "1"
    held: tuple[Literal["animation", "replacement"], ...] = ("replacement",)
    quarantine: bool = True
    regions: tuple[Region, ...] = ()
    purposes: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    people: tuple[Person, ...] = ()
    approvals: Annotated[int, Field(ge=1, le=10)] = 1
    maker_may_approve: bool = True
    consents: bool = False
    approval_days: Annotated[int, Field(ge=1, le=3650)] = 365
    rules_days: Annotated[int, Field(ge=1, le=3650)] = 180
    clips: Literal["any", "approved"] = "any"
