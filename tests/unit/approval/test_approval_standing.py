"""Which decisions count: people told apart, order, expiry, and records that are older than roles."""

from __future__ import annotations

import json
from typing import Any

import pytest

from wanimate.approval.policy import HousePolicy, Person
from wanimate.approval.standing import Asked, person_of, roles_of, standing
from wanimate.review import chain
from wanimate.review.records import State

HASH, NOW, DAY = "a" * 64, 1_800_000_000_000, 86_400_000
_ids = iter(range(10**6))


def record(who: str = "key:ann", decision: str = "approved", at: int = NOW - DAY, **more: Any) -> chain.Record:
    roles = more.pop("roles", ())
    given = {
        "id": f"decision_{next(_ids)}", "job": "job", "output_sha256": HASH, "mode": "replacement", "decision": decision,
        "by": {"name": who, "role": "owner", "identity": who, "roles": roles}, "at": chain.utc(at), "previous_sha256": "",
    }  # fmt: skip
    return chain.Record.model_validate(given | more)


def stands(*records: chain.Record, at: int = NOW, maker: str | None = None, **terms: Any) -> Any:
    return standing([records], HASH, Asked(HousePolicy(**terms), at, maker))


def test_the_newest_decision_of_each_person_counts() -> None:
    assert stands().state is State.NEEDS_REVIEW
    assert stands(record()).state is State.APPROVED
    assert stands(record(), record(decision="rejected")).state is State.CHANGES_ASKED
    assert stands(record(decision="rejected"), record()).state is State.APPROVED
    assert stands(record("key:bob", "rejected"), record()).state is State.CHANGES_ASKED


def test_taking_back_voids_everything_before_it() -> None:
    back = record("key:bob", "revoked")
    found = stands(record(), back)
    assert (found.state, found.decided, len(found.stopped)) == (State.NEEDS_REVIEW, False, 1)
    assert stands(record("key:bob", "rejected"), back, record()).state is State.APPROVED


def test_chains_are_merged_by_time_and_each_keeps_its_order() -> None:
    early, late = record(at=NOW - 3 * DAY), record(decision="rejected", at=NOW - 2 * DAY)
    asked = Asked(HousePolicy(), NOW)
    assert standing([[late], [early]], HASH, asked).rejected
    set_back = record(at=NOW - DAY), record(decision="rejected", at=NOW - 2 * DAY)
    assert standing([set_back], HASH, asked).rejected


def test_decisions_about_other_files_do_not_count() -> None:
    assert not stands(record(output_sha256="b" * 64)).approved


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("guest:g1:aaaa", "guest:g1:bbbb", True), ("guest:g1:aaaa", "guest:g2:aaaa", False), ("key:a", "key:b", False),
        ("key:ann", "command line:ann", True), ("key:bob", "command line:bob", False),
    ],
)  # fmt: skip
def test_people_are_told_apart_by_what_let_them_in(one: str, other: str, same: bool) -> None:
    people = tuple(
        Person(name=name, identity=place) for name, place in (("Ann", "key:ann"), ("ann", "command line:ann"))
    )
    policy = HousePolicy(people=people, approvals=2)
    assert (person_of(one, policy) == person_of(other, policy)) is same
    assert stands(record(one), record(other), people=people, approvals=2).approved is not same


def test_a_role_is_held_then_and_now() -> None:
    legal = Person(name="Lena", identity="guest:g1", roles=("legal",))
    assert roles_of("guest:g1:abcd", HousePolicy(people=(legal,))) == ("legal",)
    good = record("guest:g1:abcd", roles=("legal",))
    assert stands(good, people=(legal,), roles=("legal",)).approved
    assert not stands(record("guest:g1:abcd"), people=(legal,), roles=("legal",)).approved
    assert not stands(good, roles=("legal",)).approved


def test_an_approval_ends_as_it_says_or_sooner() -> None:
    until = record(expires=chain.utc(NOW + DAY))
    assert stands(until).expires == NOW + DAY
    assert stands(until, at=NOW + DAY).missing[0].startswith("the approval of key:ann has expired")
    assert stands(until, approval_days=1).missing[0].startswith("the approval of key:ann has expired")


def test_a_maker_may_be_left_out() -> None:
    assert stands(record(), maker="key:ann").approved
    assert not stands(record(), maker="key:ann", maker_may_approve=False).approved
    assert stands(record("key:bob"), maker="key:ann", maker_may_approve=False).approved


def test_records_that_are_older_than_roles_keep_their_hash() -> None:
    text = record().text()
    assert "roles" not in json.loads(text)["by"]
    assert chain.faults([text], chain.digest(text)) == []
    told = record(roles=("legal",)).text()
    assert json.loads(told)["by"]["roles"] == ["legal"]
    assert chain.read(told).by.roles == ("legal",)


def test_hashes_that_were_kept_elsewhere_have_to_be_in_the_chain() -> None:
    first = record().text()
    other = record().text()
    assert chain.faults([first], chain.digest(first), [chain.digest(first)]) == []
    assert chain.faults([other], chain.digest(other), [chain.digest(first)]) == [
        "Records that were kept elsewhere are not in it any more."
    ]
