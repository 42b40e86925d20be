"""Consents: what a performer of a clip, or a person in a picture, has agreed to.

A record is an ODRL 2.2 agreement in JSON-LD (https://www.w3.org/TR/odrl-model/) and what is known around it. It names the
person by an id only. What this program cannot judge is refused when a record is read, so that no limit is passed over.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import uuid4

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from wanimate.approval.faults import first_fault
from wanimate.approval.terms import (
    ACTIONS,
    CONTEXT,
    FORBIDS,
    NAMESPACE,
    OPERATORS,
    Operand,
    Use,
    reasons_of,
    said,
    short,
    told_wrongly,
)
from wanimate.approval.times import Moment, instant
from wanimate.errors import InputError
from wanimate.media.json_file import parse_json, read_json
from wanimate.review.chain import Sha256

_ASSET = re.compile(r"(?:(?:urn:)?sha256:)?([0-9a-f]{64})")
_KEEPS = re.compile(r"[A-Za-z][\w.-]*:.+|@id")
"""Keys of other vocabularies ("dct:title") say something beside the agreement, and stay as they are."""
_PREFIX = re.compile(r"[A-Za-z][\w.-]*")
_LARGEST = 2**20
Release = Literal["MR-NON", "MR-NAP", "MR-UMR", "MR-LMR"]
"""PLUS: none, not applicable (nobody can be recognised), unlimited, limited or incomplete."""
REMEDY = "`wanimate consent new` writes a record to begin with."


def _iri(text: str) -> str:
    if any(sign.isspace() or sign in '<>"{}|\\^`' or not sign.isprintable() for sign in text):
        raise ValueError("it is no IRI")
    return text


def _asset(text: str) -> str:
    if not _ASSET.fullmatch(text):
        raise ValueError("it is not sha256: and the 64 small hexadecimal digits of the clip or the picture")
    return text


Iri = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_iri)]
Target = Annotated[str, AfterValidator(_asset)]


class Part(BaseModel):
    """A part of a record: it cannot change, and knows its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)


class Constraint(Part):
    """A limit. rightOperand: a value, or several for isAnyOf and isNoneOf; `{"@value": ...}` as JSON-LD writes typed ones."""

    left: Annotated[str, Field(alias="leftOperand")]
    operator: str
    right: Annotated[Any, Field(alias="rightOperand")]
    data_type: Annotated[str | None, Field(alias="dataType")] = None
    uid: Iri | None = None
    type: Annotated[Literal["Constraint"] | None, Field(alias="@type")] = None

    @model_validator(mode="after")
    def _can_be_judged(self) -> Constraint:
        left, operator = short(self.left), short(self.operator)
        if left not in OPERATORS:
            raise ValueError(f"nobody here can judge {left}; known are {', '.join(OPERATORS)}")
        if operator not in OPERATORS[left]:
            raise ValueError(f"{left} takes {', '.join(OPERATORS[left])}, not {operator}")
        wrong = told_wrongly(left, self.values)
        if wrong:
            raise ValueError(f"{left} {operator}: {wrong}")
        if len(self.values) != 1 and operator not in ("isAnyOf", "isNoneOf"):
            raise ValueError(f"{left} {operator} has one rightOperand")
        return self

    @property
    def operand(self) -> Operand:
        return Operand(short(self.left), short(self.operator), self.values)

    @property
    def values(self) -> tuple[Any, ...]:
        given = self.right if isinstance(self.right, list) else [self.right]
        return tuple(one.get("@value", one.get("@id")) if isinstance(one, dict) else one for one in given)


class Duty(Part):
    """What is owed for a permission. Whoever approves vouches for it: a program cannot see whether somebody was paid."""

    model_config = ConfigDict(extra="allow")
    action: Any

    @property
    def words(self) -> str:
        return short(self.action) if isinstance(self.action, str) else json.dumps(self.action, ensure_ascii=False)


class Rule(Part):
    """What a permission and a prohibition have in common."""

    action: str | list[str]
    constraint: list[Constraint] = []
    uid: Iri | None = None
    type: Annotated[str | None, Field(alias="@type")] = None
    target: Target | None = None

    @property
    def actions(self) -> frozenset[str]:
        return frozenset(map(short, [self.action] if isinstance(self.action, str) else self.action))

    @property
    def operands(self) -> list[Operand]:
        return [one.operand for one in self.constraint]

    @property
    def words(self) -> str:
        """ "use in EU, for ad, 10 times at most"."""
        limits = ", ".join(said(one) for one in self.operands)
        return f"{' and '.join(sorted(self.actions))} {limits or 'without a limit'}"

    @model_validator(mode="after")
    def _known_actions(self) -> Rule:
        unknown = sorted(self.actions - ACTIONS)
        if unknown or not self.actions:
            raise ValueError(f"ODRL has no action {', '.join(unknown) or 'without a name'}")
        return self


class Permission(Rule):
    duty: list[Duty] = []


class Prohibition(Rule):
    @model_validator(mode="after")
    def _can_be_judged(self) -> Prohibition:
        beyond = sorted(self.actions - FORBIDS)
        if beyond:
            raise ValueError(f"nobody here can judge that {', '.join(beyond)} is prohibited")
        return self


class Agreement(Part):
    """ODRL's agreement. target: SHA-256 of the clip or the picture. assigner: the id of who agrees; assignee: the house."""

    model_config = ConfigDict(extra="allow")
    context: Annotated[str | list[Any], Field(alias="@context")]
    type: Annotated[Literal["Agreement"], Field(alias="@type")]
    uid: Iri
    target: Target
    assigner: Iri
    assignee: Iri
    permission: Annotated[list[Permission], Field(min_length=1)]
    prohibition: list[Prohibition] = []
    obligation: list[Duty] = []

    @model_validator(mode="after")
    def _understood(self) -> Agreement:
        contexts = self.context if isinstance(self.context, list) else [self.context]
        if CONTEXT not in contexts:
            raise ValueError(f"@context has to be {CONTEXT}")
        for one in contexts:
            _check_context(one)
        for key in self.model_extra or {}:
            if not _KEEPS.fullmatch(key) or short(key) != key:
                raise ValueError(f"nobody here knows the key {key!r}")
        if any(one.target not in (None, self.target) for one in (*self.permission, *self.prohibition)):
            raise ValueError("all of an agreement is about one target")
        return self


def _check_context(given: Any) -> None:
    """Whether a context only names prefixes of other vocabularies. Any other could give ODRL's words another meaning.

    Raises:
        ValueError.
    """
    if given == CONTEXT:
        return
    if not isinstance(given, dict):
        raise ValueError(f"@context: nobody here knows {given!r}")
    known = {field.alias or name for name, field in Agreement.model_fields.items()}
    for prefix, place in given.items():
        plain = _PREFIX.fullmatch(prefix) and prefix not in known and prefix != "odrl"
        if not plain or not isinstance(place, str) or place.startswith(NAMESPACE):
            raise ValueError(f"@context: {prefix} may only name another vocabulary")


class Subject(Part):
    """Whom the consent is about, by an id that stands for them in the house's own papers."""

    id: Iri
    minor: bool
    deceased: bool


class GivenBy(Part):
    """Who has agreed for somebody who cannot: a guardian for a minor, heirs for a dead person. `document_sha256`: of the paper
    that shows it."""

    role: Literal["guardian", "heirs"]
    id: Iri
    document_sha256: Sha256


class Consent(Part):
    """One consent. Times are ISO 8601 with a zone. `document_sha256`: of the signed paper. `given_by`: None is the person."""

    agreement: Agreement
    subject: Subject
    given_by: GivenBy | None = None
    represented_by: Literal["counsel", "union", "none"]
    uses_described: str
    document_sha256: Sha256
    signed_at: Moment
    expires: Moment | None = None
    withdrawn_at: Moment | None = None
    release: Annotated[Release | None, Field(alias="plus:ModelReleaseStatus")] = None
    release_id: Annotated[str | None, Field(alias="plus:ModelReleaseID")] = None

    @model_validator(mode="after")
    def _in_order(self) -> Consent:
        if self.expires is not None and instant(self.expires) <= instant(self.signed_at):
            raise ValueError("it expires before it was signed")
        if self.withdrawn_at is not None and instant(self.withdrawn_at) < instant(self.signed_at):
            raise ValueError("it was withdrawn before it was signed")
        return self

    @property
    def id(self) -> str:
        return self.agreement.uid

    @property
    def asset(self) -> str:
        """The SHA-256 of the clip or the picture."""
        found = _ASSET.fullmatch(self.agreement.target)
        assert found is not None
        return found[1]

    @property
    def duties(self) -> list[str]:
        """What is owed, in ODRL's words."""
        owed = [duty for one in self.agreement.permission for duty in one.duty]
        return list(dict.fromkeys(duty.words for duty in (*owed, *self.agreement.obligation)))

    @property
    def by(self) -> str:
        """Who has agreed: subject, guardian or heirs."""
        return "subject" if self.given_by is None else self.given_by.role

    @property
    def ends(self) -> datetime | None:
        """When it is known to end: it expires, or is withdrawn."""
        return min((instant(one) for one in (self.expires, self.withdrawn_at) if one is not None), default=None)

    def data(self) -> dict[str, Any]:
        """As JSON has it: the keys that were given, and no others."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def text(self) -> str:
        """As it is stored: JSON with sorted names and without spaces."""
        return json.dumps(self.data(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    def allows(self, use: Use, at: datetime, used_before: int = 0) -> list[str]:
        """What speaks against a use, as sentences; empty where it is allowed.

        Args:
            at: when the result leaves, with its zone.
            used_before: how often results under this consent have left before.
        """
        agreed = self.agreement
        found = [*self._void(at)]
        if self.release == "MR-NON":
            found.append("There is no model release (MR-NON).")
        permissions = [(one.actions, one.operands) for one in agreed.permission]
        prohibitions = [(one.actions, one.operands) for one in agreed.prohibition]
        return found + reasons_of(permissions, prohibitions, use, at, used_before)

    def _void(self, at: datetime) -> list[str]:
        """Why it does not hold at a moment, whatever the use is."""
        found = []
        if at < instant(self.signed_at):
            found.append(f"It is signed at {self.signed_at}, after this.")
        if self.expires is not None and at >= instant(self.expires):
            found.append(f"It has expired at {self.expires}.")
        if self.withdrawn_at is not None and at >= instant(self.withdrawn_at):
            found.append(f"It was withdrawn at {self.withdrawn_at}.")
        if self.subject.deceased:
            if self.by != "heirs":
                found.append("The person is dead, and no heirs have agreed.")
        elif self.subject.minor and self.by != "guardian":
            found.append("The person is a minor, and no guardian has agreed.")
        return found


def consent_of(data: Any, field: str = "consent", value: object = None) -> Consent:
    """A consent from what JSON holds.

    Raises:
        InputError: it is none, or has something that nobody here can judge.
    """
    try:
        data = parse_json(json.dumps(data))
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(field, value or "record", f"it is no JSON of a record ({error})", REMEDY) from error
    if isinstance(data, dict) and "agreement" not in data and "permission" in data:
        rule = "the agreement has to stand under the key agreement, and what is known around it beside that"
        raise InputError(field, value or "record", rule, REMEDY)
    try:
        return Consent.model_validate(data)
    except ValidationError as error:
        raise InputError(field, value or "record", first_fault(error), REMEDY) from error


def read_consent(path: Path) -> Consent:
    """The consent in a JSON file.

    Raises:
        InputError: the file cannot be read, or as `consent_of`.
    """
    try:
        data = read_json(path, _LARGEST)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError("file", path, f"it cannot be read ({why})", REMEDY) from error
    return consent_of(data, "file", path)


def draft(asset: str = "", document: str = "") -> dict[str, Any]:
    """A record to fill in, as JSON has it. What is empty in it is refused until somebody has filled it in.

    Args:
        asset: SHA-256 of the clip or the picture. document: SHA-256 of the signed paper.
    """
    limits: list[tuple[str, str, Any]] = [
        ("spatial", "isAnyOf", ["EU"]), ("purpose", "isAnyOf", ["ad"]), ("media", "isAnyOf", ["video"]),
        ("dateTime", "lteq", ""), ("count", "lteq", 10),
    ]  # fmt: skip
    names = ("leftOperand", "operator", "rightOperand")
    return {
        "agreement": {
            "@context": CONTEXT, "@type": "Agreement", "uid": f"urn:uuid:{uuid4()}", "target": f"sha256:{asset}",
            "assigner": "", "assignee": "",
            "permission": [{"action": "use", "constraint": [dict(zip(names, one, strict=True)) for one in limits]}],
            "prohibition": [],
        },
        "subject": {"id": "", "minor": False, "deceased": False},
        "represented_by": "",
        "uses_described": "",
        "document_sha256": document,
        "signed_at": "",
        "expires": "",
        "plus:ModelReleaseStatus": "MR-LMR",
        "plus:ModelReleaseID": "",
    }  # fmt: skip
