"""Consents in the database: versions, withdrawal, the library's entries, and uses that are counted."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from consents_made import CLIP, IMAGE, consent, limit

from wanimate.approval.judgement import Case
from wanimate.approval.leaving import Leaving
from wanimate.approval.policy import House, HousePolicy
from wanimate.errors import InputError
from wanimate.library.entries import About, File, Library
from wanimate.serve.consents import Consents
from wanimate.serve.database import Database
from wanimate.serve.storage import Storage
from wanimate.serve.tables import ConsentVersion, LibraryEntry

HOUSE = House(HousePolicy(), None, "a" * 64)
CASE = Case("replacement", CLIP, IMAGE)


@pytest.fixture(autouse=True)
def _no_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def consents(database: Database) -> Consents:
    return Consents(database)


@pytest.fixture
def library(database: Database, tmp_path: Path) -> Library:
    return Library(database, Storage(str(tmp_path / "files"), b"a secret of 16 bytes"))


def leaving(place: str = "out", output: str = "f" * 64) -> Leaving:
    return Leaving(output, "release", place)


def test_versions_are_only_added(consents: Consents, database: Database) -> None:
    first = consents.add(consent(), "ann", "ann")
    assert (first.version, first.state(datetime.now(UTC))) == (1, "valid")
    assert consents.add(consent(), "ann", "bo").version == 1  # the same again
    second = consents.add(consent(limit("spatial", "eq", "EU")), "ann", "bo")
    assert (second.version, second.by) == (2, "bo")
    found = consents.find("urn:consent:1", "ann")
    assert found is not None
    assert found.consent == second.consent
    assert [one.version for one in consents.versions("urn:consent:1", "ann")] == [1, 2]
    with database.read() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(ConsentVersion)) == 2


@pytest.mark.parametrize(
    ("again", "owner", "rule"),
    [
        ({"asset": IMAGE}, "ann", "another file"), ({}, "bo", "the id is taken"),
        ({"subject": {"id": "urn:person:8", "minor": False, "deceased": False}}, "ann", "another person"),
    ],
)  # fmt: skip
def test_another_person_or_file_needs_another_id(
    consents: Consents, again: dict[str, Any], owner: str, rule: str
) -> None:
    consents.add(consent(), "ann", "ann")
    with pytest.raises(InputError, match=rule):
        consents.add(consent(limit("spatial", "eq", "EU"), **again), owner, owner)


def test_what_is_withdrawn_stays_so(consents: Consents) -> None:
    consents.add(consent(), "", "ann")
    before = datetime.now(UTC)
    gone = consents.withdraw("urn:consent:1", None, "ann")
    assert gone.version == 2
    assert gone.state(datetime.now(UTC)) == "withdrawn"
    assert gone.consent.ends is not None
    assert abs(gone.consent.ends - before) < timedelta(seconds=5)
    with pytest.raises(InputError, match="withdrawn"):
        consents.withdraw("urn:consent:1", None, "ann")
    with pytest.raises(InputError, match="stays so"):
        consents.add(consent(), "", "ann")
    verdict = consents.judge(CASE, HOUSE, "bo")
    assert not verdict.allowed
    assert "was withdrawn at" in verdict.missing[0]


def test_a_clock_that_is_set_back_does_not_bring_it_back(consents: Consents) -> None:
    consents.add(consent(), "", "ann")
    consents.withdraw("urn:consent:1", None, "ann")
    verdict = consents.judge(CASE, HOUSE, None, at=datetime.now(UTC) - timedelta(days=2))
    assert not verdict.allowed
    assert "clock" in verdict.missing[0]


def test_owners_see_their_own_and_the_houses(consents: Consents) -> None:
    consents.add(consent(uid="urn:house"), "", "admin")
    consents.add(consent(uid="urn:ann", asset=IMAGE), "ann", "ann")
    assert {one.consent.id for one in consents.listed("ann")[0]} == {"urn:house", "urn:ann"}
    assert {one.consent.id for one in consents.listed("bo")[0]} == {"urn:house"}
    assert {one.consent.id for one in consents.listed(None, IMAGE)[0]} == {"urn:ann"}
    assert consents.find("urn:ann", "bo") is None
    with pytest.raises(InputError, match="no such consent"):
        consents.withdraw("urn:ann", "bo", "bo")
    with pytest.raises(InputError, match="the house's"):
        consents.withdraw("urn:house", "ann", "ann")
    asked = House(HousePolicy(consents=True), None, "a" * 64)
    assert consents.judge(CASE, asked, "ann").consent_ids == ("urn:house", "urn:ann")
    assert not consents.judge(CASE, asked, "bo").allowed


def test_a_use_is_counted_once_for_each_place(consents: Consents) -> None:
    consents.add(consent(limit("count", "lteq", 2)), "", "ann")
    consents.leave(CASE, HOUSE, None, leaving("a"))
    consents.leave(CASE, HOUSE, None, leaving("a"))  # goes on after an interruption
    found = consents.find("urn:consent:1", None)
    assert found is not None
    assert found.used == 1
    assert consents.leave(CASE, HOUSE, None, leaving("b")).consent_ids == ("urn:consent:1",)
    for another in (leaving("c"), leaving("a", "e" * 64)):
        with pytest.raises(InputError, match="used 2 times before"):
            consents.leave(CASE, HOUSE, None, another)
    assert consents.judge(CASE, HOUSE, None, leaving("b")).allowed
    assert not consents.judge(CASE, HOUSE, None).allowed


def test_of_two_that_leave_at_once_one_is_refused(consents: Consents) -> None:
    consents.add(consent(limit("count", "lteq", 1)), "", "ann")
    start, told = threading.Barrier(4), list[str]()

    def leave(place: str) -> None:
        start.wait()
        try:
            consents.leave(CASE, HOUSE, None, leaving(place))
            told.append("left")
        except InputError:
            told.append("refused")

    threads = [threading.Thread(target=leave, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == ["left", "refused", "refused", "refused"]


def put(library: Library, *ids: str, owner: str = "", sha256: str = CLIP) -> LibraryEntry:
    seen = {"width": 64, "height": 64, "seconds": 2.0, "fps": "25", "people": 1}
    file = File("clip", "wave.mp4", ".mp4", sha256, 4, [b"clip"])
    return library.add(owner, file, About("wave", licence="CC0-1.0", consent_ids=ids), seen)


def test_entries_name_consents_that_are_there(library: Library, consents: Consents) -> None:
    with pytest.raises(InputError) as told:
        put(library, "urn:consent:1")
    assert (told.value.field, told.value.value) == ("consent_ids", "urn:consent:1")
    assert "wanimate consent add" in told.value.remedy
    consents.add(consent(), "", "ann")
    assert library.find("wave", None) is None
    entry = put(library, "urn:consent:1")
    with pytest.raises(InputError, match="no such consent"):
        library.change(entry.id, About(consent_ids=["urn:consent:2"]))
    assert library.decide(entry.id, "approved", "ann").status == "approved"


def test_entries_name_consents_for_their_very_file(library: Library, consents: Consents) -> None:
    consents.add(consent(asset=IMAGE), "", "ann")
    with pytest.raises(InputError, match="another file"):
        put(library, "urn:consent:1")


def test_entries_of_the_house_stand_on_consents_of_the_house(library: Library, consents: Consents) -> None:
    consents.add(consent(), "ann", "ann")
    with pytest.raises(InputError, match="no such consent"):
        put(library, "urn:consent:1")
    assert put(library, "urn:consent:1", owner="ann").consent_ids == ["urn:consent:1"]


def test_an_expired_consent_approves_nothing(library: Library, consents: Consents) -> None:
    consents.add(consent(expires="2026-02-01T00:00:00Z"), "", "ann")
    entry = put(library, "urn:consent:1")
    with pytest.raises(InputError, match="expired"):
        library.decide(entry.id, "approved", "ann")


def test_a_withdrawal_retires_entries(library: Library, consents: Consents) -> None:
    consents.add(consent(), "", "ann")
    entry = put(library, "urn:consent:1")
    library.decide(entry.id, "approved", "ann")
    consents.withdraw("urn:consent:1", None, "ann")
    found = library.find("wave", None)
    assert found is not None
    assert found.status == "retired"
    with pytest.raises(InputError, match="withdrawn"):
        library.decide(entry.id, "approved", "ann")
