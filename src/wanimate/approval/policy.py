"""The house's policy: what has to be approved, by whom, for where. A TOML file; without one these defaults hold."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from wanimate.approval.faults import first_fault
from wanimate.approval.regions import Region
from wanimate.approval.rules import Rules
from wanimate.errors import InputError, OutputError
from wanimate.media.files import output_error, user_config, write_new
from wanimate.review import chain
from wanimate.review.records import Form

VARIABLE = "WANIMATE_POLICY"
NAME, RULES = "policy.toml", "rules.toml"
_LARGEST = 2**20
_REMEDY = "`wanimate policy init` writes a file with every key and what it means."


class Person(Form):
    """Somebody whom the policy names. `identity`: as in `review.chain.By`; `roles`: what they decide as."""

    name: str
    identity: str
    roles: tuple[str, ...] = ()


class HousePolicy(Form):
    """What the house asks of a result before it leaves.

    held: modes whose results need an approval. quarantine: whether such results are written under a quarantined name first.
    regions, purposes: where and for what results are shown unless a job says otherwise; without a region no rule of the table
    is asked. roles: each of these has to approve; empty is anybody who may decide. people: who has which role; if there are
    any, only they approve regions and rules. approvals: how many different people have to approve. maker_may_approve: whether
    who made a result counts. consents: whether each performer and depicted person needs a valid consent. approval_days: how
    long an approval holds. rules: the house's own rows and approvals, beside the policy. rules_days: after how many days a
    rule that nobody has looked at again counts as missing. clips: as `ServeSettings.clips`.
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
    rules: str = RULES
    rules_days: Annotated[int, Field(ge=1, le=3650)] = 180
    clips: Literal["any", "approved"] = "any"

    @model_validator(mode="after")
    def _can_be_kept(self) -> HousePolicy:
        ids = [one.identity for one in self.people]
        twice = next((one for one in ids if ids.count(one) > 1), None)
        if twice is not None:
            raise ValueError(f"two people have the identity {twice}")
        held = {role for one in self.people for role in one.roles}
        lacking = [role for role in self.roles if self.people and role not in held]
        if lacking:
            raise ValueError(f"nobody of people has the role {lacking[0]}")
        return self


@dataclass(frozen=True)
class House:
    """A policy and its place. `path`: None for the defaults. `sha256`: of the file's bytes, or the defaults' JSON."""

    policy: HousePolicy
    path: Path | None
    sha256: str

    @classmethod
    def read(cls, path: Path | None = None) -> House:
        """The policy of a file: the one that is named, that of WANIMATE_POLICY, `policy.toml` of the user's config folder, or
        the defaults.

        Raises:
            InputError: the file cannot be read, or has a value that breaks its rule.
        """
        chosen = path or (Path(named) if (named := os.environ.get(VARIABLE)) else None)
        if chosen is None:
            usual = user_config() / NAME
            if not usual.exists():
                policy = HousePolicy()
                return cls(policy, None, sha256(policy.model_dump_json().encode()).hexdigest())
            chosen = usual
        data = _bytes(chosen)
        try:
            policy = HousePolicy.model_validate(tomllib.loads(data.decode()))
        except ValidationError as error:
            raise InputError("policy", chosen, first_fault(error), _REMEDY) from error
        except ValueError as error:
            raise InputError("policy", chosen, f"it is no TOML file ({error})", _REMEDY) from error
        return cls(policy, chosen, sha256(data).hexdigest())

    @property
    def record(self) -> chain.Policy:
        """As a record of a decision names it."""
        return chain.Policy(id=self.policy.id, version=self.policy.version, sha256=self.sha256)

    @property
    def rules_file(self) -> Path:
        """Where the house's own rules and approvals are, or will be."""
        return (user_config() if self.path is None else self.path.parent) / self.policy.rules

    def signed_as(self, identity: str, name: str) -> str:
        """What an approval is signed with, of somebody who was let in by `identity` and calls themselves `name`. Where the
        policy names people, it is the name that it gives this identity.

        Raises:
            InputError: the policy names people who approve, and not this one.
        """
        people = self.policy.people
        if not people:
            return name
        own = [one.name for one in people if one.identity == identity]
        if not own:
            known = ", ".join(f"{one.name} ({one.identity})" for one in people)
            raise InputError("by", identity, f"the policy names who approves: {known}", "Have one of them approve it.")
        return own[0]

    def rules(self) -> Rules:
        """The table with the house's rows.

        Raises:
            InputError: the house's file cannot be read, or a policy names one that is not there.
        """
        named = "rules" in self.policy.model_fields_set
        return Rules.read(self.rules_file if named or self.rules_file.exists() else None)


def write_template(path: Path | None = None) -> Path:
    """Write a policy with every key, its default and what it means. Returns where it is.

    Raises:
        OutputError: there is a file of that name, or it cannot be written.
    """
    place = path or user_config() / NAME
    text = (resources.files("wanimate.approval") / "policy.toml").read_bytes()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_new(place, text)
    except FileExistsError as error:
        if not os.path.lexists(place):
            raise output_error(place, error, "policy") from error
        rule = "there is a file of that name, and nothing is written over it"
        raise OutputError("policy", place, rule, "Give another name, or remove the file.") from error
    except OSError as error:
        raise output_error(place, error, "policy") from error
    return place


def _bytes(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise InputError("policy", path, f"it cannot be read ({error.strerror})", _REMEDY) from error
    if len(data) > _LARGEST:
        raise InputError("policy", path, "it is larger than 1 MB", _REMEDY)
    return data
