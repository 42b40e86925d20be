"""`wanimate review sync`: the service's own reviews, without a running service."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from parcels import Studio, frameio_studio
from standin_frameio import FrameIoStandIn
from typer.testing import CliRunner

from wanimate.cli.handoff_remote import hand_over, work_folder
from wanimate.cli.main import app
from wanimate.cli.report import JsonReporter
from wanimate.handoff.remote import send as sending
from wanimate.handoff.remote.tokens import FRAMEIO_TOKEN
from wanimate.review.records import Remark
from wanimate.serve.reviews import Reviewer
from wanimate.serve.reviews.stacks import stack
from wanimate.serve.service import Service
from wanimate.serve.settings import ServeSettings
from wanimate.serve.tables import Job, Stage, State, now

ANN = Reviewer("Ann Lee", "operator", "test", frozenset({"view", "comment"}))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    found = Service(ServeSettings(data=tmp_path_factory.mktemp("data")))
    yield found
    found.close()


@pytest.fixture
def shot(service: Service) -> tuple[str, str]:
    """A shot's id and its job's."""
    id_, at = str(uuid.uuid4()), now()
    service.storage.put(f"jobs/{id_}/1/result.mp4", [b"the very file"])
    job = Job(
        id=id_, owner="ann", key_id="k", request_id="r", face="own", kind="animate", mode="animation", model="m",
        checkpoint="m", submission={"name": f"Scene {id_}"}, state=State.SUCCEEDED, stage=Stage.GENERATE, order_key=at,
        created=at, result={"video": f"jobs/{id_}/1/result.mp4"}, facts={"frames": 60, "fps": "25", "size": [64, 36]},
    )  # fmt: skip
    with service.database.write() as session:
        session.add(job)
        session.flush()
        made = stack(session, job, 24.0)
        assert made is not None
    return made.id, id_


@pytest.fixture
def world(
    tmp_path: Path, shot: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[FrameIoStandIn, Studio]]:
    with frameio_studio(tmp_path) as (standin, studio):
        shipment = dataclasses.replace(studio.shipment(), shot=shot[0], version=shot[1])
        sending.send(studio.package(), "frameio:Spots", studio.gate, shipment, studio.options(), studio.services)
        monkeypatch.setattr(sending, "Services", lambda: studio.services)
        yield standin, studio


def run(service: Service, studio: Studio, *words: str, code: int = 0) -> dict[str, Any]:
    given = ["--data", str(service.settings.data), "--journals", str(studio.home / "journals"), "--json"]
    done = CliRunner().invoke(app, ["review", "sync", *words, *given])
    assert done.exit_code == code, done.output
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_a_package_is_handed_over(world: tuple[FrameIoStandIn, Studio], capsys: pytest.CaptureFixture[str]) -> None:
    standin, studio = world
    hand_over(
        JsonReporter(), studio.package("2", 2), "frameio:Spots", studio.gate, studio.shipment("2"), studio.options()
    )
    *steps, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"event": "notice", "level": "info", "message": "hero.mp4 has arrived"} in steps
    assert {file["id"] for file in last["files"]} <= set(standin.nodes)
    assert (last["target"], last["decisions"], last["output_sha256"]) == ("frameio:Spots", ["decision_1"], "5e" * 32)


def test_a_version_is_packed_in_the_same_folder_every_time(tmp_path: Path) -> None:
    places = {work_folder(tmp_path, shot, version) for shot in ("Scene 12/a", "../..", "x") for version in ("1", "2")}
    assert len(places) == 6
    assert {place.parent for place in places} == {tmp_path / "packages"}
    assert work_folder(tmp_path, "x", "1") in places


def test_comments_meet_in_the_review(
    service: Service, shot: tuple[str, str], world: tuple[FrameIoStandIn, Studio]
) -> None:
    standin, studio = world
    file = standin.files("hero.mp4")[0].id
    service.reviews.notes.add(ANN, shot[0], shot[1], Remark(text="The hand.", frame=25, x=0.2, y=0.4))
    standin.comment(
        file, "Brighter.", 59, "Bo", replies=[{"id": "r", "text": "Yes.", "owner": {"id": "c", "name": "Cy"}}]
    )
    assert run(service, studio, shot[0]) == {"event": "result", "shot": shot[0], "sent": 1, "received": 2}
    assert run(service, studio, shot[1]) == {"event": "result", "shot": shot[0], "sent": 0, "received": 0}
    found = service.reviews.shots.look(ANN, shot[0]).shot
    assert [(one.author, one.role, one.text, one.frame) for one in found.comments] == [
        ("Ann Lee", "operator", "The hand.", 25),
        ("Bo", "guest", "Brighter.", 59),
    ]
    assert [(one.author, one.text) for one in found.comments[1].replies] == [("Cy", "Yes.")]
    assert [one["text"] for one in standin.said[file]] == ["Brighter.", "Ann Lee: The hand."]


def test_what_is_missing_is_told(
    service: Service, shot: tuple[str, str], world: tuple[FrameIoStandIn, Studio], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, studio = world
    assert "no such shot" in run(service, studio, "nothing", code=2)["message"]
    monkeypatch.delenv(FRAMEIO_TOKEN)
    assert "no token for Frame.io" in run(service, studio, shot[0], code=2)["message"]
    told = run(service, studio, shot[0], "--token-file", "/nowhere/token", code=2)
    assert told["parameter"] == "--token-file"
    monkeypatch.setenv(FRAMEIO_TOKEN, "x")
    told = run(service, dataclasses.replace(studio, home=studio.home / "none"), shot[0], code=2)
    assert "was handed off to Frame.io" in told["message"]
