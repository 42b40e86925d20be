"""Faults that a first user met: what a start refuses, what answers tell, what a quota counts."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from own_service import made, served
from typer.testing import CliRunner

from wanimate.cli.main import app
from wanimate.errors import InputError
from wanimate.serve.database import Database
from wanimate.serve.settings import ServeSettings
from wanimate.serve.supervisor import serve


@pytest.mark.parametrize("limit", ["000000001" + "0" * 9, "000000001" + "0" * 5000])
def test_a_long_limit_of_videos_is_refused(tmp_path: Path, limit: str) -> None:
    with served(tmp_path) as service:
        answer = service.client("ann").get("/v1/videos", params={"limit": limit})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "limit")


def test_help_names_the_extra_of_ray() -> None:
    told = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200"}).output
    assert "wanimate[ray]" in told


def test_seconds_of_deleted_jobs_stay_used(tmp_path: Path) -> None:
    with served(tmp_path, quotas={"seconds_a_day": 4.0, "creations_a_second": 1000}) as service:
        ann = service.client("ann")
        with service.worker():
            job = made(ann, kind="preprocess")
            service.waited("ann", job, "succeeded")
        assert ann.get("/v1/me").json()["usage"]["seconds_today"] == 4.0
        assert ann.delete(f"/v1/jobs/{job}").status_code == 200
        assert ann.get("/v1/me").json()["usage"]["seconds_today"] == 4.0
        refused = ann.post("/v1/jobs", json={"kind": "people", "video": {"url": "https://example.org/a.mp4"}})
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "Throttling.AllocationQuota")


def test_requests_that_change_something_have_a_rate_and_looks_have_none(tmp_path: Path) -> None:
    with served(tmp_path, quotas={"requests_a_second": 1.0, "creations_a_second": 1000}) as service:
        ann, bob = service.client("ann"), service.client("bob")
        answers = [ann.post("/v1/jobs/none/cancel") for _ in range(5)]
        assert [answer.status_code for answer in answers][:2] == [404, 429]
        assert answers[1].json()["error"]["code"] == "Throttling.RateQuota"
        assert {ann.get("/v1/jobs").status_code for _ in range(5)} == {200}
        assert bob.post("/v1/jobs/none/cancel").status_code == 404


# What a start refuses


def test_a_speed_that_is_none_is_refused() -> None:
    for field, given in (
        ("serve.speed", {"speed": "warp"}),
        ("serve.tiers.wan-pro.speed", {"tiers": {"wan-pro": {"fps": 25, "speed": "warp"}}}),
        ("serve.tiers.wan-pro.upscale", {"tiers": {"wan-pro": {"fps": 25, "upscale": "huge"}}}),
    ):
        with pytest.raises(InputError) as told:
            ServeSettings.of(**given)
        assert told.value.field == field


@pytest.mark.parametrize(
    "weights",
    [{"checkpoint": "nowhere"}, {"checkpoints": {"good": "nowhere"}}, {"loras": {"hero": "nowhere.safetensors"}}],
)
def test_weights_that_are_not_there_are_refused_before_there_are_jobs(
    tmp_path: Path, weights: dict[str, object]
) -> None:
    with pytest.raises(InputError, match="nowhere"):
        serve(ServeSettings.of(data=tmp_path / "data", port=0, device="cpu", **weights))
    assert not (tmp_path / "data").exists()


def test_a_data_folder_that_cannot_be_made_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError) as told:
        Database(ServeSettings(data=tmp_path / "file" / "data").database_url)
    assert told.value.field == "serve.data"


@pytest.mark.parametrize("url", ["postgresql+psycopg://me:hunter2@127.0.0.1:1/x", "sqlite:////proc/wanimate.db"])
def test_a_database_that_does_not_answer_is_told_in_words(url: str) -> None:
    pytest.importorskip("psycopg")
    database = Database(url)
    with pytest.raises(InputError, match="cannot be opened") as told:
        database.open()
    assert told.value.field == "serve.database"
    assert "hunter2" not in str(told.value)


@pytest.mark.slow
def test_a_stopped_service_ends_well(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "wanimate", "serve", "--data", str(tmp_path), "--port", "0", "--workers", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert process.stdout is not None
    guard = threading.Timer(60, process.kill)
    guard.start()
    first = process.stdout.readline().decode()
    assert first.startswith("wanimate serves at")
    assert httpx.get(f"{first.split()[-1]}/healthz", timeout=30).status_code == 200
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    guard.cancel()
    assert process.returncode == 0, said.decode()
    assert b"cancelled" not in said


@pytest.mark.parametrize("kind", ["application/octet-stream", "multipart/form-data; boundary=x"])
def test_a_client_that_goes_away_is_no_fault_of_the_service(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with served(tmp_path) as service:
        came = iter([{"type": "http.request", "body": b"abc", "more_body": True}])
        sent: list[Any] = []

        async def receive() -> Any:
            return next(came, {"type": "http.disconnect"})

        async def send(message: Any) -> None:
            sent.append(message)

        headers = {"authorization": f"Bearer {service.keys['ann']}", "content-type": kind, "content-length": "1000"}
        scope = {
            "type": "http", "method": "POST", "path": "/v1/uploads", "raw_path": b"/v1/uploads", "query_string": b"",
            "scheme": "http", "http_version": "1.1", "server": ("test", 80), "client": ("127.0.0.1", 9),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }  # fmt: skip
        asyncio.run(service.app(scope, receive, send))
    assert sent[0]["status"] == 400
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_refusals_speak_no_librarys_words(tmp_path: Path) -> None:
    with served(tmp_path) as service:
        answer = service.client("ann").post("/v1/jobs", json={"name": "a\0b"})
    assert answer.json()["error"]["message"] == "body: a text has characters that cannot be stored."
