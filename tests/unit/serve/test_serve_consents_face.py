"""Consents over HTTP: who sees and changes which, and the same by the commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from consents_made import CLIP, IMAGE, data, limit
from fastapi.testclient import TestClient
from own_service import Served, served
from typer.testing import CliRunner

from wanimate.approval.consents import draft
from wanimate.cli.main import app
from wanimate.cli.records import identity
from wanimate.library.entries import About, File


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("consents")) as found:
        yield found


def added(
    client: TestClient, uid: str, *constraints: dict[str, Any], house: bool = False, **more: Any
) -> dict[str, Any]:
    answer = client.post("/v1/consents", json={"consent": data(*constraints, uid=uid, **more), "house": house})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_consent_is_taken_in_looked_at_and_withdrawn(service: Served) -> None:
    ann, bob = service.client("ann"), service.client("bob")
    uid = "http://example.com/policy:1010"
    made = added(ann, uid, limit("spatial", "eq", "EU"))
    assert (made["version"], made["state"], made["asset"], made["owner"]) == (1, "valid", CLIP, "ann")
    assert made["permitted"] == ["use in EU"]
    assert made["record"] == data(limit("spatial", "eq", "EU"), uid=uid)
    assert added(ann, uid, limit("spatial", "eq", "DE"))["version"] == 2
    asked = {"regions": ["DE"], "at": "2026-11-30T12:00:00Z"}
    for path in (uid, "http%3A%2F%2Fexample.com%2Fpolicy%3A1010"):
        whole = ann.get(f"/v1/consents/{path}").json()
        assert [one["version"] for one in whole["versions"]] == [1, 2]
        assert ann.post(f"/v1/consents/{path}/check", json=asked).json()["allowed"]
        assert bob.get(f"/v1/consents/{path}").status_code == 404
    against = ann.post(f"/v1/consents/{uid}/check", json={"regions": ["FR"]}).json()
    assert against["reasons"] == ["It is permitted in DE only, and this is region FR."]
    assert [one["id"] for one in ann.get("/v1/consents", params={"asset": CLIP}).json()["data"]] == [uid]
    assert ann.get("/v1/consents", params={"asset": IMAGE}).json()["total"] == 0
    assert bob.post(f"/v1/consents/{uid}/withdraw").status_code == 404
    gone = ann.post(f"/v1/consents/{uid}/withdraw").json()
    assert (gone["version"], gone["state"]) == (3, "withdrawn")
    again = ann.post(f"/v1/consents/{uid}/withdraw")
    assert (again.status_code, again.json()["error"]["field"]) == (400, "consent")


def test_only_admins_change_the_houses(service: Served) -> None:
    ann, boss = service.client("ann"), service.client("boss")
    assert ann.post("/v1/consents", json={"consent": data(uid="urn:h"), "house": True}).status_code == 403
    made = added(boss, "urn:h", house=True)
    assert (made["owner"], made["house"]) == ("", True)
    assert ann.get("/v1/consents/urn:h").json()["state"] == "valid"
    assert ann.post("/v1/consents/urn:h/withdraw").status_code == 403
    assert boss.post("/v1/consents/urn:h/withdraw").json()["state"] == "withdrawn"


def test_what_cannot_be_judged_is_refused_by_field(service: Served) -> None:
    ann = service.client("ann")
    for wrong, told in ((limit("weather", "eq", "sun"), "nobody here can judge weather"), ({}, "missing")):
        answer = ann.post("/v1/consents", json={"consent": data(wrong)})
        assert answer.status_code == 400
        assert answer.json()["error"]["field"] == "consent"
        assert told in answer.json()["error"]["message"]
    assert ann.post("/v1/consents", json={"consent": []}).status_code == 400
    answer = ann.post("/v1/consents/urn:h/check", json={"regions": ["Germany"]})
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, "regions.0")


def test_entries_are_refused_over_http_too(service: Served) -> None:
    ann = service.client("ann")
    file = File("clip", "wave.mp4", ".mp4", CLIP, 4, [b"clip"])
    entry = service.service.library.add("ann", file, About("wave"), {"width": 64, "height": 48})
    answer = ann.patch(f"/v1/library/{entry.id}", json={"consent_ids": ["urn:nobody"]})
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, "consent_ids")
    added(ann, "urn:wave")
    assert ann.patch(f"/v1/library/{entry.id}", json={"consent_ids": ["urn:wave"]}).json()["consent_ids"] == [
        "urn:wave"
    ]
    ann.post("/v1/consents/urn:wave/withdraw")
    assert ann.get(f"/v1/library/{entry.id}").json()["status"] == "retired"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WANIMATE_SERVE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("WANIMATE_POLICY", raising=False)
    return tmp_path


def told(*words: str | Path, code: int = 0) -> dict[str, Any]:
    """What a command says last."""
    result = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert result.exit_code == code, result.output
    last: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return last


def test_the_commands_of_consents(home: Path) -> None:
    clip, record = home / "wave.mp4", home / "record.json"
    clip.write_bytes(b"a clip")
    made = told("consent", "new", record, "--of", clip, "--document", clip)["consent"]
    assert made["agreement"]["target"] == f"sha256:{made['document_sha256']}"
    assert told("consent", "add", record, code=2)["parameter"] == "FILE"  # nobody has filled it in
    assert told("consent", "new", record, code=2)["parameter"] == "OUT"
    whole = data(limit("spatial", "eq", "EU"), limit("count", "lteq", 1), uid="urn:1", asset=made["document_sha256"])
    record.write_text(json.dumps(whole))
    assert told("consent", "add", record)["version"] == 1
    assert told("consent", "list", "--of", clip)["total"] == 1
    assert told("consent", "list", "--of", f"sha256:{CLIP}")["total"] == 0
    assert told("consent", "show", "urn:1")["record"] == whole
    assert told("consent", "check", "urn:1", "--region", "DE")["allowed"] is True
    late = told("consent", "check", "urn:1", "--region", "DE", "--at", "2025-01-01T00:00:00Z", code=1)
    assert "is signed at" in late["reasons"][0]
    assert told("consent", "check", "urn:1", "--region", "Europe", code=2)["parameter"] == "--region"
    assert told("consent", "check", "urn:1", "--at", "noon", code=2)["parameter"] == "--at"
    assert told("consent", "withdraw", "urn:1", "--name", "Ann")["state"] == "withdrawn"
    assert [one["recorded_by"] for one in told("consent", "show", "urn:1")["versions"]][1] == "Ann"


def test_a_draft_is_complete_but_for_what_people_know() -> None:
    from wanimate.approval.consents import consent_of

    made = draft(CLIP, "d" * 64)
    made["agreement"] |= {"assigner": "urn:p", "assignee": "urn:h"}
    made["agreement"]["permission"][0]["constraint"][3]["rightOperand"] = "2026-12-31"
    made["subject"]["id"] = "urn:p"
    made |= {"represented_by": "none", "signed_at": "2026-01-01T00:00:00Z", "expires": "2027-01-01T00:00:00Z"}
    assert consent_of(made).asset == CLIP
    assert draft()["agreement"]["uid"] != draft()["agreement"]["uid"]


def test_the_commands_of_rules_and_policy(home: Path) -> None:
    assert (
        told("rules", "check", "--region", "JP", "--region", "US-TN", code=1)["missing"][0]
        == "No rule of the table is about JP."
    )
    assert told("rules", "check", code=1)["outdated"] == {"us-tn-elvis": "nobody has checked it"}
    for words in (("JP",), ("US-TN",)):
        done = told("rules", "approve", *words, "--name", "Ann Lee", "--reason", 'Counsel "has" looked.\nTwice.')
        assert done["by"] == "Ann Lee"
    told("rules", "check", "--region", "JP", "--region", "US-TN")
    assert len(told("rules", "list")["approved"]) == 2
    assert {one["region"] for one in told("rules", "list", "--region", "DE")["rules"]} == {"EU"}
    assert told("rules", "approve", "gone", "--reason", "x", code=2)["parameter"] == "WHAT"
    assert told("rules", "approve", "JP", "--reason", "", code=2)["parameter"] == "--reason"
    place = Path(told("policy", "init")["policy"])
    assert told("policy", "show")["file"] == str(place)
    place.write_text('regions = ["KR"]\n[[people]]\nname = "Bo"\nidentity = "key:bo"\n')
    assert told("rules", "check", code=1)["regions"] == ["KR"]
    assert told("rules", "approve", "KR", "--name", "Ann Lee", "--reason", "x", code=2)["parameter"] == "--name"
    assert told("rules", "approve", "KR", "--name", "Bo", "--reason", "x", code=2)["parameter"] == "--name"
    place.write_text(f'regions = ["KR"]\n[[people]]\nname = "Bo"\nidentity = "{identity()}"\n')
    made = told("rules", "approve", "KR", "--name", "Ann Lee", "--reason", "x", "--policy", place)
    assert (made["region"], made["by"]) == ("KR", "Bo")
    told("rules", "check")
    place.write_text("approvals = 0\n")
    assert told("policy", "check", place, code=2)["parameter"] == "FILE"
    assert told("policy", "show", "--policy", place, code=2)["parameter"] == "--policy"
