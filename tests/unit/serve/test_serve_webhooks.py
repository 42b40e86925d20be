"""Webhooks: signed, sent again with growing pauses, never twice at once, and a slow receiver holds up nobody else."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from own_service import JOB, Served, served
from standardwebhooks import Webhook

from wanimate.serve import webhooks
from wanimate.serve.database import Database
from wanimate.serve.events import tell
from wanimate.serve.settings import ServeSettings
from wanimate.serve.tables import Hook, Job, Key, now
from wanimate.serve.webhooks import PAUSES, Deliverer


@dataclass
class Receiver:
    """A server that remembers what it was sent, and answers with `status`, once `go` is set."""

    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[dict[str, str], str]] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)
    address: str = ""

    @property
    def url(self) -> str:
        return f"http://{self.address}/hook"


@contextmanager
def receiving(status: int = 204, **headers: str) -> Iterator[Receiver]:
    receiver = Receiver(status, headers)
    receiver.go.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.asked.append((dict(self.headers), body.decode()))
            receiver.go.wait(10)
            self.send_response(receiver.status)
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield receiver
    receiver.go.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def service_for(folder: Path, *addresses: str) -> Any:
    return served(folder, allow_fetch=addresses)


def ended(service: Served, url: str, **hook: Any) -> str:
    """A job of ann that succeeds, with a webhook; returns its id."""
    asked = {**JOB, "webhook": {"url": url, **hook}}
    job_id = str(service.client("ann").post("/v1/jobs", json=asked).json()["id"])
    service.runner.gate.set()
    with service.worker():
        assert service.waited("ann", job_id)["state"] == "succeeded"
    return job_id


def rows(database: Database) -> list[Hook]:
    with database.read() as session:
        return list(session.scalars(sa.select(Hook).order_by(Hook.due)))


def test_a_message_is_signed_with_the_key_s_secret(tmp_path: Path, receiver: Receiver) -> None:
    with service_for(tmp_path, receiver.address) as service:
        job_id = ended(service, receiver.url, events=["job.scheduled", "job.succeeded"])
        deliverer = Deliverer(service.service.database, service.service.settings)
        deliverer.deliver()
        deliverer.close()
        secret = service.client("ann").get("/v1/me").json()["webhook_secret"]
        found = []
        for headers, body in receiver.asked:
            found.append(Webhook(secret).verify(body, headers))
            with pytest.raises(Exception, match="signature"):
                Webhook(secret).verify(body.replace("job", "jab"), headers)
        assert sorted(message["type"] for message in found) == ["job.scheduled", "job.succeeded"]
        assert {message["data"]["id"] for message in found} == {job_id}
        assert all(row.delivered is not None for row in rows(service.service.database))


def test_nobody_is_told_who_is_not_public(tmp_path: Path, receiver: Receiver) -> None:
    with service_for(tmp_path) as service:
        ended(service, receiver.url)
        hooked(service.service.database, "ftp://example.org/hook")
        deliverer = Deliverer(service.service.database, service.service.settings)
        deliverer.deliver()
        deliverer.close()
        by_url = {row.url[:4]: row for row in rows(service.service.database)}
        assert receiver.asked == []
        assert by_url["http"].delivered is None
        assert by_url["ftp:"].failed is not None


def hooked(database: Database, url: str, count: int = 1) -> None:
    """Messages of a job that is not there any more, from a key that is."""
    with database.write() as session:
        session.merge(
            Key(
                id="k",
                owner="ann",
                digest="d",
                scopes=[],
                quotas={},
                webhook_secret="whsec_YWJjZGVmZ2g=",
                created=now(),
            )
        )
        job = Job(
            id="j",
            owner="ann",
            key_id="k",
            state="failed",
            model="m",
            submission={"webhook": {"url": url, "events": ["job.failed"]}},
        )
        for _ in range(count):
            tell(session, job, "failed", code="x", message="y")


def delivered(database: Database, *addresses: str) -> None:
    deliverer = Deliverer(database, ServeSettings.of(allow_fetch=addresses))
    deliverer.deliver()
    deliverer.close()


def test_what_fails_is_sent_again_with_growing_pauses_and_given_up(database: Database) -> None:
    with receiving(500) as receiver:
        hooked(database, receiver.url)
        for pause in PAUSES:
            before = now()
            delivered(database, receiver.address)
            (row,) = rows(database)
            assert row.failed is None
            assert pause * 1000 <= row.due - before < pause * 1000 + 5000
            delivered(database, receiver.address)  # not yet
            with database.write() as session:
                session.execute(sa.update(Hook).values(due=now()))
        delivered(database, receiver.address)
        (row,) = rows(database)
        assert (row.failed, row.delivered, row.tries) == ("the receiver answered 500", None, len(PAUSES) + 1)
        delivered(database, receiver.address)
        assert len(receiver.asked) == len(PAUSES) + 1
        assert len({headers["webhook-id"] for headers, _ in receiver.asked}) == 1


def test_a_receiver_that_is_gone_for_good_is_not_asked_again(database: Database) -> None:
    with receiving(410) as receiver:
        hooked(database, receiver.url)
        delivered(database, receiver.address)
        (row,) = rows(database)
        assert row.failed == "the receiver answered 410"


def test_a_redirect_is_not_followed(database: Database) -> None:
    with receiving(200) as elsewhere:
        with receiving(302, Location=elsewhere.url) as receiver:
            hooked(database, receiver.url)
            delivered(database, receiver.address, elsewhere.address)
        assert elsewhere.asked == []
        assert rows(database)[0].delivered is None


def test_a_revoked_key_s_webhooks_are_given_up(database: Database, receiver: Receiver) -> None:
    hooked(database, receiver.url)
    with database.write() as session:
        session.execute(sa.update(Key).values(revoked=now()))
    delivered(database, receiver.address)
    assert receiver.asked == []
    assert rows(database)[0].failed is not None


def test_several_processes_deliver_each_message_once(database: Database, receiver: Receiver) -> None:
    hooked(database, receiver.url, 40)
    several = [Deliverer(database, ServeSettings.of(allow_fetch=(receiver.address,))) for _ in range(3)]
    until = time.monotonic() + 10
    while any(row.delivered is None for row in rows(database)) and time.monotonic() < until:
        threads = [threading.Thread(target=one.deliver) for one in several]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for one in several:
        one.close()
    ids = [headers["webhook-id"] for headers, _ in receiver.asked]
    assert len(ids) == len(set(ids)) == 40


def test_a_slow_receiver_holds_up_nobody_else(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as late:
        late.go.clear()
        hooked(database, late.url, 20)
        hooked(database, receiver.url, 3)
        deliverer = Deliverer(database, ServeSettings.of(allow_fetch=(late.address, receiver.address)))
        until = time.monotonic() + 5
        while len(receiver.asked) < 3 and time.monotonic() < until:
            deliverer.deliver()
            time.sleep(0.02)
        assert len(receiver.asked) == 3
        assert 0 < len(late.asked) <= webhooks._OF_A_HOST
        late.go.set()
        deliverer.close()


def test_a_message_says_what_happened(database: Database, receiver: Receiver) -> None:
    hooked(database, receiver.url)
    delivered(database, receiver.address)
    message = json.loads(receiver.asked[0][1])
    assert (message["type"], message["data"]) == (
        "job.failed", {"id": "j", "state": "failed", "model": "m", "code": "x", "message": "y"},
    )  # fmt: skip
