"""The gate: what lets a result leave, and every way around it that was thought of."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from held import ANN, BOB, LENA, MP4, Stage, consent, person, result, stage

from wanimate.approval.leaving import Leaving
from wanimate.errors import InputError
from wanimate.provenance.about import COMPOSITE
from wanimate.review import chain
from wanimate.review.records import State
from wanimate.serve.approvals.hashes import hash_of
from wanimate.serve.errors import ServiceError
from wanimate.serve.reviews import Reviewer
from wanimate.serve.tables import DAY, Release, Shot, ShotDecision, ShotVersion


@pytest.fixture
def house(tmp_path: Path, sqlite_tables: Path) -> Iterator[Stage]:
    found = stage(tmp_path / "house", sqlite_tables)
    yield found
    found.database.close()


@pytest.fixture
def anchored(tmp_path: Path, sqlite_tables: Path) -> Iterator[Stage]:
    found = stage(tmp_path / "house", sqlite_tables, heads=True)
    yield found
    found.database.close()


def refused(house: Stage, file: Path, *words: str, **more: Any) -> str:
    with pytest.raises(InputError) as caught:
        house.check(file, **more)
    for word in words:
        assert word in caught.value.rule
    return caught.value.rule


def records(house: Stage, shot: str) -> list[chain.Record]:
    with house.database.read() as session:
        wanted = sa.select(ShotDecision.record).where(ShotDecision.shot_id == shot).order_by(ShotDecision.seq)
        return [chain.read(text) for text in session.scalars(wanted)]


# What lets it leave


def test_an_approved_replacement_leaves_and_an_unapproved_one_does_not(house: Stage, tmp_path: Path) -> None:
    file = result(tmp_path / "hero.mp4")
    refused(house, file, "replacement needs an approval", "nobody has approved it")
    added = house.approved(file)
    passed = house.check(file)
    (record,) = records(house, added.shot)
    assert (list(passed.decisions), passed.expires) == ([record.id], record.expires)


def test_an_animation_leaves_without_an_approval(house: Stage, tmp_path: Path) -> None:
    assert house.check(result(tmp_path / "hero.mp4", "animation")).decisions == ()
    house.policy(held=["animation", "replacement"])
    refused(house, tmp_path / "hero.mp4", "animation needs an approval")


def test_a_decision_names_policy_regions_expiry_and_roles(house: Stage, tmp_path: Path) -> None:
    house.policy(
        id="studio", version="3", approval_days=10,
        people=[{"name": "Lena Orth", "identity": "key:lena", "roles": ["legal"]}],
    )  # fmt: skip
    added = house.approved(result(tmp_path / "hero.mp4"), LENA)
    (record,) = records(house, added.shot)
    assert record.policy == house.reviews.approvals.house.record
    assert (record.policy.id, record.by.roles) == ("studio", ("legal",))
    assert record.expires is not None
    assert chain.milliseconds(record.expires) - chain.milliseconds(record.at) == 10 * DAY
    assert [check.rule for check in record.checks][:1] == ["rules"]


# Two people


def test_one_approval_of_two_leaves_the_version_in_review(house: Stage, tmp_path: Path) -> None:
    house.policy(approvals=2)
    file = result(tmp_path / "hero.mp4")
    added = house.approved(file, ANN)
    version = house.reviews.shots.look(ANN, added.shot).shot.versions[0]
    assert version.approval is not None
    assert (version.state, version.approval.given, version.approval.needed) == ("needs_review", 1, 2)
    refused(house, file, "there are 1 of 2 approvals by different people")
    house.decide(added, BOB)
    assert house.state(added) == "approved"
    assert len(house.check(file).decisions) == 2


def test_one_person_under_two_names_counts_once(house: Stage, tmp_path: Path) -> None:
    house.policy(
        approvals=2, people=[{"name": "Bob", "identity": one, "roles": []} for one in ("key:bob", "command line:bob")]
    )
    file = result(tmp_path / "hero.mp4")
    added = house.approved(file, ANN, person("Somebody Else", "key:ann"))
    refused(house, file, "there are 1 of 2")
    guests = [person(name, f"guest:guest_1:{name}", "guest") for name in ("Gus", "Gwen")]
    other = house.approved(result(tmp_path / "other.mp4", data=MP4 + b"2"), *guests)
    refused(house, tmp_path / "other.mp4", "there are 1 of 2")
    third = result(tmp_path / "third.mp4", data=MP4 + b"3")
    house.approved(third, BOB, person("Bob at the shell", "command line:bob"))
    refused(house, third, "there are 1 of 2")
    assert {house.state(added), house.state(other)} == {"needs_review"}


def test_a_guest_who_calls_themselves_legal_is_not(house: Stage, tmp_path: Path) -> None:
    house.policy(roles=["legal"], people=[{"name": "Lena Orth", "identity": "key:lena", "roles": ["legal"]}])
    file = result(tmp_path / "hero.mp4")
    added = house.approved(file, person("Lena Orth", "guest:guest_1:abc", "guest"))
    refused(house, file, "nobody has approved it as legal")
    house.decide(added, LENA)
    assert len(house.check(file).decisions) == 2


def test_who_is_legal_no_more_counts_as_legal_no_more(house: Stage, tmp_path: Path) -> None:
    lena = {"name": "Lena Orth", "identity": "key:lena"}
    house.policy(roles=["legal"], people=[{**lena, "roles": ["legal"]}])
    file = result(tmp_path / "hero.mp4")
    house.approved(file, LENA)
    other = {"name": "Lou Park", "identity": "key:lou", "roles": ["legal"]}
    house.policy(roles=["legal"], people=[{**lena, "roles": []}, other])
    refused(house, file, "nobody has approved it as legal")


def test_who_made_it_does_not_count_where_the_policy_says_so(house: Stage, tmp_path: Path) -> None:
    house.policy(maker_may_approve=False)
    file = result(tmp_path / "hero.mp4")
    house.approved(file, person("The maker", "command line:maker", "operator"))
    refused(house, file, "does not count, as they made it")


def test_the_command_line_is_signed_by_the_system_user(monkeypatch: pytest.MonkeyPatch) -> None:
    from wanimate.cli.records import operator

    before = operator(None).identity
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "somebody-else")
    assert operator("Somebody Else").identity == before


# The policy in force


def test_a_policy_that_asks_for_more_holds_what_was_approved_before(house: Stage, tmp_path: Path) -> None:
    file = result(tmp_path / "hero.mp4")
    house.approved(file)
    for terms, why in (
        ({"approvals": 2}, "there are 1 of 2"), ({"roles": ["legal"]}, "as legal"),
        ({"regions": ["JP"]}, "is not for JP"), ({"id": "client"}, "under the policy default, and client is in force"),
        ({"consents": True}, "asks for the consent"),
    ):  # fmt: skip
        house.policy(**terms)
        refused(house, file, why)
    house.policy(version="2", approval_days=30)
    assert house.check(file).decisions


def test_a_policy_that_is_gone_lets_nothing_leave(house: Stage, tmp_path: Path) -> None:
    file = result(tmp_path / "hero.mp4")
    house.approved(file)
    assert house.settings.policy is not None
    house.settings.policy.unlink()
    with pytest.raises(InputError, match="policy"):
        house.check(file)


def test_an_approval_is_for_its_regions(house: Stage, tmp_path: Path) -> None:
    house.policy(regions=["EU"])
    file = result(tmp_path / "hero.mp4")
    house.approved(file)
    refused(house, file, "is not for CN", regions=("CN",))
    assert "is not for DE" not in refused(house, file, "asks for", regions=("DE",)), "it lies in the EU"


def test_an_approval_can_be_for_more_regions_than_the_policys(house: Stage, tmp_path: Path) -> None:
    house.policy(regions=["EU"])
    file = result(tmp_path / "hero.mp4")
    added = house.add(file)
    record = house.reviews.decisions.decide(ANN, added.shot, added.job, State.APPROVED, regions=("CN", "EU"))
    assert record.regions == ("EU", "CN")
    assert {"rule:cn-labelling"} <= {one.rule for one in record.checks}
    assert "is not for" not in refused(house, file, "asks for", regions=("CN",))


def test_an_expired_approval_is_none(house: Stage, tmp_path: Path) -> None:
    house.policy(approval_days=5)
    file = result(tmp_path / "hero.mp4")
    house.approved(file)
    house.ahead = 5 * DAY - 60_000
    assert house.check(file).decisions
    house.ahead = 5 * DAY + 60_000
    refused(house, file, "has expired")


def test_a_shorter_life_of_approvals_holds_for_older_ones(house: Stage, tmp_path: Path) -> None:
    file = result(tmp_path / "hero.mp4")
    house.approved(file)
    house.policy(approval_days=1)
    house.ahead = 2 * DAY
    refused(house, file, "has expired")


def test_rules_of_a_region_count_for_every_mode(house: Stage, tmp_path: Path) -> None:
    house.policy(regions=["EU"])
    refused(house, result(tmp_path / "hero.mp4", "animation"), "The rule eu-ai-act")


# Around the gate: the file


def test_a_renamed_file_is_of_no_known_mode(house: Stage, tmp_path: Path) -> None:
    file = result(tmp_path / "hero.mp4", "animation")
    file.rename(tmp_path / "other.mp4")
    refused(house, tmp_path / "other.mp4", "needs an approval", "no record lies beside it")


def test_a_renamed_file_keeps_its_approval_and_its_lack_of_one(house: Stage, tmp_path: Path) -> None:
    held, good = result(tmp_path / "a.mp4"), result(tmp_path / "b.mp4", data=MP4 + b"good")
    house.add(held)
    house.approved(good)
    for file in (held, good):
        file.rename(file.with_name(f"new-{file.name}"))
    refused(house, tmp_path / "new-a.mp4", "needs an approval")
    assert house.check(tmp_path / "new-b.mp4").decisions


def test_a_reencoded_file_has_no_approval(house: Stage, tmp_path: Path) -> None:
    file = result(tmp_path / "hero.mp4")
    house.approved(file)
    file.write_bytes(MP4 + b"encoded anew")
    refused(house, file, "tells of other bytes", "nobody has approved it")


def test_a_copied_record_makes_nothing_free(house: Stage, tmp_path: Path) -> None:
    free, held = result(tmp_path / "free.mp4", "animation", b"free"), result(tmp_path / "held.mp4")
    record = json.loads((tmp_path / "free.json").read_text())
    (tmp_path / "held.json").write_text(json.dumps(record))
    refused(house, held, "is the record of free.mp4")
    record["out"] = record["result"]["name"] = held.name
    (tmp_path / "held.json").write_text(json.dumps(record))
    refused(house, held, "tells of other bytes")
    assert house.check(free).decisions == ()


@pytest.mark.parametrize(
    "traces",
    [{}, {"fingerprint": {"guides": {"mask.mkv": "sha256:0"}}}, {"fingerprint": {}, "inputs": {"mask": {"path": "m.mkv"}}},
     {"fingerprint": {}, "inputs": {"guides": {"files": {"src_bg.mp4": "sha256:0"}}}}],
    ids=["fingerprint", "guides", "mask", "published guides"],
)  # fmt: skip
def test_a_record_whose_mode_was_changed_makes_nothing_free(
    house: Stage, tmp_path: Path, traces: dict[str, Any]
) -> None:
    file = result(tmp_path / "hero.mp4", **traces)
    place = tmp_path / "hero.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"mode": "animation"}))
    refused(house, file, "needs an approval", "says replacement")


def test_what_the_database_knows_counts_before_the_record(house: Stage, tmp_path: Path) -> None:
    file = result(tmp_path / "hero.mp4")
    house.add(file)
    result(file, "animation")
    refused(house, file, "replacement needs an approval")


def test_marks_that_say_replacement_count_before_the_record(house: Stage, tmp_path: Path) -> None:
    inside = result(tmp_path / "inside.mp4", "animation", MP4 + COMPOSITE.encode())
    refused(house, inside, "says replacement")
    beside = result(tmp_path / "beside.mkv", "animation", b"video")
    (tmp_path / "beside.xmp").write_text(f"<x>{COMPOSITE}</x>")
    refused(house, beside, "says replacement")


def test_a_quarantined_name_is_never_free(house: Stage, tmp_path: Path) -> None:
    refused(house, result(tmp_path / "hero.quarantined.mp4", "animation"), "says replacement")


def test_what_was_finished_is_of_the_mode_of_its_master(house: Stage, tmp_path: Path) -> None:
    for mode, data in (("animation", b"drawn"), ("replacement", b"replaced")):
        master = result(tmp_path / f"{mode}.mp4", mode, data)
        told = {"master": {"path": str(master), "sha256": f"sha256:{hash_of(master)}"}}
        result(tmp_path / f"{mode}-4k.mp4", "finish", data + b" 4k", inputs=told, fingerprint={})
    assert house.check(tmp_path / "animation-4k.mp4").decisions == ()
    refused(house, tmp_path / "replacement-4k.mp4", "replacement needs an approval")
    (tmp_path / "animation.json").unlink()
    refused(house, tmp_path / "animation-4k.mp4", "nobody knows what its master was")


def test_what_was_finished_is_asked_for_the_consents_of_its_master(house: Stage, tmp_path: Path) -> None:
    master = result(tmp_path / "hero.mp4")
    told = {"master": {"path": "hero.mp4", "sha256": f"sha256:{hash_of(master)}"}}
    large = result(tmp_path / "hero-4k.mp4", "finish", MP4 + b" 4k", inputs=told, fingerprint={})
    house.policy(consents=True)
    house.approved(large)
    refused(house, large, f"none allows this (sha256:{'2' * 64})", f"none allows this (sha256:{'1' * 64})")
    consents = house.reviews.approvals.consents
    consents.add(consent("2" * 64, "urn:consent:7", "urn:person:1"), "", "ann")
    consents.add(consent("1" * 64, "urn:consent:8", "urn:person:2"), "", "ann")
    assert len(house.check(large).decisions) == 1
    consents.withdraw("urn:consent:7", None, "ann")
    refused(house, large, "urn:consent:7")


def test_a_master_is_found_beside_what_was_finished(
    house: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records name it as the command did: from the folder of the time."""
    master = result(tmp_path / "there" / "hero.mp4", "animation")
    told = {"master": {"path": "hero.mp4", "sha256": f"sha256:{hash_of(master)}"}}
    large = result(tmp_path / "there" / "hero-4k.mp4", "finish", MP4 + b" 4k", inputs=told, fingerprint={})
    monkeypatch.chdir(tmp_path)
    assert house.check(large).decisions == ()


def test_an_approval_of_another_hash_is_none(house: Stage, tmp_path: Path) -> None:
    file, other = result(tmp_path / "hero.mp4"), result(tmp_path / "other.mp4", data=MP4 + b"2")
    added = house.approved(other)
    refused(house, file, "nobody has approved it")
    with house.database.write() as session:
        session.execute(sa.update(ShotDecision).values(output=hash_of(file)))
        session.execute(sa.update(ShotVersion).values(digest=hash_of(file)))
    refused(house, file, "nobody has approved it")
    assert added.sha256 != hash_of(file)


def test_a_file_that_was_replaced_after_it_was_asked_about_is_refused(house: Stage, tmp_path: Path) -> None:
    file = result(tmp_path / "hero.mp4")
    added = house.approved(file)
    file.write_bytes(b"another")
    with pytest.raises(InputError, match="another file than was asked about"):
        house.gate().check(file, Leaving(added.sha256, "release", "elsewhere"))


def test_links_and_folders_with_more_in_them_are_refused(house: Stage, tmp_path: Path) -> None:
    file = result(tmp_path / "hero.mp4")
    house.approved(file)
    (tmp_path / "link.mp4").symlink_to(file)
    with pytest.raises(InputError, match="a link"):
        hash_of(tmp_path / "link.mp4")
    folder = tmp_path / "frames"
    folder.mkdir()
    (folder / "000000.png").write_bytes(b"one")
    assert len(hash_of(folder)) == 64
    (folder / "more.mp4").write_bytes(b"two")
    with pytest.raises(InputError, match="none of its pictures"):
        hash_of(folder)
    os.remove(folder / "more.mp4")
    (folder / "000001.png").symlink_to(file)
    with pytest.raises(InputError, match="a link"):
        hash_of(folder)


# Around the gate: clock and chain


def test_a_clock_that_was_set_back_lets_nothing_leave(house: Stage, tmp_path: Path) -> None:
    house.policy(approval_days=5)
    file, later = result(tmp_path / "hero.mp4"), result(tmp_path / "later.mp4", data=MP4 + b"2")
    house.approved(file)
    house.ahead = 9 * DAY
    added = house.approved(later)
    house.ahead = DAY
    refused(house, file, "clock of this machine is behind the newest record")
    with pytest.raises(ServiceError, match="clock"):
        house.decide(added, BOB)
    house.ahead = 9 * DAY - 3_000
    assert house.check(later).decisions


def test_within_a_chain_order_counts_before_the_clock(house: Stage, tmp_path: Path) -> None:
    file = result(tmp_path / "hero.mp4")
    added = house.approved(file)
    house.ahead = -4_000
    house.decide(added, ANN, State.CHANGES_ASKED)
    house.ahead = 0
    refused(house, file, "has asked for changes, and has not approved since")


def rewrite(house: Stage, shot: str, change: Any, new_head: bool) -> None:
    """Somebody with the database changes a chain: `change` of its records, with hashes that fit again."""
    with house.database.write() as session:
        rows = session.scalars(
            sa.select(ShotDecision).where(ShotDecision.shot_id == shot).order_by(ShotDecision.seq)
        ).all()
        kept, before = change([chain.read(row.record) for row in rows]), chain.START
        for row in rows:
            session.delete(row)
        session.flush()
        for seq, record in enumerate(kept, 1):
            text = record.model_copy(update={"previous_sha256": before}).text()
            before = chain.digest(text)
            session.add(
                ShotDecision(
                    shot_id=shot, seq=seq, job_id=record.job, output=record.output_sha256, digest=before, record=text
                )
            )
        if new_head:
            session.get_one(Shot, shot).head = before


def without_rejection(found: list[chain.Record]) -> list[chain.Record]:
    return [one for one in found if one.decision == "approved"]


def forged(found: list[chain.Record]) -> list[chain.Record]:
    return [one.model_copy(update={"decision": "approved"}) for one in found]


@pytest.mark.parametrize(
    "change", [without_rejection, forged, lambda found: found[:1]], ids=["middle", "edited", "end"]
)
def test_an_edited_chain_lets_nothing_leave(house: Stage, tmp_path: Path, change: Any) -> None:
    file = result(tmp_path / "hero.mp4")
    added = house.approved(file)
    house.decide(added, BOB, State.CHANGES_ASKED)
    house.decide(added, ANN)
    refused(house, file, "Bob Ray has asked for changes")
    rewrite(house, added.shot, change, new_head=False)
    refused(house, file, "not as they were written")


@pytest.mark.parametrize(
    "change", [without_rejection, forged, lambda found: found[:1]], ids=["middle", "edited", "end"]
)
def test_a_chain_that_was_written_anew_fits_the_database_but_not_what_was_kept_away(
    anchored: Stage, tmp_path: Path, change: Any
) -> None:
    file = result(tmp_path / "hero.mp4")
    added = anchored.approved(file)
    anchored.decide(added, BOB, State.CHANGES_ASKED)
    anchored.decide(added, ANN)
    rewrite(anchored, added.shot, change, new_head=True)
    assert anchored.reviews.shots.look(ANN, added.shot).shot.intact
    refused(anchored, file, "kept elsewhere are not in it any more")


def test_a_chain_that_was_removed_is_missed(anchored: Stage, tmp_path: Path) -> None:
    file = result(tmp_path / "hero.mp4", "animation")
    added = anchored.approved(file)
    anchored.decide(added, ANN, State.NEEDS_REVIEW)
    refused(anchored, file, "has taken back what was decided")
    with anchored.database.write() as session:
        for table in (ShotDecision, ShotVersion, Shot):
            session.execute(sa.delete(table))
    refused(anchored, file, "kept elsewhere")


def test_a_column_that_was_altered_hides_no_rejection(house: Stage, tmp_path: Path) -> None:
    file = result(tmp_path / "hero.mp4")
    added = house.approved(file)
    house.decide(added, BOB, State.CHANGES_ASKED)
    with house.database.write() as session:
        session.execute(sa.update(ShotVersion).values(digest=None))
        session.execute(sa.update(ShotDecision).values(output="0" * 64))
    refused(house, file, "Bob Ray has asked for changes")


# What left


def test_what_leaves_is_written_down_before_it_does(house: Stage, tmp_path: Path) -> None:
    file = result(tmp_path / "hero.mp4")
    added = house.approved(file)
    gate = house.gate()
    leaving = Leaving(added.sha256, "frameio", "frameio:Film/Review", (), (("hero.review.mp4", "3" * 64),))
    gate.left(leaving, gate.check(file, leaving))
    (gone,) = house.reviews.decisions.gone(ANN, added.shot)
    told = gone.told()
    assert (told["way"], told["place"], told["regions"]) == ("frameio", "frameio:Film/Review", [])
    assert (told["derived"], told["by"], gone.state) == ([["hero.review.mp4", "3" * 64]], "command line:tester", "left")
    assert told["decisions"] == [records(house, added.shot)[0].id]


def test_what_nobody_has_checked_cannot_leave(house: Stage, tmp_path: Path) -> None:
    file = result(tmp_path / "hero.mp4")
    added = house.approved(file)
    leaving = Leaving(added.sha256, "release", "elsewhere")
    with pytest.raises(InputError, match="nobody has checked it"):
        house.gate().left(leaving, house.gate().check(file, leaving))


def test_a_revocation_between_check_and_first_byte_counts(house: Stage, tmp_path: Path) -> None:
    file = result(tmp_path / "hero.mp4")
    added = house.approved(file)
    gate, leaving = house.gate(), Leaving(added.sha256, "release", "elsewhere")
    passed = gate.check(file, leaving)
    house.decide(added, BOB, State.NEEDS_REVIEW)
    with pytest.raises(InputError, match="taken back"):
        gate.left(leaving, passed)
    with house.database.read() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Release)) == 0


def test_a_revocation_asks_everything_back_that_left(house: Stage, tmp_path: Path) -> None:
    file = result(tmp_path / "hero.mp4")
    added = house.approved(file)
    gate = house.gate()
    for place in ("one", "two"):
        leaving = Leaving(added.sha256, "handoff", place)
        gate.left(leaving, gate.check(file, leaving))
    house.decide(added, BOB, State.NEEDS_REVIEW)
    refused(house, file, "Bob Ray has taken back what was decided")
    one, two = house.reviews.decisions.gone(ANN, added.shot)
    assert {one.state, two.state} == {"to_be_taken_back"}
    house.reviews.decisions.recalled(ANN, added.shot, one.release.id, "They have removed it.")
    one, two = house.reviews.decisions.gone(ANN, added.shot)
    assert (one.state, two.state, one.told()["confirmed_by"]) == ("taken_back", "to_be_taken_back", "key:ann")
    house.decide(added, ANN)
    assert house.check(file).decisions
    with pytest.raises(ServiceError) as caught:
        house.reviews.decisions.recalled(ANN, added.shot, "release_none")
    assert caught.value.status == 404


def test_what_is_gone_from_the_storage_can_be_revoked(house: Stage, tmp_path: Path) -> None:
    added = house.approved(result(tmp_path / "hero.mp4"))
    house.reviews.storage.remove_tree(f"jobs/{added.job}")
    assert house.decide(added, ANN, State.NEEDS_REVIEW).decision == "revoked"


def test_a_revoked_animation_stays(house: Stage, tmp_path: Path) -> None:
    file = result(tmp_path / "hero.mp4", "animation")
    added = house.approved(file)
    house.decide(added, ANN, State.NEEDS_REVIEW)
    refused(house, file, "taken back")


def test_a_withdrawn_consent_revokes_what_rests_on_it(house: Stage, tmp_path: Path) -> None:
    file = result(tmp_path / "hero.mp4")
    other = house.approved(result(tmp_path / "other.mp4", data=MP4 + b"2"))
    house.policy(consents=True)
    consents = house.reviews.approvals.consents
    consents.add(consent("2" * 64, "urn:consent:7", "urn:person:1"), "", "ann")
    added = house.approved(file)
    refused(house, file, "the person in the image")
    consents.add(consent("1" * 64, "urn:consent:8", "urn:person:2"), "", "ann")
    house.decide(added, ANN)
    assert records(house, added.shot)[-1].consent_ids == ("urn:consent:7", "urn:consent:8")
    gate, leaving = house.gate(), Leaving(added.sha256, "handoff", "client")
    gate.left(leaving, gate.check(file, leaving))
    assert [consents.listed(None)[0][i].used for i in (0, 1)] == [1, 1]
    consents.withdraw("urn:consent:8", None, "ann")
    refused(house, file, "urn:consent:8")
    boss = Reviewer("Boss", "admin", "key:boss", ANN.rights)
    (record,), (gone,) = house.reviews.decisions.withdraw(boss, "urn:consent:8", "The person has withdrawn.")
    assert (record.decision, record.output_sha256) == ("revoked", added.sha256)
    assert (gone.release.place, gone.state) == ("client", "to_be_taken_back")
    assert house.reviews.decisions.withdraw(boss, "urn:consent:8", "Again.")[0] == []
    refused(house, file, "Boss has taken back")
    assert house.state(other) == "approved"


def test_an_animation_that_left_under_a_withdrawn_consent_is_asked_back(house: Stage, tmp_path: Path) -> None:
    house.policy(consents=True)
    for asset, uid in (("2", "urn:consent:7"), ("1", "urn:consent:8")):
        house.reviews.approvals.consents.add(consent(asset * 64, uid, f"urn:person:{asset}"), "", "ann")
    file = result(tmp_path / "hero.mp4", "animation")
    gate, leaving = house.gate(), Leaving(hash_of(file), "frameio", "frameio:Film")
    gate.left(leaving, gate.check(file, leaving))
    made, (gone,) = house.reviews.decisions.withdraw(ANN, "urn:consent:7", "Withdrawn.")
    assert (made, gone.state) == ([], "to_be_taken_back")
