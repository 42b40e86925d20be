"""Requests that Schemathesis makes of the OpenAPI description: none of them is answered with a 5xx."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.core.errors import InvalidSchema
from schemathesis.generation import GenerationMode

from wanimate.serve.app import create_app
from wanimate.serve.database import Database
from wanimate.serve.service import Service
from wanimate.serve.settings import Quotas, ServeSettings

OPEN_ENDED = ("/v1/events", "/v1/guest/events", "/v1/jobs/{job_id}/events")
"""Streams of events end with the client."""


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Service:
    """Over SQLite and Postgres: they refuse other texts and numbers."""
    quotas = Quotas(queued=None, creations_a_second=1e6, requests_a_second=1e6)
    return Service(ServeSettings(data=tmp_path, quotas=quotas, largest_body=2**16), database)


def wrong_answers(service: Service, examples: int, prefix: str = "/") -> list[str]:
    """What was answered with a 5xx: method, address, body."""
    app = create_app(service.settings, service)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    key = {"Authorization": f"Bearer {service.keys.create('ann', ('submit', 'read', 'admin'))}"}
    found: list[str] = []
    with TestClient(app, raise_server_exceptions=False) as client:
        for result in schema.get_all_operations():
            operation = result.ok()
            if operation is None or operation.path in OPEN_ENDED or not operation.path.startswith(prefix):
                continue
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                _try(operation, mode, examples, client, key, found)
    return found


def _try(operation: Any, mode: Any, examples: int, client: TestClient, key: dict[str, str], found: list[str]) -> None:
    try:
        strategy = operation.as_strategy(generation_mode=mode)
    except InvalidSchema as error:
        raise AssertionError(f"{operation.label}: {error}") from error

    @given(case=strategy)
    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def one(case: Any) -> None:
        answer = case.call(session=client, headers=key)
        if answer.status_code >= 500:
            found.append(f"{operation.label} {answer.status_code}: {case.as_curl_command()}")

    with suppress(Unsatisfiable):  # nothing about the operation can be made wrong
        one()


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
def test_odd_requests_are_answered_in_order(service: Service) -> None:
    assert wrong_answers(service, 2, "/api/v1/tasks/") == []


@pytest.mark.slow
def test_many_odd_requests_are_answered_in_order(service: Service) -> None:
    assert wrong_answers(service, 10) == []


ODD = ["\0", "%00", "\ud800".encode("utf-8", "surrogatepass"), "9" * 30, "a" * 70, "..", "%2e%2e%2f", "é", "🎬"]
"""Parts of addresses that some database refuses."""
PATHS = (
    "/api/v1/tasks/{}", "/v1/jobs/{}", "/v1/videos/{}", "/v1/uploads/{}", "/v1/batches/{}", "/v1/shots/{}",
    "/v1/consents/{}",
)  # fmt: skip


def test_odd_ids_are_unknown_ids(service: Service) -> None:
    key = {"Authorization": f"Bearer {service.keys.create('ann', ('submit', 'read', 'admin'))}"}
    client = TestClient(create_app(service.settings, service), raise_server_exceptions=False)
    for path in PATHS:
        for odd in ODD:
            answer = client.get(path.format(quote(odd, safe="%")), headers=key)
            assert answer.status_code < 500, (path, odd, answer.text)
