"""The page's files and their headers, and its sessions: what a cookie may do, for whom, and when it ends."""

from __future__ import annotations

import gzip
import hashlib
import queue
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from own_service import Served, served

from wanimate.serve.faces.common import cookie_name
from wanimate.serve.keys import Rate
from wanimate.serve.studio import pages
from wanimate.serve.studio.launch import OWNER, key_of, launch
from wanimate.serve.sweep import sweep
from wanimate.serve.tables import PageSession

SAME = {"Sec-Fetch-Site": "same-origin"}
MOST = 150 * 1024
"""Bytes of script and style together as a browser fetches them."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("studio")) as found:
        yield found


@pytest.fixture(autouse=True)
def _patient(service: Served) -> None:
    """No test is slowed down by how often the ones before have signed in."""
    service.service.rates = Rate()


def stranger(service: Served, **more: Any) -> TestClient:
    return TestClient(service.app, **more)


def signed_in(service: Served, owner: str = "ann", **more: Any) -> TestClient:
    client = stranger(service, **more)
    answer = client.post("/v1/session", json={"key": service.keys[owner]})
    assert answer.json()["owner"] == owner
    return client


# The page


def test_the_page_lets_a_browser_run_nothing_but_its_own_files(service: Served) -> None:
    answer = stranger(service).get("/")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert {"frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"} <= set(policy.split("; "))
    assert "unsafe" not in policy
    assert (answer.headers["x-content-type-options"], answer.headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert not re.search(r"https?://(?!www\.w3\.org)", answer.text)


def test_every_file_of_the_page_is_there_and_kept_for_good(service: Served) -> None:
    client = stranger(service)
    names = re.findall(r'(?:src|href)="(/studio/[^"]+)"', client.get("/").text)
    assert len(names) > 10
    for name in names:
        answer = client.get(name)
        assert answer.status_code == 200, name
        assert "immutable" in answer.headers["cache-control"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_no_file_of_the_page_asks_for_anything_elsewhere() -> None:
    own = [
        path
        for path in pages.STATIC.rglob("*.*")
        if path.suffix in (".js", ".css", ".html") and path.parent.name != "vendor"
    ]
    for path in own:
        assert not re.search(r"""(https?:)?//[a-z0-9-]+\.[a-z]""", path.read_text()), path


def test_a_page_that_a_browser_has_is_not_sent_again(service: Served) -> None:
    client = stranger(service)
    tag = client.get("/").headers["etag"]
    answer = client.get("/", headers={"If-None-Match": tag})
    assert (answer.status_code, answer.content) == (304, b"")


def test_files_of_another_version_and_outside_are_not_there(service: Served) -> None:
    client, digest = stranger(service), pages.site().digest
    for name in ("0000/main.js", f"{digest}/nothing.js", f"{digest}/..%2f..%2fservice.py", "demo/..%2fmannequin"):
        assert client.get(f"/studio/{name}").status_code == 404, name


def test_the_demo_is_served(service: Served) -> None:
    client = stranger(service)
    for path in pages.demo_files():
        assert client.get(f"/studio/demo/{path.name}").content == path.read_bytes()


def test_script_and_style_stay_small() -> None:
    files = pages.site().files
    sizes = {name: len(one.packed) for name, one in files.items() if name.endswith((".js", ".css"))}
    assert sum(sizes.values()) < MOST, sizes
    assert all(gzip.decompress(one.packed) == one.plain for one in files.values())


@pytest.mark.parametrize(
    ("folder", "name"),
    [(pages.STATIC / "vendor", "lit.js"), (Path(__file__).parents[2] / "browser" / "vendor", "axe.min.js")],
)
def test_what_is_vendored_is_what_its_readme_says(folder: Path, name: str) -> None:
    told = re.search(r"SHA-256: `([0-9a-f]{64})`", (folder / "README.md").read_text())
    assert told is not None
    assert told[1] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert (folder / "LICENSE").is_file()


# Sessions


def test_a_session_is_a_cookie_that_holds_no_key(service: Served) -> None:
    client = stranger(service)
    answer = client.post("/v1/session", json={"key": service.keys["ann"]})
    cookie = answer.headers["set-cookie"]
    assert service.keys["ann"] not in cookie
    assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    assert client.get("/v1/me").json()["owner"] == "ann"
    assert client.get("/v1/session").json()["signed_in"] is True


def test_over_https_the_cookie_stays_on_https(service: Served) -> None:
    client = stranger(service, base_url="https://testserver")
    assert "; Secure" in client.post("/v1/session", json={"key": service.keys["ann"]}).headers["set-cookie"]


def test_the_database_holds_no_token(service: Served) -> None:
    client = signed_in(service)
    token = client.cookies[cookie_name(service.service)]
    with service.service.database.read() as session:
        rows = session.query(PageSession).all()
    assert token not in {value for row in rows for value in vars(row).values()}
    assert hashlib.sha256(token.encode()).hexdigest() in {row.digest for row in rows}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (SAME, 200),
        ({"Origin": "http://testserver"}, 200),
        ({}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://testserver", "Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_only_the_page_itself_changes_anything_with_the_cookie(
    service: Served, headers: dict[str, str], status: int
) -> None:
    client = signed_in(service)
    assert client.post("/v1/me/webhook-secret", headers=headers).status_code == status
    assert client.get("/v1/me", headers=headers).status_code == 200


def test_a_key_in_the_header_needs_no_origin_and_wins_over_the_cookie(service: Served) -> None:
    client = signed_in(service, "ann")
    headers = {"Authorization": f"Bearer {service.keys['bob']}", "Origin": "http://elsewhere.example"}
    assert client.post("/v1/me/webhook-secret", headers=headers).json()["owner"] == "bob"
    assert client.get("/v1/me", headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_another_site_cannot_sign_somebody_in(service: Served) -> None:
    answer = stranger(service).post(
        "/v1/session", json={"key": service.keys["ann"]}, headers={"Origin": "http://evil.example"}
    )
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_signing_out_ends_the_session_and_not_only_the_cookie(service: Served) -> None:
    client = signed_in(service)
    name = cookie_name(service.service)
    token = client.cookies[name]
    assert client.delete("/v1/session").status_code == 403
    assert client.delete("/v1/session", headers=SAME).json()["signed_in"] is False
    client.cookies.set(name, token)
    assert client.get("/v1/me").status_code == 401


def test_revoking_the_key_ends_its_sessions_at_once(service: Served) -> None:
    keys = service.service.keys
    secret = keys.create("leaver")
    client = stranger(service)
    client.post("/v1/session", json={"key": secret})
    assert client.get("/v1/me").status_code == 200
    (row,) = keys.list("leaver")
    keys.revoke(row.id)
    assert client.get("/v1/me").status_code == 401


def test_an_expired_session_is_none_and_is_swept(service: Served) -> None:
    client = signed_in(service)
    digest = hashlib.sha256(client.cookies[cookie_name(service.service)].encode()).hexdigest()
    with service.service.database.write() as session:
        session.get_one(PageSession, digest).expires = 1
    assert client.get("/v1/me").status_code == 401
    sweep(service.service)
    with service.service.database.read() as session:
        assert session.get(PageSession, digest) is None


def test_a_link_works_once_and_is_no_session(service: Served) -> None:
    sessions = service.service.sessions
    token = sessions.link(key_of(service.service.keys))
    assert sessions.find(token) is None
    client = stranger(service)
    assert client.post("/v1/session", json={"link": token}).json()["owner"] == OWNER
    assert stranger(service).post("/v1/session", json={"link": token}).status_code == 401
    page = client.cookies[cookie_name(service.service)]
    assert stranger(service).post("/v1/session", json={"link": page}).status_code == 401


def test_the_studio_takes_the_key_that_is_there(service: Served) -> None:
    keys = service.service.keys
    first = key_of(keys)
    assert key_of(keys) == first
    keys.revoke(first)
    assert key_of(keys) != first


@pytest.mark.parametrize("browse", [True, False])
def test_the_studio_opens_or_prints_a_link_that_signs_in(
    service: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], browse: bool
) -> None:
    shown: queue.Queue[str] = queue.Queue()
    monkeypatch.setattr("webbrowser.open", lambda link: shown.put(link) or True)
    monkeypatch.setattr(
        "wanimate.serve.studio.launch.serve", lambda _, opened: opened("http://testserver", None, service.service)
    )
    launch(service.service.settings, browse)
    text = shown.get(timeout=5) if browse else capsys.readouterr().out
    found = re.search(r"http://testserver/#link=(\S+)", text)
    assert found is not None
    assert stranger(service).post("/v1/session", json={"link": found[1]}).json()["owner"] == OWNER


def test_guessing_keys_is_slowed_down(service: Served) -> None:
    client = stranger(service)
    answers = [client.post("/v1/session", json={"key": f"wan_{i}"}).status_code for i in range(40)]
    assert answers[0] == 401
    assert answers[-1] == 429


@pytest.mark.parametrize("body", [{}, {"key": "a", "link": "b"}, {"key": 5}, {"more": "x"}])
def test_a_wrong_sign_in_is_a_400(service: Served, body: dict[str, Any]) -> None:
    assert stranger(service).post("/v1/session", json=body).status_code == 400
