"""Webhooks: signed, sent again with growing pauses, never twice at once, and a slow receiver holds up nobody else."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from local_server import Server, answer, serving
from own_service import JOB, Served, served
from standardwebhooks import Webhook

from wanimate.serve import webhooks
from wanimate.serve.database import Database
from wanimate.serve.events import tell
from wanimate.serve.settings import ServeSettings
from wanimate.serve.tables import Hook, Job, Key, now
from wanimate.serve.webhooks import PAUSES, Deliverer


def reply(status: str) -> Callable[[Callable[[bytes], None], bytes], None]:
    return lambda send, _head: send(answer(b"", status))


@pytest.fixture
def receiver() -> Iterator[Server]:
    with serving(answer(b"", "204 No Content")) as server:
        yield server


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


def taken_apart(asked: bytes) -> tuple[dict[str, str], str]:
    head, _, body = asked.partition(b"\r\n\r\n")
    return dict(BytesParser().parsebytes(head.partition(b"\r\n")[2]).items()), body.decode()


def test_a_message_is_signed_with_the_key_s_secret(tmp_path: Path, receiver: Server) -> None:
    with service_for(tmp_path, receiver.address) as service:
        job_id = ended(service, f"http://{receiver.address}/hook", events=["job.scheduled", "job.succeeded"])
        deliverer = Deliverer(service.service.database, service.service.settings)
        deliverer.deliver()
        deliverer.close()
        secret = service.client("ann").get("/v1/me").json()["webhook_secret"]
        found = []
        for asked in receiver.asked:
            headers, body = taken_apart(asked)
            found.append(Webhook(secret).verify(body, headers))
            with pytest.raises(Exception, match="signature"):
                Webhook(secret).verify(body.replace("job", "jab"), headers)
        assert sorted(message["type"] for message in found) == ["job.scheduled", "job.succeeded"]
        assert {message["data"]["id"] for message in found} == {job_id}
        assert all(row.delivered is not None for row in rows(service.service.database))


def test_nobody_is_told_who_is_not_public(tmp_path: Path, receiver: Server) -> None:
    with service_for(tmp_path) as service:
        ended(service, f"http://{receiver.address}/hook")
        ended(service, "ftp://example.org/hook")
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
    with serving(reply("500 No")) as receiver:
        hooked(database, f"http://{receiver.address}/")
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
        assert len({taken_apart(asked)[0]["webhook-id"] for asked in receiver.asked}) == 1


def test_a_receiver_that_is_gone_for_good_is_not_asked_again(database: Database) -> None:
    with serving(reply("410 Gone")) as receiver:
        hooked(database, f"http://{receiver.address}/")
        delivered(database, receiver.address)
        (row,) = rows(database)
        assert row.failed == "the receiver answered 410"


def test_a_redirect_is_not_followed(database: Database) -> None:
    with serving(answer(b"", "200 OK")) as elsewhere:
        moved = answer(b"", "302 Found", f"Location: http://{elsewhere.address}/")
        with serving(moved) as receiver:
            hooked(database, f"http://{receiver.address}/")
            delivered(database, receiver.address, elsewhere.address)
        assert elsewhere.asked == []
        assert rows(database)[0].delivered is None


def test_a_revoked_key_s_webhooks_are_given_up(database: Database, receiver: Server) -> None:
    hooked(database, f"http://{receiver.address}/")
    with database.write() as session:
        session.execute(sa.update(Key).values(revoked=now()))
    delivered(database, receiver.address)
    assert receiver.asked == []
    assert rows(database)[0].failed is not None


def test_several_processes_deliver_each_message_once(database: Database, receiver: Server) -> None:
    hooked(database, f"http://{receiver.address}/", 40)
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
    ids = [taken_apart(asked)[0]["webhook-id"] for asked in receiver.asked]
    assert len(ids) == len(set(ids)) == 40


def test_a_slow_receiver_holds_up_nobody_else(
    database: Database, receiver: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def slow(send: Callable[[bytes], None], _head: bytes) -> None:
        released.wait(10)
        send(answer(b"", "204 No Content"))

    with serving(slow) as late:
        hooked(database, f"http://{late.address}/", 20)
        hooked(database, f"http://{receiver.address}/", 3)
        deliverer = Deliverer(database, ServeSettings.of(allow_fetch=(late.address, receiver.address)))
        until = time.monotonic() + 5
        while len(receiver.asked) < 3 and time.monotonic() < until:
            deliverer.deliver()
            time.sleep(0.02)
        assert len(receiver.asked) == 3
        assert 0 < len(late.asked) <= webhooks._OF_A_HOST
        released.set()
        deliverer.close()


def test_a_message_says_what_happened(database: Database, receiver: Server) -> None:
    hooked(database, f"http://{receiver.address}/")
    delivered(database, receiver.address)
    message = json.loads(taken_apart(receiver.asked[0])[1])
    assert (message["type"], message["data"]) == (
        "job.failed", {"id": "j", "state": "failed", "model": "m", "code": "x", "message": "y"},
    )  # fmt: skip
