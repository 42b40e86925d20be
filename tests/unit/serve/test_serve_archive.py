"""Archives of a service's shots and projects: versions, comments and decisions, from its storage."""

from __future__ import annotations

import hashlib
import json
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "archive"))
from finished import noise, picture, record_of

from wanimate.archive.verify import verify
from wanimate.cli.main import app
from wanimate.media.image import load_image
from wanimate.review import chain
from wanimate.review.records import Remark, State
from wanimate.serve.reviews import Reviewer
from wanimate.serve.reviews.stacks import stack
from wanimate.serve.service import Service
from wanimate.serve.settings import ServeSettings
from wanimate.serve.tables import Job, Stage, now
from wanimate.serve.tables import State as JobState
from wanimate.weights.fingerprint import fingerprint

WHO = Reviewer("Ann Lee", "operator", "test", frozenset({"view", "comment", "decide", "manage"}))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    found = Service(ServeSettings(data=tmp_path / "data"))
    yield found
    found.close()


def put(service: Service, name: str, file: Path) -> str:
    service.storage.put(name, file)
    return name


def job(
    service: Service, folder: Path, parent: str | None = None, guides: str | None = None, name: str = "Scene 12"
) -> str:
    """A finished job as workers leave it; returns its shot's id."""
    id_, at = str(uuid.uuid4()), now()
    facts: dict[str, Any] = {"frames": 5, "fps": "30", "size": [64, 48], "seed": 7}
    if guides is None:
        guides = f"guides/{id_}/1"
        image, clip, pose = picture(folder / "i.png"), noise(folder / "c.mp4", 3000), noise(folder / "pose.mkv")
        put(service, f"{guides}/clip.mp4", clip)
        put(service, f"{guides}/guides/pose.mkv", pose)
        manifest = {
            "format": "wanimate-guides", "files": {"pose": "pose.mkv"},
            "source": {"path": "c.mp4", "sha256": fingerprint(clip)[7:], "frames": [0]},
            "image": {"sha256_of_pixels": hashlib.sha256(load_image(image).tobytes()).hexdigest()},
        }  # fmt: skip
        (folder / "manifest.json").write_text(json.dumps(manifest))
        put(service, f"{guides}/guides/manifest.json", folder / "manifest.json")
        facts["uploads"] = {
            "image": put(service, f"uploads/{id_}/i.png", image),
            "video": put(service, f"uploads/{id_}/c.mp4", clip),
        }
    files = {one: fingerprint(folder / one) for one in ("pose.mkv", "manifest.json")}
    out = noise(folder / id_ / "result.mp4", 500 + at % 97)
    (folder / "result.json").write_text(json.dumps(record_of(out, {"guides": {"path": "guides", "files": files}})))
    result = {
        "video": put(service, f"jobs/{id_}/1/result.mp4", out),
        "record": put(service, f"jobs/{id_}/1/result.json", folder / "result.json"),
    }
    source = {"upload": "x"}
    submission = {"name": name, "parent": parent, "version_of": None} | (
        {} if parent else {"image": source, "video": source}
    )
    row = Job(
        id=id_, owner="ann", key_id="k", request_id="r", face="own", kind="animate", mode="animation", model="m",
        checkpoint="m", submission=submission, state=JobState.SUCCEEDED, stage=Stage.GENERATE, order_key=at, created=at,
        result=result, facts=facts | {"sha256": fingerprint(out)[7:]}, guides=guides,
    )  # fmt: skip
    with service.database.write() as session:
        session.add(row)
        session.flush()
        made = stack(session, row, 24.0)
        assert made is not None
    return made.id


def service_job(service: Service, id_: str) -> Job:
    with service.database.read() as session:
        return session.get_one(Job, id_)


@pytest.fixture
def shot(service: Service, tmp_path: Path) -> str:
    """A shot of two versions with the same guides, commented and approved."""
    found = job(service, tmp_path / "a")
    first = service.reviews.shots.look(WHO, found).shot.versions[0].job
    assert job(service, tmp_path / "a", first, service_job(service, first).guides) == found
    second = service.reviews.shots.look(WHO, found).shot.versions[1].job
    service.reviews.notes.add(WHO, found, second, Remark(text="The hand.", frame=2))
    service.reviews.decisions.decide(WHO, found, second, State.APPROVED, "Good.")
    return found


def run(service: Service, *words: object, code: int = 0) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["archive", *map(str, words), "--data", str(service.settings.data), "--json"])
    assert done.exit_code == code, done.output
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_a_shot(service: Service, shot: str, tmp_path: Path) -> None:
    told = run(service, "Scene 12", "--out", tmp_path / "bag")
    assert (told["results"], told["lacks"]) == (["v001", "v002"], [])
    assert verify(tmp_path / "bag").code == 0
    payload = tmp_path / "bag" / "data"
    index = json.loads((payload / "archive.json").read_text())
    first, second = index["results"]
    assert first["guides"] == second["guides"] == "guides/guides/"
    assert first["inputs"] == second["inputs"] == {"image": "inputs/i.png", "video": "inputs/clip.mp4"}
    assert second["about"]["state"] == "approved"
    (review,) = (payload / "review").iterdir()
    said = json.loads(review.read_text())
    assert [one["text"] for one in said["comments"]] == ["The hand."]
    (decision,) = said["decisions"]
    assert decision["output_sha256"] == hashlib.sha256((payload / second["result"]).read_bytes()).hexdigest()
    assert chain.digest(chain.Record.model_validate(decision["record"]).text()) == decision["digest"]
    assert not list(tmp_path.glob(".*"))


def test_files_that_the_service_has_not_kept(service: Service, shot: str, tmp_path: Path) -> None:
    versions = service.reviews.shots.look(WHO, shot).shot.versions
    first = service_job(service, versions[0].job)
    service.storage.remove(first.facts["uploads"]["image"])
    service.storage.remove(first.result["video"])
    assert "it is not kept any more" in run(service, shot, "--out", tmp_path / "bag", code=2)["message"]
    told = run(service, shot, "--out", tmp_path / "bag", "--allow-missing")
    assert told["results"] == ["v002"]
    assert [(one["item"], one["role"]) for one in told["lacks"]] == [("v001", "result"), ("v002", "image")]
    service.storage.remove(service_job(service, versions[1].job).result["video"])
    assert "result" in run(service, shot, "--out", tmp_path / "other", "--allow-missing", code=2)["message"]
    assert not (tmp_path / "other").exists()


def test_a_project(service: Service, shot: str, tmp_path: Path) -> None:
    other = job(service, tmp_path / "b", name="Scene 13")
    job(service, tmp_path / "c", name="Scene 14")
    for one in (shot, other):
        done = CliRunner().invoke(app, ["review", "project", one, "Spring", "--data", str(service.settings.data)])
        assert (done.exit_code, "is part of Spring" in done.stdout) == (0, True)
    told = run(service, "Spring", "--out", tmp_path / "bag")
    assert told["results"] == ["shot-001-v001", "shot-001-v002", "shot-002-v001"]
    assert len(list((tmp_path / "bag/data/review").iterdir())) == 2
    index = json.loads((tmp_path / "bag/data/archive.json").read_text())
    assert (index["kind"], index["name"]) == ("project", "Spring")
    message = run(service, "Autumn", "--out", tmp_path / "other", code=2)["message"]
    assert "there is no such shot, and no file, folder or project of this name" in message
