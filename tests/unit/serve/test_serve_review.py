"""Reviews over HTTP: stacks, comments, decisions, exports; what is kept, and that owners are kept apart."""

from __future__ import annotations

import csv
import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from own_service import JOB, MP4, Served, made, served
from serve_jobs import SUBMISSION, add_job

from wanimate.review import chain
from wanimate.review.records import Remark, State
from wanimate.serve.database import Database
from wanimate.serve.events import EventStream
from wanimate.serve.reviews import Reviewer
from wanimate.serve.reviews.shots import Wanted
from wanimate.serve.service import Service
from wanimate.serve.settings import ServeSettings
from wanimate.serve.sweep import sweep
from wanimate.serve.tables import DAY, Audit, Job, Shot, ShotComment, ShotDecision, ShotVersion, now
from wanimate.serve.worker import loop, reporter


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("review")) as found, pytest.MonkeyPatch.context() as patch:
        found.runner.gate.set()
        patch.setattr(reporter, "_PACE", 0.01)
        patch.setattr(loop, "_IDLE", 0.01)
        with found.worker():
            yield found


def finished(service: Served, owner: str = "ann", **more: Any) -> str:
    job = made(service.client(owner), **more)
    assert service.waited(owner, job)["state"] == "succeeded"
    return job


def shot_of(service: Served, job: str, owner: str = "ann", **more: Any) -> dict[str, Any]:
    answer = service.client(owner).post("/v1/shots", json={"job": job, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def said(client: TestClient, shot: str, **more: Any) -> dict[str, Any]:
    answer = client.post(f"/v1/shots/{shot}/comments", json={"text": "Here", "frame": 3, **more})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def decided(client: TestClient, shot: str, state: str, **more: Any) -> dict[str, Any]:
    answer = client.post(f"/v1/shots/{shot}/decisions", json={"state": state, **more})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def jobs(shot: dict[str, Any]) -> list[str]:
    return [version["job"] for version in shot["versions"]]


# Stacks


def test_a_redraw_and_the_same_again_are_versions_of_one_shot(service: Served) -> None:
    first = finished(service, name="Wave")
    redraw = finished(service, kind="redraw", parent=first, segment=2, image=None, video=None)
    again = service.client("ann").post(f"/v1/jobs/{redraw}/again", json={"generate": {"seed": 8}}).json()["id"]
    service.waited("ann", again)
    other = finished(service, name="Wave")
    shot = shot_of(service, again)
    assert jobs(shot) == [first, redraw, again]
    assert [version["number"] for version in shot["versions"]] == [1, 2, 3]
    assert (shot["name"], shot["state"]) == ("Wave", "needs_review")
    assert shot_of(service, other)["id"] != shot["id"]


def test_videos_from_the_same_guides_are_versions_of_one_shot(service: Served) -> None:
    guides = finished(service, kind="preprocess")
    made = [finished(service, kind="generate", parent=guides, image=None, video=None) for _ in range(2)]
    assert jobs(shot_of(service, made[0])) == made
    assert service.client("ann").post("/v1/shots", json={"job": guides}).status_code == 409


def test_a_version_whose_first_one_is_not_finished_finds_it_later(service: Served) -> None:
    ann = service.client("ann")
    first = made(ann, name="slow")
    ann.patch(f"/v1/jobs/{first}", json={"held": True})
    second = finished(service, version_of=first)
    ann.patch(f"/v1/jobs/{first}", json={"held": False})
    service.waited("ann", first)
    assert set(jobs(shot_of(service, first))) == {first, second}


def test_a_foreign_job_is_no_first_version(service: Served) -> None:
    answer = service.client("bob").post("/v1/jobs", json={**JOB, "version_of": finished(service)})
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, "version_of")


def test_a_person_names_a_shot_and_stacks_by_hand(service: Served) -> None:
    ann = service.client("ann")
    first, second = finished(service, name="one"), finished(service, name="two")
    shot, left = shot_of(service, first), shot_of(service, second)
    said(ann, left["id"], text="This was said before.")
    answer = ann.post(f"/v1/shots/{shot['id']}/versions", json={"job": second})
    assert jobs(answer.json()) == [first, second]
    assert [comment["text"] for comment in answer.json()["comments"]] == ["This was said before."]
    assert ann.get(f"/v1/shots/{left['id']}").status_code == 404
    assert ann.patch(f"/v1/shots/{shot['id']}", json={"name": "Scene 12"}).json()["name"] == "Scene 12"
    put = ann.patch(f"/v1/shots/{shot['id']}", json={"project": "Spring"}).json()
    assert (put["name"], put["project"]) == ("Scene 12", "Spring")
    assert ann.patch(f"/v1/shots/{shot['id']}", json={"project": "a\nb"}).status_code == 400
    assert ann.patch(f"/v1/shots/{shot['id']}", json={"project": ""}).json()["project"] == ""
    alone = shot_of(service, second, alone=True)
    assert jobs(alone) == [second]
    assert jobs(ann.get(f"/v1/shots/{shot['id']}").json()) == [first]


def test_what_was_decided_on_stays_in_its_shot(service: Served) -> None:
    ann = service.client("ann")
    first, second = finished(service), finished(service)
    decided(ann, shot_of(service, second)["id"], "approved")
    answer = ann.post(f"/v1/shots/{shot_of(service, first)['id']}/versions", json={"job": second})
    assert answer.status_code == 409


# Comments


def test_a_comment_is_pinned_drawn_answered_and_resolved(service: Served) -> None:
    ann = service.client("ann")
    job = finished(service)
    shot = shot_of(service, job)["id"]
    marks = [{"points": [[0.1, 0.2], [0.3, 0.4]], "colour": "#ff0000", "width": 0.01}]
    (comment,) = said(ann, shot, text=" The hand is gone. ", duration=5, x=0.25, y=0.5, marks=marks, name="Ann Lee")[
        "comments"
    ]
    assert (comment["text"], comment["author"], comment["role"]) == ("The hand is gone.", "Ann Lee", "owner")
    assert (comment["job"], comment["frame"], comment["duration"]) == (job, 3, 5)
    assert (comment["x"], comment["y"], comment["marks"]) == (0.25, 0.5, marks)
    assert comment["mine"] == [comment["id"]]
    place = f"/v1/shots/{shot}/comments/{comment['id']}"
    reply = ann.post(f"{place}/replies", json={"text": "Seen."}).json()["comments"][0]["replies"][0]
    assert (reply["text"], reply["author"]) == ("Seen.", "ann")
    done = ann.patch(place, json={"resolved": True, "name": "Bo"}).json()["comments"][0]
    assert (done["resolved_by"], done["resolved"] is not None) == ("Bo", True)
    assert ann.patch(place, json={"resolved": False}).json()["comments"][0]["resolved"] is None
    assert ann.patch(place, json={"text": "Changed"}).json()["comments"][0]["text"] == "Changed"
    assert service.client("boss").patch(place, json={"text": "Not mine"}).status_code == 403
    assert ann.post(f"/v1/shots/{shot}/comments/{reply['id']}/replies", json={"text": "x"}).status_code == 400
    assert ann.delete(place).status_code == 200
    assert ann.get(f"/v1/shots/{shot}").json()["comments"] == []


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"frame": 100}, "frame"), ({"frame": 98, "duration": 3}, "duration"), ({"frame": -1}, "frame"),
        ({"text": " "}, "text"),
        ({"x": 2, "y": 0}, "x"), ({"marks": [{"points": [[0, 5]]}]}, "marks.0.points.0.1"), ({"more": 1}, "more"),
        ({"name": "a\nb"}, "name"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_comment_is_told_by_field(service: Served, wrong: dict[str, Any], field: str) -> None:
    shot = shot_of(service, finished_once(service))["id"]
    answer = service.client("ann").post(f"/v1/shots/{shot}/comments", json={"text": "Here", "frame": 3, **wrong})
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, field), answer.text


_once: dict[int, str] = {}


def finished_once(service: Served) -> str:
    """One job for tests that change nothing."""
    if id(service) not in _once:
        _once[id(service)] = finished(service, name="kept")
    return _once[id(service)]


# Decisions


def test_changes_are_asked_a_new_version_comes_and_is_approved(service: Served) -> None:
    ann, boss = service.client("ann"), service.client("boss")
    first = finished(service, name="round")
    shot = shot_of(service, first)["id"]
    asked = decided(ann, shot, "changes_asked", reason="The hand.", name="Ann Lee")
    assert (asked["state"], asked["versions"][0]["state"]) == ("changes_asked", "changes_asked")
    second = finished(service, version_of=first)
    found = ann.get(f"/v1/shots/{shot}").json()
    assert (jobs(found), found["state"]) == ([first, second], "needs_review")
    done = decided(boss, shot, "approved")
    assert (done["state"], [version["state"] for version in done["versions"]]) == (
        "approved", ["changes_asked", "approved"],
    )  # fmt: skip
    assert [(one["state"], one["name"], one["role"], one["reason"]) for one in done["decisions"]] == [
        ("changes_asked", "Ann Lee", "owner", "The hand."), ("approved", "boss", "admin", ""),
    ]  # fmt: skip
    assert done["decisions"][1]["output_sha256"] == hashlib.sha256(MP4).hexdigest()
    assert done["decisions"][1]["record"]["previous_sha256"] == done["decisions"][0]["digest"]
    back = decided(ann, shot, "needs_review", version=second)
    assert (back["state"], back["decisions"][2]["record"]["decision"]) == ("needs_review", "revoked")
    assert ann.post(f"/v1/shots/{shot}/decisions", json={"state": "needs_review"}).status_code == 409


@pytest.mark.parametrize("how", ["edit", "drop", "head"])
def test_a_chain_that_was_changed_is_told_and_takes_no_more(service: Served, how: str) -> None:
    ann = service.client("ann")
    shot = shot_of(service, finished(service))["id"]
    for state in ("changes_asked", "approved"):
        decided(ann, shot, state)
    assert ann.get(f"/v1/shots/{shot}").json()["intact"] is True
    with service.service.database.write() as session:
        row = session.get_one(ShotDecision, (shot, 2))
        if how == "edit":
            row.record = row.record.replace('"approved"', '"rejected"')
        elif how == "drop":
            session.delete(row)
        else:
            session.get_one(Shot, shot).head = ""
    assert ann.get(f"/v1/shots/{shot}").json()["intact"] is False
    answer = ann.post(f"/v1/shots/{shot}/decisions", json={"state": "approved"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "ChainBroken")


def test_a_record_that_cannot_be_read_hides_nothing_else(service: Served) -> None:
    ann = service.client("ann")
    shot = shot_of(service, finished(service))["id"]
    decided(ann, shot, "approved")
    with service.service.database.write() as session:
        session.get_one(ShotDecision, (shot, 1)).record = "{"
    found = ann.get(f"/v1/shots/{shot}").json()
    assert (found["intact"], found["decisions"]) == (False, [])


def test_another_file_than_was_decided_on_is_not_approved(service: Served) -> None:
    ann = service.client("ann")
    job = finished(service)
    shot = shot_of(service, job)["id"]
    decided(ann, shot, "changes_asked")
    with service.service.database.read() as session:
        stored = session.get_one(Job, job).result["video"]
    service.service.storage.put(stored, [b"something else"])
    answer = ann.post(f"/v1/shots/{shot}/decisions", json={"state": "approved"})
    assert (answer.status_code, answer.json()["error"]["field"]) == (409, "version")


def test_what_is_gone_cannot_be_approved(service: Served) -> None:
    ann = service.client("ann")
    job = finished(service)
    shot = shot_of(service, job)["id"]
    said(ann, shot)
    ann.delete(f"/v1/jobs/{job}")
    found = ann.get(f"/v1/shots/{shot}").json()
    assert (found["versions"][0]["kept"], found["versions"][0]["video"]) == (False, None)
    assert found["comments"][0]["text"] == "Here"
    assert ann.post(f"/v1/shots/{shot}/decisions", json={"state": "approved"}).status_code == 409


def test_the_chain_in_the_database_is_the_one_that_was_answered(service: Served) -> None:
    shot = shot_of(service, finished(service))["id"]
    found = decided(service.client("ann"), shot, "approved")
    with service.service.database.read() as session:
        row = session.get_one(ShotDecision, (shot, 1))
        head = session.get_one(Shot, shot).head
    assert chain.digest(row.record) == row.digest == head == found["decisions"][0]["digest"]
    assert json.loads(row.record) == found["decisions"][0]["record"]


def test_an_owner_of_a_long_name_decides_as_everybody(service: Served) -> None:
    service.keys["long"] = service.service.keys.create("o" * 200)
    shot = shot_of(service, finished(service, "long"), "long")["id"]
    client = service.client("long")
    assert said(client, shot)["comments"][0]["author"] == "o" * 80
    assert decided(client, shot, "approved")["decisions"][0]["name"] == "o" * 80


# What is kept


def test_files_of_a_review_are_kept_longer_and_untouched_shots_go(service: Served) -> None:
    plain, reviewed = finished(service), finished(service)
    quiet = shot_of(service, plain)["id"]
    shot = shot_of(service, reviewed)["id"]
    said(service.client("ann"), shot)
    with service.service.database.write() as session:
        assert (session.get_one(Job, reviewed).expires or 0) > now() + 29 * DAY
        assert (session.get_one(Job, plain).expires or 0) < now() + 2 * DAY
        session.get_one(Job, plain).expires = 1
    later = finished(service, version_of=reviewed)
    sweep(service.service)
    ann = service.client("ann")
    assert ann.get(f"/v1/shots/{quiet}").status_code == 404
    assert jobs(ann.get(f"/v1/shots/{shot}").json()) == [reviewed, later]
    with service.service.database.read() as session:
        assert session.get(ShotVersion, plain) is None
        assert (session.get_one(Job, later).expires or 0) > now() + 29 * DAY


# Lists, owners, events


def test_lists_are_filtered_and_paged(service: Served) -> None:
    bob = service.client("bob")
    shots = [shot_of(service, finished(service, "bob", name=f"bob {i}"), "bob")["id"] for i in range(3)]
    decided(bob, shots[0], "approved")
    said(bob, shots[1])
    rows = bob.get("/v1/shots").json()["data"]
    assert [row["id"] for row in rows] == [shots[1], shots[0], shots[2]]
    assert [(row["versions"], row["open"], row["state"]) for row in rows][:2] == [
        (1, 1, "needs_review"),
        (1, 0, "approved"),
    ]
    assert [row["id"] for row in bob.get("/v1/shots", params={"state": "approved"}).json()["data"]] == [shots[0]]
    assert [row["id"] for row in bob.get("/v1/shots", params={"search": "bob 2"}).json()["data"]] == [shots[2]]
    first = bob.get("/v1/shots", params={"limit": 2}).json()
    second = bob.get("/v1/shots", params={"limit": 2, "cursor": first["next"]}).json()
    assert [row["id"] for row in second["data"]] == [shots[2]]
    assert bob.get("/v1/shots", params={"cursor": "?"}).status_code == 400


def test_owners_are_kept_apart_and_admins_see_all(service: Served) -> None:
    job = finished_once(service)
    shot = shot_of(service, job)["id"]
    bob, boss, reader = service.client("bob"), service.client("boss"), service.client("reader")
    assert bob.get(f"/v1/shots/{shot}").status_code == 404
    assert bob.post("/v1/shots", json={"job": job}).status_code == 404
    assert boss.get(f"/v1/shots/{shot}").json()["id"] == shot
    assert shot not in {row["id"] for row in bob.get("/v1/shots", params={"everybody": True}).json()["data"]}
    assert shot in {row["id"] for row in boss.get("/v1/shots", params={"everybody": True, "limit": 200}).json()["data"]}
    theirs = shot_of(service, finished(service, "bob"), "bob")["id"]
    assert boss.post(f"/v1/shots/{theirs}/versions", json={"job": job}).status_code == 409
    assert reader.get(f"/v1/shots/{shot}").json()["rights"] == ["view"]
    assert reader.post(f"/v1/shots/{shot}/comments", json={"text": "x", "frame": 0}).status_code == 403


def test_every_change_is_an_event_and_a_line_of_the_audit(service: Served) -> None:
    ann = service.client("ann")
    job = finished(service)
    events = EventStream(service.service.database, "ann", None, None)
    of_job = EventStream(service.service.database, None, job, None)
    shot = shot_of(service, job)["id"]
    said(ann, shot)
    decided(ann, shot, "approved")
    heard = [(told.kind, told.data["shot"], told.data["what"]) for told in events.new() if told.kind == "review"]
    assert heard == [("review", shot, "comment"), ("review", shot, "decide")]
    assert of_job.new() == []  # a job's stream has ended by then
    with service.service.database.read() as session:
        rows = session.scalars(sa.select(Audit).where(Audit.target == shot).order_by(Audit.seq)).all()
    assert [(row.what, row.data["by"]) for row in rows] == [("review.comment", "ann"), ("review.decide", "ann")]
    assert all(row.key_id and row.request_id for row in rows)


# Exports


def test_exports_are_files_that_can_be_read(service: Served) -> None:
    ann = service.client("ann")
    shot = shot_of(service, finished(service, name="Scène =1"))["id"]
    said(ann, shot, text="=SUM(A1)", frame=30, duration=2, name="Zoë")
    answer = ann.get(f"/v1/shots/{shot}/export", params={"format": "csv"})
    assert answer.headers["content-disposition"] == 'attachment; filename="sc-ne-1-v1.csv"'
    lines = answer.content.decode("utf-8-sig").splitlines()
    assert "rate 25 frames/s" in lines[0]
    row = next(csv.DictReader(lines[1:]))
    assert (row["name"], row["comment"], row["in"], row["out"]) == ("Zoë", "'=SUM(A1)", "00:00:01:05", "00:00:01:07")
    edl = ann.get(f"/v1/shots/{shot}/export", params={"format": "edl"}).text
    assert "00:00:01:05 00:00:01:07 01:00:01:05 01:00:01:07" in edl
    assert ann.get(f"/v1/shots/{shot}/export").json()["comments"][0]["text"] == "=SUM(A1)"
    assert ann.get(f"/v1/shots/{shot}/export", params={"format": "pdf"}).status_code == 400
    assert ann.get(f"/v1/shots/{shot}/export", params={"version": "none"}).status_code == 404


def test_a_shot_has_so_many_comments_at_most(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wanimate.serve.reviews.notes.MOST", 2)
    ann = service.client("ann")
    shot = shot_of(service, finished(service))["id"]
    for _ in range(2):
        said(ann, shot)
    assert ann.post(f"/v1/shots/{shot}/comments", json={"text": "x", "frame": 0}).status_code == 409
    with service.service.database.read() as session:
        count = sa.select(sa.func.count()).select_from(ShotComment).where(ShotComment.shot_id == shot)
        assert session.scalar(count) == 2


def test_a_result_from_before_reviews_is_stacked_when_it_is_looked_for(service: Served) -> None:
    job = finished(service)
    with service.service.database.write() as session:
        version = session.get_one(ShotVersion, job)
        session.delete(session.get_one(Shot, version.shot_id))
        session.delete(version)
    assert jobs(shot_of(service, job)) == [job]


def test_the_files_of_a_version_are_linked(service: Served) -> None:
    shot = shot_of(service, finished_once(service))
    link = shot["versions"][0]["video"]
    assert TestClient(service.app).get(link.removeprefix("http://testserver")).content == MP4
    assert Path(link).suffix == ".mp4"


# Both databases


def test_many_who_decide_at_once_make_one_chain(database: Database, tmp_path: Path) -> None:
    """Over SQLite and Postgres; also stacks, lists and events, whose queries differ."""
    service = Service(ServeSettings(data=tmp_path), database)
    who = Reviewer("Ann", "owner", "key:1", frozenset({"view", "comment", "decide", "manage"}), "ann")
    first = add_job(database, **_finished(service, "a"))
    second = add_job(database, **_finished(service, "b", version_of=first))
    shot = service.reviews.shots.of_job(who, second)
    assert service.reviews.shots.of_job(who, first) == shot
    events = EventStream(database, None, None, None, shot)
    service.reviews.notes.add(who, shot, first, Remark(text="Here", frame=1))

    def decide() -> None:
        for state in (State.APPROVED, State.CHANGES_ASKED, State.APPROVED):
            service.reviews.decisions.decide(who, shot, first, state)  # the newest: it was stacked last

    threads = [threading.Thread(target=decide) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    found = service.reviews.shots.look(who, shot).shot
    assert (found.intact, len(found.decisions), found.state) == (True, 12, State.APPROVED)
    assert {told.data["what"] for told in events.new()} == {"comment", "decide"}
    (row,) = service.reviews.shots.listed(who, "ann", Wanted(State.APPROVED, "a", limit=5))
    assert (row.versions, row.open, row.newest is not None) == (2, 1, True)
    link, token = service.reviews.guests.invite(who, shot)
    assert service.reviews.guests.find(service.reviews.guests.begin(link, "Gil")) is not None
    assert service.reviews.guests.link(token) is not None
    service.streams.close()
    service.forecaster.close()


def _finished(service: Service, name: str, **more: Any) -> dict[str, Any]:
    """Values of a row whose job is done."""
    service.storage.put(f"jobs/{name}/1/result.mp4", [MP4])
    facts = {"frames": 60, "fps": "25", "sha256": hashlib.sha256(MP4).hexdigest()}
    submission = {**SUBMISSION, "name": "a", **more}
    result = {"video": f"jobs/{name}/1/result.mp4"}
    return {"state": "succeeded", "result": result, "facts": facts, "submission": submission}


def test_the_file_is_the_one_that_its_maker_told_of(service: Served) -> None:
    job = finished(service)
    with service.service.database.write() as session:
        session.get_one(ShotVersion, job).digest = hashlib.sha256(b"as it was made").hexdigest()
    shot = shot_of(service, job)["id"]
    answer = service.client("ann").post(f"/v1/shots/{shot}/decisions", json={"state": "approved"})
    assert (answer.status_code, answer.json()["error"]["field"]) == (409, "version")
