"""Events of jobs, over a real connection."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from own_service import JOB, Served, served

from wanimate.serve.events import tell
from wanimate.serve.faces.own import stream
from wanimate.serve.supervisor import Server
from wanimate.serve.tables import Job


class Live:
    """The service behind a socket."""

    def __init__(self, service: Served) -> None:
        self.service = service
        config = uvicorn.Config(service.app, port=0, log_config=None, access_log=False, timeout_graceful_shutdown=5)
        self.server = Server(config, service.service.streams)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.base = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"

    def client(self, owner: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.service.keys[owner]}"}
        return httpx.Client(base_url=self.base, headers=headers, timeout=10)

    def stop(self) -> None:
        self.server.handle_exit(signal.SIGTERM, None)
        self.thread.join(10)


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    monkeypatch.setattr(stream, "PACE", 0.05)
    monkeypatch.setattr(stream, "HEARTBEAT", 0.3)
    with served(tmp_path) as service:
        found = Live(service)
        yield found
        found.stop()


Told = tuple[int, str, dict[str, Any]]


def events(response: httpx.Response) -> Iterator[Told]:
    """(id, kind, data) of each event, as a browser takes the stream apart."""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if not line:
            if "data" in fields:
                yield int(fields.get("id", 0)), fields["event"], json.loads(fields["data"])
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value


def submitted(client: httpx.Client, **more: Any) -> str:
    answer = client.post("/v1/jobs", json={**JOB, **more})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def test_a_stream_tells_everything_and_ends_with_the_job(live: Live) -> None:
    with live.client("ann") as client:
        job_id = submitted(client)
        threading.Timer(0.5, live.service.runner.gate.set).start()
        with live.service.worker(), client.stream("GET", f"/v1/jobs/{job_id}/events") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            assert response.headers["x-accel-buffering"] == "no"
            assert "content-encoding" not in response.headers
            found = list(events(response))
    kinds = [kind for _, kind, _ in found]
    assert kinds[:3] == ["created", "scheduled", "claimed"]
    assert "prepared" in kinds
    assert kinds[-1] == "succeeded"
    ids = [seq for seq, _, _ in found]
    assert ids == sorted(set(ids))
    assert {data["job"] for _, _, data in found} == {job_id}


def test_a_stream_goes_on_where_it_dropped(live: Live) -> None:
    live.service.runner.gate.set()
    with live.client("ann") as client:
        job_id = submitted(client)
        with live.service.worker():
            live.service.waited("ann", job_id)
        with client.stream("GET", f"/v1/jobs/{job_id}/events") as response:
            whole = list(events(response))
        seen = whole[2][0]
        path = f"/v1/jobs/{job_id}/events"
        with client.stream("GET", path, headers={"Last-Event-ID": str(seen)}) as response:
            assert list(events(response)) == whole[3:]
        with client.stream("GET", path, params={"after": seen}) as response:
            assert list(events(response)) == whole[3:]
        with client.stream("GET", path, params={"after": 1}, headers={"Last-Event-ID": str(seen)}) as response:
            assert list(events(response)) == whole[3:]  # a browser keeps the address when it comes back
        assert client.get(path, headers={"Last-Event-ID": str(whole[-1][0])}).status_code == 204
        for wrong in ("x", "-1", "9" * 19, "²"):
            assert client.get(path, headers={"Last-Event-ID": wrong.encode()}).status_code == 400, wrong


def test_a_stream_of_the_owner_has_all_jobs_and_none_of_others(live: Live) -> None:
    found: list[Told] = []
    with live.client("ann") as ann, live.client("bob") as bob:
        old = submitted(ann)
        with ann.stream("GET", "/v1/events") as response:
            reading = events(response)
            ids = []
            for _ in range(2):
                submitted(bob)
                ids.append(submitted(ann))
            found = [next(reading) for _ in range(2)]
        assert [data["job"] for _, _, data in found] == ids
        assert old not in ids
        with ann.stream("GET", "/v1/events", headers={"Last-Event-ID": str(found[0][0])}) as response:
            assert next(events(response)) == found[1]
        with bob.stream("GET", "/v1/events", params={"after": 0, "everybody": True}) as response:
            reading = events(response)
            assert not {next(reading)[2]["job"] for _ in range(2)} & {old, *ids}
        assert bob.get(f"/v1/jobs/{old}/events").status_code == 404


def test_a_stream_shows_that_it_lives_and_ends_with_the_service(live: Live) -> None:
    with live.client("ann") as client:
        job_id = submitted(client)
        with client.stream("GET", f"/v1/jobs/{job_id}/events") as response:
            lines = response.iter_lines()
            while not next(lines).startswith(":"):
                pass
            began = time.monotonic()
            live.stop()
            assert not live.thread.is_alive()
            assert time.monotonic() - began < 3
            assert "event: succeeded" not in list(lines)


def test_a_stream_ends_when_its_job_is_deleted_or_its_key_revoked(live: Live) -> None:
    with live.client("ann") as client, live.client("boss") as boss:
        job_id = submitted(client)
        with client.stream("GET", f"/v1/jobs/{job_id}/events") as response:
            reading = events(response)
            next(reading)
            with live.client("ann") as other:
                other.delete(f"/v1/jobs/{job_id}")
            assert [kind for _, kind, _ in reading][-1] in ("cancelled", "deleted")
        key = client.get("/v1/me").json()["key"]
        with client.stream("GET", "/v1/events") as response:
            boss.delete(f"/v1/keys/{key}")
            assert list(events(response)) == []


def test_streams_of_a_key_are_limited_and_counted_back(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    from wanimate.serve import streams

    monkeypatch.setattr(streams, "_OF_A_KEY", 2)
    with live.client("ann") as one, live.client("bob") as bob:
        with one.stream("GET", "/v1/events") as first, one.stream("GET", "/v1/events") as second:
            assert (first.status_code, second.status_code) == (200, 200)
            reading = first.iter_lines(), second.iter_lines()
            assert [next(lines) for lines in reading] == [f"retry: {stream.RECONNECT}"] * 2
            assert one.get("/v1/events").status_code == 429
            with bob.stream("GET", "/v1/events") as other:
                assert other.status_code == 200
        until = time.monotonic() + 5
        while time.monotonic() < until:
            with one.stream("GET", "/v1/events") as again:
                if again.status_code == 200:
                    return
            time.sleep(0.05)
        raise AssertionError("closed streams count for ever")


def test_idle_streams_hold_no_threads(live: Live) -> None:
    with live.client("ann") as client:
        opened = [client.stream("GET", "/v1/events") for _ in range(25)]
        try:
            for one in opened:
                assert one.__enter__().status_code == 200
            time.sleep(0.3)
            assert sum("AnyIO" in thread.name for thread in threading.enumerate()) < 20
            assert client.get("/v1/me").status_code == 200
        finally:
            for one in opened:
                one.__exit__(None, None, None)


def test_many_events_come_whole(live: Live) -> None:
    with live.client("ann") as client:
        job_id = submitted(client)
        with live.service.service.database.write() as session:
            job = session.get_one(Job, job_id)
            for i in range(1200):
                tell(session, job, "step", step=i)
            tell(session, job, "failed")
        with client.stream("GET", f"/v1/jobs/{job_id}/events") as response:
            steps = [data["step"] for _, kind, data in events(response) if kind == "step"]
    assert steps == list(range(1200))
