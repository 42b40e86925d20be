"""`wanimate review`: the same records as the page's, without a running service."""

from __future__ import annotations

import csv
import hashlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from wanimate.cli.main import app
from wanimate.serve.reviews import Reviewer
from wanimate.serve.reviews.stacks import stack
from wanimate.serve.service import Service
from wanimate.serve.settings import ServeSettings
from wanimate.serve.tables import Job, Stage, State, now

VIDEO = b"the very file"
SUBMISSION = {"name": "Scene 12", "parent": None, "version_of": None}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that is not running, with one finished job."""
    found = Service(ServeSettings(data=tmp_path_factory.mktemp("data")))
    yield found
    found.close()


@pytest.fixture
def shot(service: Service) -> str:
    """A new shot's id."""
    id_, at = str(uuid.uuid4()), now()
    service.storage.put(f"jobs/{id_}/1/result.mp4", [VIDEO])
    job = Job(
        id=id_, owner="ann", key_id="k", request_id="r", face="own", kind="animate", mode="animation", model="m",
        checkpoint="m", submission=SUBMISSION, state=State.SUCCEEDED, stage=Stage.GENERATE, order_key=at, created=at,
        result={"video": f"jobs/{id_}/1/result.mp4"}, facts={"frames": 60, "fps": "25", "size": [64, 36], "seed": 7},
    )  # fmt: skip
    with service.database.write() as session:
        session.add(job)
        session.flush()
        made = stack(session, job, 24.0)
        assert made is not None
    return made.id


def run(service: Service, *words: object, code: int = 0) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["review", *map(str, words), "--data", str(service.settings.data), "--json"])
    assert done.exit_code == code, done.output
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_a_shot_is_commented_and_decided_on(service: Service, shot: str) -> None:
    run(service, "comment", shot, "The hand is gone.", "--frame", 25, "--at", "0.25,0.5", "--name", "Ann Lee")
    run(service, "ask-changes", shot, "--reason", "The hand.", "--name", "Ann Lee")
    record = run(service, "approve", shot, "--name", "Bo")
    assert record["output_sha256"] == hashlib.sha256(VIDEO).hexdigest()
    assert record["by"]["role"] == "operator"
    told = run(service, "show", shot)
    assert (told["state"], told["intact"]) == ("approved", True)
    assert [(one["state"], one["name"]) for one in told["decisions"]] == [
        ("changes_asked", "Ann Lee"),
        ("approved", "Bo"),
    ]
    (comment,) = told["comments"]
    assert (comment["text"], comment["frame"], comment["x"], comment["author"]) == (
        "The hand is gone.",
        25,
        0.25,
        "Ann Lee",
    )
    rows = {row["id"]: row for row in run(service, "list", "--state", "approved")["shots"]}
    assert (rows[shot]["open"], rows[shot]["versions"]) == (1, 1)
    plain = CliRunner().invoke(
        app, ["review", "show", shot, "--data", str(service.settings.data)], env={"COLUMNS": "200"}
    )
    assert "frame 25, open: Ann Lee The hand is gone." in plain.output
    assert "version 1 approved by Bo (operator)" in plain.output


def test_exports_are_written(service: Service, shot: str, tmp_path: Path) -> None:
    run(service, "comment", shot, "=1", "--frame", 26)
    run(service, "export", shot, "--format", "csv", "--out", tmp_path / "a.csv")
    lines = (tmp_path / "a.csv").read_text(encoding="utf-8-sig").splitlines()
    assert next(csv.DictReader(lines[1:]))["in"] == "00:00:01:01"
    assert "|M:" in run(service, "export", shot, "--format", "edl")["text"]
    assert json.loads(run(service, "export", shot)["text"])["id"] == shot


def test_a_link_lets_a_guest_in(service: Service, shot: str) -> None:
    told = run(service, "link", shot, "--days", 3, "--rights", "decide", "--url", "https://films.example/")
    base, _, token = told["url"].rpartition("/")
    assert base == "https://films.example/#/guest"
    link = service.reviews.guests.link(token)
    assert link is not None
    assert (link.shot_id, link.rights) == (shot, ["view", "decide"])
    who, _ = service.reviews.guests.find(service.reviews.guests.begin(link, "Gil")) or (None, None)
    assert isinstance(who, Reviewer)
    assert (who.name, who.shot) == ("Gil", shot)


def test_a_shot_is_found_by_its_job_and_its_name(service: Service, shot: str) -> None:
    job = run(service, "show", shot)["versions"][0]["job"]
    assert run(service, "show", job)["id"] == shot
    who = Reviewer("Ann", "operator", "test", frozenset({"view", "manage"}))
    service.reviews.shots.name(who, shot, f"only {shot}")
    assert run(service, "show", f"only {shot}")["id"] == shot


@pytest.mark.parametrize(
    ("words", "field", "said"),
    [
        (("show", "none"), "SHOT", "no such shot"), (("comment", "{shot}", " "), "TEXT", "empty"),
        (("comment", "{shot}", "x", "--frame", "60"), "--frame", "frames 0 to 59"),
        (("comment", "{shot}", "x", "--at", "2,0"), "--at", "less than or equal to 1"),
        (("comment", "{shot}", "x", "--at", "middle"), "--at", "no place"),
        (("approve", "{shot}", "--version", "9"), "--version", "versions are 1"),
        (("list", "--state", "x"), "--state", "no such"),
        (("export", "{shot}", "--format", "pdf"), "--format", "no such"),
        (("link", "{shot}", "--days", "0"), "--days", "above 0"),
        (("link", "{shot}", "--rights", "admin"), "--rights", "no such"),
        (("export", "{shot}", "--out", "/nowhere/a.csv"), "--out", "cannot be written"),
        (("approve", "{shot}", "--name", "a\nb"), "--name", "more than one line"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_by_its_flag(
    service: Service, shot: str, words: tuple[str, ...], field: str, said: str
) -> None:
    told = run(service, *(word.format(shot=shot) for word in words), code=2)
    assert said in told["message"], told
    assert field in told["message"], told


def test_names_that_several_shots_have_are_refused(service: Service, shot: str) -> None:
    first = shot
    service.reviews.shots.name(Reviewer("Ann", "operator", "test", frozenset({"view", "manage"})), first, "Scene 12")
    assert "several" in run(service, "show", "Scene 12", code=2)["message"]


@pytest.mark.parametrize(
    ("told", "first"),
    [
        ({"timecode": "01:00:00:00"}, "01:00:01:01"),
        ({"timecode": "01:00:00:00", "slate": True}, "01:00:01:00"),
        ({"timecode": None}, "00:00:01:01"),
        ({"timecode": "no label"}, "00:00:01:01"),
    ],
    ids=["its own", "with a slate", "none", "damaged"],
)
def test_exports_count_from_the_timecode_of_the_file(
    service: Service, shot: str, told: dict[str, Any], first: str
) -> None:
    run(service, "comment", shot, "Here", "--frame", 26)
    job = run(service, "show", shot)["versions"][0]["job"]
    record = json.dumps({"delivered": {"fps": "25"}, **told}).encode()
    service.storage.put(f"jobs/{job}/1/result.json", [record])
    with service.database.write() as session:
        found = session.get_one(Job, job)
        found.result = {**found.result, "record": f"jobs/{job}/1/result.json"}
    text = run(service, "export", shot, "--format", "csv")["text"]
    assert next(csv.DictReader(text.splitlines()[1:]))["in"] == first
    assert f"        {first} " in run(service, "export", shot, "--format", "edl")["text"]
