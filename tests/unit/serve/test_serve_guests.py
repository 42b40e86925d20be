"""Guest links: what a guest sees and may do, that they reach nothing else, and that links end."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi.testclient import TestClient
from own_service import JOB, MP4, PNG, Served, made, served

from wanimate.serve.faces.common import cookie_name
from wanimate.serve.keys import Rate
from wanimate.serve.sweep import sweep
from wanimate.serve.tables import DAY, GuestLink, GuestSession, Job, now
from wanimate.serve.worker import loop, reporter

SAME = {"Sec-Fetch-Site": "same-origin"}
OPEN = {
    "/healthz",
    "/readyz",
    "/metrics",
    "/files/{token}/{filename}",
    "/api/v1/uploads/form",
    "/v1/session",
    "/v1/guest",
}
"""What needs nobody to be known."""


@dataclass
class House:
    """A service with a shot of ann's, and another one beside it."""

    served: Served
    job: str
    shot: str
    other_job: str
    other_shot: str

    @property
    def ann(self) -> TestClient:
        return self.served.client("ann")

    def link(self, shot: str = "", **more: Any) -> dict[str, Any]:
        answer = self.ann.post(f"/v1/shots/{shot or self.shot}/links", json=more)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def guest(self, name: str | None = "Gil", shot: str = "", **more: Any) -> TestClient:
        """A browser that has opened a new link."""
        return self.opened(token_of(self.link(shot, **more)), name)

    def opened(self, token: str, name: str | None = "Gil") -> TestClient:
        client = TestClient(self.served.app, headers=SAME)
        answer = client.post("/v1/guest", json={"token": token, **({"name": name} if name else {})})
        assert answer.status_code == 200, answer.text
        return client


def token_of(link: dict[str, Any]) -> str:
    found = re.fullmatch(r"http://testserver/#/guest/([\w-]{43})", link["url"])
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with served(tmp_path_factory.mktemp("guests")) as found, pytest.MonkeyPatch.context() as patch:
        found.runner.gate.set()
        patch.setattr(reporter, "_PACE", 0.01)
        patch.setattr(loop, "_IDLE", 0.01)
        patch.setattr(found.service.forecaster, "_ask", lambda *_: {"machine": {}})
        ann = found.client("ann")
        with found.worker():
            jobs = [made(ann, name=name) for name in ("shown", "hidden")]
            shots = []
            for job in jobs:
                found.waited("ann", job)
                shots.append(ann.post("/v1/shots", json={"job": job}).json()["id"])
        yield House(found, jobs[0], shots[0], jobs[1], shots[1])


@pytest.fixture(autouse=True)
def _patient(house: House) -> None:
    house.served.service.rates = Rate()


# What a guest may do


def test_a_guest_sees_the_shot_its_video_and_its_comments(house: House) -> None:
    house.ann.post(f"/v1/shots/{house.shot}/comments", json={"text": "From ann", "frame": 1})
    assert house.ann.patch(f"/v1/shots/{house.shot}", json={"project": "Secret film"}).status_code == 200
    guest = house.guest()
    shot = guest.get("/v1/guest").json()
    assert shot["project"] == ""
    assert (shot["id"], shot["name"], shot["you"], shot["rights"]) == (house.shot, "shown", "Gil", ["view", "comment"])
    assert "From ann" in [comment["text"] for comment in shot["comments"]]
    video = shot["versions"][0]["video"]
    answer = guest.get(video, headers={"Range": "bytes=0-3"})
    assert (answer.status_code, answer.content) == (206, MP4[:4])
    assert guest.get(video).content == MP4
    assert "sandbox" in answer.headers["content-security-policy"]


def test_a_guest_comments_answers_and_changes_only_their_own(house: House) -> None:
    house.ann.post(f"/v1/shots/{house.shot}/comments", json={"text": "Theirs", "frame": 1})
    guest = house.guest()
    answer = guest.post("/v1/guest/comments", json={"text": "Mine", "frame": 2, "x": 0.5, "y": 0.5, "name": "Ann"})
    found = {comment["text"]: comment for comment in answer.json()["comments"]}
    assert (found["Mine"]["author"], found["Mine"]["role"]) == ("Gil", "guest")
    theirs, mine = (f"/v1/guest/comments/{found[text]['id']}" for text in ("Theirs", "Mine"))
    assert guest.post(f"{theirs}/replies", json={"text": "Yes"}).status_code == 201
    assert guest.patch(theirs, json={"resolved": True}).status_code == 200
    assert guest.patch(theirs, json={"text": "No"}).status_code == 403
    assert guest.delete(theirs).status_code == 403
    assert house.guest("Gil").delete(mine).status_code == 403  # another guest of the same name
    assert guest.delete(mine).status_code == 200


@pytest.mark.parametrize(
    ("rights", "may"),
    [(["view"], (403, 403)), (["comment"], (201, 403)), (["decide", "comment"], (201, 201)), ([], (403, 403))],
)
def test_rights_are_what_was_chosen(house: House, rights: list[str], may: tuple[int, int]) -> None:
    guest = house.guest(rights=rights)
    assert guest.get("/v1/guest").status_code == 200
    said = guest.post("/v1/guest/comments", json={"text": "x", "frame": 0}).status_code
    decided = guest.post("/v1/guest/decisions", json={"state": "approved", "reason": "Fine"})
    assert (said, decided.status_code) == may
    if may[1] == 201:
        made = decided.json()["decisions"][-1]
        assert (made["name"], made["role"], made["reason"]) == ("Gil", "guest", "Fine")


def test_a_guest_learns_no_keys_owners_or_other_links(house: House) -> None:
    house.ann.post(f"/v1/shots/{house.shot}/decisions", json={"state": "approved"})
    link = house.link()
    text = house.opened(token_of(link)).get("/v1/guest").text
    key = house.ann.get("/v1/me").json()["key"]
    for secret in (
        key,
        "key:",
        '"owner":"ann"',
        "guest:",
        "previous_sha256",
        link["id"],
        house.other_job,
        house.other_shot,
    ):
        assert secret not in text


# What a guest reaches


def routes(house: House) -> list[tuple[str, str]]:
    paths = house.served.app.openapi()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def test_a_guest_reaches_nothing_but_the_routes_of_guests(house: House) -> None:
    guest = house.guest(rights=["view", "comment", "decide"])
    cookie = guest.cookies[f"{cookie_name(house.served.service)}_guest"]
    everywhere = TestClient(house.served.app, headers=SAME)
    for name in (cookie_name(house.served.service), f"{cookie_name(house.served.service)}_guest"):
        everywhere.cookies.set(name, cookie)
    bearer = TestClient(house.served.app, headers={**SAME, "Authorization": f"Bearer {cookie}"})
    ids = {"job_id": house.job, "video_id": house.job, "task_id": house.job, "shot_id": house.shot, "id": house.job}
    asked = 0
    for method, path in routes(house):
        if path in OPEN or path.startswith("/v1/guest"):
            continue
        place = re.sub(r"\{(\w+)\}", lambda name: ids.get(name[1], "other"), path)
        for client in (everywhere, bearer):
            answer = client.request(method, place, json={} if method in ("POST", "PATCH") else None)
            assert answer.status_code == 401, (method, path, answer.text)
            asked += 1
    assert asked > 100


def test_a_guest_reaches_no_other_shot(house: House) -> None:
    house.ann.post(f"/v1/shots/{house.other_shot}/comments", json={"text": "secret", "frame": 1})
    secret = house.ann.get(f"/v1/shots/{house.other_shot}").json()["comments"][0]["id"]
    guest = house.guest(rights=["view", "comment", "decide"])
    asked = [
        ("GET", f"/v1/guest/versions/{house.other_job}/video", None),
        ("GET", f"/v1/guest/versions/{house.job}/record", None),
        ("GET", "/v1/guest/versions/..%2f..%2fkeys/video", None),
        ("POST", "/v1/guest/comments", {"text": "x", "frame": 0, "version": house.other_job}),
        ("POST", f"/v1/guest/comments/{secret}/replies", {"text": "x"}),
        ("PATCH", f"/v1/guest/comments/{secret}", {"resolved": True}),
        ("DELETE", f"/v1/guest/comments/{secret}", None),
        ("POST", "/v1/guest/decisions", {"state": "approved", "version": house.other_job}),
    ]
    for method, path, body in asked:
        answer = guest.request(method, path, json=body)
        assert answer.status_code in (400, 404), (method, path, answer.text)
        assert "secret" not in answer.text
    assert guest.get("/v1/guest", params={"shot_id": house.other_shot}).json()["id"] == house.shot


def test_a_key_or_a_session_opens_no_guests_routes(house: House) -> None:
    member = TestClient(house.served.app, headers=SAME)
    member.post("/v1/session", json={"key": house.served.keys["boss"]})
    for method, path in routes(house):
        if path.startswith("/v1/guest") and path != "/v1/guest":
            place = re.sub(r"\{\w+\}", house.job, path).replace(f"/{house.job}/{house.job}", f"/{house.job}/video")
            for client in (house.served.client("boss"), member, TestClient(house.served.app)):
                assert client.request(method, place, json={}).status_code == 401, (method, path)
    assert member.get("/v1/guest").status_code == 401


def test_what_was_uploaded_stays_hidden(house: House) -> None:
    upload = house.ann.post("/v1/uploads", files={"file": ("a.png", PNG)}).json()["id"]
    assert house.guest().get(f"/v1/uploads/{upload}").status_code == 401


# Links


def test_a_link_expires_in_seven_days_unless_said_otherwise(house: House) -> None:
    link = house.link()
    assert abs(link["expires"] - now() - 7 * DAY) < 60_000
    assert (link["rights"], link["works"]) == (["view", "comment"], True)
    for wrong in ({"days": 0}, {"days": 91}, {"days": None}, {"rights": ["admin"]}, {"label": "x" * 81}):
        assert house.ann.post(f"/v1/shots/{house.shot}/links", json=wrong).status_code == 400, wrong


def test_files_are_kept_as_long_as_the_link(house: House) -> None:
    link = house.link(days=80)
    with house.served.service.database.read() as session:
        assert (session.get_one(Job, house.job).expires or 0) >= link["expires"]


def test_the_database_holds_no_token(house: House) -> None:
    link = house.link()
    token = token_of(link)
    guest = house.opened(token)
    cookie = guest.cookies[f"{cookie_name(house.served.service)}_guest"]
    with house.served.service.database.read() as session:
        row = session.get_one(GuestLink, link["id"])
        assert row.digest == hashlib.sha256(token.encode()).hexdigest()
        found = session.get_one(GuestSession, hashlib.sha256(cookie.encode()).hexdigest())
        assert not {token, cookie} & {str(value) for value in [*vars(row).values(), *vars(found).values()]}


def test_an_expired_link_opens_nothing_and_ends_its_sessions(house: House) -> None:
    link = house.link()
    guest = house.opened(token_of(link))
    with house.served.service.database.write() as session:
        session.get_one(GuestLink, link["id"]).expires = now() - 1
    assert guest.get("/v1/guest").status_code == 401
    assert guest.get(f"/v1/guest/versions/{house.job}/video").status_code == 401
    assert guest.post("/v1/guest", json={"token": token_of(link), "name": "Gil"}).status_code == 401
    with house.served.service.database.write() as session:
        session.query(GuestSession).filter_by(link_id=link["id"]).one().expires = 1
    sweep(house.served.service)
    with house.served.service.database.read() as session:
        assert session.query(GuestSession).filter_by(link_id=link["id"]).count() == 0


def test_a_revoked_link_shuts_its_guests_out_at_once(house: House) -> None:
    link, other = house.link(), house.link()
    guest, stays = house.opened(token_of(link)), house.opened(token_of(other))
    assert house.served.client("bob").delete(f"/v1/shots/{house.shot}/links/{link['id']}").status_code == 404
    assert house.ann.delete(f"/v1/shots/{house.other_shot}/links/{link['id']}").status_code == 404
    assert house.ann.delete(f"/v1/shots/{house.shot}/links/{link['id']}").status_code == 200
    assert guest.get("/v1/guest").status_code == 401
    assert stays.get("/v1/guest").status_code == 200
    rows = {row["id"]: row["works"] for row in house.ann.get(f"/v1/shots/{house.shot}/links").json()["data"]}
    assert (rows[link["id"]], rows[other["id"]]) == (False, True)
    assert "token" not in house.ann.get(f"/v1/shots/{house.shot}/links").text


def test_a_link_is_looked_at_before_a_name_is_given(house: House) -> None:
    token = token_of(house.link())
    browser = house.opened(token, None)
    assert not browser.cookies
    told = browser.post("/v1/guest", json={"token": token}).json()
    assert (told["shot"], told["you"]) == ("shown", None)
    browser.post("/v1/guest", json={"token": token, "name": "Gil"})
    assert browser.post("/v1/guest", json={"token": token}).json()["you"] == "Gil"
    another = token_of(house.link())
    assert browser.post("/v1/guest", json={"token": another}).json()["you"] is None
    assert browser.post("/v1/guest", json={"token": token, "name": " "}).status_code == 400
    assert browser.delete("/v1/guest").status_code == 200
    assert browser.get("/v1/guest").status_code == 401


def test_the_cookie_is_for_guests_routes_only(house: House) -> None:
    client = TestClient(house.served.app, headers=SAME)
    answer = client.post("/v1/guest", json={"token": token_of(house.link()), "name": "Gil"})
    assert {"HttpOnly", "Path=/v1/guest", "SameSite=strict"} <= set(answer.headers["set-cookie"].split("; "))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (SAME, 201), ({"Origin": "http://testserver"}, 201), ({}, 403), ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403), ({"Origin": "http://evil.example"}, 403), ({"Origin": "null"}, 403),
    ],
)  # fmt: skip
def test_only_the_page_itself_changes_anything(house: House, headers: dict[str, str], status: int) -> None:
    guest = house.guest()
    guest.headers.pop("sec-fetch-site")
    answer = guest.post("/v1/guest/comments", json={"text": "x", "frame": 0}, headers=headers)
    assert answer.status_code == status, answer.text


def test_another_site_cannot_open_a_link(house: House) -> None:
    client = TestClient(house.served.app, headers={"Origin": "http://evil.example"})
    answer = client.post("/v1/guest", json={"token": token_of(house.link()), "name": "Gil"})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_guessing_and_flooding_are_slowed_down(house: House) -> None:
    guest = house.guest()
    answers = [guest.post("/v1/guest", json={"token": f"x{i}"}).status_code for i in range(30)]
    assert (answers[0], answers[-1]) == (401, 429)
    answers = [guest.patch("/v1/guest/comments/none", json={"resolved": True}).status_code for _ in range(40)]
    assert (answers[0], answers[-1]) == (404, 429)


def test_a_guests_stream_has_the_events_of_the_shot_and_ends_with_the_link(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wanimate.serve.faces.own.stream.PACE", 0.01)
    monkeypatch.setattr("wanimate.serve.faces.own.stream.HEARTBEAT", 0.03)
    link = house.link()
    guest = house.opened(token_of(link))
    house.ann.post(f"/v1/shots/{house.other_shot}/comments", json={"text": "hidden", "frame": 1})
    house.ann.post("/v1/jobs", json={**JOB, "name": "hidden"})
    house.ann.post(f"/v1/shots/{house.shot}/comments", json={"text": "shown", "frame": 1})
    house.ann.delete(f"/v1/shots/{house.shot}/links/{link['id']}")
    other = house.guest()
    with house.served.service.database.write() as session:
        row = session.query(GuestLink).order_by(GuestLink.created.desc()).first()
        assert row is not None
        row.expires = now() + 300
    text = other.get("/v1/guest/events", params={"after": 0}).text
    assert guest.get("/v1/guest/events").status_code == 401
    assert text.endswith(": the link is not valid any more\n\n")
    assert set(re.findall(r"^event: (.*)$", text, re.MULTILINE)) == {"review"}
    assert house.shot in text
    assert not re.search(f"{house.other_shot}|{house.other_job}", text)
