"""The rules table, the policy file, and the judgement from both."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from consents_made import CLIP, IMAGE, NOW, consent, limit

from wanimate.approval.consents import Consent
from wanimate.approval.judgement import Case, Marks, Verdict, judge
from wanimate.approval.policy import House, HousePolicy, write_template
from wanimate.approval.rules import Rules
from wanimate.config.marks import LabelKind
from wanimate.errors import InputError, OutputError

ALL = Marks("eu+china", watermark=True, metadata=True, aigc=True, signed=True)
ROW = """
[[rule]]
id = "{id}"
region = "{region}"
instrument = "Act"
asks = "Something."
source = "a page"
owner = "Ann Lee"
checked_on = {checked}
{more}
"""
APPROVED = """
[[approved]]
{what}
by = "{by}"
reason = "Counsel has looked."
on = 2026-11-01T00:00:00Z
expires = {expires}
"""


def row(id: str = "own", region: str = "JP", checked: str = "2026-11-01", more: str = "") -> str:
    return ROW.format(id=id, region=region, checked=checked, more=more)


def approved(what: str, by: str = "Ann Lee", expires: str = "2027-01-01T00:00:00Z") -> str:
    return APPROVED.format(what=what, by=by, expires=expires)


def rules(tmp_path: Path, text: str = "") -> Rules:
    path = tmp_path / "rules.toml"
    path.write_text(text, encoding="utf-8")
    return Rules.read(path)


def judged(
    table: Rules, case: Case, policy: HousePolicy = HousePolicy(), consents: Mapping[str, Consent] | None = None,
    at: datetime = NOW,
) -> Verdict:  # fmt: skip
    verdict = judge(case, policy, table, consents or {}, at)
    assert all(one.endswith(".") for one in verdict.missing)
    return verdict


def missing(*regions: str, marks: Marks = ALL, kind: Any = None) -> list[str]:
    """Rules that lack something, of a result that is shown there."""
    verdict = judged(Rules.read(), Case("animation", CLIP, IMAGE, regions=regions, marks=marks, kind=kind))
    return sorted({one.rule for one in verdict.checks if one.result.startswith(("missing", "outdated"))})


# The packaged table


def test_the_packaged_rows_are_those_of_the_facts() -> None:
    table = {one.id: one for one in Rules.read().rows}
    begins = {name: one.begins for name, one in table.items()}
    assert begins == {
        "eu-ai-act-50-2": date(2026, 8, 2), "eu-ai-act-50-4": date(2026, 8, 2), "eu-ai-act-50-4-works": date(2026, 8, 2),
        "cn-labelling": date(2025, 9, 1), "us-ny-gbl-396-b": date(2026, 6, 9), "us-ny-s-8391": None, "us-ca-ab-2602": None,
        "us-ca-ab-1836": None, "us-ca-sb-942": date(2026, 8, 2), "us-tn-elvis": date(2024, 7, 1),
    }  # fmt: skip
    assert [name for name, one in table.items() if one.checked_on is None] == ["us-tn-elvis"]
    assert {one.checked_on for name, one in table.items() if name != "us-tn-elvis"} == {date(2026, 11, 1)}


def test_the_eu_asks_for_two_layers_and_a_label() -> None:
    assert missing("DE", kind="ad") == []
    assert missing("DE", kind="ad", marks=Marks()) == ["rule:eu-ai-act-50-2", "rule:eu-ai-act-50-4"]
    assert missing("EU", kind="film", marks=Marks("plain", watermark=True, signed=True)) == []
    assert missing("FR", marks=Marks("plain", watermark=True, signed=True)) == ["rule:eu-ai-act-50-4"]
    assert missing("FR", marks=Marks("eu", watermark=True)) == ["rule:eu-ai-act-50-2"]
    assert missing("FR", kind="internal", marks=Marks()) == []


def test_china_asks_for_its_label_and_its_key() -> None:
    assert missing("CN", marks=Marks("china", metadata=True, aigc=True)) == []
    assert missing("CN-BJ", marks=Marks("eu", metadata=True, aigc=True)) == ["rule:cn-labelling"]
    assert missing("CN", marks=Marks("china", metadata=True)) == ["rule:cn-labelling"]


def test_new_york_asks_ads_for_a_label() -> None:
    assert missing("US-NY", kind="ad", marks=Marks()) == ["rule:us-ny-gbl-396-b"]
    assert missing("US-NY", kind="ad", marks=Marks("plain")) == []
    assert missing("US-NY", kind="film", marks=Marks()) == []


def test_what_is_not_in_the_table_is_missing() -> None:
    assert missing("JP") == ["region:JP"]
    assert missing("US-TX") == ["region:US-TX"]
    assert "region:US" in missing("US")  # rows about three of its states say nothing of the others
    assert missing("US-TN") == ["rule:us-tn-elvis"]  # from memory


def test_all_of_a_region_is_all_of_its_parts() -> None:
    found = missing("US", marks=Marks(), kind="ad")
    assert {"rule:us-ny-gbl-396-b", "rule:us-ca-sb-942", "rule:us-tn-elvis", "region:US"} <= set(found)


def test_kinds_may_be_told_by_purposes() -> None:
    for purposes, lacking in ((("internal",), 0), (("ad",), 2), (("shoes",), 3), ((), 3), (("internal", "shoes"), 3)):
        verdict = judged(Rules.read(), Case("animation", regions=("DE",), purposes=purposes))
        assert len({one.rule for one in verdict.checks if one.result.startswith("missing")}) == lacking, purposes


# The house's rows and approvals


def test_a_row_of_the_house_makes_a_region_known(tmp_path: Path) -> None:
    table = rules(tmp_path, row(more='requires = ["label"]'))
    assert judged(table, Case("animation", regions=("JP",), marks=Marks("plain"))).allowed
    assert not judged(table, Case("animation", regions=("JP",))).allowed
    assert not judged(table, Case("animation", regions=("KR",), marks=ALL)).allowed
    assert table.sha256 != Rules.read().sha256


def test_a_row_with_a_packaged_id_stands_in_its_place(tmp_path: Path) -> None:
    table = rules(tmp_path, row("us-tn-elvis", "US-TN"))
    assert judged(table, Case("animation", regions=("US-TN",))).allowed
    assert len(table.rows) == len(Rules.read().rows)


@pytest.mark.parametrize(
    ("checked", "review_by", "days", "stale"),
    [
        ("2026-06-03", None, 180, True), ("2026-06-04", None, 180, False), ("2026-06-03", None, 181, False),
        ('"2026-06"', None, 180, True), ("2026-11-01", "2026-11-30", 180, True), ("2026-11-01", "2026-12-01", 180, False),
        ("2026-12-01", None, 180, False), ("2026-12-02", None, 180, True),  # it is December already in Kiritimati
    ],
)  # fmt: skip
def test_rows_grow_old(tmp_path: Path, checked: str, review_by: str | None, days: int, stale: bool) -> None:
    table = rules(tmp_path, row(checked=checked, more="" if review_by is None else f"review_by = {review_by}"))
    verdict = judged(table, Case("animation", regions=("JP",)), HousePolicy(rules_days=days))
    assert verdict.allowed is not stale
    if stale:
        assert "wanimate rules approve JP" in verdict.missing[0]


@pytest.mark.parametrize(
    ("begins", "at", "asks"),
    [
        ("2026-12-01", datetime(2026, 11, 30, 9, 59, tzinfo=UTC), False),
        ("2026-12-01", datetime(2026, 11, 30, 10, 0, tzinfo=UTC), True),  # the day has begun in Kiritimati
        ("2026-11-30", NOW, True), ("2030-01-01", NOW, False),
    ],
)  # fmt: skip
def test_rows_begin(tmp_path: Path, begins: str, at: datetime, asks: bool) -> None:
    table = rules(tmp_path, row(more=f'requires = ["label"]\nfrom = {begins}'))
    assert judged(table, Case("animation", regions=("JP",)), at=at).allowed is not asks


def test_a_named_person_lets_a_region_pass(tmp_path: Path) -> None:
    table = rules(tmp_path, approved('region = "JP"'))
    verdict = judged(table, Case("animation", regions=("JP",)))
    assert verdict.allowed
    (check,) = (one for one in verdict.checks if one.rule == "region:JP")
    assert check.result == "approved"
    assert "Ann Lee" in check.evidence
    assert "Counsel has looked." in check.evidence
    assert verdict.until == datetime(2027, 1, 1, tzinfo=UTC)
    assert not judged(table, Case("animation", regions=("KR",))).allowed


@pytest.mark.parametrize(
    ("what", "expires", "at"),
    [
        ('region = "JP"', "2026-11-30T12:00:00Z", NOW), ('region = "JP"', "2026-11-30T13:00:00+01:00", NOW),
        ('region = "JP"', "2027-01-01T00:00:00Z", datetime(2026, 10, 31, tzinfo=UTC)),
        ('region = "JP-13"', "2027-01-01T00:00:00Z", NOW), ('region = "KR"', "2027-01-01T00:00:00Z", NOW),
    ],
)  # fmt: skip
def test_an_approval_is_for_its_region_and_its_time(tmp_path: Path, what: str, expires: str, at: datetime) -> None:
    assert not judged(
        rules(tmp_path, approved(what, expires=expires)), Case("animation", regions=("JP",)), at=at
    ).allowed


def test_an_approval_of_a_union_is_none_of_its_members(tmp_path: Path) -> None:
    """And one of a country is none of its states."""
    assert not judged(rules(tmp_path, approved('region = "US"')), Case("animation", regions=("US-TX",))).allowed


def test_what_an_unchecked_row_asks_still_counts(tmp_path: Path) -> None:
    table = rules(tmp_path, approved('region = "US-TN"'))
    case = Case("animation", CLIP, IMAGE, regions=("US-TN",))
    assert [one for one in judged(table, case).missing if "rules approve" in one] == []
    assert len(judged(table, case).missing) == 2  # the performer's consent and the depicted person's


def test_only_people_of_the_policy_approve_where_it_names_some(tmp_path: Path) -> None:
    people = ({"name": "Bo", "identity": "key:bo"},)
    policy = HousePolicy.model_validate({"people": people})
    for by, allowed in (("Ann Lee", False), ("Bo", True), ("key:bo", True)):
        table = rules(tmp_path, approved('region = "JP"', by))
        assert judged(table, Case("animation", regions=("JP",)), policy).allowed is allowed


def test_a_verdict_says_until_when_it_holds(tmp_path: Path) -> None:
    verdict = judged(rules(tmp_path, row(more="review_by = 2026-12-24")), Case("animation", regions=("JP",)))
    assert verdict.until == datetime(2026, 12, 24, tzinfo=UTC)


def test_days_do_not_hang_on_the_zone_of_who_asks(tmp_path: Path) -> None:
    at = datetime(2026, 12, 1, 13, 30, tzinfo=timezone(timedelta(hours=14)))  # November still, in UTC
    table = rules(tmp_path, row(more="review_by = 2026-12-01"))
    assert judged(table, Case("animation", regions=("JP",)), at=at).allowed
    assert not judged(table, Case("animation", regions=("JP",)), at=at + timedelta(hours=1)).allowed


def test_a_rule_may_be_taken_as_met(tmp_path: Path) -> None:
    case = Case("animation", regions=("US-NY",), kind="ad")
    assert not judged(rules(tmp_path), case).allowed
    assert judged(rules(tmp_path, approved('rule = "us-ny-gbl-396-b"')), case).allowed


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("[[rule", "no TOML"), (row(region="Japan"), "rule.1.region"), (row(more='requires = ["luck"]'), "rule.1.requires.1"),
        (row(more='colour = "red"'), "rule.1.colour: there is no such key"), (row() + row(), "two rules own"),
        (row(checked='"soon"'), "rule.1.checked_on"), (row(checked="9999-12-31"), "rule.1.checked_on"),
        (approved('region = "JP"', expires="9999-12-31T23:00:00-14:00"), "approved.1.expires"),
        (approved(""), "either a region or a rule"),
        (approved('region = "JP"\nrule = "own"'), "either a region or a rule"), (approved('rule = "gone"'), "the rule gone"),
        (approved('region = "JP"', by=" "), "approved.1.by"),
        (approved('region = "JP"', expires="2027-01-01"), "approved.1.expires"),
        (approved('region = "JP"', expires="2026-01-01T00:00:00Z"), "expires before"), ("\xff", "no TOML"),
    ],
)  # fmt: skip
def test_a_rules_file_that_says_nothing_clear_is_refused(tmp_path: Path, text: str, rule: str) -> None:
    path = tmp_path / "rules.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError) as told:
        Rules.read(path)
    assert told.value.field == "rules"
    assert rule in told.value.rule


# Consents in the judgement

ASKED = HousePolicy(consents=True)
BOTH = {
    "urn:c:1": consent(uid="urn:c:1", asset=CLIP), "urn:c:2": consent(uid="urn:c:2", asset=IMAGE),
}  # fmt: skip


def test_the_policy_may_ask_for_both_consents() -> None:
    case = Case("replacement", CLIP, IMAGE)
    assert judged(Rules.read(), case).allowed
    assert len(judged(Rules.read(), case, ASKED).missing) == 2
    assert len(judged(Rules.read(), case, ASKED, {"urn:c:1": BOTH["urn:c:1"]}).missing) == 1
    verdict = judged(Rules.read(), case, ASKED, BOTH)
    assert verdict.allowed
    assert verdict.consent_ids == ("urn:c:1", "urn:c:2")
    assert not judged(Rules.read(), Case("replacement", CLIP, None), ASKED, BOTH).allowed


def test_a_consent_for_another_file_is_none() -> None:
    other = {"urn:c:1": consent(uid="urn:c:1", asset="9" * 64)}
    case = Case("replacement", CLIP, IMAGE, ["urn:c:1"])
    verdict = judged(Rules.read(), case, HousePolicy(), other)
    assert verdict.missing
    assert "another file" in verdict.missing[0]


def test_a_consent_that_nobody_knows_is_missing() -> None:
    verdict = judged(Rules.read(), Case("replacement", CLIP, IMAGE, ["urn:c:9"]))
    assert verdict.missing == ("There is no consent urn:c:9. `wanimate consent add` takes one in.",)


def test_a_withdrawn_consent_counts_whether_it_is_named_or_not() -> None:
    gone = {"urn:c:1": consent(uid="urn:c:1", withdrawn_at="2026-11-30T12:00:00Z")}
    for named in ([], ["urn:c:1"]):
        verdict = judged(Rules.read(), Case("replacement", CLIP, IMAGE, named), HousePolicy(), gone)
        assert not verdict.allowed
        assert "withdrawn" in verdict.missing[0]
    before = judged(Rules.read(), Case("replacement", CLIP, IMAGE), HousePolicy(), gone, NOW - timedelta(seconds=1))
    assert before.allowed
    assert before.until == NOW


def test_a_newer_agreement_of_the_same_person_is_enough() -> None:
    known = {
        "urn:c:1": consent(uid="urn:c:1", expires="2026-10-01T00:00:00Z"), "urn:c:2": consent(uid="urn:c:2"),
    }  # fmt: skip
    verdict = judged(Rules.read(), Case("replacement", CLIP, IMAGE, ["urn:c:1"]), HousePolicy(), known)
    assert (verdict.allowed, verdict.consent_ids) == (True, ("urn:c:2",))


def test_each_person_of_a_clip_counts() -> None:
    second = {"id": "urn:person:9", "minor": True, "deceased": False}
    known = {"urn:c:1": consent(uid="urn:c:1"), "urn:c:2": consent(uid="urn:c:2", subject=second)}
    assert not judged(Rules.read(), Case("replacement", CLIP, IMAGE), HousePolicy(), known).allowed


def test_uses_are_counted_per_consent() -> None:
    known = {"urn:c:1": consent(limit("count", "lteq", 2), uid="urn:c:1")}
    for used, allowed in ((0, True), (1, True), (2, False)):
        case = Case("replacement", CLIP, IMAGE, used={"urn:c:1": used})
        assert judged(Rules.read(), case, HousePolicy(), known).allowed is allowed


def test_the_policys_regions_and_purposes_stand_in() -> None:
    known = {"urn:c:1": consent(limit("spatial", "eq", "EU"), limit("purpose", "eq", "ad"), uid="urn:c:1")}
    case = Case("replacement", CLIP, IMAGE, marks=ALL)
    assert not judged(Rules.read(), case, HousePolicy(), known).allowed
    assert judged(Rules.read(), case, HousePolicy(regions=("DE",), purposes=("ad",)), known).allowed
    assert not judged(Rules.read(), case, HousePolicy(regions=("CN",), purposes=("ad",)), known).allowed


@pytest.mark.parametrize(
    ("around", "lacking"),
    [({}, 0), ({"represented_by": "none"}, 1), ({"uses_described": " "}, 1), ({"represented_by": "counsel"}, 0)],
)  # fmt: skip
def test_california_asks_how_the_contract_came_about(around: dict[str, Any], lacking: int) -> None:
    known = {
        "urn:c:1": consent(uid="urn:c:1", **around), "urn:c:2": consent(uid="urn:c:2", asset=IMAGE),
    }  # fmt: skip
    verdict = judged(Rules.read(), Case("replacement", CLIP, IMAGE, regions=("US-CA",), marks=ALL), consents=known)
    assert len(verdict.missing) == lacking


def test_duties_are_told_to_who_approves() -> None:
    given = consent(uid="urn:c:1").data()
    given["agreement"]["permission"][0]["duty"] = [{"action": "compensate"}]
    known = {"urn:c:1": Consent.model_validate(given)}
    verdict = judged(Rules.read(), Case("replacement", CLIP, IMAGE), HousePolicy(), known)
    (check,) = (one for one in verdict.checks if one.rule == "consent:urn:c:1")
    assert check.result == "allows"
    assert "compensate" in check.evidence


def test_marks_are_taken_from_what_verify_tells() -> None:
    parts = {
        "label": {"state": "unknown"}, "watermark": {"state": "found"}, "xmp": {"state": "found", "aigc": {"Label": "1"}},
        "c2pa": {"state": "broken"},
    }  # fmt: skip
    assert Marks.found(parts, "eu") == Marks("eu", watermark=True, metadata=True, aigc=True, signed=False)
    assert Marks.found({}) == Marks()


def test_every_kind_of_label_is_known() -> None:
    from typing import get_args

    known = {
        kind: {one for one in ("label", "label-eu", "label-china") if _kept(one, kind)} for kind in get_args(LabelKind)
    }
    assert known == {
        "none": set(), "plain": {"label"}, "eu": {"label", "label-eu"}, "china": {"label", "label-china"},
        "eu+china": {"label", "label-eu", "label-china"},
    }  # fmt: skip


def _kept(requirement: str, kind: str) -> bool:
    from wanimate.approval.judgement import _has

    return _has(requirement, Marks(kind))


# The policy file


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("WANIMATE_POLICY", raising=False)


def test_a_named_policy_goes_before_the_environments_and_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert House.read().path is None
    usual = tmp_path / "config" / "wanimate" / "policy.toml"
    usual.parent.mkdir(parents=True)
    for path, id in ((usual, "usual"), (tmp_path / "env.toml", "env"), (tmp_path / "named.toml", "named")):
        path.write_text(f'id = "{id}"')
    assert House.read().policy.id == "usual"
    monkeypatch.setenv("WANIMATE_POLICY", str(tmp_path / "env.toml"))
    assert House.read().policy.id == "env"
    assert House.read(tmp_path / "named.toml").policy.id == "named"


def test_a_record_names_the_very_bytes(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text('id = "house"\nversion = "3"\n')
    first = House.read(path).record
    assert (first.id, first.version) == ("house", "3")
    path.write_text('id = "house"\nversion = "3"\n# a remark\n')
    assert House.read(path).record.sha256 != first.sha256
    assert len(House.read().record.sha256) == 64


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("approvals = 0", "approvals: "), ("approvals = 11", "approvals: "), ('regions = ["Europe"]', "regions.1: "),
        ('held = ["film"]', "held.1: "), ("colour = 1", "colour: there is no such key"), ("id = ", "no TOML"),
        ('roles = ["legal"]\n[[people]]\nname = "Ann"\nidentity = "key:a"', "nobody of people has the role legal"),
        (2 * '[[people]]\nname = "Ann"\nidentity = "key:a"\n', "two people have the identity key:a"),
        ('[[people]]\nname = "Ann"', "people.1.identity: it is missing"), ("\xff", "no TOML"),
    ],
)  # fmt: skip
def test_a_policy_that_says_nothing_clear_is_refused(tmp_path: Path, text: str, rule: str) -> None:
    path = tmp_path / "p.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError) as told:
        House.read(path)
    assert (told.value.field, told.value.value) == ("policy", path)
    assert rule in told.value.rule
    assert "wanimate policy init" in told.value.remedy


def test_a_policy_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANIMATE_POLICY", str(tmp_path / "gone.toml"))
    with pytest.raises(InputError, match="cannot be read"):
        House.read()


def test_an_approval_is_signed_with_the_name_that_the_policy_gives(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text('[[people]]\nname = "Ann Lee"\nidentity = "command line:ann"\n')
    assert House.read(path).signed_as("command line:ann", "Somebody Else") == "Ann Lee"
    with pytest.raises(InputError, match="names who approves: Ann Lee"):
        House.read(path).signed_as("command line:bob", "Ann Lee")
    assert House.read().signed_as("command line:bob", "Bob") == "Bob"


def test_the_rules_file_lies_beside_the_policy(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text('rules = "ours.toml"')
    with pytest.raises(InputError, match="cannot be read"):
        House.read(path).rules()
    (tmp_path / "ours.toml").write_text(row())
    assert House.read(path).rules().knows("JP")
    assert not House.read().rules().knows("JP")


def test_the_template_has_every_key_and_is_the_default(tmp_path: Path) -> None:
    place = write_template(tmp_path / "new" / "policy.toml")
    assert House.read(place).policy == HousePolicy()
    text = place.read_text(encoding="utf-8")
    for key in HousePolicy.model_fields:
        assert f"\n{key} = " in text or f"\n#{key} = " in text or f"\n#[[{key}]]" in text, key
    plain = "\n".join(
        line.removeprefix("#") if line.startswith("#") and line[1:2] not in (" ", "") else line
        for line in text.splitlines()
    )
    everything = tmp_path / "all.toml"
    everything.write_text(plain, encoding="utf-8")
    assert House.read(everything).policy.people[0].roles == ("producer", "legal")
    with pytest.raises(OutputError, match="nothing is written over it"):
        write_template(place)
    assert place.read_text(encoding="utf-8") == text
    assert write_template() == tmp_path / "config" / "wanimate" / "policy.toml"
