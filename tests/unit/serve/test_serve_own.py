"""The service's own face: jobs, batches, the queue, keys."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from own_service import JOB, MP4, PNG, Served, made, names, served

from wanimate.serve.tables import Job

if TYPE_CHECKING:
    from postgres_cluster import Cluster


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as found:
        yield found


@pytest.fixture
def ann(service: Served) -> TestClient:
    return service.client("ann")


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
        ({**JOB, "webhook": {"url": "ftp://example.org"}}, "webhook.url"),
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
        redrawn = ann.post("/v1/jobs", json={"kind": "redraw", "parent": frames["id"], "segment": 1, "name": "anew"})
        assert redrawn.status_code == 201
        assert names(ann, parent=frames["id"]) == ["anew"]
        redraw = {"kind": "redraw", "parent": frames["id"]}
        beyond = ann.post("/v1/jobs", json=redraw | {"segment": 3})
        assert (beyond.status_code, beyond.json()["error"]["field"]) == (400, "segment")
        otherwise = ann.post("/v1/jobs", json=redraw | {"segment": 2, "generate": {"steps": 3, "seed": 9}})
        assert (otherwise.status_code, otherwise.json()["error"]["field"]) == (400, "generate.steps")
        seeded = ann.post("/v1/jobs", json=redraw | {"segment": 2, "generate": {"seed": 9}}).json()
        assert seeded["submission"]["generate"] == {"seed": 9}
        larger = {"kind": "finish", "parent": frames["id"], "output": {"upscale": "1080p"}}
        finished = ann.post("/v1/jobs", json=larger).json()
        assert (finished["stage"], finished["submission"]["output"]) == ("generate", {"upscale": "1080p"})
        drawn_anew = ann.post("/v1/jobs", json=larger | {"generate": {"seed": 9}})
        assert (drawn_anew.status_code, drawn_anew.json()["error"]["field"]) == (400, "generate.seed")
        no_size = ann.post("/v1/jobs", json=larger | {"output": {"upscale": "huge"}})
        assert (no_size.status_code, no_size.json()["error"]["field"]) == (400, "upscale")
        no_video = ann.post("/v1/jobs", json={"kind": "redraw", "parent": guides, "segment": 1})
        assert no_video.status_code == 400
        assert service.client("bob").post("/v1/jobs", json={"kind": "generate", "parent": guides}).status_code == 400


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


def test_postgres_answers_the_same(tmp_path: Path, postgres: Cluster) -> None:
    with served(tmp_path, database=postgres.url) as service:
        with service.service.database.write() as session:
            session.execute(sa.delete(Job))
        ann, boss = service.client("ann"), service.client("boss")
        ids = [made(ann, name=name) for name in ("a%", "b", "c")]
        assert names(ann, search="%") == ["a%"]
        assert names(ann, search="\0") == names(ann, parent="\0") == []
        page = ann.get("/v1/jobs", params={"limit": 2}).json()
        assert [job["name"] for job in page["data"]] == ["c", "b"]
        assert [job["name"] for job in ann.get("/v1/jobs", params={"cursor": page["next"]}).json()["data"]] == ["a%"]
        ann.post("/v1/queue/order", json={"ids": ids[::-1]})
        assert queued(ann) == ["c", "b", "a%"]
        assert ann.get(f"/v1/jobs/{ids[0]}").json()["position"] == 3
        assert boss.get("/v1/stats").json()["states"] == {"pending": 3}
        assert ann.get("/v1/me").json()["usage"]["queued"] == 3
        assert ann.get("/v1/jobs/a%00b").status_code == 404
        assert ann.get("/v1/uploads/a%00b").status_code == 404
        assert ann.get("/v1/batches/a%00b").status_code == 404
        assert boss.delete("/v1/keys/a%00b").status_code == 404
        assert boss.get("/v1/audit", params={"what": "\0"}).json()["data"] == []
        assert boss.get("/v1/keys", params={"owner": "\0"}).json()["data"] == []


def test_scopes(service: Served) -> None:
    reader, sender = service.client("reader"), service.client("sender")
    assert reader.post("/v1/jobs", json=JOB).status_code == 403
    assert sender.get("/v1/jobs").status_code == 403
    assert sender.post("/v1/jobs", json=JOB).status_code == 201
    assert len(names(reader)) == 1
