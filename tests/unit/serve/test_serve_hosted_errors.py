"""The hosted contract's table of errors: each row through the real SDK where it can send such a thing, else by plain HTTP."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import dashscope
import pytest
import sqlalchemy as sa
from dashscope import VideoSynthesis
from dashscope.client.base_api import BaseApi
from dashscope.common.error import AuthenticationError as NoKey
from dashscope.common.error import InvalidTask
from dashscope.v2 import errors
from live import IMAGE, VIDEO, Live, quick_dashscope

from wanimate.serve.storage import StorageAway

MOVE = "wan2.2-animate-move"
PATH = "/api/v1/services/aigc/image2video/video-synthesis"
INPUT = {"image_url": IMAGE, "video_url": VIDEO}
BODY = {"model": MOVE, "input": INPUT, "parameters": {"mode": "wan-std"}}
ASYNC = {"X-DashScope-Async": "enable"}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with Live(tmp_path_factory.mktemp("serve")) as served:
        yield served


@pytest.fixture(scope="module")
def module_key(live: Live) -> str:
    return live.key("errors")


@pytest.fixture
def key(live: Live, module_key: str, monkeypatch: pytest.MonkeyPatch) -> str:
    quick_dashscope(monkeypatch, live.base, module_key)
    return module_key


@pytest.fixture
def client(live: Live, key: str) -> Iterator[dashscope.Client]:
    with dashscope.Client(api_key=key, base_url=f"{live.base}/api/v1") as made:
        yield made


def create(model: str = MOVE, inner: dict[str, Any] | None = None, **parameters: Any) -> Any:
    given = {"mode": "wan-std"} | parameters
    return VideoSynthesis.async_call(model=model, task="image2video", extra_input=inner or INPUT, **given)


def refusal(response: Any) -> tuple[int, str]:
    assert response.message
    assert response.request_id
    return int(response.status_code), str(response.code)


# 401, 403


def test_a_wrong_key(live: Live, client: dashscope.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dashscope.api_key", "sk-wrong")
    expected = (401, "InvalidApiKey")
    task = "6f3c2c0b-0000-4000-8000-000000000000"
    answers = [create(), VideoSynthesis.fetch(task), VideoSynthesis.cancel(task), VideoSynthesis.list()]
    assert [refusal(response) for response in answers] == [expected] * 4
    assert answers[0].message == "Invalid API-key provided."
    with pytest.raises(errors.AuthenticationError) as raised:
        client.videos.jobs.create(model=MOVE, extra_input=INPUT, parameters={"mode": "wan-std"}, api_key="sk-wrong")
    assert raised.value.code == "InvalidApiKey"
    with pytest.raises(InvalidTask):
        VideoSynthesis.call(model=MOVE, task="image2video", mode="wan-std", extra_input=INPUT)


def test_no_key_at_all(live: Live, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with live.http() as client:
        for headers in ({}, {"Authorization": "Basic abc"}, {"Authorization": "Bearer"}, {"Authorization": key}):
            answer = client.post(PATH, json=BODY, headers=ASYNC | headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "InvalidApiKey")
    monkeypatch.setattr("dashscope.api_key", None)
    monkeypatch.delenv("DASHSCOPE_API_KEY", raising=False)
    monkeypatch.setenv("DASHSCOPE_API_KEY_FILE_PATH", "/nonexistent")
    with pytest.raises(NoKey):
        create()


def test_a_key_that_was_revoked(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    made = live.key("revoked")
    quick_dashscope(monkeypatch, live.base, made)
    assert create().status_code == 200
    (row,) = live.service.keys.list("revoked")
    live.service.keys.revoke(row.id)
    assert refusal(create()) == (401, "InvalidApiKey")


def test_a_request_that_wants_to_wait(key: str) -> None:
    """The SDK's synchronous call sends no `X-DashScope-Async`."""
    response = BaseApi.call(
        model=MOVE, input=INPUT, task_group="aigc", task="image2video", function="video-synthesis", mode="wan-std"
    )
    assert refusal(response) == (403, "AccessDenied")
    assert response.message == "current user api does not support synchronous calls."


def test_a_key_that_may_only_read(live: Live, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dashscope.api_key", live.key("reader", scopes=["read"]))
    assert refusal(create()) == (403, "AccessDenied")
    with (
        dashscope.Client(api_key=live.key("reader", scopes=["read"]), base_url=f"{live.base}/api/v1") as client,
        pytest.raises(errors.PermissionDeniedError),
    ):
        client.videos.jobs.create(model=MOVE, extra_input=INPUT, parameters={"mode": "wan-std"})


# 400


@pytest.mark.parametrize(
    ("inner", "parameters", "code", "named"),
    [
        ({"video_url": VIDEO}, {}, "InvalidParameter", "Field required: input.image_url"),
        ({"image_url": IMAGE}, {}, "InvalidParameter", "Field required: input.video_url"),
        ({"image_url": None, "video_url": VIDEO}, {}, "InvalidParameter", "Field required: input.image_url"),
        ({"image_url": 7, "video_url": VIDEO}, {}, "InvalidParameter", "input.image_url"),
        ({"image_url": [IMAGE], "video_url": VIDEO}, {}, "InvalidParameter", "input.image_url"),
        ({"image_url": "/etc/passwd", "video_url": VIDEO}, {}, "InvalidURL", "input.image_url"),
        ({"image_url": "file:///etc/passwd", "video_url": VIDEO}, {}, "InvalidURL", "input.image_url"),
        ({"image_url": "http://a/\nb", "video_url": VIDEO}, {}, "InvalidURL", "input.image_url"),
        ({"image_url": IMAGE, "video_url": "oss://no/such"}, {}, "InvalidParameter", "X-DashScope-OssResourceResolve"),
        (INPUT | {"watermark": "yes"}, {}, "InvalidParameter", "input.watermark"),
        (INPUT, {"mode": None}, "InvalidParameter", "Field required: parameters.mode"),
        (INPUT, {"mode": "wan-max"}, "InvalidParameter", "parameters.mode"),
        (INPUT, {"mode": "WAN-STD"}, "InvalidParameter", "parameters.mode"),
        (INPUT, {"mode": 15}, "InvalidParameter", "parameters.mode"),
        (INPUT, {"check_image": "true"}, "InvalidParameter", "parameters.check_image"),
        (INPUT, {"watermark": 1}, "InvalidParameter", "parameters.watermark"),
    ],
)  # fmt: skip
def test_a_field_that_is_missing_or_wrong(
    key: str, inner: dict[str, Any], parameters: dict[str, Any], code: str, named: str
) -> None:
    response = create(inner=inner, **parameters)
    assert refusal(response) == (400, code)
    assert named in response.message


@pytest.mark.parametrize("model", ["wan2.2-animate", "WAN2.2-ANIMATE-MOVE", "wan2.2-animate-move ", "animation"])
def test_a_model_that_does_not_exist(key: str, client: dashscope.Client, model: str) -> None:
    response = create(model=model)
    assert refusal(response) == (400, "InvalidParameter")
    assert response.message == "Model not exist."
    with pytest.raises(errors.BadRequestError, match="Model not exist"):
        client.videos.jobs.create(model=model, extra_input=INPUT, parameters={"mode": "wan-std"})


def test_the_new_surface_without_parameters(client: dashscope.Client) -> None:
    with pytest.raises(errors.BadRequestError) as raised:
        client.videos.jobs.create(model=MOVE, extra_input=INPUT)
    assert raised.value.code == "BadRequest.EmptyParameters"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"input": INPUT, "parameters": {"mode": "wan-std"}}, "BadRequest.EmptyModel"),
        (BODY | {"model": ""}, "BadRequest.EmptyModel"), (BODY | {"model": ["wan"]}, "InvalidParameter"),
        (BODY | {"input": None}, "BadRequest.EmptyInput"), ({"model": MOVE}, "BadRequest.EmptyInput"),
        (BODY | {"input": "all"}, "InvalidParameter"), (BODY | {"parameters": None}, "BadRequest.EmptyParameters"),
        (BODY | {"parameters": [1]}, "InvalidParameter"),
    ],
)  # fmt: skip
def test_a_body_that_lacks_a_part(live: Live, key: str, body: dict[str, Any], code: str) -> None:
    with live.http(key) as client:
        answer = client.post(PATH, json=body, headers=ASYNC)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b'"text"', b"null", b"\xff\xfe{}", b"[" * 100_000, b'{"model": ' + b"9" * 5000 + b"}",
        b"model=wan2.2-animate-move",
    ],
    ids=["empty", "open", "list", "text", "null", "no-utf8", "deep", "huge-number", "form"],
)  # fmt: skip
def test_a_body_that_is_no_json_object(live: Live, key: str, body: bytes) -> None:
    headers = ASYNC | {"Content-Type": "application/json"}
    with live.http(key) as client:
        answer = client.post(PATH, content=body, headers=headers)
    assert answer.headers["content-type"] == "application/json"
    assert (answer.status_code, answer.json()["code"]) == (400, "BadRequest.IllegalInput")
    assert set(answer.json()) == {"request_id", "code", "message"}


def test_half_of_a_letter_in_an_address(live: Live, key: str) -> None:
    """JSON can write what no text can hold."""
    body = json.dumps(BODY).replace(IMAGE, r"http://files.example/\ud800")
    with live.http(key) as client:
        answer = client.post(PATH, content=body, headers=ASYNC | {"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "InvalidURL")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_another_content_type(live: Live, key: str, kind: str) -> None:
    headers = ASYNC | ({"Content-Type": kind} if kind else {})
    with live.http(key) as client:
        answer = client.post(PATH, content=json.dumps(BODY), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "BadRequest.IllegalInput")


def test_a_compressed_body(live: Live, key: str) -> None:
    bomb = gzip.compress(b" " * 10**7)
    headers = ASYNC | {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    with live.http(key) as client:
        answer = client.post(PATH, content=bomb, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "BadRequest.IllegalInput")


def test_a_body_that_is_too_large(live: Live, key: str) -> None:
    response = create(inner=INPUT | {"image_url": "data:image/png;base64," + "A" * live.settings.largest_body})
    assert refusal(response) == (400, "BadRequest.TooLarge")


# 429, 5xx


def test_too_many_that_wait(live: Live, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = live.key("narrow", quotas={"queued": 1})
    monkeypatch.setattr("dashscope.api_key", narrow)
    assert create().status_code == 200
    assert create().status_code == 200, "the same"
    assert refusal(create(mode="wan-pro")) == (429, "Throttling.AllocationQuota")
    with (
        dashscope.Client(api_key=narrow, base_url=f"{live.base}/api/v1") as client,
        pytest.raises(errors.RateLimitError) as raised,
    ):
        client.videos.jobs.create(model=MOVE, extra_input=INPUT, parameters={"mode": "wan-pro"})
    assert raised.value.code == "Throttling.AllocationQuota"


def test_too_fast(live: Live, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dashscope.api_key", live.key("fast", quotas={"creations_a_second": 0.01}))
    assert create().status_code == 200
    assert refusal(create()) == (429, "Throttling.RateQuota")


@pytest.mark.parametrize(
    ("error", "status", "code", "kind"),
    [
        (RuntimeError("secret detail"), 500, "InternalError", errors.InternalServerError),
        (
            sa.exc.OperationalError("SELECT secret detail", None, Exception("gone")), 503, "ServiceUnavailable",
            errors.ServiceUnavailableError,
        ),
        (StorageAway("The storage cannot be used: secret detail."), 503, "ServiceUnavailable", errors.ServiceUnavailableError),
    ],
    ids=["inside", "database", "storage"],
)  # fmt: skip
def test_what_is_wrong_within_is_told_without_details(
    live: Live, client: dashscope.Client, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, code: str,
    kind: type[Exception],
) -> None:  # fmt: skip
    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(live.service, "submit", broken)
    response = create()
    assert refusal(response) == (status, code)
    assert "secret detail" not in response.message
    with pytest.raises(kind):
        client.videos.jobs.create(model=MOVE, extra_input=INPUT, parameters={"mode": "wan-std"})


def test_a_connection_outlives_a_fault_of_ours(live: Live, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients keep connections; one that is closed without a word is an error to the next request."""

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(live.service, "submit", broken)
    connection = HTTPConnection(live.base.removeprefix("http://"), timeout=10)
    headers = ASYNC | {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    sockets = set()
    for _ in range(3):
        connection.request("POST", PATH, json.dumps(BODY), headers)
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["code"]) == (500, "InternalError")
        sockets.add(connection.sock)
    assert len(sockets) == 1
    connection.close()


def test_a_path_that_is_not_there(live: Live, key: str) -> None:
    with live.http(key) as client:
        for answer in (client.get("/api/v1/nothing"), client.get(PATH), client.post("/api/v1/tasks")):
            assert answer.status_code in (404, 405)
            assert set(answer.json()) == {"request_id", "code", "message"}
