"""`wanimate handoff` of a file and of a shot of the service, whose comments come with it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from results import result
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "serve"))
from own_service import served

from wanimate.cli.main import app
from wanimate.finish.lock import record_path
from wanimate.handoff.folder import read_package
from wanimate.serve.reviews.stacks import stack
from wanimate.serve.service import Service
from wanimate.serve.settings import ServeSettings
from wanimate.serve.tables import Audit, Job, Shot, Stage, State, now


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that is not running."""
    found = Service(ServeSettings(data=tmp_path_factory.mktemp("data")))
    yield found
    found.close()


def shot_of(service: Service, made: Path, mode: str = "animation", above: str | None = None) -> tuple[str, str]:
    """A shot whose newest version is this result: its id, and the job's."""
    id_, at = str(uuid.uuid4()), now()
    place = f"jobs/{id_}/1"
    service.storage.put(f"{place}/result{made.suffix}", made)
    service.storage.put(f"{place}/result.json", record_path(made))
    job = Job(
        id=id_, owner="ann", key_id="k", request_id="r", face="own", kind="animate", mode=mode, model="m", checkpoint="m",
        submission={"name": "Scene 12", "parent": None, "version_of": above}, state=State.SUCCEEDED, stage=Stage.GENERATE,
        order_key=at, created=at, result={"video": f"{place}/result{made.suffix}", "record": f"{place}/result.json"},
        facts={
            "frames": 12, "fps": "30000/1001", "size": [96, 64], "seed": 7,
            "sha256": hashlib.sha256(made.read_bytes()).hexdigest(),
        },
    )  # fmt: skip
    with service.database.write() as session:
        session.add(job)
        session.flush()
        shot: Shot | None = stack(session, job, 24.0)
        assert shot is not None
    return shot.id, id_


def run(service: Service | None, command: str, *words: object, code: int = 0) -> dict[str, Any]:
    data = [] if service is None else ["--data", str(service.settings.data)]
    done = CliRunner().invoke(app, [*command.split(), *map(str, words), *data, "--json"])
    assert done.exit_code == code, done.output
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_a_shot_with_its_comments(service: Service, ready: Path, tmp_path: Path) -> None:
    older, job = shot_of(service, ready)
    shot, _ = shot_of(service, ready, above=job)
    assert shot == older
    run(service, "review comment", shot, "Too dark", "--frame", 5, "--name", "Ann", "--version", 1)
    told = run(service, "handoff", shot, "--version", 1, "--to", tmp_path / "{shot}_v{version:03}")
    assert told["folder"] == str(tmp_path / "Scene_12_v001")
    assert {one["name"] for one in told["files"] if one["role"] == "review"} == {"Scene_12_v001.review.mp4"}
    text = (tmp_path / "Scene_12_v001" / "Scene_12_v001.markers.csv").read_text(encoding="utf-8-sig")
    assert "Ann,Too dark,01:00:00;05,01:00:00;06,00:00:00:01,Red" in text
    newest = run(service, "handoff", job, "--to", tmp_path / "newest", "--name", "S", "--mezzanine", "none")
    assert read_package(tmp_path / "newest") is not None
    assert {one["name"] for one in newest["files"] if one["role"] == "otio"} == {"S.otio"}
    assert "Too dark" not in (tmp_path / "newest" / "S.markers.csv").read_text(encoding="utf-8-sig")


def test_a_file(ready: Path, tmp_path: Path) -> None:
    refused = run(None, "handoff", ready, "--to", tmp_path / "out", "--mezzanine", "none", "--region", "EU", code=2)
    assert "of EU asks for an invisible watermark" in refused["message"]
    assert not (tmp_path / "out").exists()
    told = run(None, "handoff", ready, "--to", tmp_path / "out", "--mezzanine", "none")
    assert json.loads((tmp_path / "out" / "S010_v003.handoff.json").read_text())["regions"] == []
    assert told["output_sha256"] == read_package(tmp_path / "out").output_sha256  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("words", "parameter", "rule"),
    [
        (["S010_v003.mp4", "--version", "2"], "--version", "it is for shots of the service"),
        (["S010_v003.mp4", "--mezzanine", "mpeg"], "--mezzanine", "there is no such file for the edit"),
        (["S010_v003.mp4", "--name", "{version}"], "--name", "the name has {version}"),
        (["S010_v003.mp4", "--region", "Europe"], "--region", "a region is EU"),
        (["S010_v004.mp4"], "WHAT", "there is no such file"),
        (["S010_v003.json"], "WHAT", "it is not the file that its record tells of"),
    ],
)
def test_what_is_refused(
    ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], parameter: str, rule: str
) -> None:
    monkeypatch.chdir(ready.parent)
    told = run(None, "handoff", *words, "--to", tmp_path / "out", code=2)
    assert told["parameter"] == parameter
    assert rule in told["message"]
    assert list(tmp_path.iterdir()) == []


def test_a_token_is_asked_for_before_a_package_is_made(
    ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(("WANIMATE_FRAMEIO", "WANIMATE_DESCRIPT"))]:
        monkeypatch.delenv(name)
    for target in ("frameio:Advert/Shots", "descript:Advert"):
        told = run(None, "handoff", ready, "--to", target, "--journals", tmp_path / "journals", code=2)
        assert told["parameter"] == "--token-file"
    assert list(tmp_path.iterdir()) == []


def test_a_shot_that_may_not_leave(service: Service, tmp_path: Path) -> None:
    made = result(tmp_path / "a.mkv", mode="replacement", codec="ffv1", count=3)
    shot, job = shot_of(service, made, "replacement")
    told = run(service, "handoff", shot, "--to", tmp_path / "out", code=2)
    assert (told["parameter"], "replacement needs an approval" in told["message"]) == ("WHAT", True)
    service.storage.remove(f"jobs/{job}/1/result.mkv")
    assert "not kept any more" in run(service, "handoff", shot, "--to", tmp_path / "out", code=2)["message"]
    assert not (tmp_path / "out").exists()


def test_a_record_of_another_file(ready: Path, tmp_path: Path) -> None:
    other = result(tmp_path / "b.mp4", Fraction(25), count=3)
    shutil.copy(ready, other)
    assert "it is not the file" in run(None, "handoff", other, "--to", tmp_path / "out", code=2)["message"]


# The service


def test_a_package_is_downloaded(tmp_path: Path, ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    with served_alone(tmp_path) as (service, client):
        shot, job = shot_of(service, ready)
        said = client.post(f"/v1/shots/{shot}/comments", json={"text": "Too dark", "frame": 5})
        assert said.status_code == 201, said.text
        refused = client.post(f"/v1/shots/{shot}/handoff", json={"regions": ["EU"]})
        assert (refused.status_code, "asks for an invisible watermark" in refused.text) == (409, True)
        answer = client.post(f"/v1/shots/{shot}/handoff", json={})
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-disposition"] == 'attachment; filename="Scene_12_v001.zip"'
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert archive.testzip() is None
            archive.extractall(tmp_path)
        package = read_package(tmp_path / "Scene_12_v001")
        assert package is not None
        assert "Too dark" in (package.folder / "Scene_12_v001.markers.csv").read_text(encoding="utf-8-sig")
        assert client.post(f"/v1/shots/{shot}/handoff", json={"version": job}).content == client.post(
            f"/v1/shots/{shot}/handoff", json={}
        ).content  # fmt: skip
        with service.database.read() as session:
            lines = session.scalars(sa.select(Audit).where(Audit.target == shot, Audit.what == "review.handoff")).all()
        assert [line.data["version"] for line in lines] == [job] * 3
        assert client.post(f"/v1/shots/{shot}/handoff", json={"version": "none"}).status_code == 404
        assert client.post(f"/v1/shots/{shot}/handoff", json={"mezzanine": "mpeg"}).status_code == 400
        assert client.post("/v1/shots/none/handoff", json={}).status_code == 404
        assert not list(Path(tempfile.gettempdir()).glob("wanimate-handoff-*"))


def test_what_the_service_does_not_hand_off(tmp_path: Path, ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = result(tmp_path / "a.mkv", mode="replacement", codec="ffv1", count=3)
    with served_alone(tmp_path) as (service, client):
        shot, _ = shot_of(service, made, "replacement")
        told = client.post(f"/v1/shots/{shot}/handoff", json={})
        assert told.status_code == 409
        assert told.json()["error"]["message"].startswith("It may not leave: replacement needs an approval")
        whole, job = shot_of(service, ready)
        monkeypatch.setattr("wanimate.serve.reviews.packages.MOST_ENCODED", 1000)
        assert client.post(f"/v1/shots/{whole}/handoff", json={}).status_code == 200  # nothing is encoded
        told = client.post(f"/v1/shots/{whole}/handoff", json={"mezzanine": "auto"})
        assert (told.status_code, "too large for a download" in told.json()["error"]["message"]) == (409, True)
        service.storage.remove(f"jobs/{job}/1/result.json")
        assert client.post(f"/v1/shots/{whole}/handoff", json={}).status_code == 409


@contextmanager
def served_alone(folder: Path) -> Iterator[tuple[Service, TestClient]]:
    """A service of one's own, and a client of its owner."""
    with served(folder / "data") as found:
        yield found.service, found.client("ann")
