"""The library through the service's own face: added, looked into by a worker, searched, approved, used in jobs."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from live import png
from own_service import JOB, PNG, Served, made, served

sys.path.insert(0, str(Path(__file__).parents[1] / "preprocess"))
from test_preprocess_drive import FakePeople

from wanimate.library import places
from wanimate.library.entries import About, File, Library, Wanted
from wanimate.serve.database import Database
from wanimate.serve.storage import Storage
from wanimate.serve.sweep import sweep_library
from wanimate.serve.tables import Job
from wanimate.serve.worker import wan

CAMERA = {"value": "Static", "confidence": 0.9, "by": "analysis", "at": "2026-11-30T12:00:00+00:00"}


class Counting(FakePeople):
    """Counts the frames that it is asked to track."""

    tracked = 0

    def track(self, frames: Any, tracker: Any = None) -> Any:
        frames = list(frames)
        type(self).tracked += len(frames)
        return super().track(iter(frames), tracker)


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr("wanimate.library.look._people_and_camera", lambda _clip: (2, CAMERA))
    monkeypatch.setattr("wanimate.preprocess.drive.open_detector", lambda _settings: Counting())
    monkeypatch.setattr(Counting, "tracked", 0)
    with served(tmp_path / "data") as found:
        yield found


@pytest.fixture
def ann(service: Served) -> TestClient:
    return service.client("ann")


@contextmanager
def real_worker(service: Served) -> Iterator[None]:
    """The runner of real jobs, within the block."""
    service.runner = wan.WanRunner(service.service.settings, "cpu")  # type: ignore[assignment]
    loop = service.loop()
    thread = threading.Thread(target=loop.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.stop()
        thread.join(20)
        assert not thread.is_alive()


def clip(path: Path, frames: int = 21, tint: int = 60) -> bytes:
    random = np.random.default_rng(tint)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=Fraction(10), options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for _ in range(frames):
            frame = random.integers(tint, 255, (6, 8, 3), np.uint8).repeat(40, 0).repeat(40, 1)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        file.mux(stream.encode())
    return path.read_bytes()


def sent(client: TestClient, filename: str, data: bytes) -> str:
    return str(client.post("/v1/uploads", params={"filename": filename}, content=data).json()["id"])


def added(client: TestClient, upload: str, **said: Any) -> dict[str, Any]:
    answer = client.post("/v1/library", json={"upload": upload, **said})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def looked_into(service: Served, owner: str, entry: dict[str, Any]) -> dict[str, Any]:
    """The entry once a worker has looked into it."""
    for _ in range(400):
        found: dict[str, Any] = service.client(owner).get(f"/v1/library/{entry['id']}").json()
        if not found["looking"]:
            return found
        threading.Event().wait(0.05)
    raise AssertionError(found)


def put(service: Served, name: str, owner: str, shelf: Any = "clip", **said: Any) -> str:
    """An entry that was looked into. Returns its id."""
    content = name.encode().hex().ljust(64, "0")[:64]
    file = File(shelf, f"{name}.mp4", ".mp4", content, 4, [b"clip"])
    return service.service.library.add(owner, file, About(name=name, **said), {"width": 64, "height": 48}).id


def listed(client: TestClient, **query: Any) -> list[str]:
    answer = client.get("/v1/library", params=query)
    assert answer.status_code == 200, answer.text
    return [entry["name"] for entry in answer.json()["data"]]


def test_a_clip_is_added_looked_into_and_used_again_and_again(service: Served, ann: TestClient, tmp_path: Path) -> None:
    """One pass over the clip for three jobs with two characters."""
    data = clip(tmp_path / "wave.mp4")
    said = {"name": "wave-03", "title": "Wave", "kind": "dance-loop", "tags": ["Slow"], "licence": "cc0-1.0"}
    entry = added(ann, sent(ann, "wave.mp4", data), **said)
    assert (entry["looking"], entry["preview"], entry["status"]) == (True, None, "proposed")
    hero = sent(ann, "hero.png", png(90, 256))
    other = sent(ann, "other.png", png(140, 256))
    with real_worker(service):
        seen = looked_into(service, "ann", entry)
        assert (seen["width"], seen["height"], seen["fps"], seen["people"]) == (320, 240, "10", 2)
        assert (seen["tags"], seen["licence"], seen["camera"]) == (["slow"], "CC0-1.0", CAMERA)
        anybody = TestClient(service.app)
        for link, kind in (("preview", "video/mp4"), ("poster", "image/webp"), ("file", "video/mp4")):
            answer = anybody.get(seen[link])
            assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
        assert anybody.get(seen["file"]).content == data
        jobs = []
        for image in (hero, hero, other):
            body = {"kind": "preprocess", "image": {"upload": image}, "video": {"library": "wave-03"}}
            body["preprocess"] = {"area": 320 * 240, "face_size": 64}
            jobs.append(service.waited("ann", made(ann, **body)))
            if len(jobs) == 1:
                assert Counting.tracked >= 21
                Counting.tracked = 0
        assert Counting.tracked == 0
    assert [job["state"] for job in jobs] == ["succeeded"] * 3, jobs
    first, second, third = (_row(service, job["id"]) for job in jobs)
    assert first.guides == second.guides != third.guides
    assert [job["facts"]["frames"] for job in jobs] == [21] * 3
    assert jobs[1]["facts"]["library"]["video"]["name"] == "wave-03"
    assert {*first.result} == {*second.result}
    assert service.service.storage.exists(second.result["pose"])
    ann.delete(f"/v1/jobs/{jobs[0]['id']}")
    assert service.service.storage.exists(second.result["pose"])
    assert listed(ann) == ["wave-03"]
    assert "library" not in {job["kind"] for job in ann.get("/v1/jobs").json()["data"]}


def _row(service: Served, job_id: str) -> Job:
    with service.service.database.read() as session:
        return session.get_one(Job, job_id)


def test_what_no_worker_can_read_says_why(service: Served, ann: TestClient) -> None:
    entry = added(ann, sent(ann, "bad.mp4", b"\x00\x00\x00\x18ftypisom and no more"), licence="CC0-1.0")
    with real_worker(service):
        seen = looked_into(service, "ann", entry)
    assert seen["trouble"]
    assert seen["preview"] is None
    refused = service.client("boss").post(f"/v1/library/{entry['id']}/approve")
    assert (refused.status_code, refused.json()["error"]["field"]) == (400, "entry")


def test_approval_is_for_admins_and_is_written_down(service: Served, ann: TestClient) -> None:
    entry, boss = put(service, "wave", "ann"), service.client("boss")
    assert ann.post(f"/v1/library/{entry}/approve").status_code == 403
    refused = boss.post(f"/v1/library/{entry}/approve")
    assert (refused.status_code, refused.json()["error"]["field"]) == (400, "licence")
    assert (
        ann.patch(f"/v1/library/{entry}", json={"licence": "LicenseRef-house"}).json()["licence"] == "LicenseRef-house"
    )
    approved = boss.post(f"/v1/library/{entry}/approve").json()
    assert (approved["status"], approved["approved_by"]) == ("approved", "boss")
    assert ann.patch(f"/v1/library/{entry}", json={"tags": ["x"], "title": "T"}).json()["status"] == "approved"
    assert ann.patch(f"/v1/library/{entry}", json={"licence": None}).json()["status"] == "proposed"
    assert boss.post(f"/v1/library/{entry}/retire").json()["status"] == "retired"
    told = [row["what"] for row in boss.get("/v1/audit").json()["data"] if row["target"] == entry]
    assert told == ["library.retire", "library.change", "library.change", "library.approve", "library.change"]


def test_retired_entries_and_wrong_names_are_refused_with_their_field(service: Served, ann: TestClient) -> None:
    retired = put(service, "old", "ann")
    put(service, "hero", "ann", "character")
    put(service, "theirs", "bob")
    service.client("boss").post(f"/v1/library/{retired}/retire")
    for video, why in (
        ("old", "retired"),
        ("none", "no such entry"),
        ("hero", "is a character"),
        ("theirs", "no such"),
    ):
        answer = ann.post("/v1/jobs", json={**JOB, "video": {"library": video}})
        error = answer.json()["error"]
        assert (answer.status_code, error["field"]) == (400, "video"), error
        assert why in error["message"]
    both = {"library": "old", "upload": "file_1"}
    assert ann.post("/v1/jobs", json={**JOB, "video": both}).status_code == 400
    mask = {**JOB, "mode": "replacement", "mask": {"library": "old"}}
    assert ann.post("/v1/jobs", json=mask).json()["error"]["field"] == "mask"
    assert made(ann, image={"library": "hero"})


def test_only_approved_clips_where_the_policy_says_so(tmp_path: Path) -> None:
    with served(tmp_path, clips="approved") as service:
        ann, boss = service.client("ann"), service.client("boss")
        clip_id = put(service, "wave", "ann", licence="CC0-1.0")
        put(service, "hero", "ann", "character")
        assert ann.get("/v1/models").json()["clips"] == "approved"

        def refused(**job: Any) -> str:
            answer = ann.post("/v1/jobs", json={**JOB, **job})
            assert answer.status_code == 400, answer.text
            return str(answer.json()["error"]["field"])

        upload = sent(ann, "wave.mp4", b"\x00\x00\x00\x18ftypisom the very same file")
        assert refused() == refused(video={"upload": upload}) == refused(video={"library": "wave"}) == "video"
        assert refused(kind="preprocess") == "video"
        assert ann.post("/v1/people", json={"video": {"upload": upload}, "wait": 0}).status_code == 202
        batch = ann.post("/v1/batches", json={"jobs": [{**JOB, "video": {"library": "wave"}}]})
        assert batch.json()["error"]["field"] == "video"
        boss.post(f"/v1/library/{clip_id}/approve")
        assert refused(video={"library": "wave"}, image={"library": "hero"}) == "image"
        service.runner.gate.set()
        with service.worker():
            job = made(ann, video={"library": "wave"})
            assert service.waited("ann", job)["state"] == "succeeded"
        made(ann, kind="generate", parent=job)
        with service.service.database.write() as session:
            row = session.get_one(Job, job)
            row.facts = row.facts | {"seed": 7}
        made(ann, kind="finish", parent=job, output={"upscale": "2x"})
        boss.post(f"/v1/library/{clip_id}/retire")
        assert refused(kind="generate", parent=job, generate={"seed": 8}) == "parent"
        assert refused(kind="redraw", parent=job, segment=1) == "parent"
        assert refused(kind="finish", parent=job, output={"upscale": "2x"}) == "parent"


def test_the_house_is_seen_by_all_and_changed_by_admins(service: Served, ann: TestClient) -> None:
    bob, boss = service.client("bob"), service.client("boss")
    house, own = put(service, "house-clip", ""), put(service, "own-clip", "ann", tags=["mystery"])
    assert (listed(ann), listed(bob), listed(boss)) == (["own-clip", "house-clip"], ["house-clip"], ["house-clip"])
    assert set(listed(boss, everybody=True)) == {"house-clip", "own-clip"}
    assert listed(bob, everybody=True) == ["house-clip"]
    assert bob.get("/v1/library/tags").json()["data"] == []
    assert ann.get("/v1/library/tags", params={"shelf": "clip"}).json()["data"] == [{"tag": "mystery", "entries": 1}]
    for answer in (ann.patch(f"/v1/library/{house}", json={"title": "x"}), ann.delete(f"/v1/library/{house}")):
        assert answer.status_code == 403
    for answer in (
        bob.get(f"/v1/library/{own}"),
        bob.patch(f"/v1/library/{own}", json={}),
        bob.delete(f"/v1/library/{own}"),
    ):
        assert answer.status_code == 404
    assert ann.get("/v1/library/own-clip").status_code == 404  # routes take ids
    upload = sent(ann, "a.mp4", b"\x00\x00\x00\x18ftypisom x")
    assert ann.post("/v1/library", json={"upload": upload, "house": True}).status_code == 403
    assert boss.patch(f"/v1/library/{house}", json={"title": "New"}).json()["title"] == "New"
    assert made(bob, video={"library": "house-clip"})


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "upload"), ({"upload": "none"}, "upload"), ({"upload": "u", "job": "j"}, "upload"),
        ({"upload": "U", "name": "No Name"}, "name"), ({"upload": "U", "licence": "mine"}, "licence"),
        ({"upload": "U", "kind": "song"}, "kind"), ({"upload": "U", "tags": ["a,b"]}, "tags"),
        ({"upload": "U", "name": "taken"}, "name"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(service: Served, ann: TestClient, body: dict[str, Any], field: str) -> None:
    put(service, "taken", "ann")
    upload = sent(ann, "a.mp4", b"\x00\x00\x00\x18ftypisom x")
    answer = ann.post("/v1/library", json={**body, **({"upload": upload} if body.get("upload") == "U" else {})})
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, field), answer.text
    assert listed(ann) == ["taken"]


def test_the_inputs_of_a_job_come_into_the_library(service: Served, ann: TestClient) -> None:
    hero, video = PNG, b"\x00\x00\x00\x18ftypisom a dance"
    job = made(
        ann, name="Noon", image={"upload": sent(ann, "h.png", hero)}, video={"upload": sent(ann, "v.mp4", video)}
    )
    entry = ann.post("/v1/library", json={"job": job}).json()
    assert (entry["shelf"], entry["title"], entry["size"]) == ("clip", "Noon", len(video))
    assert TestClient(service.app).get(entry["file"]).content == video
    character = ann.post("/v1/library", json={"job": job, "part": "image", "name": "hero"}).json()
    assert (character["shelf"], character["name"], character["kind"]) == ("character", "hero", None)
    again = ann.post("/v1/library", json={"job": job})
    assert (again.status_code, again.json()["error"]["field"]) == (400, "file")
    assert service.client("bob").post("/v1/library", json={"job": job}).status_code == 404


def test_an_owner_has_so_much_room(tmp_path: Path) -> None:
    with served(tmp_path, largest_library=20) as service:
        ann = service.client("ann")
        added(ann, sent(ann, "a.mp4", b"\x00\x00\x00\x18ftypisom 1"))
        full = ann.post("/v1/library", json={"upload": sent(ann, "b.mp4", b"\x00\x00\x00\x18ftypisom 2")})
        assert full.status_code == 429


def test_pages_follow_each_other(service: Served, ann: TestClient) -> None:
    for i in range(7):
        put(service, f"clip-{i}", "ann")
    pages, cursor = [], None
    while True:
        page = ann.get("/v1/library", params={"limit": 3, **({"cursor": cursor} if cursor else {})}).json()
        assert page["total"] == 7
        pages.append([entry["name"] for entry in page["data"]])
        cursor = page["next"]
        if cursor is None:
            break
    assert pages == [["clip-6", "clip-5", "clip-4"], ["clip-3", "clip-2", "clip-1"], ["clip-0"]]
    assert ann.get("/v1/library", params={"cursor": "x"}).json()["error"]["field"] == "cursor"


def test_files_of_nobody_are_swept_and_others_stay(service: Served, ann: TestClient) -> None:
    entry = put(service, "wave", "ann")
    row = service.service.library.find(entry, None)
    assert row is not None
    job = made(ann, video={"library": "wave"})
    ann.delete(f"/v1/library/{entry}")
    storage = service.service.storage
    kept, lost = places.file_of(row.sha256, ".mp4"), places.file_of("e" * 64, ".mp4")
    assert storage.exists(kept)
    storage.put(lost, [b"x"])
    assert sweep_library(service.service, -1) == 1
    assert storage.exists(kept)
    ann.post(f"/v1/jobs/{job}/cancel")
    assert sweep_library(service.service, -1) == 1
    assert storage.list("library") == []


def test_guides_that_nobody_uses_go_and_the_clip_stays(service: Served, ann: TestClient) -> None:
    entry = put(service, "wave", "ann")
    row, storage = service.service.library.find(entry, None), service.service.storage
    assert row is not None
    old, held, fresh = (places.guides_of(row.sha256, key) for key in ("old", "held", "fresh"))
    month = 31 * 24 * 3600
    for place in (old, held, fresh):
        for name in (f"{place}/guides/pose.mkv", f"{place}/whole"):
            storage.put(name, [b"x"])
            path = storage.local_path(name)
            assert path is not None
            os.utime(path, (path.stat().st_atime, path.stat().st_mtime - month))
    storage.put(f"{fresh}/whole", [b"x"])
    job = made(ann)
    with service.service.database.write() as session:
        session.get_one(Job, job).guides = held
    assert sweep_library(service.service) == 2
    assert not storage.list(old)
    assert [len(storage.list(place)) for place in (held, fresh)] == [2, 2]
    assert storage.exists(places.file_of(row.sha256, ".mp4"))


def test_both_databases_search_alike(database: Database, tmp_path: Path) -> None:
    library = Library(database, Storage(tmp_path / "files", b"s" * 16))
    for i, (name, title, tags) in enumerate(
        (("wave-03", "Große Welle", ["slow"]), ("nod", '100 % "yes" O\'Neil', ["a b", "ünder", "50%"]))
    ):
        library.add(
            "", File("clip", "x.mp4", ".mp4", f"{i:064x}", 1, [b"x"]), About(name, title, "dance-loop", tags), None
        )

    def found(**wanted: Any) -> set[str]:
        return {entry.name for entry in library.search(Wanted(**wanted), "ann").entries}

    assert found(search="gross wav") == {"wave-03"}
    assert found(search="o'neil 100") == {"nod"}
    assert found(search="%") == set()
    for tags in (("a b",), ("ünder", "50%")):
        assert found(tags=tags, status="proposed", shelf="clip") == {"nod"}
    for tags in (("%",), ("a_b",), ("nder",)):
        assert found(tags=tags) == set()
    entry = library.find("nod", "ann")
    assert entry is not None
    library.change(entry.id, About(title="No"))
    assert found(search="yes") == set()
    library.remove(entry.id)
    assert found() == {"wave-03"}


def test_what_was_found_stays_when_the_look_is_removed(service: Served, ann: TestClient) -> None:
    entry = added(ann, sent(ann, "hero.png", png(90, 64)))
    with service.service.database.read() as session:
        row = session.scalar(sa.select(Job).where(Job.kind == "library"))
    assert row is not None
    with real_worker(service):
        service.waited("ann", row.id)
    ann.delete(f"/v1/jobs/{row.id}")
    seen = ann.get(f"/v1/library/{entry['id']}").json()
    assert (seen["trouble"], seen["width"], seen["shelf"]) == (None, 64, "character")


def test_a_look_that_was_cancelled_says_so(service: Served, ann: TestClient) -> None:
    entry = added(ann, sent(ann, "hero.png", png(90, 64)))
    with service.service.database.read() as session:
        (job,) = session.scalars(sa.select(Job.id).where(Job.kind == "library"))
    ann.post(f"/v1/jobs/{job}/cancel")
    assert ann.get(f"/v1/library/{entry['id']}").json()["trouble"] == "Nobody has looked into the file."


def test_a_job_of_a_clip_that_has_gone_says_so(service: Served, ann: TestClient) -> None:
    entry = put(service, "wave", "ann")
    row = service.service.library.find(entry, None)
    assert row is not None
    job = made(ann, image={"upload": sent(ann, "h.png", png(90, 256))}, video={"library": "wave"})
    service.service.storage.remove(places.file_of(row.sha256, ".mp4"))
    with real_worker(service):
        failed = service.waited("ann", job)
    assert failed["error"]["message"] == "video: the file is not kept any more."


def test_the_interface_describes_it(service: Served) -> None:
    described = httpx.Response(200, json=service.app.openapi()).json()
    for path in ("/v1/library", "/v1/library/tags", "/v1/library/{entry_id}", "/v1/library/{entry_id}/approve"):
        assert path in described["paths"], path
    assert "library" in described["components"]["schemas"]["Source"]["properties"]
