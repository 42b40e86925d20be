"""What a job would be told of its inputs, one moment with and without relighting, and what a stretch counts as."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from own_service import JOB, Served, served
from test_serve_own_inputs import planned, until_a_worker_is_there

from wanimate.config import ClipLimits, GenerateSettings, OutputSettings, PreprocessSettings
from wanimate.events import Event, Finished, Stage, StageStarted
from wanimate.jobs.cancel import CancelToken
from wanimate.media.stretch import stretch_of
from wanimate.media.video import ArrayFrames, LosslessWriter
from wanimate.serve.keys import Quotas
from wanimate.serve.settings import ServeSettings
from wanimate.serve.submission import Submission
from wanimate.serve.worker import relight
from wanimate.types import Clip, Guides, Result

RELIT = {**JOB, "kind": "relight", "mode": "replacement"}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as found:
        yield found


@pytest.fixture
def ann(service: Served) -> TestClient:
    return service.client("ann")


def test_a_check_says_what_a_job_would_be_told(service: Served, ann: TestClient) -> None:
    later = ann.post("/v1/check", json={"job": JOB, "wait": 30})  # nobody is there to look
    assert (later.status_code, later.json()["state"], later.json()["findings"]) == (202, "pending", [])
    with service.worker():
        until_a_worker_is_there(service)
        found = ann.post("/v1/check", json={"job": {**JOB, "preprocess": {"start": 1}, "name": "x", "tier": "wan-std"}})
        service.waited("ann", later.json()["id"])
    assert found.status_code == 200
    told = found.json()
    assert (told["frames"], told["fps"], told["seconds"]) == (96, "24", 4.0)
    assert told["findings"][0]["spans"] == [{"first": 12, "stop": 20, "start": 0.5, "end": 0.8}]
    assert ann.get(f"/v1/check/{later.json()['id']}").json()["findings"] == told["findings"]
    assert ann.get("/v1/jobs").json()["data"] == []
    kept = ann.get(f"/v1/jobs/{told['id']}").json()
    assert (kept["kind"], kept["tier"], kept["submission"]["preprocess"]) == ("check", "wan-std", {"start": 1})
    assert ann.get(f"/v1/check/{ann.post('/v1/jobs', json=JOB).json()['id']}").status_code == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "job"),
        ({"job": {"image": JOB["image"]}}, "video"),
        ({"job": {**JOB, "preprocess": {"start": 3, "end": 2}}}, "end"),
        ({"job": {**JOB, "preprocess": {"start": -1}}}, "start"),
        ({"job": JOB, "wait": 1e9}, "wait"),
    ],
)
def test_a_check_that_cannot_work_is_refused(ann: TestClient, body: dict[str, Any], field: str) -> None:
    answer = ann.post("/v1/check", json=body)
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, field)


def test_a_relighting_preview_is_a_job_aside(ann: TestClient) -> None:
    assert ann.post("/v1/jobs", json=RELIT | {"mode": "animation"}).json()["error"]["field"] == "mode"
    made = ann.post("/v1/jobs", json=RELIT | {"priority": -10}).json()
    assert (made["kind"], made["priority"]) == ("relight", -10)
    assert ann.get("/v1/jobs").json()["total"] == 0
    assert ann.get("/v1/jobs", params={"kind": "relight"}).json()["total"] == 1


def test_a_plan_counts_the_stretch_that_is_used(
    service: Served, ann: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.service.forecaster, "_ask", planned)
    job = {"preprocess": {"start": 1.5, "end": 4}}
    plan = ann.post("/v1/plan", json={"seconds": 8, "fps": 24, "job": job}).json()
    assert (plan["frames"], plan["clip_seconds"], plan["left_today"]) == (60, 2.5, None)
    assert ann.post("/v1/plan", json={"frames": 45, "fps": 30}).json()["clip_seconds"] == 1.5
    late = ann.post("/v1/plan", json={"seconds": 1, "job": {"preprocess": {"start": 1.5}}})
    assert late.json()["error"]["field"] == "start"
    key = service.service.keys.create("ann", quotas=Quotas(seconds_a_day=10).model_dump(exclude_none=True))
    mine = TestClient(service.app, headers={"Authorization": f"Bearer {key}"})
    with service.worker():
        service.waited("ann", mine.post("/v1/jobs", json={**JOB, "kind": "preprocess"}).json()["id"])
    assert mine.post("/v1/plan", json={"frames": 45, "fps": 30}).json()["left_today"] == 6


def clip(count: int, fps: int) -> Clip:
    times = tuple(i / fps for i in range(count))
    return Clip(Path("a.mp4"), "mp4", "h264", 640, 480, 1, times, count / fps, Fraction(fps), False, (), 1)


@pytest.mark.parametrize(
    ("settings", "first"),
    [
        ({}, 60), ({"start": 1, "end": 3.0}, 60), ({"person": "2"}, 0), ({"person": "2", "start": 1}, 30),
        ({"person": "2@2"}, 60), ({"person": "largest@3.9"}, 107), ({"start": 3.9}, 117),
    ],
)  # fmt: skip
def test_the_moment_is_short_and_where_the_person_is_chosen(settings: dict[str, Any], first: int) -> None:
    film, limits = clip(120, 30), ClipLimits(min_seconds=0)
    chosen = relight.moment(film, PreprocessSettings(**settings, limits=limits, area="1280x720"), 9)
    used = stretch_of(film, chosen)
    assert (used.first, used.stop - used.first) == (first, min(relight.FRAMES, 120 - first))
    assert chosen.area == relight.AREA
    assert relight.moment(film, PreprocessSettings(), 9216).area == 9216


def test_both_are_drawn_alike_but_for_the_light(tmp_path: Path) -> None:
    asked: list[tuple[GenerateSettings, dict[str, Any]]] = []

    class Drawing:
        def generate(
            self, guides: Guides, out: Path, settings: GenerateSettings, output: OutputSettings, cancel: CancelToken
        ) -> Iterator[Event]:
            asked.append((settings, guides.manifest))
            yield StageStarted(Stage.DENOISE, 1, fraction=0.5, seconds_left=3.0)
            with LosslessWriter(out, Fraction(15), 64, 48) as writer:
                for _ in range(5):
                    writer.write(np.full((48, 64, 3), 200 if settings.relight else 90, np.uint8))
            yield Finished(result=Result(out, 5, (64, 48), Fraction(15), 1))

    stored: dict[str, bytes] = {}
    submission = Submission(kind="relight", mode="replacement", generate={"seed": 9, "steps": 30, "relight": False})
    work = SimpleNamespace(
        submission=submission, settings=ServeSettings(), scratch=tmp_path, cancel=CancelToken(), place="jobs/1/1", result={},
        facts={}, keep=lambda file, name: stored.__setitem__(name, file.read_bytes()),
    )  # fmt: skip
    frames = ArrayFrames(np.zeros((5, 48, 64, 3), np.uint8))
    guides = Guides(
        "animation", Fraction(15), frames, frames, np.zeros((9, 9, 3), np.uint8), manifest={"source": {}, "a": 1}
    )
    events = list(relight.compare_relighting(work, Drawing(), guides, 20))  # type: ignore[arg-type]
    assert not any(isinstance(event, Finished) for event in events), "the job goes on after the first"
    assert [(event.fraction, event.seconds_left) for event in events] == [(0.25, 6.0), (0.75, 3.0)]
    (without, told), (relit, _) = asked
    assert without.model_dump(exclude={"relight"}) == relit.model_dump(exclude={"relight"})
    assert (without.relight, relit.relight, relit.steps, relit.seed) == (False, True, relight.STEPS, 9)
    assert told == {"a": 1}, "the moment has no sound"
    assert work.result == {"without": "jobs/1/1/without.png", "with": "jobs/1/1/with.png"}
    assert stored["jobs/1/1/with.png"] != stored["jobs/1/1/without.png"]
    assert work.facts == {"size": [64, 48], "frames": 5, "steps": relight.STEPS, "seed": 9}
