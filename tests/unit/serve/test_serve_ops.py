"""Operation: logs without secrets, metrics, health, traces."""

from __future__ import annotations

import io
import json
import logging
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from serve_jobs import add_job, claimed, job_of

from wanimate.errors import InputError
from wanimate.events import Stage as WorkStage
from wanimate.events import StageFinished, StageStarted
from wanimate.serve.app import create_app
from wanimate.serve.ops import logs, telemetry
from wanimate.serve.ops.metrics import stage_seconds
from wanimate.serve.queue import Queue
from wanimate.serve.service import Service
from wanimate.serve.settings import ServeSettings
from wanimate.serve.storage import StorageAway
from wanimate.serve.tables import Stage, State, Worker, now

KEY = "wan_" + "k" * 43


@pytest.fixture
def service(tmp_path: Path, sqlite_tables: Path) -> Iterator[Service]:
    shutil.copy(sqlite_tables, tmp_path / "wanimate.db")
    made = Service(ServeSettings(data=tmp_path))
    yield made
    made.close()


def client_of(service: Service, host: str = "127.0.0.1") -> TestClient:
    return TestClient(create_app(service.settings, service), client=(host, 5), raise_server_exceptions=False)


def add_worker(service: Service, id_: str = "w1", **values: Any) -> None:
    row = {
        "host": "h",
        "pid": 1,
        "stages": ["prepare", "generate"],
        "device": "cuda:0",
        "facts": {},
        "started": 0,
        "seen": now(),
    }
    with service.database.write() as session:
        session.add(Worker(id=id_, **(row | values)))


# Logs


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is written to stderr after `set_up`."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    caught = io.StringIO()
    monkeypatch.setattr(sys, "stderr", caught)
    logs.set_up()
    yield caught
    root.handlers[:] = before
    root.setLevel(level)


def test_a_line_is_json_with_what_it_is_about(lines: io.StringIO) -> None:
    with logs.bound(request_id="r1"), logs.bound(job_id="j1", attempt=2):
        logging.getLogger("wanimate.x").warning("the %s fell off", "GPU", extra={"device": "cuda:1"})
    logging.getLogger("wanimate.x").info("later")
    first, second = (json.loads(line) for line in lines.getvalue().splitlines())
    assert first | {"time": ""} == {
        "time": "", "level": "WARNING", "logger": "wanimate.x", "message": "the GPU fell off", "request_id": "r1",
        "job_id": "j1", "attempt": 2, "device": "cuda:1",
    }  # fmt: skip
    assert first["time"].endswith("+00:00")
    assert "job_id" not in second


def test_an_exception_is_one_line(lines: io.StringIO) -> None:
    try:
        raise ValueError(f"refused the key {KEY}")
    except ValueError:
        logging.getLogger("wanimate.x").exception("it failed")
    (line,) = lines.getvalue().splitlines()
    told = json.loads(line)
    assert "ValueError: refused the key wan_***" in told["exception"]


SECRETS = [
    f"key {KEY} refused", "header Authorization: Bearer abcdefgh12345678", "whsec_0123456789abcdef",
    "GET /files/QUJDREVGR0hJSktMTU5PUA/a.mp4", "cannot reach postgresql+psycopg://me:hunter2secret@db/x",
    "http://example.org/clip.mp4?Signature=hunter2secret&x=1", "/v1/jobs/1/events?key=hunter2secret",
]  # fmt: skip


@pytest.mark.parametrize("text", SECRETS)
@pytest.mark.parametrize("formatter", [logs.JsonLines(), logs.TextLines()], ids=["json", "text"])
def test_secrets_are_not_logged(text: str, formatter: logging.Formatter) -> None:
    record = logging.makeLogRecord({"msg": text, "name": "x", "levelname": "INFO", "extra_field": text})
    told = formatter.format(record)
    for secret in (KEY, "abcdefgh12345678", "0123456789abcdef", "QUJDREVGR0hJSktMTU5PUA", "hunter2secret"):
        assert secret not in told
    assert "***" in told


@pytest.mark.parametrize("text", ["is it 5 > 3? yes", "took 3:05@noon", "a/b.mp4 has 5 frames", "wan_std? no"])
def test_other_text_stays(text: str) -> None:
    assert logs.without_secrets(text) == text


def test_requests_are_logged_with_their_id(service: Service, lines: io.StringIO) -> None:
    with client_of(service) as client:
        answer = client.get("/healthz?key=hunter2secret", headers={"X-Request-Id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    (line,) = [one for one in told if one["logger"] == "wanimate.serve.access"]
    assert (line["request_id"], line["method"], line["path"], line["status"]) == ("mine-1", "GET", "/healthz", 200)
    assert "hunter2secret" not in lines.getvalue()


def test_routes_are_told_by_their_pattern(service: Service) -> None:
    seen: list[str] = []

    with client_of(service) as client, pytest.MonkeyPatch.context() as patch:
        patch.setattr("wanimate.serve.ops.metrics.answered", lambda method, route, *_: seen.append(route))
        for path in (
            "/api/v1/tasks/1",
            "/api/v1/tasks/1/",
            "/v1/jobs/1/cancel",
            "/v1/videos/1/content",
            "/healthz",
            "/x",
        ):
            client.get(path)
    assert seen[0] == "/api/v1/tasks/{task_id}"
    assert seen[3:] == ["/v1/videos/{video_id}/content", "/healthz", "unmatched"]


# Health


def test_health_needs_no_key_and_no_database(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    with client_of(service, "8.8.8.8") as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        add_worker(service, stages=["prepare"])
        add_worker(service, "old", seen=now() - 3_600_000)
        told = client.get("/readyz")
        assert (told.status_code, told.json()["workers"]) == (200, {"prepare": 1, "generate": 0})
        assert told.json()["note"] == "No worker lives that does: generate. Jobs wait."
        add_worker(service, "w2", stages=["generate"])
        assert "note" not in client.get("/readyz").json()


def test_readiness_ends_where_the_storage_is_away(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(prefix: str) -> Any:
        raise StorageAway("The storage cannot be used: its folder is gone.")

    monkeypatch.setattr(service.storage, "list", away)
    with client_of(service) as client:
        answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["storage"], answer.json()["database"]) == (503, False, True)


def test_readiness_ends_where_the_database_is_away(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> Any:
        raise sa.exc.OperationalError("SELECT", {}, Exception("gone"))

    with client_of(service) as client:
        monkeypatch.setattr(service.database, "read", away)
        assert client.get("/healthz").status_code == 200
        answer = client.get("/readyz")
        metrics = client.get("/metrics")
    assert (answer.status_code, answer.json()["database"]) == (503, False)
    assert metrics.status_code == 200
    assert "wanimate_database_up 0.0" in metrics.text


# Metrics


def metrics_of(client: TestClient) -> dict[tuple[str, ...], float]:
    """(name, values of its labels by the labels' names ...) -> value."""
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_metrics_tell_of_jobs_queues_and_workers(service: Service) -> None:
    database, queue = service.database, Queue(service.database, service.settings)
    add_job(database, tier="wan-pro", mode="replacement", waits_since=now() - 90_000)
    add_job(database, held=True, waits_since=0)
    add_job(database, stage=Stage.GENERATE, state=State.RUNNING, waits_since=now() - 5_000)
    done = add_job(database, priority=100)
    add_worker(service, facts={"gpu_used": 7, "gpu_total": 9}, job_id=done)
    add_worker(service, "gone", seen=0, facts={"gpu_used": 1})
    with client_of(service) as client:
        before = metrics_of(client)
        queue.prepared(claimed(queue), "guides/1", prepare_seconds=2.0)
        drawing = queue.claim("w1", [Stage.GENERATE])
        assert drawing is not None
        queue.succeed(drawing, {}, generate_seconds=40.0, stages={"denoise": 31.0})
        found = metrics_of(client)
        again = metrics_of(client)
    assert found["wanimate_jobs", "replacement", "pending", "wan-pro"] == 1
    assert found["wanimate_jobs", "animation", "succeeded", ""] == 1
    assert found["wanimate_queue_length", "prepare"] == 1
    assert 90 <= found["wanimate_queue_age_seconds", "prepare"] < 100
    assert 5 <= found["wanimate_queue_age_seconds", "generate"] < 15
    assert found["wanimate_workers", "working", "generate"] == 1
    assert found["wanimate_workers", "idle", "generate"] == 0
    assert found["wanimate_gpu_memory_bytes", "cuda:0", "used", "w1"] == 7
    assert ("wanimate_gpu_memory_bytes", "cuda:0", "used", "gone") not in found
    for stage, seconds in (("prepare", 2), ("generate", 40), ("denoise", 31)):
        name = ("wanimate_stage_seconds_sum", stage)
        assert found[name] - before.get(name, 0) == seconds
        assert again[name] == found[name]  # each job counts once


def test_metrics_count_requests_by_route_and_refusals_by_code(service: Service) -> None:
    with client_of(service) as client:
        before = metrics_of(client)
        client.get("/healthz")
        client.get("/nowhere/1")
        client.get("/nowhere/2")
        client.get("/api/v1/tasks/1")
        client.request("BREW", "/healthz")
        found = metrics_of(client)

    def more(*name: str) -> float:
        return found.get(name, 0) - before.get(name, 0)

    assert more("wanimate_requests_total", "GET", "/healthz", "200") == 1
    assert more("wanimate_requests_total", "GET", "unmatched", "404") == 2
    assert more("wanimate_requests_total", "other", "/healthz", "405") == 1
    assert more("wanimate_request_seconds_count", "/healthz") == 2
    assert more("wanimate_refusals_total", "InvalidApiKey") == 1


def test_metrics_are_not_for_everybody(service: Service) -> None:
    app = create_app(service.settings, service)
    keys = {scope: {"Authorization": f"Bearer {service.keys.create('ann', [scope])}"} for scope in ("read", "admin")}
    for host, headers, is_local in (
        ("127.0.0.1", {}, True),
        ("::1", {}, True),
        ("8.8.8.8", {}, False),
        ("127.0.0.1", {"X-Forwarded-For": "8.8.8.8"}, False),
        ("127.0.0.1", {"Forwarded": "for=8.8.8.8"}, False),
    ):
        client = TestClient(app, client=(host, 5), raise_server_exceptions=False)
        answers = [
            client.get("/metrics", headers=headers | key).status_code for key in ({}, keys["read"], keys["admin"])
        ]
        assert answers == ([200, 200, 200] if is_local else [401, 403, 200]), (host, headers)


def test_stage_seconds_take_numbers_only() -> None:
    assert list(stage_seconds({"generate_seconds": 3, "prepare_seconds": None, "stages": {"denoise": "x", "write": 1}})) == [
        ("generate", 3), ("write", 1)
    ]  # fmt: skip


# Traces


def test_a_trace_goes_from_the_request_to_the_stages_of_its_job(service: Service) -> None:
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter").InMemorySpanExporter()
    telemetry.set_up("test", export.SimpleSpanProcessor(memory))
    try:
        with client_of(service) as client:
            body = {"image": {"url": "http://example.org/a.png"}, "video": {"url": "http://example.org/a.mp4"}}
            answer = client.post(
                "/v1/jobs", json=body, headers={"Authorization": f"Bearer {service.keys.create('ann')}"}
            )
        facts = job_of(service.database, answer.json()["id"]).facts
        stages = telemetry.Stages()

        def work() -> None:  # as in another process: nothing but the row goes there
            with telemetry.span("job generate", facts, job_id="1"):
                stages.note(StageStarted(stage=WorkStage.DENOISE, segment=2))
                stages.note(StageFinished(stage=WorkStage.DENOISE, seconds=1.0))
                stages.note(StageStarted(stage=WorkStage.DECODE))
                stages.close()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    finally:
        telemetry.stop()
    spans = {span.name: span for span in memory.get_finished_spans()}
    request, job = spans["POST /v1/jobs"], spans["job generate"]
    assert request.attributes["http.response.status_code"] == 201
    assert job.parent.span_id == request.context.span_id
    assert {spans[name].parent.span_id for name in ("stage denoise", "stage decode")} == {job.context.span_id}
    assert {span.context.trace_id for span in spans.values()} == {request.context.trace_id}
    assert "traceparent" not in answer.text


def test_without_traces_nothing_is_carried() -> None:
    with telemetry.span("x") as span:
        assert span is None
    assert telemetry.carried() == {}


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(InputError, match=r"wanimate\[telemetry\]"):
        telemetry.set_up("api")
