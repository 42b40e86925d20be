"""The hosted contract through its real SDK, both surfaces of it: the road of a task, poll, cancel, list, repeated creations."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import dashscope
import httpx
import pytest
import sqlalchemy as sa
from dashscope import VideoSynthesis
from dashscope.aigc.video_synthesis import AioVideoSynthesis
from dashscope.v2.errors import BadRequestError, DashScopeError
from live import HOLD, IMAGE, VIDEO, Live, mp4, quick_dashscope, until

from wanimate.serve.tables import Creation, Job, State, now

MOVE, MIX = "wan2.2-animate-move", "wan2.2-animate-mix"
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with Live(tmp_path_factory.mktemp("serve")) as served:
        yield served


@pytest.fixture
def owner(request: pytest.FixtureRequest) -> str:
    return request.node.name


@pytest.fixture
def key(live: Live, owner: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    made = live.key(owner)
    quick_dashscope(monkeypatch, live.base, made)
    yield made
    live.clear()


@pytest.fixture
def client(live: Live, key: str) -> Iterator[dashscope.Client]:
    with dashscope.Client(api_key=key, base_url=f"{live.base}/api/v1") as made:
        yield made


def create(image: str = IMAGE, video: str = VIDEO, model: str = MOVE, **more: Any) -> Any:
    """As the page shows it for the 1.x surface."""
    given: dict[str, Any] = {"task": "image2video", "mode": "wan-std", "check_image": True} | more
    inner = {"image_url": image, "video_url": video, "watermark": False}
    return VideoSynthesis.async_call(model=model, extra_input=inner, **given)


def task_of(response: Any) -> str:
    assert response.status_code == 200, response
    return str(response.output.task_id)


# The road


@pytest.mark.parametrize(
    ("model", "task", "tier", "mode"),
    [
        (MOVE, "image2video", "wan-std", "animation"), (MIX, "image2video", "wan-pro", "replacement"),
        (MOVE, None, "wan-pro", "animation"),
    ],
)  # fmt: skip
def test_a_task_is_made_and_its_video_fetched(
    live: Live, key: str, model: str, task: str | None, tier: str, mode: str
) -> None:
    with live.working():
        response = VideoSynthesis.call(
            model=model, task=task, mode=tier, extra_input={"image_url": IMAGE, "video_url": VIDEO}
        )
    assert response.status_code == 200
    output = response.output
    assert output.task_status == "SUCCEEDED"
    assert output.video_url == output["results"]["video_url"]
    assert response.usage.video_duration == 2.4
    assert response.usage.video_ratio == ("standard" if tier == "wan-std" else "pro")
    assert all(TIME.fullmatch(output[name]) for name in ("submit_time", "scheduled_time", "end_time"))
    assert httpx.get(output.video_url, trust_env=False).content == mp4()
    row = live.row(output.task_id)
    assert row is not None
    assert (row.mode, row.tier, row.model) == (mode, tier, model)
    assert row.submission["contract"] is row.submission["check_image"] is True
    settings = live.service.settings
    assert settings.tiers[tier].fps == (15 if tier == "wan-std" else 25)


def test_a_new_task_is_pending_and_has_its_submit_time_alone(live: Live, key: str) -> None:
    response = create()
    assert response.output.task_status == "PENDING"
    output = VideoSynthesis.fetch(response).output
    assert TIME.fullmatch(output["submit_time"])
    assert "scheduled_time" not in output
    assert "end_time" not in output
    assert abs(datetime.fromisoformat(output["submit_time"]) - datetime.now()) < timedelta(seconds=20)


def test_the_new_surface_generates(live: Live, client: dashscope.Client) -> None:
    with live.working():
        job = client.videos.generate(
            model=MIX, extra_input={"image_url": IMAGE, "video_url": VIDEO}, parameters={"mode": "wan-pro"}
        )
    assert job.succeeded
    assert job.video_url == job.output["results"]["video_url"]
    assert all(TIME.fullmatch(at) for at in (job.submitted_at, job.scheduled_at, job.finished_at))
    assert job.usage.video_duration == 2.4


def test_the_asynchronous_classes(live: Live, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The 1.x one polls with a slash at the end."""
    sleep = asyncio.sleep
    monkeypatch.setattr("dashscope.client.base_api.asyncio.sleep", lambda _: sleep(0.02))

    async def both() -> tuple[Any, Any]:
        inner = {"image_url": IMAGE, "video_url": VIDEO}
        old = await AioVideoSynthesis.async_call(model=MOVE, task="image2video", mode="wan-std", extra_input=inner)
        waited = await AioVideoSynthesis.wait(old)
        listed = await AioVideoSynthesis.list()
        assert [row["task_id"] for row in listed.output["data"]] == [waited.output.task_id]
        async with dashscope.AsyncClient(api_key=key, base_url=f"{live.base}/api/v1") as client:
            new = await client.videos.generate(
                model=MIX, extra_input=inner, parameters={"mode": "wan-std"}, poll_interval=0.02
            )
        return waited, new

    with live.working():
        waited, new = asyncio.run(both())
    assert waited.output.task_status == "SUCCEEDED"
    assert new.succeeded


def test_a_running_task_polls_as_running(live: Live, key: str) -> None:
    with live.working() as runner:
        response = create(image=HOLD)
        assert runner.running.wait(10)
        output = VideoSynthesis.fetch(response).output
        assert output.task_status == "RUNNING"
        assert TIME.fullmatch(output["scheduled_time"])
        assert "end_time" not in output
        assert not output.get("video_url")


def test_what_the_job_cannot_do_ends_as_failed(live: Live, key: str, client: dashscope.Client) -> None:
    code = "InvalidImage.NoHuman"
    with live.working():
        response = VideoSynthesis.wait(create(image=f"http://do/refuse/{code}"))
        assert response.status_code == 200
        assert response.output.task_status == "FAILED"
        assert response.output["code"] == code
        assert "no human body" in response.output["message"]
        assert not response.code
        with pytest.raises(DashScopeError, match="no human body") as raised:
            client.videos.jobs.wait(response.output.task_id)
    assert raised.value.code == code


def test_a_worker_that_fails_is_followed_by_another_and_then_told(live: Live, key: str) -> None:
    task = create(image="http://do/break")

    def has_failed() -> bool:
        with live.service.database.write() as session:  # without the pause before the next attempt
            session.execute(sa.update(Job).where(Job.id == task_of(task)).values(not_before=0))
        return bool(VideoSynthesis.fetch(task).output.task_status == "FAILED")

    with live.working():
        until(has_failed)
    output = VideoSynthesis.fetch(task).output
    assert output["code"] == "InternalError"
    assert "3 times" in output["message"]
    assert "the GPU fell out of its slot" in output["message"]


def test_a_file_as_a_data_uri_is_the_workers_to_refuse(key: str) -> None:
    assert create(video="data:video/mp4;base64,AAAA").output.task_status == "PENDING"


# Options


@pytest.mark.parametrize(
    ("inner", "parameters", "marked"),
    [
        ({"watermark": True}, {}, True), ({}, {"watermark": True}, True), ({"watermark": None}, {"watermark": True}, True),
        ({"watermark": False}, {"watermark": True}, False), ({}, {}, False),
    ],
)  # fmt: skip
def test_a_watermark_is_asked_for_in_either_place(
    live: Live, client: dashscope.Client, inner: dict[str, Any], parameters: dict[str, Any], marked: bool
) -> None:
    job = client.videos.jobs.create(
        model=MOVE, extra_input={"image_url": IMAGE, "video_url": VIDEO} | inner,
        parameters={"mode": "wan-std", "check_image": False} | parameters,
    )  # fmt: skip
    row = live.row(job.task_id)
    assert row is not None
    assert row.submission["output"] == ({"watermark": True} if marked else {})
    assert row.submission["check_image"] is False


def test_fields_that_nobody_knows_are_let_pass(live: Live, key: str) -> None:
    """The 1.x surface always sends `prompt: null`, `extend_prompt` and `function`; another client sends `duration`."""
    task_of(create(duration=5, seed=3, size="1280*720", prompt_extend=True, wish="more"))


# Poll


def test_what_is_not_there_is_unknown_and_no_error(live: Live, key: str, client: dashscope.Client) -> None:
    quick = live.http(live.key("somebody else"))
    body = {
        "model": MOVE, "input": {"image_url": IMAGE, "video_url": VIDEO}, "parameters": {"mode": "wan-std"},
    }  # fmt: skip
    made = quick.post(
        "/api/v1/services/aigc/image2video/video-synthesis", json=body, headers={"X-DashScope-Async": "enable"}
    )
    foreign = made.json()["output"]["task_id"]
    expired = task_of(create())
    with live.service.database.write() as session:
        session.execute(sa.update(Job).where(Job.id == expired).values(state=State.SUCCEEDED, expires=now() - 1))
    for task in (foreign, expired, "6f3c2c0b-0000-4000-8000-000000000000", "no-such-task", "ä"):
        response = VideoSynthesis.fetch(task)
        assert (response.status_code, response.output.task_status) == (200, "UNKNOWN"), task
        assert set(response.output) - {"video_url"} == {"task_id", "task_status"}
        assert client.videos.jobs.wait(task).status == "UNKNOWN"
    assert VideoSynthesis.wait(foreign).output.task_status == "UNKNOWN"
    assert live.http(key).get("/api/v1/tasks/%00%ff").json()["output"]["task_status"] == "UNKNOWN"


def test_polls_are_never_throttled(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = live.key("slow", quotas={"creations_a_second": 0.01, "requests_a_second": 1.0})
    quick_dashscope(monkeypatch, live.base, slow)
    task = task_of(create())
    with live.http(slow) as client:
        assert {client.get(f"/api/v1/tasks/{task}").status_code for _ in range(15)} == {200}
    again = create(mode="wan-pro")
    assert (again.status_code, again.code) == (429, "Throttling.RateQuota")


def test_polls_go_on_while_the_database_is_away(
    live: Live, key: str, client: dashscope.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(create())
    with live.working():
        until(lambda: VideoSynthesis.fetch(task).output.task_status == "SUCCEEDED")
    find, failed = live.service.job, []

    def away(*given: Any) -> Job:
        if len(failed) < 2:
            failed.append(given)
            raise sa.exc.OperationalError("SELECT 1", None, Exception("the server closed the connection"))
        return find(*given)

    monkeypatch.setattr(live.service, "job", away)
    response = VideoSynthesis.fetch(task)
    assert (response.status_code, response.code) == (503, "ServiceUnavailable")
    assert VideoSynthesis.wait(task).output.task_status == "SUCCEEDED"
    assert len(failed) == 2
    failed.clear()
    assert client.videos.jobs.fetch(task).succeeded


# Cancel


def test_a_task_that_waits_is_cancelled_once(live: Live, key: str, client: dashscope.Client) -> None:
    task = create()
    response = VideoSynthesis.cancel(task)
    assert (response.status_code, response.code or "") == (200, "")
    output = VideoSynthesis.wait(task).output
    assert output.task_status == "CANCELED"
    assert TIME.fullmatch(output["end_time"])
    assert "code" not in output
    response = VideoSynthesis.cancel(task)
    assert (response.status_code, response.code) == (400, "UnsupportedOperation")
    with pytest.raises(BadRequestError, match="PENDING") as raised:
        client.videos.jobs.cancel(task_of(task))
    assert raised.value.code == "UnsupportedOperation"
    with pytest.raises(DashScopeError, match="canceled"):
        client.videos.jobs.wait(task_of(task))


def test_what_runs_or_has_ended_is_not_cancelled(live: Live, key: str) -> None:
    with live.working() as runner:
        task = create(image=HOLD)
        assert runner.running.wait(10)
        assert VideoSynthesis.cancel(task).code == "UnsupportedOperation"
        runner.released.set()
        assert VideoSynthesis.wait(task).output.task_status == "SUCCEEDED"
    assert VideoSynthesis.cancel(task).code == "UnsupportedOperation"
    for unknown in ("6f3c2c0b-0000-4000-8000-000000000000", "nothing"):
        response = VideoSynthesis.cancel(unknown)
        assert (response.status_code, response.code) == (400, "UnsupportedOperation")


def test_a_cancel_between_claim_and_start_comes_too_late(live: Live, key: str) -> None:
    """A claimed job runs. It is never both: cancelled for the client and done by the worker."""
    for _ in range(6):
        task = task_of(create(mode="wan-std", extra=time.monotonic_ns()))
        start = threading.Barrier(2)

        def claim(start: threading.Barrier = start, task: str = task) -> bool:
            start.wait()
            claim = live.service.queue.claim("claimer", ["prepare"])  # type: ignore[list-item]
            return claim is not None and claim.job_id == task

        def cancel(start: threading.Barrier = start, task: str = task) -> bool:
            start.wait()
            return bool(VideoSynthesis.cancel(task).status_code == 200)

        with ThreadPoolExecutor(2) as pool:
            claimed, cancelled = pool.submit(claim), pool.submit(cancel)
            assert claimed.result() is not cancelled.result()
        status = VideoSynthesis.fetch(task).output.task_status
        assert status == ("CANCELED" if cancelled.result() else "RUNNING")
        live.service.queue.cancel(task)
        live.service.queue.worker_ended("claimer", "the test is over")


# Repeated creations


def test_a_repeated_creation_is_the_same_task(live: Live, key: str, owner: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        tasks = {task_of(made.result()) for made in [pool.submit(create) for _ in range(8)]}
    assert len(tasks) == 1
    assert task_of(create()) in tasks
    assert task_of(create(mode="wan-pro")) not in tasks
    assert task_of(create(model=MIX)) not in tasks
    with live.service.database.write() as session:
        session.execute(sa.update(Creation).values(expires=now() - 1))
    assert task_of(create()) not in tasks
    dashscope.api_key = live.key(owner)
    assert task_of(create()) not in tasks, "of another key"


def test_who_cancels_and_asks_again_gets_a_new_task(key: str) -> None:
    first = create()
    VideoSynthesis.cancel(first)
    second = create()
    assert task_of(second) != task_of(first)
    assert VideoSynthesis.fetch(second).output.task_status == "PENDING"


def test_a_creation_whose_answer_was_lost_is_repeated_by_the_client_and_found(
    live: Live, client: dashscope.Client, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The 2.0 surface repeats a creation on 5xx, and sends no idempotency key."""
    submit, made = live.service.submit, []

    def lost(*given: Any, **more: Any) -> Job:
        made.append(submit(*given, **more))
        if len(made) == 1:
            raise sa.exc.OperationalError("COMMIT", None, Exception("the connection was lost"))
        return made[-1]

    monkeypatch.setattr(live.service, "submit", lost)
    job = client.videos.jobs.create(
        model=MOVE, extra_input={"image_url": IMAGE, "video_url": VIDEO}, parameters={"mode": "wan-std"}
    )
    assert [row.id for row in made] == [job.task_id] * 2
    assert client.videos.jobs.list().total == 1


def test_a_creation_that_fails_leaves_no_row(live: Live, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the last thing of a creation")

    with monkeypatch.context() as patch:
        patch.setattr(live.service, "audit", broken)
        response = create()
    assert (response.status_code, response.code) == (500, "InternalError")
    assert VideoSynthesis.list().output["total"] == 0


# List


def test_a_list_has_its_rows_in_both_places(live: Live, key: str, client: dashscope.Client, owner: str) -> None:
    with live.working():
        done = VideoSynthesis.wait(create()).output.task_id
        failed = VideoSynthesis.wait(create(image="http://do/refuse/InvalidImage.NoHuman")).output.task_id
    waits = task_of(create(model=MIX))
    dashscope.api_key = live.key(owner)  # another key of the account
    body = VideoSynthesis.list().output
    assert [row["task_id"] for row in body["data"]] == [waits, failed, done]
    assert [row["status"] for row in body["data"]] == ["PENDING", "FAILED", "SUCCEEDED"]
    assert {name: body[name] for name in ("total", "total_page", "page_no", "page_size")} == {
        "total": 3, "total_page": 1, "page_no": 1, "page_size": 10,
    }  # fmt: skip
    last = body["data"][-1]
    assert last["model_name"] == MOVE
    assert last["gmt_create"] <= last["start_time"] <= last["end_time"] <= now()
    assert last["user_api_unique_key"].endswith(MOVE)
    assert {"region", "request_id", "api_key_id", "caller_uid", "caller_parent_id"} <= set(last)
    assert "end_time" not in body["data"][0]
    page = client.videos.jobs.list()
    assert [job.task_id for job in page.tasks] == [waits, failed, done]
    assert [job.status for job in page.tasks] == ["PENDING", "FAILED", "SUCCEEDED"]
    assert TIME.fullmatch(page.tasks[-1].finished_at)
    assert not any(job.is_error for job in page.tasks)


def test_a_list_is_filtered_and_paged(live: Live, key: str) -> None:
    tasks = [task_of(create(model=model, mode=mode)) for model in (MOVE, MIX) for mode in ("wan-std", "wan-pro")]
    VideoSynthesis.cancel(tasks[0])

    def listed(**given: Any) -> list[str]:
        return [row["task_id"] for row in VideoSynthesis.list(**given).output["data"]]

    assert listed() == tasks[::-1]
    assert listed(model_name=MIX) == tasks[:1:-1]
    assert listed(status="CANCELED") == tasks[:1]
    assert listed(status="UNKNOWN") == []
    assert listed(page_no=2, page_size=3) == tasks[:1]
    assert listed(page_no=9) == []
    assert listed(region="cn-beijing", api_key_id="another") == []
    assert VideoSynthesis.list(page_size=3).output["total_page"] == 2
    at = datetime.now()
    written = [(at + timedelta(hours=hours)).strftime("%Y%m%d%H%M%S") for hours in (-25, -12, 12, -1)]
    assert listed(start_time=written[1], end_time=written[2]) == tasks[::-1]
    assert listed(start_time=written[1]) == listed(end_time=written[2]) == tasks[::-1]
    assert listed(start_time=written[0], end_time=written[3]) == []
    with live.http(key) as client:
        one = client.get("/api/v1/tasks/", params={"task_id": tasks[1]}).json()
        assert [row["task_id"] for row in one["data"]] == [tasks[1]]
        assert client.get("/api/v1/tasks", params={"task_id": "none\0"}).json()["total"] == 0


@pytest.mark.parametrize(
    "asked",
    [
        {"start_time": "20260101000000", "end_time": "20260103000000"}, {"start_time": "yesterday"},
        {"end_time": "00000000000000"}, {"start_time": "2026-01-01"}, {"status": "DONE"}, {"page_no": 0},
        {"page_size": 1000}, {"page_no": "many"}, {"start_time": "20260102000000", "end_time": "20260101000000"},
    ],
)  # fmt: skip
def test_a_filter_that_cannot_be_is_refused(key: str, asked: dict[str, Any]) -> None:
    response = VideoSynthesis.list(**asked)
    assert (response.status_code, response.code) == (400, "InvalidParameter")


# Owners, spellings


def test_owners_see_nothing_of_each_other(live: Live, key: str) -> None:
    task = task_of(create())
    with live.http(live.key("a stranger")) as stranger:
        assert stranger.get(f"/api/v1/tasks/{task}").json()["output"]["task_status"] == "UNKNOWN"
        assert stranger.post(f"/api/v1/tasks/{task}/cancel").json()["code"] == "UnsupportedOperation"
        assert stranger.get("/api/v1/tasks").json()["total"] == 0
        assert stranger.get("/api/v1/tasks", params={"task_id": task}).json()["data"] == []
    assert VideoSynthesis.fetch(task).output.task_status == "PENDING"


def test_both_spellings_answer_without_a_redirect(live: Live, key: str) -> None:
    body = {"model": MOVE, "input": {"image_url": IMAGE, "video_url": VIDEO}, "parameters": {"mode": "wan-std"}}
    seen = set()
    with live.http(key) as client:
        for task in ("image2video", "video-generation"):
            for end in ("", "/"):
                path = f"/api/v1/services/aigc/{task}/video-synthesis{end}"
                made = client.post(path, json=body, headers={"X-DashScope-Async": "enable"})
                assert made.status_code == 200, path
                seen.add(made.json()["output"]["task_id"])
        (task_id,) = seen
        for path in (f"tasks/{task_id}", "tasks", f"uploads?action=getPolicy&model={MOVE}"):
            head, mark, query = path.partition("?")
            for end in ("", "/"):
                assert client.get(f"/api/v1/{head}{end}{mark}{query}").status_code == 200, path
        assert client.post(f"/api/v1/tasks/{task_id}/cancel/").status_code == 200
