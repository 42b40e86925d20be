"""Owners never see each other: every route of the whole description is asked with a foreign key and foreign ids."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from consents_made import data
from fastapi.testclient import TestClient
from own_service import JOB, PNG, Served, served

OPEN = {
    "/healthz",
    "/readyz",
    "/metrics",
    "/files/{token}/{filename}",
    "/api/v1/uploads/form",
    "/v1/session",
    "/v1/guest",
}
"""Without a key: signs of life, signed links, forms that a signed policy allows, signing in, and opening a guest link."""


@dataclass
class Belongings:
    """Ids of what belongs to ann, and every text that only she may see."""

    job: str
    upload: str
    batch: str
    key: str
    look: str
    entry: str
    shot: str
    consent: str
    secrets: tuple[str, ...]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("owners")) as found:
        found.runner.gate.set()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(found.service.forecaster, "_ask", lambda *_: {"machine": {}})
            yield found


@pytest.fixture(scope="module")
def belongings(service: Served) -> Belongings:
    ann = service.client("ann")
    upload = ann.post("/v1/uploads", files={"file": ("mystery.png", PNG)}).json()["id"]
    entry = ann.post("/v1/library", json={"upload": upload, "name": "mystery", "tags": ["mystery"]}).json()["id"]
    with service.worker():
        job = ann.post("/v1/jobs", json={**JOB, "name": "mystery"}).json()["id"]
        service.waited("ann", job)
        look = ann.post("/v1/people", json={"video": JOB["video"]}).json()["id"]
        service.waited("ann", look)
    shot = ann.post("/v1/shots", json={"job": job}).json()["id"]
    ann.post(f"/v1/shots/{shot}/comments", json={"text": "mystery", "frame": 0})
    batch = ann.post("/v1/batches", json={"jobs": [{**JOB, "name": "mystery"}]}).json()
    key = ann.get("/v1/me").json()
    held = batch["jobs"][0]["id"]
    consent = ann.post("/v1/consents", json={"consent": data(uid="mystery")}).json()["id"]
    secrets = (job, upload, batch["id"], held, look, shot, key["key"], key["webhook_secret"], "mystery", entry)
    return Belongings(job, upload, batch["id"], key["key"], look, entry, shot, consent, secrets)


def routes(service: Served) -> list[tuple[str, str]]:
    paths = service.app.openapi()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def asked(path: str, mine: Belongings) -> str:
    """The path with ann's ids."""
    ids = {
        "job_id": mine.job, "video_id": mine.job, "task_id": mine.job, "upload_id": mine.upload, "batch_id": mine.batch,
        "key_id": mine.key, "id": mine.job, "entry_id": mine.entry,
        "shot_id": mine.shot, "consent_id": mine.consent,
    }  # fmt: skip
    return re.sub(r"\{(\w+)\}", lambda name: ids.get(name[1], "other"), path)


def body_of(path: str, mine: Belongings) -> Any:
    """A body with ann's ids, where the route takes one."""
    return {
        "/v1/jobs": {"kind": "generate", "parent": mine.job},
        "/v1/batches": {"jobs": [{**JOB, "image": {"upload": mine.upload}}]},
        "/v1/queue/order": {"ids": [mine.secrets[3]]},
        "/v1/people": {"video": {"upload": mine.upload}, "wait": 0},
        "/v1/check": {"job": {**JOB, "image": {"upload": mine.upload}}, "wait": 0},
        "/v1/plan": {"clip": mine.look, "frames": 5},
        "/v1/jobs/{job_id}": {"priority": 5},
        "/v1/shots": {"job": mine.job},
        "/v1/shots/{shot_id}": {"name": "taken"},
        "/v1/shots/{shot_id}/versions": {"job": mine.job},
        "/v1/shots/{shot_id}/comments": {"text": "taken", "frame": 0},
        "/v1/shots/{shot_id}/comments/{comment_id}": {"resolved": True},
        "/v1/shots/{shot_id}/comments/{comment_id}/replies": {"text": "taken"},
        "/v1/shots/{shot_id}/decisions": {"state": "approved"},
        "/v1/shots/{shot_id}/links": {},
        "/v1/shots/{shot_id}/handoff": {},
        "/v1/jobs/{job_id}/shot": {"confirm": ["luma"]},
        "/v1/shots/{shot_id}/releases/{release_id}/recalled": {},
        "/v1/keys": {"owner": "ann"},
        "/v1/library": {"job": mine.job, "part": "image"},
        "/v1/library/{entry_id}": {"title": "mine"},
        "/v1/consents/{consent_id}/check": {},
        "/v1/videos/{video_id}/remix": {"prompt": "more"},
    }.get(path)


def test_the_description_has_every_face(service: Served) -> None:
    found = {path for _, path in routes(service)}
    assert {"/v1/jobs/{job_id}/events", "/v1/events", "/v1/uploads/{upload_id}", "/v1/videos/{video_id}"} <= found
    assert len(found) > 40


def test_nobody_gets_in_without_a_key(service: Served, belongings: Belongings) -> None:
    for headers in ({}, {"Authorization": "Bearer wan_wrong"}, {"Authorization": "Basic eDp5"}):
        client = TestClient(service.app, headers=headers)
        for method, path in routes(service):
            if path not in OPEN:
                answer = client.request(method, asked(path, belongings), json=body_of(path, belongings))
                assert answer.status_code == 401, (method, path, answer.text)
                assert not any(secret in answer.text for secret in belongings.secrets), (method, path)


def test_owners_never_see_each_other(service: Served, belongings: Belongings) -> None:
    bob = service.client("bob")
    for method, path in routes(service):
        if path in OPEN or path == "/v1/events":
            continue
        answer = bob.request(method, asked(path, belongings), json=body_of(path, belongings))
        where = (method, path, answer.status_code, answer.text)
        assert answer.status_code < 500 or answer.status_code == 503, where
        if "{" in path and not path.startswith("/api/v1"):
            assert answer.status_code in (403, 404) or path.startswith("/v1/guest/"), where
        told = answer.text.replace(f'"task_id":"{belongings.job}","task_status":"UNKNOWN"', "")
        if method != "POST":
            assert not any(secret in told for secret in belongings.secrets), where
    ann = service.client("ann")
    assert ann.get(f"/v1/jobs/{belongings.job}").json()["state"] == "succeeded"
    assert ann.get(f"/v1/uploads/{belongings.upload}").status_code == 200
    assert ann.get(f"/v1/library/{belongings.entry}").json()["title"] == "mystery"
    assert ann.get(f"/v1/jobs/{belongings.secrets[3]}").json()["priority"] == 0
    assert ann.get("/v1/me").json()["webhook_secret"] == belongings.secrets[7]
    assert ann.get(f"/v1/consents/{belongings.consent}").json()["state"] == "valid"
    shot = ann.get(f"/v1/shots/{belongings.shot}").json()
    assert (shot["name"], len(shot["comments"]), shot["decisions"]) == ("mystery", 1, [])


def test_lists_hold_nothing_of_others_even_with_everybody(service: Served, belongings: Belongings) -> None:
    bob = service.client("bob")
    for path in ("/v1/jobs", "/v1/queue", "/v1/library", "/v1/library/tags", "/v1/consents"):
        found = bob.get(path, params={"everybody": True, "batch": belongings.batch, "search": "mystery"}).text
        assert not any(secret in found for secret in belongings.secrets)
    assert "mystery" in service.client("boss").get("/v1/jobs", params={"everybody": True}).text
