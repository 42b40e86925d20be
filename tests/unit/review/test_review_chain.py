"""The chain of decisions: every way of changing it is noticed."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from pydantic import ValidationError

from wanimate.review import chain
from wanimate.review.records import State

OUTPUT = "ab" * 32


def records(*states: State, job: str = "job-1") -> list[str]:
    """Texts of a chain."""
    found: list[str] = []
    for i, state in enumerate(states):
        record = chain.Record(
            id=f"decision_{i}", job=job, output_sha256=OUTPUT, mode="animation", decision=chain.decision_of(state),
            by=chain.By(name="Ann", role="owner", identity="key:1"), at=chain.utc(1_700_000_000_123 + i), reason="",
            previous_sha256=chain.digest(found[-1]) if found else chain.START,
        )  # fmt: skip
        found.append(record.text())
    return found


CHAIN = records(State.CHANGES_ASKED, State.APPROVED, State.NEEDS_REVIEW)
HEAD = chain.digest(CHAIN[-1])


def edited(place: int, **fields: object) -> list[str]:
    told = json.loads(CHAIN[place]) | fields
    text = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return [*CHAIN[:place], text, *CHAIN[place + 1 :]]


def test_a_chain_as_it_was_written_has_no_faults() -> None:
    assert chain.faults(CHAIN, HEAD) == []
    assert chain.faults([], chain.START) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda: edited(0, decision="approved"),
        lambda: edited(1, output_sha256="cd" * 32),
        lambda: edited(2, at=chain.utc(0)),
        lambda: edited(2, by={"name": "Bob", "role": "owner", "contact": "", "identity": "key:1"}),
        lambda: CHAIN[1:],
        lambda: CHAIN[:-1],
        lambda: [CHAIN[0], CHAIN[2]],
        lambda: [CHAIN[1], CHAIN[0], CHAIN[2]],
        lambda: [*CHAIN, CHAIN[1]],
        lambda: [*CHAIN[:2], "no record"],
        lambda: [CHAIN[0].replace(":", ": "), *CHAIN[1:]],
        list,
    ],
)
def test_every_change_is_noticed(change: Callable[[], list[str]]) -> None:
    assert chain.faults(change(), HEAD)


def test_a_chain_written_anew_does_not_match_the_head() -> None:
    forged = records(State.APPROVED, State.APPROVED, State.APPROVED)
    assert chain.faults(forged, chain.digest(forged[-1])) == []
    assert chain.faults(forged, HEAD) == ["The newest record is not the one that was written last."]


def test_a_record_has_what_an_approval_record_has() -> None:
    told = json.loads(CHAIN[1])
    assert told["decision"] == "approved"
    assert told["previous_sha256"] == chain.digest(CHAIN[0])
    assert told["at"] == "2023-11-14T22:13:20.124Z"
    assert set(told) == {
        "id", "job", "output_sha256", "mode", "regions", "policy", "checks", "consent_ids", "decision", "by", "at", "reason",
        "expires", "previous_sha256",
    }  # fmt: skip
    assert chain.milliseconds(told["at"]) == 1_700_000_000_124


def test_the_decision_says_how_the_version_stands() -> None:
    assert [chain.read(text).state for text in CHAIN] == [State.CHANGES_ASKED, State.APPROVED, State.NEEDS_REVIEW]


@pytest.mark.parametrize(
    "wrong", [{"output_sha256": "xyz"}, {"decision": "maybe"}, {"previous_sha256": "0"}, {"more": 1}]
)
def test_a_record_is_held_to_its_form(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        chain.Record.model_validate(json.loads(CHAIN[0]) | wrong)
