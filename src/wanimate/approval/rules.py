"""What regions ask of a result, as data: the packaged table (`rules.toml`) and the house's own file over it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BeforeValidator, Field, ValidationError, model_validator

from wanimate.approval.faults import first_fault
from wanimate.approval.regions import Region, lies_in, meets
from wanimate.approval.times import FIRST, LAST
from wanimate.errors import InputError
from wanimate.media.files import output_error
from wanimate.review.records import Form, Name

Kind = Literal["ad", "film", "internal", "other"]
"""What a result is. internal: nobody outside the house sees it."""
Requirement = Literal[
    "label", "label-eu", "label-china", "watermark", "metadata", "aigc", "signed", "latent", "consent", "heirs",
    "uses-described", "represented",
]  # fmt: skip
"""What can be told of a result. latent: watermark or signature. heirs: whoever is dead has heirs that agreed."""
_EARLY = timedelta(hours=14)
"""A day begins so much earlier somewhere than in UTC: a rule counts from its first moment anywhere."""
_LARGEST = 2**22
_REMEDY = "docs/approval.md has the keys of the rules file."


def _day(given: object) -> object:
    """A month is its first day."""
    return f"{given}-01" if isinstance(given, str) and len(given) == len("2026-11") else given


Day = Annotated[date, Field(ge=FIRST, le=LAST), BeforeValidator(_day)]
Time = Annotated[
    AwareDatetime, Field(lt=datetime(LAST.year, 12, 31, tzinfo=UTC), gt=datetime(FIRST.year, 1, 1, tzinfo=UTC))
]
Words = Annotated[str, Field(min_length=1, max_length=2000)]


class Scope(Form):
    """Which results a rule is about; empty is all. Of a result whose kind nobody has said, every kind may be true."""

    modes: tuple[Literal["animation", "replacement"], ...] = ()
    kinds: tuple[Kind, ...] = ()


class Rule(Form):
    """A row of the table. begins: its first day; None: it counts at any time. checked_on: when somebody has read the source
    last; None: nobody has. owner: who looks after the row. review_by: from when on nobody may rely on it any more."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")]
    region: Region
    instrument: Words
    begins: Annotated[Day | None, Field(alias="from")] = None
    scope: Scope = Scope()
    asks: Words
    requires: tuple[Requirement, ...] = ()
    source: Words
    checked_on: Day | None = None
    owner: Words
    review_by: Day | None = None

    def outdated(self, at: datetime, days: int) -> str | None:
        """Why nobody may rely on the row at a moment, as a phrase; None where they may. `days`: of the policy."""
        if self.checked_on is None:
            return "nobody has checked it"
        until = self.good_until(days)
        assert until is not None
        if _latest_day(at) < self.checked_on:
            return f"it is checked on {self.checked_on}, after this"
        return None if at.astimezone(UTC).date() < until else f"it was to be checked again by {until}"

    def good_until(self, days: int) -> date | None:
        """The first day on which the row is outdated; None where nobody has checked it."""
        if self.checked_on is None:
            return None
        return min(self.checked_on + timedelta(days=days), self.review_by or date.max)

    def in_force(self, at: datetime) -> bool:
        return self.begins is None or _latest_day(at) >= self.begins


class Approved(Form):
    """A named person lets a region pass that has no rule, or none that may be relied on; or takes what one rule asks as met.

    region, rule: one of the two. on, expires: with a zone.
    """

    region: Region | None = None
    rule: str | None = None
    by: Name
    reason: Words
    on: Time
    expires: Time

    @model_validator(mode="after")
    def _whole(self) -> Approved:
        if (self.region is None) == (self.rule is None):
            raise ValueError("it names either a region or a rule")
        if self.expires <= self.on:
            raise ValueError("it expires before it is given")
        return self

    def holds(self, at: datetime) -> bool:
        return self.on <= at < self.expires

    @property
    def words(self) -> str:
        return f"approved by {self.by} on {self.on.isoformat()} until {self.expires.isoformat()}: {self.reason}"


class _File(Form):
    rule: tuple[Rule, ...] = ()
    approved: tuple[Approved, ...] = ()


@dataclass(frozen=True)
class Rules:
    """The table. `sha256`: of the bytes of its files, one after the other."""

    rows: Sequence[Rule]
    approvals: Sequence[Approved]
    sha256: str

    @classmethod
    def read(cls, own: Path | None = None) -> Rules:
        """The packaged rows, and the house's: one with a packaged id stands in its place.

        Raises:
            InputError: the house's file cannot be read, or has a row that breaks a rule.
        """
        packaged = (resources.files("wanimate.approval") / "rules.toml").read_bytes()
        rows, data = {one.id: one for one in _parsed(packaged, "rules.toml").rule}, packaged
        approvals: tuple[Approved, ...] = ()
        if own is not None:
            told = _bytes(own)
            file = _parsed(told, own)
            ids = [one.id for one in file.rule]
            twice = next((one for one in ids if ids.count(one) > 1), None)
            if twice is not None:
                raise InputError("rules", own, f"there are two rules {twice}", "Give each an id of its own.")
            rows |= {one.id: one for one in file.rule}
            approvals, data = file.approved, packaged + told
            unknown = next((one.rule for one in approvals if one.rule is not None and one.rule not in rows), None)
            if unknown is not None:
                rule = f"an approval names the rule {unknown}, which is not there"
                raise InputError("rules", own, rule, "`wanimate rules list` shows the rules.")
        return cls(tuple(rows.values()), approvals, sha256(data).hexdigest())

    def of(self, region: str) -> list[Rule]:
        """The rows that count for a region: its own, those around it, and those of its parts."""
        return [one for one in self.rows if meets(region, one.region)]

    def knows(self, region: str) -> bool:
        """Whether a row is about all of a region. Rows about parts of it leave the rest open."""
        return any(lies_in(region, one.region) for one in self.rows)

    def approval(
        self, at: datetime, people: Iterable[str], regions: Iterable[str] = (), rule: str | None = None
    ) -> Approved | None:
        """The approval of one of these very regions, or of a rule, that holds longest. `people`: who may give one; empty is
        anybody with a name."""
        names, places = frozenset(people), frozenset(regions)
        fit = [
            one for one in self.approvals
            if one.holds(at) and (not names or one.by in names)
            and (one.region in places if one.region is not None else one.rule == rule)
        ]  # fmt: skip
        return max(fit, key=lambda one: one.expires, default=None)


def _latest_day(at: datetime) -> date:
    """The latest day that it is anywhere."""
    return (at.astimezone(UTC) + _EARLY).date()


def add_approval(path: Path, approved: Approved) -> None:
    """Write an approval behind the house's rules file, which is made if it is not there.

    Raises:
        InputError: the file has something wrong in it, or knows no such rule. OutputError: it cannot be written.
    """
    table = Rules.read(path if path.exists() else None)
    if approved.rule is not None and approved.rule not in {one.id for one in table.rows}:
        raise InputError("rule", approved.rule, "there is no such rule", "`wanimate rules list` shows the rules.")
    lines = ["", "[[approved]]"]
    for name, value in approved.model_dump(exclude_none=True).items():
        text = value.isoformat() if isinstance(value, datetime) else json.dumps(value, ensure_ascii=False)
        lines.append(f"{name} = {text}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab") as file:  # in one piece behind what others write
            file.write(("\n".join(lines) + "\n").encode())
    except OSError as error:
        raise output_error(path, error, "rules") from error


def _bytes(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise InputError("rules", path, f"it cannot be read ({error.strerror})", "Name a TOML file.") from error
    if len(data) > _LARGEST:
        raise InputError("rules", path, "it is larger than 4 MB", "Name a TOML file with rules.")
    return data


def _parsed(data: bytes, path: object) -> _File:
    try:
        return _File.model_validate(tomllib.loads(data.decode()))
    except ValidationError as error:
        raise InputError("rules", path, first_fault(error), _REMEDY) from error
    except ValueError as error:
        raise InputError("rules", path, f"it is no TOML file ({error})", _REMEDY) from error
