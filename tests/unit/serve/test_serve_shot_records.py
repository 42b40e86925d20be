"""Shot records over HTTP: proposed in the guides, confirmed and corrected in the database, handed on to jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from own_service import JOB, Pretender, Served, made, served

from wanimate.events import Event
from wanimate.preprocess.shot.record import Value, new_record
from wanimate.serve.shot_records import with_statement
from wanimate.serve.tables import ShotStatement
from wanimate.serve.worker.work import Work


def value(what: Any, confidence: float = 0.8, by: str = "analysis") -> Value:
    return Value(value=what, confidence=confidence, by=by, at="2026-11-30T12:00:00+00:00")


def proposed(shots: int = 1) -> dict[str, Any]:
    values = {
        "xmpDM:cameraMove": value("Pan Left"),
        "luma": value(0.4, 1.0),
        "drift": value(0.1),
        "white": value(0.0, 1.0),
    }
    stretches = [(20 * i, 20 * i + 20, values) for i in range(shots)]
    return new_record({"cuts": value([shot[0] for shot in stretches[1:]])}, stretches).plain()


class Analyst(Pretender):
    """Guides with a shot record; jobs named "plain" have none."""

    def prepare(self, work: Work) -> Iterator[Event]:
        yield from super().prepare(work)
        manifest: dict[str, Any] = {"format": "wanimate-guides"}
        if work.submission.name != "plain":
            manifest["shot"] = proposed(2 if work.submission.name == "two" else 1)
            work.facts["shots"] = len(manifest["shot"]["shots"])
        work.storage.put(f"{work.guides}/guides/manifest.json", [json.dumps(manifest).encode()])


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as found:
        found.runner = Analyst()
        with found.worker():
            yield found


@pytest.fixture
def ann(service: Served) -> TestClient:
    return service.client("ann")


def prepared(service: Served, ann: TestClient, **more: Any) -> str:
    job = made(ann, kind="preprocess", **more)
    service.waited("ann", job)
    return job


def test_what_was_proposed_is_confirmed_and_corrected(service: Served, ann: TestClient) -> None:
    job = prepared(service, ann)
    found = ann.get(f"/v1/jobs/{job}/shot").json()
    assert (found["object"], len(found["shots"]), found["history"]) == ("shot_record", 1, [])
    assert "Dolly In" in found["choices"]["xmpDM:cameraMove"]
    assert found["advice"]["action"] == "relight"
    told = ann.patch(
        f"/v1/jobs/{job}/shot",
        json={"confirm": ["luma"], "set": {"cameraMove": "dolly in", "drift": 0.9}, "by": "Ann Lee"},
    )
    assert told.status_code == 200, told.text
    assert told.json() == ann.get(f"/v1/jobs/{job}/shot").json()
    values = told.json()["shots"][0]["values"]
    assert {name: (values[name]["value"], values[name]["by"]) for name in ("luma", "xmpDM:cameraMove", "white")} == {
        "luma": (0.4, "Ann Lee"), "xmpDM:cameraMove": ("Dolly In", "Ann Lee"), "white": (0.0, "analysis"),
    }  # fmt: skip
    assert told.json()["advice"]["action"] == "grade"
    assert {(one["field"], one["value"]) for one in told.json()["history"]} == {
        ("luma", 0.4),
        ("xmpDM:cameraMove", "Pan Left"),
        ("drift", 0.1),
    }
    again = ann.patch(f"/v1/jobs/{job}/shot", json={"set": {"cameraMove": "Static"}}).json()
    assert again["shots"][0]["values"]["xmpDM:cameraMove"]["by"] == "ann"
    assert [one["value"] for one in again["history"] if one["field"] == "xmpDM:cameraMove"] == ["Pan Left", "Dolly In"]
    with service.service.database.read() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(ShotStatement)) == 4, "rows are only added"


def test_jobs_from_these_guides_have_what_was_said(service: Served, ann: TestClient) -> None:
    job = prepared(service, ann)
    ann.patch(f"/v1/jobs/{job}/shot", json={"set": {"place": "INT"}})
    service.runner.gate.set()
    child = made(ann, kind="generate", parent=job, image=None, video=None)
    facts = service.waited("ann", child)["facts"]
    ((shot, field, what, by, at),) = facts["shot_said"]
    assert (shot, field, what, by, facts["shots"]) == (1, "place", "INT", "ann", 1)
    record = with_statement(new_record({}, [(0, 20, {})]), shot, field, what, by, at)
    assert record.shots[0].values["place"].value == "INT"
    assert ann.get(f"/v1/jobs/{child}/shot").json()["shots"][0]["values"]["place"]["value"] == "INT"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"set": {"cameraMove": "Fly"}}, "value"), ({"set": {"nothing": 1}}, "field"), ({"confirm": ["cameraAngle"]}, "field"),
        ({"shot": 3, "confirm": ["luma"]}, "shot"), ({"shot": 0}, "shot"),
        ({"set": {"luma": [1]}}, "value"), ({"more": 1}, "more"),
        ({"by": "file", "confirm": ["luma"]}, "by"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_refused(service: Served, ann: TestClient, body: dict[str, Any], field: str) -> None:
    job = prepared(service, ann)
    answer = ann.patch(f"/v1/jobs/{job}/shot", json=body)
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, field)
    assert ann.get(f"/v1/jobs/{job}/shot").json()["history"] == []


def test_each_of_several_shots_is_its_own(service: Served, ann: TestClient) -> None:
    job = prepared(service, ann, name="two")
    assert ann.patch(f"/v1/jobs/{job}/shot", json={"confirm": ["luma"]}).json()["error"]["field"] == "shot"
    told = ann.patch(f"/v1/jobs/{job}/shot", json={"shot": 2, "confirm": ["luma"]}).json()
    assert [shot["values"]["luma"]["by"] for shot in told["shots"]] == ["analysis", "ann"]
    assert told["advice"]["action"] == "split"


def test_records_are_their_owners(service: Served, ann: TestClient) -> None:
    job = prepared(service, ann)
    assert service.client("bob").get(f"/v1/jobs/{job}/shot").status_code == 404
    assert service.client("bob").patch(f"/v1/jobs/{job}/shot", json={}).status_code == 404
    assert service.client("reader").get(f"/v1/jobs/{job}/shot").status_code == 200
    assert service.client("reader").patch(f"/v1/jobs/{job}/shot", json={}).status_code == 403
    plain = prepared(service, ann, name="plain")
    assert ann.get(f"/v1/jobs/{plain}/shot").status_code == 404
    assert ann.get(f"/v1/jobs/{made(ann, **JOB, name='hold')}/shot").status_code == 404


def test_what_was_said_goes_with_the_guides(service: Served, ann: TestClient) -> None:
    job = prepared(service, ann)
    ann.patch(f"/v1/jobs/{job}/shot", json={"confirm": ["luma"]})
    ann.delete(f"/v1/jobs/{job}")
    with service.service.database.read() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(ShotStatement)) == 0
