"""Storage: the same promises in a folder, in memory and on an S3 server (moto's)."""

from __future__ import annotations

import base64
import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from wanimate.errors import InputError, OutputError
from wanimate.media import files
from wanimate.media.names import temporary_name
from wanimate.serve.storage import NotStored, Signed, Storage, StorageAway, checked_name

SECRET = b"sixteen bytes or more"
KEYS = {"key": "one", "secret": "two"}


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of an S3 server with a bucket "films"."""
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=address, aws_access_key_id="one", aws_secret_access_key="two", region_name="us-east-1"
    )
    client.create_bucket(Bucket="films")
    yield address
    server.stop()


def objects(address: str, prefix: str, **more: Any) -> Storage:
    return Storage(f"s3://{prefix}", SECRET, {**KEYS, "endpoint_url": address, **more})


@pytest.fixture(params=["folder", "memory", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return Storage(tmp_path / "store", SECRET)
    if request.param == "memory":
        return Storage(f"memory://{tmp_path.name}", SECRET)
    return objects(request.getfixturevalue("s3"), f"films/{tmp_path.name}")


def content(storage: Storage, name: str, *span: int) -> bytes:
    return b"".join(storage.read(name, *span))


def test_what_is_put_is_there(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"0123456789")
    assert storage.put("jobs/one/video.mp4", tmp_path / "source") == 10
    assert storage.put("jobs/one/record.json", iter([b"{", b"}"])) == 2
    assert storage.put("empty", []) == 0
    assert storage.size("jobs/one/video.mp4") == 10
    assert content(storage, "jobs/one/record.json") == b"{}"
    assert content(storage, "empty") == b""
    assert storage.exists("empty")
    assert not storage.exists("jobs/one")
    assert not storage.exists("jobs/one/video.mp4/more")
    found = storage.list("jobs")
    assert [(one.name, one.size) for one in found] == [("jobs/one/record.json", 2), ("jobs/one/video.mp4", 10)]
    assert all(abs(one.modified - os.stat(tmp_path / "source").st_mtime) < 60 for one in found)


def test_ranges(storage: Storage) -> None:
    storage.put("a", [b"0123456789"])
    assert content(storage, "a", 3) == b"3456789"
    assert content(storage, "a", 3, 5) == b"34"
    assert content(storage, "a", 3, 99) == b"3456789"
    assert content(storage, "a", 10) == b""
    assert content(storage, "a", 4, 2) == b""
    with pytest.raises(ValueError, match="from the beginning"):
        storage.read("a", -1)


def test_large_files_come_in_pieces(storage: Storage) -> None:
    whole = os.urandom(9 << 20)
    storage.put("large", [whole])
    pieces = list(storage.read("large", 1))
    assert b"".join(pieces) == whole[1:]
    assert max(map(len, pieces)) <= 4 << 20


def test_a_second_file_takes_the_place_of_the_first(storage: Storage) -> None:
    storage.put("a", [b"first"])
    storage.put("a", [b"second one"])
    assert content(storage, "a") == b"second one"
    assert storage.size("a") == 10


def test_half_a_file_is_none(storage: Storage) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError("the sender went away")

    storage.put("old", [b"old"])
    for name in ("new", "old"):
        with pytest.raises(RuntimeError, match="went away"):
            storage.put(name, broken())
    assert not storage.exists("new")
    assert content(storage, "old") == b"old"
    assert [one.name for one in storage.list()] == ["old"]


def test_fetch_replaces_a_local_file_and_leaves_nothing_else(storage: Storage, tmp_path: Path) -> None:
    storage.put("a", [b"stored"])
    place = tmp_path / "work" / "deep" / "clip"
    for _ in range(2):
        storage.fetch("a", place)
        assert place.read_bytes() == b"stored"
        assert os.listdir(place.parent) == ["clip"]
    with pytest.raises(NotStored):
        storage.fetch("b", tmp_path / "work" / "b")
    assert not (tmp_path / "work" / "b").exists()


def test_what_is_missing_is_told(storage: Storage) -> None:
    for action in (storage.size, storage.read, storage.stat):
        with pytest.raises(NotStored, match="jobs/none is not stored"):
            action("jobs/none")
    storage.remove("jobs/none")
    storage.remove_tree("jobs")
    assert storage.list("jobs") == []


def test_removing(storage: Storage) -> None:
    for name in ("job/1/a", "job/1/b/c", "job/10/a", "job/1.json"):
        storage.put(name, [b"x"])
    storage.remove("job/1/a")
    assert [one.name for one in storage.list("job/1")] == ["job/1/b/c"]
    storage.remove_tree("job/1")
    assert [one.name for one in storage.list()] == ["job/1.json", "job/10/a"]


def test_an_object_beside_a_prefix_of_its_name_stays(s3: str, tmp_path: Path) -> None:
    storage = objects(s3, f"films/{tmp_path.name}")
    for name in ("job/1", "job/1/a"):
        storage.put(name, [b"x"])
    assert [one.name for one in storage.list("job/1")] == ["job/1/a"]
    storage.remove_tree("job/1")
    assert [one.name for one in storage.list()] == ["job/1"]


BAD = [
    "", "/", "/a", "a/", "a//b", "..", "a/../b", "./a", ".hidden", "a/.b", "a b", "a\\b", "ä", "a\n", "a\0", "a:b", "a%2e",
    "a" * 201, "/".join("a" * 150 for _ in range(6)), "~", "a*", "s3://a",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_names_are_refused_everywhere(tmp_path: Path, name: str) -> None:
    storage = Storage(tmp_path, SECRET)
    calls: list[Any] = [
        lambda: storage.put(name, [b"x"]),
        lambda: storage.read(name),
        lambda: storage.stat(name),
        lambda: storage.fetch(name, tmp_path / "x"),
        lambda: storage.remove(name),
        lambda: storage.remove_tree(name),
        lambda: storage.local_path(name),
        lambda: storage.sign(name, 1, "a"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="not a name"):
            call()
    assert os.listdir(tmp_path) == []


def test_good_names() -> None:
    for name in ("a", "a/b", "0.mp4", "jobs/2026-11-30/a_b-c.d", "-", "_", "a..b"):
        assert checked_name(name) == name


def test_a_folder_as_url(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}/store", SECRET)
    storage.put("a/b", [b"x"])
    assert storage.local_path("a/b") == tmp_path / "store" / "a" / "b"
    assert (tmp_path / "store").stat().st_mode & 0o077 == 0
    storage.remove("a/b")
    assert os.listdir(tmp_path / "store") == []


def test_fetch_copies_where_links_are_not_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    storage = Storage(tmp_path / "store", SECRET)
    storage.put("a", [b"stored"])
    monkeypatch.setattr(os, "link", refuse)
    storage.fetch("a", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"stored"
    assert sorted(os.listdir(tmp_path)) == ["copy", "store"]


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(tmp_path / "store", SECRET)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(files.AtomicFile, "write", full)
    with pytest.raises(StorageAway, match="no space"):
        storage.put("a/b", [b"x"])
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


def test_a_folder_that_is_gone_is_away_and_not_empty(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "store", SECRET)
    (tmp_path / "store").rename(tmp_path / "aside")
    for call in (lambda: storage.exists("a"), storage.list, lambda: storage.size("a")):
        with pytest.raises(StorageAway, match="gone"):
            call()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="a part of its path is a file"):
        Storage(tmp_path / "file" / "store", SECRET)


def test_a_file_and_its_neighbours_removal_do_not_collide(tmp_path: Path) -> None:
    """Removing the last file of a folder removes the folder, while another thread puts the next file into it."""
    storage = Storage(tmp_path, SECRET)
    failed = []

    def work(own: str) -> None:
        try:
            for _ in range(150):
                storage.put(f"job/deep/{own}", [b"x"])
                storage.remove(f"job/deep/{own}")
        except Exception as e:  # the test shows what it was
            failed.append(e)

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


@pytest.mark.parametrize("why", [FileNotFoundError, FileExistsError])
def test_a_folder_that_goes_while_it_is_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: type[OSError]
) -> None:
    """`mkdir` says that the folder is there, and it is gone when it is looked at."""
    storage, made, failures = Storage(tmp_path, SECRET), Path.mkdir, [why(errno.EEXIST, "raced")]

    def mkdir(path: Path, *args: Any, **more: Any) -> None:
        if path.name == "deep" and failures:
            raise failures.pop()
        made(path, *args, **more)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    storage.put("job/deep/a", [b"x"])
    assert b"".join(storage.read("job/deep/a")) == b"x"


def test_sweep_removes_what_the_dead_have_left(tmp_path: Path) -> None:
    storage = Storage(tmp_path, SECRET)
    storage.put("job/a", [b"x"])
    living = temporary_name(tmp_path / "job" / "b")
    dead = subprocess.run(
        [sys.executable, "-c", f"from wanimate.media.names import *; print(temporary_name(Path({str(living)!r})))"],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ).stdout.strip()  # fmt: skip
    living.write_bytes(b"half")
    Path(dead).write_bytes(b"half")
    assert [one.name for one in storage.list()] == ["job/a"]
    assert storage.sweep() == 1
    assert living.exists()
    assert not Path(dead).exists()


def test_a_bucket_that_is_missing_is_away(s3: str, tmp_path: Path) -> None:
    storage = objects(s3, "nowhere/x")
    (tmp_path / "a").write_bytes(b"x")
    for call in (
        lambda: storage.exists("a"),
        lambda: storage.size("a"),
        lambda: storage.put("a", tmp_path / "a"),
        lambda: storage.list("a"),
        lambda: storage.remove_tree("a"),
    ):
        with pytest.raises(StorageAway):
            call()


def test_a_server_that_is_away() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        config = {"connect_timeout": 1, "retries": {"max_attempts": 0}}
        storage = objects(f"http://127.0.0.1:{taken.getsockname()[1]}", "films/x", config_kwargs=config)
        for call in (lambda: storage.exists("a"), lambda: storage.put("a", [b"x"])):
            with pytest.raises(StorageAway, match="cannot be used"):
                call()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    for known in ("s3", "s3a"):
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, known, raising=False)
    with pytest.raises(InputError, match=r"wanimate\[s3\]"):
        Storage("s3://films/x", SECRET)


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(InputError, match="storage = nonsense://x"):
        Storage("nonsense://x", SECRET)


def test_links_open_what_was_signed(tmp_path: Path) -> None:
    storage = Storage(tmp_path, SECRET)
    token = storage.sign("jobs/one/video.mp4", 1_000, "Größe 1.mp4")
    assert storage.opened(token, 999) == Signed("jobs/one/video.mp4", "Größe 1.mp4")
    assert storage.opened(token, 1_000) is None
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert len(token) < 90
    assert Storage(tmp_path, b"another secret key").opened(token, 0) is None


def test_changed_links_open_nothing(tmp_path: Path) -> None:
    storage = Storage(tmp_path, SECRET)
    token = storage.sign("a", 1_000, "a.mp4")
    data = base64.urlsafe_b64decode(token + "==="[: -len(token) % 4])
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        assert storage.opened(base64.urlsafe_b64encode(changed).rstrip(b"=").decode(), 0) is None
    for text in ("", "a", token[:-1], token + "A", token + "ä", "=", "a" * 9, token.replace(token[3], "+"), "\0"):
        assert storage.opened(text, 0) is None


def test_short_secrets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        Storage(tmp_path, b"short")
