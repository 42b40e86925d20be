"""The service's own face: jobs, batches, the queue, uploads, people, keys."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from own_service import JOB, MP4, PNG, Served, served

from wanimate.runtime.planning import fit
from wanimate.runtime.planning.rates import Rates


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as found:
        yield found


@pytest.fixture
def ann(service: Served) -> TestClient:
    return service.client("ann")


def made(client: TestClient, **more: Any) -> str:
    answer = client.post("/v1/jobs", json={**JOB, **more})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def names(client: TestClient, **query: Any) -> list[str]:
    answer = client.get("/v1/jobs", params=query)
    assert answer.status_code == 200, answer.text
    return [job["name"] for job in answer.json()["data"]]


def test_a_job_from_its_creation_to_its_files(service: Served, ann: TestClient) -> None:
    asked = {**JOB, "name": "first", "prompt": "a hero", "tier": "wan-pro", "generate": {"seed": 7}, "priority": 3}
    job = ann.post("/v1/jobs", json=asked).json()
    assert (job["state"], job["stage"], job["position"], job["tier"]) == ("pending", "prepare", 1, "wan-pro")
    assert job["submission"]["generate"] == {"seed": 7}
    service.runner.gate.set()
    with service.worker():
        done = service.waited("ann", job["id"])
    assert (done["state"], done["results"], done["position"]) == ("succeeded", ["video"], None)
    files = {file["name"]: file for file in ann.get(f"/v1/jobs/{job['id']}/files").json()["data"]}
    assert set(files) == {"video", "guides/pose.mkv"}
    assert files["video"]["media_type"] == "video/mp4"
    assert files["video"]["size"] == len(MP4)
    anybody = TestClient(service.app)
    assert anybody.get(files["video"]["url"]).content == MP4
    assert ann.get(f"/v1/jobs/{job['id']}/preview.png").content == PNG


def test_a_job_that_cannot_be_done_says_why(service: Served, ann: TestClient) -> None:
    job_id = made(ann, name="bad")
    with service.worker():
        job = service.waited("ann", job_id)
    assert job["state"] == "failed"
    assert job["error"] == {"code": "InvalidFile.NoHuman", "message": "There is nobody in the clip."}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "image"),
        ({**JOB, "image": {}}, "image"),
        ({**JOB, "checkpoint": "/etc"}, "checkpoint"),
        ({**JOB, "loras": [{"name": "../hero"}]}, "loras"),
        ({**JOB, "tier": "wan-max"}, "mode"),
        ({**JOB, "generate": {"steps": 0}}, "steps"),
        ({**JOB, "generate": {"lora": ["/etc/passwd"]}}, "generate.lora"),
        ({**JOB, "preprocess": {"models": "/etc"}}, "preprocess.models"),
        ({**JOB, "output": {"overwrite": True}}, "output.overwrite"),
        ({**JOB, "preprocess": {"person": "\ud800"}}, "body"),
        ({**JOB, "generate": {"prompt": "a\0b"}}, "body"),
        ({**JOB, "prompt": "\ud800"}, "prompt"),
        ({**JOB, "image": {"upload": "file_of_nobody"}}, "image"),
        ({"kind": "generate", "parent": "none"}, "parent"),
        ({"kind": "dance", **JOB}, "kind"),
        ({**JOB, "path": "/etc"}, "path"),
        ({**JOB, "priority": 10**30}, "priority"),
        ({**JOB, "webhook": {"url": "https://example.org", "events": ["job.danced"]}}, "webhook.events.0"),
        ([1, 2], "body"),
    ],
)
def test_a_wrong_job_is_refused_with_its_field(ann: TestClient, body: Any, field: str) -> None:
    answer = ann.post("/v1/jobs", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["field"] == field
    assert error["request_id"] == answer.headers["x-request-id"]
    assert ann.get("/v1/jobs").json()["total"] == 0


def test_bodies_that_are_no_json_are_refused(ann: TestClient) -> None:
    for body in (b"{", b"\xff\xfe", b"[" * 100_000, b"null", b""):
        answer = ann.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400, (body[:10], answer.text)


def test_the_same_key_is_the_same_job(service: Served, ann: TestClient) -> None:
    mark = {"Idempotency-Key": "one"}
    first = ann.post("/v1/jobs", json=JOB, headers=mark).json()["id"]
    assert ann.post("/v1/jobs", json=JOB, headers=mark).json()["id"] == first
    assert ann.post("/v1/jobs", json={**JOB, "name": "other"}, headers=mark).status_code == 409
    assert service.client("bob").post("/v1/jobs", json=JOB, headers=mark).json()["id"] != first
    assert ann.get("/v1/jobs").json()["total"] == 1


def test_lists_are_filtered_and_paged(ann: TestClient) -> None:
    for i in range(5):
        made(ann, name=f"job {i}", prompt="50% red" if i == 3 else "", mode="replacement" if i == 1 else "animation")
    assert names(ann) == ["job 4", "job 3", "job 2", "job 1", "job 0"]
    assert names(ann, mode="replacement") == ["job 1"]
    assert names(ann, search="JOB 2") == ["job 2"]
    assert names(ann, search="50%") == ["job 3"]
    assert names(ann, search="%") == ["job 3"]
    assert names(ann, state=["running", "failed"]) == []
    assert len(names(ann, state=["pending", "failed"])) == 5
    page = ann.get("/v1/jobs", params={"limit": 2}).json()
    assert (page["total"], [job["name"] for job in page["data"]]) == (5, ["job 4", "job 3"])
    page = ann.get("/v1/jobs", params={"limit": 2, "cursor": page["next"]}).json()
    assert (page["total"], [job["name"] for job in page["data"]]) == (5, ["job 2", "job 1"])
    page = ann.get("/v1/jobs", params={"limit": 2, "cursor": page["next"]}).json()
    assert ([job["name"] for job in page["data"]], page["next"]) == (["job 0"], None)
    for wrong in ({"cursor": "x"}, {"cursor": "////"}, {"limit": 0}, {"state": "done"}, {"kind": "x"}):
        assert ann.get("/v1/jobs", params=wrong).status_code == 400, wrong  # type: ignore[arg-type]


def test_cancel_and_delete(service: Served, ann: TestClient) -> None:
    waiting = made(ann)
    assert ann.post(f"/v1/jobs/{waiting}/cancel").json()["state"] == "cancelled"
    again = ann.post(f"/v1/jobs/{waiting}/cancel")
    assert (again.status_code, again.json()["error"]["code"]) == (400, "UnsupportedOperation")
    with service.worker():
        running = made(ann)
        service.waited("ann", running, "running")
        ann.post(f"/v1/jobs/{running}/cancel")
        assert service.waited("ann", running)["state"] == "cancelled"
        deleted = made(ann)
        service.waited("ann", deleted, "running")
        assert ann.delete(f"/v1/jobs/{deleted}").json() == {"id": deleted, "deleted": True}
        assert ann.get(f"/v1/jobs/{deleted}").status_code == 404
        service.runner.gate.set()
        other = made(ann)
        assert service.waited("ann", other)["state"] == "succeeded"
    assert not service.service.storage.list(f"jobs/{deleted}/1")


def test_held_jobs_wait_until_they_are_released(service: Served, ann: TestClient) -> None:
    service.runner.gate.set()
    held, free = made(ann), made(ann)
    assert ann.patch(f"/v1/jobs/{held}", json={"held": True, "priority": 50}).json()["held"] is True
    with service.worker():
        service.waited("ann", free)
        assert ann.get(f"/v1/jobs/{held}").json()["state"] == "pending"
        ann.patch(f"/v1/jobs/{held}", json={"held": False})
        assert service.waited("ann", held)["state"] == "succeeded"
    assert ann.patch(f"/v1/jobs/{held}", json={"priority": 1}).status_code == 409
    assert ann.patch(f"/v1/jobs/{free}", json={"priority": 101}).status_code == 400


def queued(client: TestClient) -> list[str]:
    return [job["name"] for job in client.get("/v1/queue").json()["jobs"]]


def test_jobs_are_reordered_without_passing_others(service: Served, ann: TestClient) -> None:
    bob = service.client("bob")
    ids = {}
    for name in ("a", "b", "c"):
        ids[name] = made(ann, name=name)
        ids[f"of bob, after {name}"] = made(bob, name=f"of bob, after {name}")
    assert queued(ann) == ["a", "b", "c"]
    assert ann.post("/v1/queue/order", json={"ids": [ids["c"], ids["a"], ids["b"]]}).status_code == 200
    everybody = service.client("boss").get("/v1/queue", params={"everybody": True}).json()["jobs"]
    bobs = [f"of bob, after {name}" for name in "abc"]
    assert [job["name"] for job in everybody] == ["c", bobs[0], "a", bobs[1], "b", bobs[2]]
    assert [job["position"] for job in everybody] == [1, 2, 3, 4, 5, 6]
    assert ann.get(f"/v1/jobs/{ids['b']}").json()["position"] == 5
    ann.post("/v1/queue/order", json={"id": ids["b"], "before": ids["c"]})
    assert queued(ann) == ["b", "c", "a"]
    ann.post("/v1/queue/order", json={"id": ids["b"], "after": ids["c"]})
    assert queued(ann) == ["c", "b", "a"]
    ann.patch(f"/v1/jobs/{ids['a']}", json={"priority": 9})
    ann.post("/v1/queue/order", json={"id": ids["b"], "after": ids["a"]})
    assert queued(ann) == ["a", "b", "c"]
    for wrong in ({}, {"ids": ["x"], "id": "y"}, {"id": ids["a"]}, {"id": ids["a"], "before": "x", "after": "y"}):
        assert ann.post("/v1/queue/order", json=wrong).status_code == 400, wrong
    theirs = {"ids": [ids["a"], ids[bobs[0]]]}
    assert ann.post("/v1/queue/order", json=theirs).status_code == 404
    assert ann.post("/v1/queue/order", json={"id": ids["a"], "before": ids[bobs[0]]}).status_code == 404
    ann.post(f"/v1/jobs/{ids['a']}/cancel")
    assert ann.post("/v1/queue/order", json={"ids": [ids["b"], ids["a"]]}).status_code == 409


def test_the_queue_is_paused_by_an_admin(service: Served, ann: TestClient) -> None:
    boss = service.client("boss")
    assert ann.post("/v1/queue/pause").status_code == 403
    assert boss.post("/v1/queue/pause").json()["paused"] is True
    service.runner.gate.set()
    with service.worker():
        waits = made(ann)
        assert ann.get("/v1/queue").json()["paused"] is True
        time.sleep(0.4)
        assert ann.get(f"/v1/jobs/{waits}").json()["state"] == "pending"
        boss.post("/v1/queue/resume")
        assert service.waited("ann", waits)["state"] == "succeeded"


def test_a_batch_is_made_whole_or_not_at_all(service: Served, ann: TestClient) -> None:
    pictures = [{"url": f"https://example.org/{i}.png"} for i in range(3)]
    body = {"images": pictures, "videos": [JOB["video"]], "job": {"name": "of a batch", "generate": {"seed": 1}}}
    mark = {"Idempotency-Key": "batch"}
    batch = ann.post("/v1/batches", json=body, headers=mark).json()
    assert batch["states"] == {"pending": 3}
    again = ann.post("/v1/batches", json=body, headers=mark).json()
    assert [job["id"] for job in again["jobs"]] == [job["id"] for job in batch["jobs"]]
    found = ann.get(f"/v1/batches/{batch['id']}").json()
    assert [job["id"] for job in found["jobs"]] == [job["id"] for job in batch["jobs"]]
    urls = [ann.get(f"/v1/jobs/{job['id']}").json()["submission"]["image"]["url"] for job in found["jobs"]]
    assert urls == [picture["url"] for picture in pictures]
    assert len(names(ann, batch=batch["id"])) == 3
    bad = {"jobs": [JOB, {**JOB, "image": {"upload": "nobody's"}}]}
    assert ann.post("/v1/batches", json=bad).status_code == 400
    assert ann.get("/v1/jobs").json()["total"] == 3
    assert ann.post(f"/v1/batches/{batch['id']}/cancel").json()["states"] == {"cancelled": 3}
    for wrong in ({}, {"images": pictures}, {"jobs": [JOB], "images": pictures}, {**body, "job": JOB}):
        assert ann.post("/v1/batches", json=wrong).status_code == 400, wrong
    many = {**body, "images": pictures * 67}
    assert ann.post("/v1/batches", json=many).status_code == 400


def test_a_batch_counts_against_the_quota_as_a_whole(tmp_path: Path) -> None:
    with served(tmp_path, quotas={"queued": 4, "creations_a_second": 1000}) as service:
        ann = service.client("ann")
        made(ann)
        assert ann.post("/v1/batches", json={"jobs": [JOB] * 4}).status_code == 429
        assert ann.post("/v1/batches", json={"jobs": [JOB] * 3}).status_code == 201


def test_the_same_again_with_changes(service: Served, ann: TestClient) -> None:
    first = made(ann, name="one", generate={"seed": 1, "steps": 4}, loras=[{"name": "hero"}])
    answer = ann.post(f"/v1/jobs/{first}/again", json={"name": "two", "generate": {"seed": 2}})
    job = answer.json()
    assert answer.status_code == 201, answer.text
    assert (job["name"], job["submission"]["generate"], job["loras"][0]["name"]) == (
        "two",
        {"seed": 2, "steps": 4},
        "hero",
    )
    taken_back = ann.post(f"/v1/jobs/{first}/again", json={"generate": {"seed": None}, "loras": []}).json()
    assert (taken_back["submission"]["generate"], taken_back["loras"]) == ({"steps": 4}, [])
    assert ann.post(f"/v1/jobs/{first}/again").json()["id"] not in (first, job["id"])
    assert ann.post(f"/v1/jobs/{first}/again", json={"generate": 7}).status_code == 400
    assert ann.post(f"/v1/jobs/{first}/again", json={"owner": "bob"}).status_code == 400


def test_again_is_not_the_job_that_was_just_made(tmp_path: Path) -> None:
    with served(tmp_path, repeated_within=10.0) as service:
        ann = service.client("ann")
        first = made(ann)
        assert made(ann) == first
        second = ann.post(f"/v1/jobs/{first}/again").json()["id"]
        assert second != first
        assert ann.post(f"/v1/jobs/{first}/again").json()["id"] == second


def test_going_on_from_guides_and_redrawing(service: Served, ann: TestClient) -> None:
    service.runner.gate.set()
    with service.worker():
        guides = made(ann, kind="preprocess")
        assert service.waited("ann", guides)["results"] == ["pose"]
        frames = ann.post("/v1/jobs", json={"kind": "generate", "parent": guides}).json()
        assert frames["stage"] == "generate"
        assert service.waited("ann", frames["id"])["results"] == ["video"]
        redrawn = ann.post("/v1/jobs", json={"kind": "redraw", "parent": frames["id"], "segment": 1})
        assert redrawn.status_code == 201
        no_video = ann.post("/v1/jobs", json={"kind": "redraw", "parent": guides, "segment": 1})
        assert no_video.status_code == 400
        assert service.client("bob").post("/v1/jobs", json={"kind": "generate", "parent": guides}).status_code == 400


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
    later = ann.post("/v1/people", json={"video": JOB["video"], "wait": 0})
    assert (later.status_code, later.json()["state"]) == (202, "pending")
    with service.worker():
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


def test_keys_are_made_and_revoked_by_admins(service: Served, ann: TestClient) -> None:
    boss = service.client("boss")
    assert ann.post("/v1/keys", json={"owner": "eve"}).status_code == 403
    made_key = boss.post("/v1/keys", json={"owner": "eve", "days": 2, "quotas": {"queued": 1}}).json()
    eve = TestClient(service.app, headers={"Authorization": f"Bearer {made_key['secret']}"})
    assert eve.get("/v1/me").json()["quotas"]["queued"] == 1
    rows = boss.get("/v1/keys", params={"owner": "eve"}).json()["data"]
    assert [row["id"] for row in rows] == [made_key["id"]]
    assert "secret" not in rows[0]
    assert boss.delete(f"/v1/keys/{made_key['id']}").json()["deleted"] is True
    assert eve.get("/v1/me").status_code == 401
    assert boss.delete("/v1/keys/none").status_code == 404
    wrongs = [
        {"owner": ""}, {"owner": "a\nb"}, {"owner": "x", "scopes": ["root"]}, {"owner": "x", "quotas": {"queued": -1}},
        {"owner": "x", "quotas": {"speed": 1}}, {"owner": "x", "days": 1e-9},
    ]  # fmt: skip
    for wrong in wrongs:
        assert boss.post("/v1/keys", json=wrong).status_code == 400, wrong
    told = [(row["what"], row["owner"]) for row in boss.get("/v1/audit", params={"limit": 2}).json()["data"]]
    assert told == [("key.revoke", "boss"), ("key.create", "boss")]


def test_me_and_the_secret_of_webhooks(service: Served, ann: TestClient) -> None:
    made(ann)
    me = ann.get("/v1/me").json()
    assert (me["owner"], me["scopes"], me["usage"]["queued"]) == ("ann", ["read", "submit"], 1)
    rotated = ann.post("/v1/me/webhook-secret").json()["webhook_secret"]
    assert rotated != me["webhook_secret"]
    assert ann.get("/v1/me").json()["webhook_secret"] == rotated


def test_the_audit_is_paged(service: Served, ann: TestClient) -> None:
    ids = [made(ann) for _ in range(3)]
    boss = service.client("boss")
    first = boss.get("/v1/audit", params={"limit": 2, "what": "job.create"}).json()
    rest = boss.get("/v1/audit", params={"limit": 2, "what": "job.create", "cursor": first["next"]}).json()
    assert [row["target"] for row in (*first["data"], *rest["data"])] == ids[::-1]
    assert rest["next"] is None
    assert boss.get("/v1/audit", params={"cursor": "x"}).status_code == 400


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
    }
    assert found["largest_upload"] == service.service.settings.largest_clip
    assert (found["loras"], set(found["tiers"])) == (["hero"], {"wan-std", "wan-pro"})


def test_settings_describe_what_a_request_may_set(ann: TestClient) -> None:
    found = ann.get("/v1/settings").json()
    assert "seed" in found["generate"]["properties"]
    assert "lora" not in found["generate"]["properties"]
    assert "models" not in found["preprocess"]["properties"]


def test_plans(service: Served, ann: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.service.forecaster, "_ask", lambda work, *given: work(*given))
    monkeypatch.setattr(fit, "measure_rates", lambda *_: Rates(*[1e12] * 6))
    monkeypatch.setattr(fit, "_rates", fit._rates.__wrapped__)
    for wrong in ({}, {"seconds": 3, "width": 4}, {"seconds": -1}, {"frames": 9, "job": {"checkpoint": "x"}},
                  {"frames": 9, "job": {"generate": {"steps": 0}}}):  # fmt: skip
        assert ann.post("/v1/plan", json=wrong).status_code == 400, wrong
    wanted = {"seconds": 0.6, "width": 9, "height": 16, "job": {"tier": "wan-std", "generate": {"clip_length": 9}}}
    plan = ann.post("/v1/plan", json=wanted).json()
    assert (plan["fits"], plan["frames"]) == (True, 9)
    assert plan["size"][0] < plan["size"][1]
    assert plan["seconds"] > plan["generate_seconds"] > 0
    assert plan["host_bytes"] > 2**20
    monkeypatch.setattr(service.service.forecaster, "_ask", None)
    assert ann.post("/v1/plan", json=wanted).json() == plan  # kept


def test_a_plan_takes_the_clip_from_a_look_at_it(
    service: Served, ann: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planned(_work: Any, _settings: Any, _submission: Any, shape: tuple[int, int], count: int) -> dict[str, Any]:
        return {
            "fits": False,
            "message": "no",
            "warning": None,
            "frames": count,
            "size": shape,
            "segments": 1,
            "steps": 1,
        }

    monkeypatch.setattr(service.service.forecaster, "_ask", planned)
    with service.worker():
        clip = ann.post("/v1/people", json={"video": JOB["video"]}).json()["id"]
    plan = ann.post("/v1/plan", json={"clip": clip}).json()
    assert (plan["size"], plan["frames"], plan["fits"]) == ([640, 360], 100, False)
    assert ann.post("/v1/plan", json={"clip": clip, "width": 1, "height": 2, "frames": 7}).json()["size"] == [1, 2]
    assert service.client("bob").post("/v1/plan", json={"clip": clip}).status_code == 404
    assert ann.post("/v1/plan", json={"clip": made(ann)}).status_code == 400


@pytest.mark.slow
def test_forecasts_come_from_a_process_of_their_own(service: Served, ann: TestClient) -> None:
    assert ann.post("/v1/plan", json={"frames": 77}).json()["fits"] is True
    assert "machine" in ann.get("/v1/doctor").json()
    service.service.forecaster.close()
    assert ann.post("/v1/plan", json={"frames": 78}).json()["fits"] is True


def test_scopes(service: Served) -> None:
    reader, sender = service.client("reader"), service.client("sender")
    assert reader.post("/v1/jobs", json=JOB).status_code == 403
    assert sender.get("/v1/jobs").status_code == 403
    assert sender.post("/v1/jobs", json=JOB).status_code == 201
    assert len(names(reader)) == 1
