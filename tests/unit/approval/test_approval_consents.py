"""Consents: what they allow, when they hold, and which records are taken in."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from consents_made import CLIP, NOW, USE, consent, data, limit

from wanimate.approval.consents import Consent, consent_of, read_consent
from wanimate.approval.regions import MEMBERS, around, lies_in, meets
from wanimate.approval.terms import OPERATORS, Use
from wanimate.errors import InputError

DAY = timedelta(days=1)
JUDGED = [
    # operand, operator, right operand, use and number of uses before, whether it is allowed
    ("spatial", "eq", "DE", Use(("DE",)), 0, True), ("spatial", "eq", "EU", Use(("DE",)), 0, True),
    ("spatial", "eq", "DE", Use(("EU",)), 0, False), ("spatial", "isPartOf", "US", Use(("US-NY",)), 0, True),
    ("spatial", "isA", "US-NY", Use(("US",)), 0, False), ("spatial", "isAnyOf", ["DE", "FR"], Use(("FR", "DE")), 0, True),
    ("spatial", "isAnyOf", ["DE", "FR"], Use(("FR", "IT")), 0, False), ("spatial", "isNoneOf", ["CN"], Use(("DE",)), 0, True),
    ("spatial", "isNoneOf", ["DE", "CN"], Use(("EU",)), 0, False), ("spatial", "isNoneOf", ["CN"], Use(("CN-BJ",)), 0, False),
    ("spatial", "neq", "EU", Use(("FR",)), 0, False), ("spatial", "neq", "EU", Use(("CH",)), 0, True),
    ("spatial", "eq", "DE", Use(), 0, False),
    ("purpose", "eq", "ad", Use(purposes=("Ad",)), 0, True), ("purpose", "isA", "ad", Use(purposes=("film",)), 0, False),
    ("purpose", "isAnyOf", ["ad", "film"], Use(purposes=("ad", "film")), 0, True),
    ("purpose", "isNoneOf", ["politics"], Use(purposes=("ad", "politics")), 0, False),
    ("purpose", "neq", "politics", Use(purposes=("ad",)), 0, True), ("purpose", "neq", "politics", Use(), 0, False),
    ("media", "isAnyOf", ["video", "web"], Use(media=("video",)), 0, True),
    ("media", "eq", "web", Use(media=("web", "tv")), 0, False), ("media", "neq", "tv", Use(media=("web",)), 0, True),
    ("media", "isNoneOf", ["tv"], Use(media=("tv",)), 0, False), ("media", "isA", "tv", Use(media=("tv",)), 0, True),
    ("count", "lteq", 2, USE, 1, True), ("count", "lteq", 2, USE, 2, False), ("count", "lt", 2, USE, 0, True),
    ("count", "lt", 2, USE, 1, False), ("count", "eq", 1, USE, 0, True), ("count", "eq", "1", USE, 1, False),
    ("count", "lteq", 0, USE, 0, False),
    ("dateTime", "lteq", "2026-11-30T12:00:00Z", USE, 0, True), ("dateTime", "lt", "2026-11-30T12:00:00Z", USE, 0, False),
    ("dateTime", "lt", "2026-11-30T12:00:00-01:00", USE, 0, True), ("dateTime", "gt", "2026-11-30T12:00:00Z", USE, 0, False),
    ("dateTime", "gteq", "2026-11-30T13:00:00+01:00", USE, 0, True), ("dateTime", "lteq", "2026-11-30", USE, 0, True),
    ("dateTime", "lt", "2026-11-30", USE, 0, False), ("dateTime", "gteq", "2026-11-30", USE, 0, True),
    ("dateTime", "gt", "2026-11-30", USE, 0, False), ("dateTime", "gt", "2026-11-29", USE, 0, True),
    ("dateTime", "eq", "2026-11-30", USE, 0, True), ("dateTime", "neq", "2026-11-30", USE, 0, False),
    ("dateTime", "neq", "2026-12-01", USE, 0, True),
]  # fmt: skip


@pytest.mark.parametrize(("left", "operator", "right", "use", "before", "allowed"), JUDGED)
def test_every_constraint(left: str, operator: str, right: Any, use: Use, before: int, allowed: bool) -> None:
    reasons = consent(limit(left, operator, right)).allows(use, NOW, before)
    assert (reasons == []) is allowed, reasons
    assert all(reason.endswith(".") for reason in reasons)


def test_every_operator_is_tried() -> None:
    tried = {(left, operator) for left, operator, *_ in JUDGED}
    assert tried == {(left, operator) for left, known in OPERATORS.items() for operator in known}


@pytest.mark.parametrize(
    ("constraint", "use", "refused"),
    [
        (limit("spatial", "eq", "CN"), Use(("DE",)), False), (limit("spatial", "eq", "DE"), Use(("EU",)), True),
        (limit("spatial", "eq", "EU"), Use(("DE",)), True), (limit("spatial", "eq", "CN"), Use(), True),
        (limit("purpose", "isAnyOf", ["politics"]), Use(purposes=("ad", "politics")), True),
        (limit("purpose", "isNoneOf", ["ad"]), Use(purposes=("ad",)), False),
        (limit("purpose", "isNoneOf", ["ad"]), Use(purposes=("ad", "film")), True),
        (limit("dateTime", "gteq", "2026-12-01"), USE, False), (limit("dateTime", "gt", "2026-11-01"), USE, True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("action", ["use", "odrl:distribute", ["derive", "reproduce"]])
def test_prohibitions(constraint: dict[str, Any], use: Use, refused: bool, action: Any) -> None:
    given = data()
    given["agreement"]["prohibition"] = [{"action": action, "constraint": [constraint]}]
    reasons = consent_of(given).allows(use, NOW, 0)
    assert bool(reasons) is refused
    assert not refused or reasons[0].startswith("It is prohibited ")


def test_every_constraint_of_a_permission_counts() -> None:
    both = consent(limit("spatial", "eq", "EU"), limit("purpose", "eq", "film"))
    assert both.allows(Use(("DE",), ("film",)), NOW) == []
    assert both.allows(Use(("DE",), ("ad",)), NOW) == ["It is permitted for film only, and this is purpose ad."]
    assert len(both.allows(Use(("US",), ("ad",)), NOW)) == 2


def test_permissions_do_not_lend_each_other_their_limits() -> None:
    """Ads in Germany and films in the US are permitted; a film in Germany is not."""
    given = data()
    given["agreement"]["permission"] = [
        {"action": "use", "constraint": [limit("spatial", "eq", region), limit("purpose", "eq", purpose)]}
        for region, purpose in (("DE", "ad"), ("US", "film"))
    ]
    found = consent_of(given)
    assert found.allows(Use(("DE",), ("ad",)), NOW) == []
    assert found.allows(Use(("US-NY",), ("film",)), NOW) == []
    assert found.allows(Use(("DE", "US"), ("ad",)), NOW)
    assert found.allows(Use(("DE",), ("film",)), NOW)


@pytest.mark.parametrize(
    ("actions", "reasons"),
    [
        (["use"], []), (["derive", "distribute"], []), (["odrl:modify", "present"], []),
        (["http://www.w3.org/ns/odrl/2/use"], []), (["derive"], ["Nobody has permitted to show it."]),
        (["display"], ["Nobody has permitted to make a new work of it."]),
        (["archive"], ["Nobody has permitted to make a new work of it.", "Nobody has permitted to show it."]),
    ],
)  # fmt: skip
def test_making_and_showing_have_to_be_permitted(actions: list[str], reasons: list[str]) -> None:
    given = data()
    given["agreement"]["permission"] = [{"action": one} for one in actions]
    assert consent_of(given).allows(USE, NOW) == reasons


EDGE = datetime(2026, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=13, minutes=45)), timezone(timedelta(hours=-11))])
@pytest.mark.parametrize("written", ["2026-12-01T00:00:00Z", "2026-12-01T05:30:00+05:30", "2026-11-30T16:00:00-08:00"])
def test_it_ends_at_the_very_moment_wherever_one_is(zone: timezone, written: str) -> None:
    for key, word in (("expires", "expired"), ("withdrawn_at", "withdrawn")):
        found = consent(**{key: written})
        assert found.allows(USE, (EDGE - timedelta(microseconds=1)).astimezone(zone)) == []
        (reason,) = found.allows(USE, EDGE.astimezone(zone))
        assert word in reason
        assert found.ends == EDGE


def test_nobody_has_agreed_before_the_signature() -> None:
    signed = datetime(2026, 1, 10, 8, tzinfo=UTC)  # 9:00 in its zone
    assert consent().allows(USE, signed) == []
    assert consent().allows(USE, signed - timedelta(seconds=1))


@pytest.mark.parametrize(
    ("minor", "deceased", "role", "allowed"),
    [
        (False, False, None, True), (True, False, None, False), (True, False, "guardian", True), (True, False, "heirs", False),
        (False, True, None, False), (False, True, "heirs", True), (False, True, "guardian", False), (True, True, "heirs", True),
        (True, True, "guardian", False),
    ],
)  # fmt: skip
def test_who_cannot_agree_needs_somebody_who_can(minor: bool, deceased: bool, role: str | None, allowed: bool) -> None:
    given = None if role is None else {"role": role, "id": "urn:person:8", "document_sha256": "e" * 64}
    around = {"subject": {"id": "urn:person:7", "minor": minor, "deceased": deceased}}
    found = consent(**around, **({} if given is None else {"given_by": given}))
    assert (found.allows(USE, NOW) == []) is allowed


@pytest.mark.parametrize(
    ("release", "allowed"), [("MR-NON", False), ("MR-NAP", True), ("MR-UMR", True), ("MR-LMR", True)]
)
def test_release_states(release: str, allowed: bool) -> None:
    found = consent(**{"plus:ModelReleaseStatus": release, "plus:ModelReleaseID": "R-17"})
    assert (found.allows(USE, NOW) == []) is allowed


def full() -> dict[str, Any]:
    """A record with everything that one can have."""
    given = data(
        limit("spatial", "isAnyOf", ["EU", "US-NY"]),
        {
            **limit("dateTime", "lteq", {"@value": "2027-06-30T00:00:00Z", "@type": "xsd:dateTime"}),
            "@type": "Constraint",
        },
        {**limit("odrl:count", "odrl:lteq", "5"), "dataType": "xsd:integer", "uid": "urn:limit:3"},
        expires="2027-06-30T00:00:00+02:00",
        given_by={"role": "guardian", "id": "urn:person:8", "document_sha256": "e" * 64},
        subject={"id": "urn:person:7", "minor": True, "deceased": False},
        **{"plus:ModelReleaseStatus": "MR-LMR", "plus:ModelReleaseID": "R-17"},
    )
    agreement = given["agreement"]
    agreement["@context"] = ["http://www.w3.org/ns/odrl.jsonld", {"dct": "http://purl.org/dc/terms/"}]
    agreement["dct:title"] = {"de": "Einwilligung für Welle"}
    agreement["permission"][0]["duty"] = [
        {"action": "attribute", "attributedParty": "urn:person:7"},
        {"action": "compensate"},
    ]
    agreement["prohibition"] = [{"action": ["play", "use"], "constraint": [limit("purpose", "isAnyOf", ["politics"])]}]
    agreement["obligation"] = [{"action": [{"rdf:value": {"@id": "odrl:inform"}}]}]
    return given


def test_a_record_goes_in_and_out_as_it_is() -> None:
    given = full()
    found = consent_of(given)
    assert found.data() == given
    assert json.loads(found.text()) == given
    assert consent_of(json.loads(found.text())) == found
    assert found.allows(USE, NOW, 4) == []
    assert found.allows(USE, NOW, 5) != []
    assert found.duties == ["attribute", "compensate", '[{"rdf:value": {"@id": "odrl:inform"}}]']


@pytest.mark.parametrize("form", ["sha256:{}", "urn:sha256:{}", "{}"])
def test_a_target_is_a_hash(form: str) -> None:
    given = data()
    given["agreement"]["target"] = form.format(CLIP)
    assert consent_of(given).asset == CLIP


def change(path: str, value: Any) -> dict[str, Any]:
    """The full record with one thing changed; `...` takes it away. Path: names and numbers between /; | in a name is a /."""
    given = full()
    *above, last = [int(word) if word.isdecimal() else word.replace("|", "/") for word in path.split("/")]
    place: Any = given
    for one in above:
        place = place[one]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return given


PERMISSION = "agreement/permission/0"
LIMIT = f"{PERMISSION}/constraint/0"


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        ("agreement/@context", "http://example.com/other.jsonld", "@context has to be"),
        ("agreement/@context", ..., "missing"), ("agreement/@type", "Offer", "Agreement"), ("agreement/uid", ..., "missing"),
        ("agreement/uid", "two words", "no IRI"), ("agreement/target", "clip.mp4", "64 small hexadecimal digits"),
        ("agreement/target", "sha256:" + "C" * 64, "64 small"), ("agreement/permission", [], "permission"),
        ("agreement/inheritFrom", "urn:x", "nobody here knows the key 'inheritFrom'"),
        ("agreement/odrl:conflict", "perm", "nobody here knows the key"),
        ("agreement/http:||www.w3.org|ns|odrl|2|prohibition", [], "nobody here knows the key"),
        ("agreement/@graph", [], "nobody here knows the key"),
        ("agreement/@context/1", "https://example.com/other.jsonld", "nobody here knows 'https://example.com"),
        ("agreement/@context/1", {"o": "http://www.w3.org/ns/odrl/2/"}, "another vocabulary"),
        ("agreement/@context/1", {"permission": "http://example.com/p"}, "another vocabulary"),
        ("agreement/@context/1", {"@vocab": "http://example.com/p"}, "another vocabulary"),
        (f"{PERMISSION}/refinement", [], "permission.1.refinement: there is no such key"),
        (f"{PERMISSION}/action", "dance", "ODRL has no action dance"), (f"{PERMISSION}/action", [], "no action"),
        (f"{PERMISSION}/action", {"rdf:value": {}}, "action"),
        (f"{PERMISSION}/target", f"sha256:{'9' * 64}", "one target"),
        (f"{LIMIT}/leftOperand", "weather", "nobody here can judge weather"),
        (f"{LIMIT}/operator", "isAllOf", "spatial takes"), (f"{LIMIT}/unit", "km", "there is no such key"),
        (f"{LIMIT}/rightOperand", ["Bavaria"], "places are codes"), (f"{LIMIT}/rightOperand", [], "no rightOperand"),
        (f"{LIMIT}/rightOperand", ..., "missing"), (LIMIT, limit("spatial", "eq", ["DE", "FR"]), "one rightOperand"),
        (LIMIT, limit("count", "lteq", 1.5), "whole number"), (LIMIT, limit("count", "lteq", True), "whole number"),
        (LIMIT, limit("count", "lteq", -1), "whole number"), (LIMIT, limit("count", "gteq", 1), "count takes"),
        (LIMIT, limit("dateTime", "lteq", "2026-12-01T00:00:00"), "no time zone"),
        (LIMIT, limit("dateTime", "lteq", "soon"), "no date"), (LIMIT, limit("dateTime", "lteq", "9999-12-31"), "the year"),
        ("signed_at", "0001-01-01T00:00:00+14:00", "the year"), ("expires", "9999-12-31T23:00:00-14:00", "the year"),
        (LIMIT, limit("purpose", "eq", 7), "no text"),
        (LIMIT, {"or": [limit("spatial", "eq", "DE")]}, "missing"),
        ("agreement/prohibition/0/action", "sell", "nobody here can judge that sell is prohibited"),
        ("subject/name", "Ann", "subject.name: there is no such key"), ("subject/minor", ..., "missing"),
        ("subject/minor", "no idea", "subject.minor"), ("represented_by", "a friend", "represented_by"),
        ("document_sha256", "abc", "document_sha256"), ("signed_at", "2026-01-10", "no time zone"),
        ("signed_at", "2026-01-10T09:00:00", "no time zone"), ("expires", "2025-01-01T00:00:00Z", "expires before"),
        ("withdrawn_at", "2025-01-01T00:00:00Z", "withdrawn before"), ("plus:ModelReleaseStatus", "MR-YES", "MR-NON"),
        ("given_by/role", "friend", "given_by.role"), ("colour", "red", "colour: there is no such key"),
    ],
)  # fmt: skip
def test_what_nobody_can_judge_is_refused(path: str, value: Any, rule: str) -> None:
    with pytest.raises(InputError) as told:
        consent_of(change(path, value))
    assert rule in told.value.rule
    assert "wanimate consent new" in told.value.remedy


@pytest.mark.parametrize("given", [None, [], "record", 7, {}, {"agreement": None}, float("nan"), {"a": "\ud800"}])
def test_what_is_no_record_is_refused(given: Any) -> None:
    with pytest.raises(InputError):
        consent_of(given)


def test_an_agreement_alone_is_told_where_it_belongs() -> None:
    with pytest.raises(InputError, match="under the key agreement"):
        consent_of(data()["agreement"])


def test_files_are_read_and_refused_by_name(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(full()), encoding="utf-8")
    assert read_consent(good) == consent_of(full())
    for content in (b"", b"{", b"\xff", b'{"agreement": 1e999}', b"[" * 100):
        bad.write_bytes(content)
        with pytest.raises(InputError) as told:
            read_consent(bad)
        assert (told.value.field, told.value.value) == ("file", bad)
    with pytest.raises(InputError, match="No such file"):
        read_consent(tmp_path / "nowhere.json")


def test_no_name_of_a_person_has_a_place() -> None:
    names = {
        name
        for form in (Consent, *Consent.model_fields["subject"].annotation.__mro__[:1])
        for name in form.model_fields
    }
    assert not names & {"name", "email", "address", "phone"}


def test_regions_nest() -> None:
    assert len(MEMBERS) == 27
    assert around("DE-BY") == ("DE-BY", "DE", "EU")
    assert around("US-NY") == ("US-NY", "US")
    assert lies_in("FR", "EU")
    assert not lies_in("EU", "FR")
    assert not lies_in("GB", "EU")
    assert meets("EU", "FR")
    assert meets("FR", "EU")
    assert not meets("US-NY", "US-CA")


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        (limit("spatial", "isAnyOf", ["DE", "US-NY"]), "in DE or US-NY"), (limit("spatial", "isNoneOf", ["CN"]), "not in CN"),
        (limit("purpose", "eq", "ad"), "for ad"), (limit("media", "neq", "tv"), "not as tv"),
        (limit("dateTime", "lteq", "2026-12-31"), "until 2026-12-31"), (limit("count", "lt", 3), "2 times at most"),
        (limit("count", "eq", "1"), "1 time at most"),
    ],
)  # fmt: skip
def test_terms_in_words(constraint: dict[str, Any], words: str) -> None:
    assert consent(constraint).agreement.permission[0].words == f"use {words}"
