"""The service's own face: uploads, the people of a clip, plans, what there is to work with."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from fastapi.testclient import TestClient
from own_service import JOB, MP4, PNG, Served, made, names, served, until_a_worker_is_there

from wanimate.config import PreprocessSettings
from wanimate.preprocess.candidates import Crowd
from wanimate.serve.errors import ServiceError
from wanimate.serve.settings import ServeSettings, Tier
from wanimate.serve.submission import Submission
from wanimate.serve.tables import Job, State
from wanimate.serve.worker import wan
from wanimate.types import Clip


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as found:
        yield found


@pytest.fixture
def ann(service: Served) -> TestClient:
    return service.client("ann")


def test_the_uploads_of_an_owner_have_a_limit(tmp_path: Path) -> None:
    with served(tmp_path, largest_uploads=2 * len(MP4)) as service:
        ann, bob = service.client("ann"), service.client("bob")
        kept = [ann.post("/v1/uploads", params={"filename": "a.mp4"}, content=MP4) for _ in range(3)]
        assert [answer.status_code for answer in kept] == [201, 201, 429]
        assert len(service.service.storage.list("uploads")) == 2
        assert bob.post("/v1/uploads", params={"filename": "a.mp4"}, content=MP4).status_code == 201
        ann.delete(f"/v1/uploads/{kept[0].json()['id']}")
        assert ann.post("/v1/uploads", params={"filename": "a.mp4"}, content=MP4).status_code == 201


def test_uploads_both_ways(service: Served, ann: TestClient) -> None:
    form = ann.post("/v1/uploads", files={"file": ("Ünser Held.png", PNG, "text/plain")})
    assert form.status_code == 201, form.text
    raw = ann.post("/v1/uploads", params={"filename": "../../tanz.mp4"}, content=MP4)
    assert raw.status_code == 201, raw.text
    assert raw.json()["filename"] == "tanz.mp4"
    picture = form.json()
    assert (picture["filename"], picture["size"], picture["media_type"]) == ("Ünser Held.png", len(PNG), "image/png")
    assert TestClient(service.app).get(picture["url"]).content == PNG
    listed = ann.get("/v1/uploads").json()["data"]
    assert {row["id"] for row in listed} == {picture["id"], raw.json()["id"]}
    assert ann.get(f"/v1/uploads/{picture['id']}").json()["sha256"] == picture["sha256"]
    job_id = made(ann, image={"upload": picture["id"]}, video={"upload": raw.json()["id"]})
    assert ann.delete(f"/v1/uploads/{picture['id']}").status_code == 409
    ann.post(f"/v1/jobs/{job_id}/cancel")
    assert ann.delete(f"/v1/uploads/{picture['id']}").status_code == 200
    assert ann.get(f"/v1/uploads/{picture['id']}").status_code == 404
    assert len(service.service.storage.list("uploads")) == 1
    assert not list(service.service.settings.scratch.glob("upload-*"))


def test_uploads_are_looked_at_and_limited(tmp_path: Path) -> None:
    with served(tmp_path, largest_clip=1000, largest_picture=1000) as service:
        ann = service.client("ann")
        for refused in (b"#!/bin/sh", b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>"):
            answer = ann.post("/v1/uploads", files={"file": ("x.png", refused)})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "InvalidFile.Format")
        assert ann.post("/v1/uploads", data={"file": "a text"}, files={"other": PNG}).status_code == 400
        for sent in ({"files": {"file": ("x.png", PNG + bytes(2000))}}, {"content": PNG + bytes(2000)}):
            assert ann.post("/v1/uploads", **sent).status_code == 413  # type: ignore[arg-type]
        assert ann.get("/v1/uploads").json()["data"] == []
        assert not list(service.service.settings.scratch.glob("upload-*"))


def test_the_people_of_a_clip(service: Served, ann: TestClient) -> None:
    began = time.monotonic()
    later = ann.post("/v1/people", json={"video": JOB["video"], "wait": 50})  # nobody is there to look
    assert (later.status_code, later.json()["state"]) == (202, "pending")
    assert time.monotonic() - began < 10
    with service.worker():
        until_a_worker_is_there(service)
        found = ann.post("/v1/people", json={"video": JOB["video"], "at": 0.00001}).json()
        assert found["people"][1] == {"number": 2, "box": [50.0, 2.0, 70.0, 40.0]}
        assert (found["frame"], found["size"], found["seconds"]) == (3, [640, 360], 4.0)
        assert TestClient(service.app).get(found["picture"]).content == PNG
        service.waited("ann", later.json()["id"])
    assert ann.get(f"/v1/people/{later.json()['id']}").json()["people"] == found["people"]
    assert names(ann) == []
    assert len(names(ann, kind="people")) == 2
    assert ann.get(f"/v1/people/{made(ann)}").status_code == 404
    for wrong in ({}, {"video": {"upload": "x"}}, {"video": JOB["video"], "wait": 1e9}):
        assert ann.post("/v1/people", json=wrong).status_code == 400, wrong


def test_a_worker_looks_for_people_in_an_upload(
    service: Served, ann: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = tmp_path / "clip.mp4"
    with av.open(str(clip), "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for _ in range(25):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((240, 320, 3), np.uint8))))
        file.mux(stream.encode())

    def found(_clip: Clip, settings: PreprocessSettings, out: Path) -> Crowd:
        assert settings.person == "1@1.500"
        out.write_bytes(PNG)
        return Crowd(15, ((1.0, 2.0, 3.0, 4.0),))

    monkeypatch.setattr(wan, "write_people", found)
    upload = ann.post("/v1/uploads", params={"filename": "clip.mp4"}, content=clip.read_bytes()).json()["id"]
    service.runner = wan.WanRunner(service.service.settings, "cpu")  # type: ignore[assignment]
    loop = service.loop()
    thread = threading.Thread(target=loop.run, daemon=True)
    thread.start()
    until_a_worker_is_there(service)
    answer = ann.post("/v1/people", json={"video": {"upload": upload}, "at": 1.5, "wait": 20}).json()
    short = ann.post("/v1/people", json={"video": {"url": "http://127.0.0.1:9/a.mp4"}, "wait": 20})
    loop.stop()
    thread.join(10)
    assert answer["people"] == [{"number": 1, "box": [1.0, 2.0, 3.0, 4.0]}]
    assert (answer["frame"], answer["size"], answer["seconds"]) == (15, [320, 240], pytest.approx(2.5))
    assert TestClient(service.app).get(answer["picture"]).content == PNG
    assert short.status_code == 400
    assert short.json()["error"]["field"] == "video"


def test_numbers_for_an_admin(service: Served, ann: TestClient) -> None:
    job_id = made(ann)
    boss = service.client("boss")
    assert boss.get("/v1/stats").json()["waiting"] == {"prepare": 1}
    with service.worker():
        service.waited("ann", job_id, "running")
        (worker,) = boss.get("/v1/workers").json()["data"]
    assert worker["stages"] == ["prepare", "generate"]


def test_models_are_listed_as_openai_lists_them(service: Served, ann: TestClient) -> None:
    found = ann.get("/v1/models").json()
    assert found["object"] == "list"
    assert found["data"][0] == {
        "id": "mannequin",
        "object": "model",
        "created": 0,
        "owned_by": "wanimate",
        "default": True,
        "relights": True,
    }
    assert found["largest_upload"] == service.service.settings.largest_clip
    assert (found["loras"], set(found["tiers"])) == (["hero"], {"wan-std", "wan-pro"})


def test_settings_describe_what_a_request_may_set(ann: TestClient) -> None:
    found = ann.get("/v1/settings").json()
    assert "seed" in found["generate"]["properties"]
    assert "lora" not in found["generate"]["properties"]
    assert "models" not in found["preprocess"]["properties"]


def planned(_work: Any, _settings: Any, _submission: Any, shape: tuple[int, int], count: int) -> dict[str, Any]:
    return {
        "fits": True, "message": None, "warning": None, "frames": count, "size": shape, "segments": 1, "steps": 1,
        "generate_seconds": 10.0,
    }  # fmt: skip


def test_plans(service: Served, ann: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.service.forecaster, "_ask", planned)
    for wrong in ({}, {"seconds": 3, "width": 4}, {"seconds": -1}, {"frames": 9, "job": {"checkpoint": "x"}},
                  {"frames": 9, "job": {"generate": {"steps": 0}}}):  # fmt: skip
        assert ann.post("/v1/plan", json=wrong).status_code == 400, wrong
    wanted = {"seconds": 4, "width": 9, "height": 16, "job": {"tier": "wan-std"}}
    plan = ann.post("/v1/plan", json=wanted).json()
    assert (plan["frames"], plan["size"]) == (60, [9, 16])
    assert plan["seconds"] == pytest.approx(10.0 + plan["prepare_seconds"])
    assert (plan["clip_seconds"], plan["left_today"]) == (4, None)
    monkeypatch.setattr(service.service.forecaster, "_ask", None)
    assert ann.post("/v1/plan", json=wanted).json() == plan  # kept


def test_seconds_of_finding_the_performer_are_those_of_earlier_jobs(
    service: Served, ann: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.service.forecaster, "_ask", planned)
    job_id = made(ann)
    with service.service.database.write() as session:
        job = session.get_one(Job, job_id)
        job.state, job.facts = State.SUCCEEDED, {"frames": 50, "prepare_seconds": 100.0}
    assert ann.post("/v1/plan", json={"frames": 7}).json()["prepare_seconds"] == pytest.approx(14.0)


def test_a_plan_takes_the_clip_from_a_look_at_it(
    service: Served, ann: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.service.forecaster, "_ask", planned)
    with service.worker():
        until_a_worker_is_there(service)
        clip = ann.post("/v1/people", json={"video": JOB["video"]}).json()["id"]
    plan = ann.post("/v1/plan", json={"clip": clip}).json()
    assert (plan["size"], plan["frames"]) == ([640, 360], 100)
    assert ann.post("/v1/plan", json={"clip": clip, "width": 1, "height": 2, "frames": 7}).json()["size"] == [1, 2]
    assert service.client("bob").post("/v1/plan", json={"clip": clip}).status_code == 404
    assert ann.post("/v1/plan", json={"clip": made(ann)}).status_code == 400


@pytest.mark.slow
def test_forecasts_come_from_a_process_of_their_own(service: Served, ann: TestClient) -> None:
    plan = ann.post("/v1/plan", json={"seconds": 4, "width": 9, "height": 16, "job": {"tier": "wan-std"}}).json()
    assert (plan["fits"], plan["frames"]) == (True, 60)
    assert plan["size"][0] < plan["size"][1]
    assert plan["seconds"] > plan["generate_seconds"] > 0
    assert plan["host_bytes"] > 2**20
    assert "machine" in ann.get("/v1/doctor").json()
    service.service.forecaster.close()
    assert ann.post("/v1/plan", json={"frames": 78}).json()["fits"] is True
    refused = ann.post("/v1/plan", json={"frames": 9, "job": {"generate": {"clip_length": 5}}})
    assert (refused.status_code, refused.json()["error"]["field"]) == (400, "clip_length")


def test_a_tier_can_draw_at_one_rate_and_deliver_another(tmp_path: Path) -> None:
    settings = ServeSettings(data=tmp_path, tiers={"smooth": Tier(fps=15, fps_out=30, upscale="1080p")})
    asked = Submission(kind="generate", parent="x", tier="smooth")
    assert asked.preprocess_settings(settings).fps == 15
    assert (asked.output_settings(settings).fps_out, asked.output_settings(settings).upscale) == (30, "1080p")
    own = Submission(kind="generate", parent="x", tier="smooth", output={"fps_out": 25})
    assert own.output_settings(settings).fps_out == 25


def test_a_network_of_the_callers_own_is_no_file_of_the_server(tmp_path: Path) -> None:
    asked = Submission(kind="generate", parent="x", output={"upscale": "2x", "upscale_network": "/etc/passwd"})
    with pytest.raises(ServiceError, match="cannot set it"):
        asked.output_settings(ServeSettings(data=tmp_path))
