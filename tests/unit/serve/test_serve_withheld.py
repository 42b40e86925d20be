"""Results that the service keeps to itself: every way to fetch one is refused until it is approved, and again afterwards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from held import consent
from own_service import MP4, Pretender, Served, made, served
from test_serve_mcp import tools

from wanimate.events import Event
from wanimate.serve.approvals.house import Approvals
from wanimate.serve.tables import Hook, Job, Release, ShotVersion
from wanimate.serve.worker import loop, reporter
from wanimate.serve.worker.work import Work

REFUSED = (403, "ApprovalRequired")


class Own(Pretender):
    """Makes other bytes for each job, as networks do."""

    def generate(self, work: Work) -> Iterator[Event]:
        yield from super().generate(work)
        work.storage.put(work.result["video"], [content(work.job.id)])


def content(job: str) -> bytes:
    return MP4 + job.encode()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("withheld")
    (folder / "policy.toml").write_text('approvals = 2\nheld = ["replacement"]\n')
    with served(folder, policy=folder / "policy.toml") as found, pytest.MonkeyPatch.context() as patch:
        found.runner = Own()
        found.runner.gate.set()
        patch.setattr(reporter, "_PACE", 0.01)
        patch.setattr(loop, "_IDLE", 0.01)
        with found.worker():
            yield found


def finished(house: Served, mode: str = "replacement", **more: Any) -> str:
    job = made(house.client("ann"), mode=mode, **more)
    assert house.waited("ann", job)["state"] == "succeeded"
    return job


def shot(house: Served, job: str) -> dict[str, Any]:
    found: dict[str, Any] = house.client("ann").post("/v1/shots", json={"job": job}).json()
    return found


def decide(
    house: Served, shot_id: str, owner: str, state: str = "approved", version: str | None = None
) -> dict[str, Any]:
    answer = house.client(owner).post(f"/v1/shots/{shot_id}/decisions", json={"state": state, "version": version})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def fetched(house: Served, job: str) -> dict[str, tuple[int, str]]:
    """What each way to a result answers: its status, and the code of a refusal."""
    ann, files = house.client("ann"), {}
    for file in ann.get(f"/v1/jobs/{job}/files").json()["data"]:
        files[file["name"]] = ann.get(file["url"])
    files["hosted"] = ann.get(ann.get(f"/api/v1/tasks/{job}").json()["output"]["video_url"])
    files["openai"] = ann.get(f"/v1/videos/{job}/content")
    files["part"] = ann.get(files["hosted"].request.url, headers={"Range": "bytes=0-3"})
    wanted = ("video", "hosted", "openai", "part")
    return {
        name: (one.status_code, one.json()["error"]["code"] if one.status_code >= 400 else "")
        for name, one in files.items() if name in wanted
    }  # fmt: skip


def of_the_page(house: Served) -> TestClient:
    """A browser with the page's session."""
    link = house.service.sessions.link(next(row.id for row in house.service.keys.list("ann") if "submit" in row.scopes))
    page = TestClient(house.app, headers={"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"})
    assert page.post("/v1/session", json={"link": link}).status_code in (200, 201)
    return page


def test_a_replacement_is_served_once_enough_people_have_approved_it(house: Served) -> None:
    job = finished(house, name="withheld")
    found = shot(house, job)["id"]
    assert set(fetched(house, job).values()) == {REFUSED}
    once = decide(house, found, "ann")
    assert (once["state"], once["versions"][0]["approval"]["given"]) == ("needs_review", 1)
    assert set(fetched(house, job).values()) == {REFUSED}
    assert decide(house, found, "boss")["state"] == "approved"
    assert {status for status, _ in fetched(house, job).values()} == {200, 206}
    house.client("ann").post(f"/v1/shots/{found}/decisions", json={"state": "needs_review"})
    assert set(fetched(house, job).values()) == {REFUSED}


def test_two_that_ask_at_once_are_one_release(house: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A player asks for several parts of a video side by side."""
    job = finished(house, name="at once")
    found = shot(house, job)["id"]
    for owner in ("ann", "boss"):
        decide(house, found, owner)
    ann = house.client("ann")
    url = next(one["url"] for one in ann.get(f"/v1/jobs/{job}/files").json()["data"] if one["name"] == "video")
    both, used = Barrier(2, timeout=20), Approvals.used

    def counted(self: Approvals, *given: Any) -> None:
        both.wait()  # neither has found a release of the other
        used(self, *given)

    monkeypatch.setattr(Approvals, "used", counted)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: ann.get(url).status_code, range(2)))
    assert answers == [200, 200]
    assert len(ann.get(f"/v1/shots/{found}/releases").json()["data"]) == 1


def test_an_animation_is_served_as_before(house: Served) -> None:
    assert {status for status, _ in fetched(house, finished(house, "animation", name="free")).values()} == {200, 206}


def test_what_is_refused_says_what_is_missing(house: Served) -> None:
    job = finished(house, name="told")
    answer = house.client("ann").get(f"/v1/videos/{job}/content")
    assert "needs an approval" in answer.json()["error"]["message"]
    assert "0 of 2 approvals" in answer.json()["error"]["message"]


def test_reviewers_see_it_in_the_player_and_nowhere_else(house: Served) -> None:
    job = finished(house, name="player")
    found = shot(house, job)
    place = found["versions"][0]["video"]
    assert place == f"/v1/jobs/{job}/watch"
    assert house.client("ann").get(place).status_code == 403
    assert TestClient(house.app).get(place).status_code == 401
    seen = of_the_page(house).get(place)
    assert (seen.status_code, seen.content) == (200, content(job))
    assert seen.headers["content-disposition"].startswith("inline")
    link = house.client("ann").post(f"/v1/shots/{found['id']}/links", json={"rights": ["view"]}).json()
    guest = TestClient(house.app, headers={"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"})
    guest.post("/v1/guest", json={"token": link["url"].rpartition("/")[2], "name": "Gus"})
    assert guest.get(f"/v1/guest/versions/{job}/video").content == content(job)
    assert guest.get(f"/v1/videos/{job}/content").status_code == 401


def test_a_result_that_was_replaced_in_the_storage_is_refused(house: Served) -> None:
    job = finished(house, name="swapped")
    found = shot(house, job)["id"]
    for owner in ("ann", "boss"):
        decide(house, found, owner)
    assert fetched(house, job)["video"][0] == 200
    with house.service.database.read() as session:
        stored = session.get_one(Job, job).result["video"]
    house.service.storage.put(stored, [MP4])
    assert fetched(house, job)["video"] == REFUSED


def test_what_is_fetched_is_written_down_once_and_asked_back_with_a_webhook(house: Served) -> None:
    hook = {"url": "https://example.org/hook", "events": ["job.revoked"]}
    job = finished(house, name="told of", webhook=hook)
    found = shot(house, job)["id"]
    for owner in ("ann", "boss"):
        decide(house, found, owner)
    fetched(house, job)
    gone = house.client("ann").get(f"/v1/shots/{found}/releases").json()["data"]
    mine = [one for one in gone if one["state"] == "left"]
    assert [(one["way"], one["place"]) for one in mine] == [("download", "owner ann")]
    decide(house, found, "ann", "needs_review")
    with house.service.database.read() as session:
        body = json.loads(session.scalars(sa.select(Hook.body).where(Hook.job_id == job)).one())
    assert body["type"] == "job.revoked"
    assert body["data"]["output_sha256"] == hashlib.sha256(content(job)).hexdigest()
    assert body["data"]["to_be_taken_back"] == ["owner ann"] * len(body["data"]["to_be_taken_back"])
    ann = house.client("ann")
    path = f"/v1/shots/{found}/releases/{mine[0]['id']}/recalled"
    assert house.client("bob").post(path, json={}).status_code == 404
    answer = ann.post(path, json={"note": "deleted"})
    assert (answer.status_code, answer.json()["state"], answer.json()["note"]) == (200, "taken_back", "deleted")


def test_a_finished_version_of_a_held_result_is_held(house: Served) -> None:
    parent = finished(house, name="master")
    job = made(house.client("ann"), kind="finish", parent=parent, image=None, video=None, output={"upscale": "1080p"})
    assert house.waited("ann", job)["state"] == "succeeded"
    assert fetched(house, job)["video"] == REFUSED


def test_a_policy_that_cannot_be_read_serves_nothing(house: Served) -> None:
    job = finished(house, "animation", name="unreadable")
    ann = house.client("ann")
    url = ann.get(f"/v1/jobs/{job}/files").json()["data"]
    place: Path = house.service.settings.policy or Path()
    text = place.read_text()
    place.write_text("approvals = 'many'")
    try:
        assert ann.get(next(one["url"] for one in url if one["name"] == "video")).status_code == 503
        assert ann.get(f"/v1/videos/{job}/content").status_code == 503
    finally:
        place.write_text(text)


def test_a_file_whose_job_is_gone_is_not_served(house: Served) -> None:
    job = finished(house, name="gone")
    url = house.client("ann").get(f"/api/v1/tasks/{job}").json()["output"]["video_url"]
    with house.service.database.write() as session:
        session.execute(sa.delete(Job).where(Job.id == job))
    assert house.client("ann").get(url).status_code == 404


def test_a_language_model_is_told_that_people_have_to_approve(house: Served) -> None:
    told = tools(house)("status", job=finished(house, name="model"))
    assert "approval" in told["withheld"]
    assert "withheld" not in tools(house)("status", job=finished(house, "animation", name="model free"))


def test_pictures_on_the_way_to_a_job_are_not_held(house: Served) -> None:
    job = finished(house, name="on the way")
    with house.service.database.write() as session:
        row = session.get_one(Job, job)
        row.result = {"with": row.result["video"]}
    (file,) = [one for one in house.client("ann").get(f"/v1/jobs/{job}/files").json()["data"] if one["name"] == "with"]
    assert house.client("ann").get(file["url"]).status_code == 200


def test_without_a_policy_file_nothing_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with served(tmp_path / "data") as free, free.worker():
        free.runner.gate.set()
        job = made(free.client("ann"), mode="replacement")
        free.waited("ann", job)
        assert {status for status, _ in fetched(free, job).values()} == {200, 206}
        with free.service.database.read() as session:
            assert session.scalar(sa.select(sa.func.count()).select_from(Release)) == 0


def test_consents_are_asked_at_every_fetch(tmp_path: Path) -> None:
    """Also where marks of the file are known from the first one."""
    policy = tmp_path / "policy.toml"
    policy.write_text("consents = true\n")
    with served(tmp_path / "data", policy=policy) as found, found.worker():
        found.runner.gate.set()
        job = made(found.client("ann"))
        found.waited("ann", job)
        for place, asset in enumerate("12"):
            found.service.consents.add(consent(asset * 64, f"urn:consent:{place}", f"urn:person:{place}"), "", "ann")
        with found.service.database.write() as session:
            version = session.get_one(ShotVersion, job)
            inputs = {kind: {"sha256": f"sha256:{asset * 64}"} for kind, asset in (("image", "1"), ("video", "2"))}
            version.facts = {**version.facts, "made": {"inputs": inputs}}
        assert {status for status, _ in fetched(found, job).values()} == {200, 206}
        found.service.consents.withdraw("urn:consent:0", None, "ann")
        assert set(fetched(found, job).values()) == {REFUSED}
