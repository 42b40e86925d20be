"""Decisions as an append-only chain: each record holds the SHA-256 of the one before it.

A record is stored as text, and its hash is the hash of that very text. A shot has one chain. `head` (the hash of the newest
record) is kept apart from the records, so that a chain whose end was cut off is noticed as well.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from wanimate.review.records import Form, Name, Reason, State

START = ""
"""`previous_sha256` of a chain's first record, and the head of a chain without records."""
Decision = Literal["approved", "rejected", "revoked"]
_DECISIONS: dict[State, Decision] = {
    State.APPROVED: "approved", State.CHANGES_ASKED: "rejected", State.NEEDS_REVIEW: "revoked",
}  # fmt: skip
_STATES = {decision: state for state, decision in _DECISIONS.items()}
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class By(Form):
    """Who decides. `identity`: what they were let in by ("key:ID", "guest:ID"), which tells two people of one name apart.
    `roles`: what they decide as, by the house's policy."""

    name: Name
    role: str
    contact: str = ""
    identity: str
    roles: tuple[str, ...] = ()

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Records are older than roles: without any they are written as they were, so that their hashes stay."""
        found: dict[str, Any] = dump(self)
        return found if self.roles else {name: value for name, value in found.items() if name != "roles"}


class Policy(Form):
    """The rules that a decision was made under."""

    id: str
    version: str
    sha256: Sha256


class Check(Form):
    """One rule that was looked at."""

    rule: str
    result: str
    evidence: str = ""


class Record(Form):
    """One decision about one file. `at` and `expires`: UTC, ISO 8601. `output_sha256`: of the very file."""

    id: str
    job: str
    output_sha256: Sha256
    mode: str
    regions: tuple[str, ...] = ()
    policy: Policy | None = None
    checks: tuple[Check, ...] = ()
    consent_ids: tuple[str, ...] = ()
    decision: Decision
    by: By
    at: str
    reason: Reason = ""
    expires: str | None = None
    previous_sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]

    @property
    def state(self) -> State:
        """What the file's version is after it."""
        return _STATES[self.decision]

    def text(self) -> str:
        """As it is stored and hashed: JSON with sorted names and without spaces."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def decision_of(state: State) -> Decision:
    """What the record of a change to `state` says."""
    return _DECISIONS[state]


def utc(at: int) -> str:
    """Milliseconds since 1970 as ISO 8601."""
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def milliseconds(at: str) -> int:
    """The reverse of `utc`."""
    return round(datetime.fromisoformat(at).timestamp() * 1000)


def digest(text: str) -> str:
    """The SHA-256 of a record's text, in hex."""
    return sha256(text.encode()).hexdigest()


def read(text: str) -> Record:
    """Raises ValueError for a text that is no record."""
    try:
        return Record.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(str(error)) from error


def faults(texts: Sequence[str], head: str, known: Collection[str] = ()) -> list[str]:
    """What is wrong with a chain, as sentences; empty where it is as it was written.

    Args:
        texts: the records, oldest first.
        head: the hash of the newest one; `START` where there is none.
        known: hashes of records that were kept elsewhere. Each has to be in the chain still.
    """
    found, before, seen = list[str](), START, set[str]()
    for place, text in enumerate(texts, 1):
        try:
            record = read(text)
        except ValueError:
            found.append(f"Record {place} is no record.")
        else:
            if record.previous_sha256 != before:
                found.append(f"Record {place} does not follow the one before it.")
            if record.text() != text:
                found.append(f"Record {place} is not written as records are.")
            if record.id in seen:
                found.append(f"Record {place} is there twice.")
            seen.add(record.id)
        before = digest(text)
    if before != head:
        found.append("The newest record is not the one that was written last.")
    if not set(known) <= {digest(text) for text in texts}:
        found.append("Records that were kept elsewhere are not in it any more.")
    return found
