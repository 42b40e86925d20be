"""Stored files over HTTP: links, ranges, headers."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from wanimate.serve.files import file_response, link_path, router
from wanimate.serve.storage import Signed, Storage

BODY = bytes(range(256)) * 4
NAME = "jobs/one/video.mp4"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = Storage(tmp_path / "store", b"sixteen bytes or more")
    storage.put(NAME, [BODY])
    return storage


@pytest.fixture
def client(storage: Storage) -> TestClient:
    app = FastAPI()
    app.include_router(router(storage))
    return TestClient(app)


def link(storage: Storage, name: str = NAME, filename: str = "video.mp4", seconds: int = 60) -> str:
    return link_path(storage, name, int(time.time()) + seconds, filename)


def test_the_whole_file(storage: Storage, client: TestClient) -> None:
    got = client.get(link(storage))
    assert (got.status_code, got.content) == (200, BODY)
    assert got.headers["content-length"] == "1024"
    assert got.headers["content-type"] == "video/mp4"
    assert got.headers["accept-ranges"] == "bytes"
    assert got.headers["content-disposition"] == 'inline; filename="video.mp4"'
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert "content-range" not in got.headers


RANGES = {
    "bytes=0-0": (0, 1), "bytes=0-9": (0, 10), "bytes=10-": (10, 1024), "bytes=-10": (1014, 1024), "bytes=-9999": (0, 1024),
    "bytes=1000-99999999": (1000, 1024), "bytes=1023-1023": (1023, 1024), "bytes= 5 - 7": (5, 8), "bytes=0-1023": (0, 1024),
}  # fmt: skip


@pytest.mark.parametrize("text", RANGES)
def test_a_range(storage: Storage, client: TestClient, text: str) -> None:
    start, stop = RANGES[text]
    got = client.get(link(storage), headers={"Range": text})
    assert (got.status_code, got.content) == (206, BODY[start:stop])
    assert got.headers["content-range"] == f"bytes {start}-{stop - 1}/1024"
    assert got.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize("text", ["bytes=1024-", "bytes=9999-99999", "bytes=-0"])
def test_a_range_that_is_not_there(storage: Storage, client: TestClient, text: str) -> None:
    got = client.get(link(storage), headers={"Range": text})
    assert (got.status_code, got.content, got.headers["content-range"]) == (416, b"", "bytes */1024")


@pytest.mark.parametrize(
    "text",
    [
        "bytes=0-1,5-6",
        "bytes=5-4",
        "bytes=-",
        "bytes=a-b",
        "lines=0-1",
        "",
        "bytes=0-" + "9" * 40,
        "bytes=-1-2",
        "bytes=١-٢",
    ],
)
def test_ranges_that_are_answered_with_the_whole_file(storage: Storage, client: TestClient, text: str) -> None:
    got = client.get(link(storage), headers=[("Range", text.encode())])
    assert (got.status_code, got.content) == (200, BODY)


def test_an_empty_file(storage: Storage, client: TestClient) -> None:
    storage.put("empty", [])
    got = client.get(link(storage, "empty"))
    assert (got.status_code, got.content, got.headers["content-length"]) == (200, b"", "0")
    for text in ("bytes=0-", "bytes=-1", "bytes=0-0"):
        assert client.get(link(storage, "empty"), headers={"Range": text}).status_code == 416


def test_head_says_the_same_without_the_body(storage: Storage, client: TestClient) -> None:
    whole, head = client.get(link(storage)), client.head(link(storage))
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers == whole.headers
    assert client.head(link(storage), headers={"Range": "bytes=0-1"}).status_code == 200


def test_what_the_client_has_is_not_sent_again(storage: Storage, client: TestClient) -> None:
    etag = client.get(link(storage)).headers["etag"]
    for text in (etag, f'"x", {etag}', f"W/{etag}", "*"):
        got = client.get(link(storage), headers={"If-None-Match": text, "Range": "bytes=0-1"})
        assert (got.status_code, got.content, got.headers["etag"]) == (304, b"", etag)
    assert client.get(link(storage), headers={"If-None-Match": '"x"'}).status_code == 200


def test_a_file_that_changed_is_sent_whole(storage: Storage, client: TestClient) -> None:
    etag = client.get(link(storage)).headers["etag"]
    ask = {"Range": "bytes=0-1", "If-Range": etag}
    assert client.get(link(storage), headers=ask).status_code == 206
    storage.put(NAME, [BODY + b"more"])
    got = client.get(link(storage), headers=ask)
    assert (got.status_code, got.content) == (200, BODY + b"more")
    date = {"Range": "bytes=0-1", "If-Range": "Mon, 30 Nov 2026 00:00:00 GMT"}
    assert client.get(link(storage), headers=date).status_code == 200


NAMES = {
    "a.png": ("image/png", 'inline; filename="a.png"'),
    "a.MOV": ("video/quicktime", 'inline; filename="a.MOV"'),
    "Tänzer 1.mp4": ("video/mp4", "inline; filename=\"T_nzer 1.mp4\"; filename*=UTF-8''T%C3%A4nzer%201.mp4"),
    "a.json": ("application/json", 'attachment; filename="a.json"'),
    "a.html": ("application/octet-stream", 'attachment; filename="a.html"'),
    "a.svg": ("application/octet-stream", 'attachment; filename="a.svg"'),
    "../a\r\nX: y\".mp4": ("video/mp4", 'inline; filename="a__X_ y_.mp4"'),
    "": ("application/octet-stream", 'attachment; filename="file"'),
}  # fmt: skip


@pytest.mark.parametrize("filename", NAMES)
def test_type_and_name(storage: Storage, client: TestClient, filename: str) -> None:
    got = client.get(link(storage, filename=filename))
    assert got.status_code == 200
    assert (got.headers["content-type"], got.headers["content-disposition"]) == NAMES[filename]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_links_that_open_nothing(storage: Storage, client: TestClient, method: str) -> None:
    token, good = link(storage).split("/")[2], link(storage)
    for path in (
        link(storage, seconds=-1),
        good.replace(token, token[:-1]),
        good.replace(token, "a" + token),
        "/files/a/b",
        "/files/%00/b",
    ):
        got = client.request(method, path)
        assert got.status_code == 403
        if method == "GET":
            assert got.json()["error"]["code"] == "InvalidLink"


def test_a_file_that_is_gone(storage: Storage, client: TestClient) -> None:
    path = link(storage)
    storage.remove(NAME)
    got = client.get(path)
    assert (got.status_code, got.json()["error"]["code"]) == (404, "NotFound")


def test_a_storage_that_is_away(storage: Storage, client: TestClient, tmp_path: Path) -> None:
    path = link(storage)
    shutil.rmtree(tmp_path / "store")
    got = client.get(path)
    assert (got.status_code, got.json()["error"]["code"], got.headers["retry-after"]) == (
        503,
        "ServiceUnavailable",
        "5",
    )
    assert str(tmp_path) not in got.text


def test_a_large_file_is_not_held(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.put("large.mp4", [bytes(3 << 20)])
    read, taken = storage.read, []

    def counted(*span: Any) -> Iterator[bytes]:
        for piece in read(*span):
            taken.append(len(piece))
            yield piece

    monkeypatch.setattr(storage, "read", counted)
    file_response(storage, Signed("large.mp4", "a.mp4"), "HEAD", {})
    assert taken == []
    file_response(storage, Signed("large.mp4", "a.mp4"), "GET", {"range": "bytes=1-"})
    assert taken == [1 << 18]
