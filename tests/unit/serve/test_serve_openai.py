"""OpenAI's videos contract through its real SDK, and what other clients of it send by HTTP."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
import sqlalchemy as sa
from live import HOLD, IMAGE, VIDEO, Live, mp4, png, until
from openai import OpenAI
from openai.types import Video

from wanimate.serve.submission import Submission
from wanimate.serve.tables import Job, State, Upload, now

PICTURE, CLIP = ("character.png", png(), "image/png"), ("performer.mp4", mp4(), "video/mp4")
FORM = "multipart/form-data; boundary=b"
pytestmark = pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with Live(tmp_path_factory.mktemp("serve"), largest_clip=2**21) as served:
        yield served


@pytest.fixture
def owner(request: pytest.FixtureRequest) -> str:
    return request.node.name[:150]


@pytest.fixture
def key(live: Live, owner: str) -> Iterator[str]:
    yield live.key(owner)
    live.clear()


@pytest.fixture
def client(live: Live, key: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAI]:
    monkeypatch.setattr("openai._base_client.BaseClient._calculate_retry_timeout", lambda *_, **__: 0.01)
    with OpenAI(api_key=key, base_url=f"{live.base}/v1") as made:
        yield made


def create(client: OpenAI, prompt: str = "", **more: Any) -> Video:
    extra = {"reference_url": IMAGE, "video_url": VIDEO} | more.pop("extra_body", {})
    return client.videos.create(prompt=prompt, extra_body=extra, **more)


def submission(live: Live, video: Video) -> dict[str, Any]:
    row = live.row(video.id)
    assert row is not None
    return dict(row.submission)


# The road


def test_a_video_is_made_and_fetched(live: Live, client: OpenAI) -> None:
    with live.working() as runner:
        video = client.videos.create(prompt="a dancer", input_reference=PICTURE, extra_body={"video_url": VIDEO})
        assert (video.object, video.status, video.progress, video.error) == ("video", "queued", 0, None)
        assert abs(video.created_at - time.time()) < 20
        video = client.videos.poll(video.id, poll_interval_ms=20)
        assert runner.inputs[video.id] == {"image": png()}
    assert (video.status, video.progress, video.prompt) == ("completed", 100, "a dancer")
    assert (video.seconds, video.size) == ("2.4", "1280x720")
    assert video.completed_at is not None
    assert video.expires_at is not None
    assert video.created_at <= video.completed_at < video.expires_at
    assert client.videos.download_content(video.id).read() == mp4()
    assert client.videos.download_content(video.id, variant="thumbnail").read() == png()
    assert client.videos.download_content(video.id, variant="spritesheet").read() == png(200)
    with live.http(client.api_key) as http:
        part = http.get(f"/v1/videos/{video.id}/content", headers={"Range": "bytes=4-7"})
    assert (part.status_code, part.content, part.headers["content-type"]) == (206, b"ftyp", "video/mp4")


def test_create_and_poll_reads_the_interval_from_the_answer(
    live: Live, client: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        assert len(slept) < 500
        time.sleep(0.02)

    monkeypatch.setattr(client.videos, "_sleep", sleep)
    with live.working():
        video = client.videos.create_and_poll(
            prompt="", input_reference=PICTURE, extra_body={"video_url": VIDEO, "mode": "wan-std"}
        )
    assert video.status == "completed"
    assert set(slept) <= {0.5, 1.0}


def test_a_running_video_says_how_far_it_is(live: Live, client: OpenAI) -> None:
    with live.working() as runner:
        video = create(client, extra_body={"reference_url": HOLD})
        assert runner.running.wait(10)
        until(lambda: client.videos.retrieve(video.id).progress == 25)
        answer = client.videos.with_raw_response.retrieve(video.id)
        assert answer.parse().status == "in_progress"
        assert answer.headers["openai-poll-after-ms"] == "800"


def test_what_the_job_cannot_do_ends_as_failed(live: Live, client: OpenAI) -> None:
    with live.working():
        video = create(client, extra_body={"reference_url": "http://do/refuse/InvalidImage.NoHuman"})
        video = client.videos.poll(video.id, poll_interval_ms=20)
    assert video.status == "failed"
    assert video.error is not None
    assert (video.error.code, video.error.message) == ("InvalidImage.NoHuman", "The input image has no human body.")
    with pytest.raises(openai.BadRequestError) as raised:
        client.videos.download_content(video.id)
    assert raised.value.code == "video_not_ready"


def test_a_cancelled_video_ends_the_poll(live: Live, client: OpenAI) -> None:
    video = create(client)
    live.service.queue.cancel(video.id)
    assert client.videos.poll(video.id, poll_interval_ms=20).status == "cancelled"


# The ways in which clients send picture and clip


def test_a_list_of_two_files_is_told_apart_by_content(live: Live, client: OpenAI) -> None:
    swapped = [("one", mp4(30), "image/png"), ("two", png(30), "video/mp4")]
    with live.working() as runner:
        for files in ([PICTURE, CLIP], [CLIP, PICTURE], swapped):
            video = client.videos.create(prompt="", input_reference=files)  # type: ignore[arg-type]
            client.videos.poll(video.id, poll_interval_ms=20)
            read = runner.inputs[video.id]
            assert (read["image"][1:4], read["video"][4:8]) == (b"PNG", b"ftyp")


def test_both_files_by_the_low_level_call(live: Live, client: OpenAI) -> None:
    files = {"input_reference": PICTURE, "input_video": CLIP}
    options: Any = {"headers": {"Content-Type": "multipart/form-data"}}
    body = {"prompt": "x", "model": "wan2.2-animate-mix", "mode": "wan-pro"}
    with live.working() as runner:
        video = client.post("/videos", cast_to=Video, body=body, files=files, options=options)
        client.videos.poll(video.id, poll_interval_ms=20)
    assert runner.inputs[video.id] == {"image": png(), "video": mp4()}
    row = live.row(video.id)
    assert row is not None
    assert (row.mode, row.tier, row.model) == ("replacement", "wan-pro", "wan2.2-animate-mix")


@pytest.mark.parametrize(
    "body",
    [
        {"reference_url": IMAGE, "video_url": VIDEO}, {"image_url": IMAGE, "video_url": {"url": VIDEO}},
        {"image_reference": {"image_url": IMAGE}, "video_url": VIDEO},
        {"image_reference": {"image_url": {"url": IMAGE}}, "video_url": VIDEO},
        {"input_reference": {"image_url": IMAGE}, "extra_params": {"video_url": VIDEO}},
        {"input_reference": IMAGE, "extra_params": json.dumps({"video_url": VIDEO})},
        {"input_references": [{"image_url": IMAGE}, {"video_url": VIDEO}]},
        {"input_references": [{"type": "video", "url": VIDEO}, {"type": "image", "url": IMAGE}]},
        {"input_references": [VIDEO, IMAGE]}, {"input_reference": [IMAGE, VIDEO]},
        {"image_reference": IMAGE, "input_video": VIDEO},
    ],
    ids=lambda body: "+".join(body),
)  # fmt: skip
def test_addresses_under_every_name(live: Live, key: str, body: dict[str, Any]) -> None:
    """As JSON, and as a form whose nested keys are `a[b]`."""
    with live.http(key) as http:
        answer = http.post("/v1/videos", json={"prompt": "json"} | body)
        assert answer.status_code == 200, answer.text
        rows = [live.row(answer.json()["id"])]
    with OpenAI(api_key=key, base_url=f"{live.base}/v1") as client, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows.append(live.row(client.videos.create(prompt="form", extra_body=body).id))
    for row in rows:
        assert row is not None
        assert (row.submission["image"]["url"], row.submission["video"]["url"]) == (IMAGE, VIDEO)


def test_an_upload_by_its_id(live: Live, client: OpenAI, owner: str, tmp_path: Any) -> None:
    place = tmp_path / "a.png"
    place.write_bytes(png())
    upload = live.service.add_upload(owner, place, "a.png", "0" * 64)
    foreign = live.service.add_upload("a stranger", place, "a.png", "0" * 64)
    body = {"video_url": VIDEO, "image_reference": {"file_id": upload.id}}
    video = client.videos.create(prompt="", extra_body=body)
    assert submission(live, video)["image"] == {"url": None, "upload": upload.id, "library": None}
    for id_ in (foreign.id, "file_none"):
        with pytest.raises(openai.BadRequestError, match="no such upload"):
            client.videos.create(prompt="", extra_body=body | {"image_reference": {"file_id": id_}})


def test_an_edit_puts_the_character_into_the_clip(live: Live, client: OpenAI) -> None:
    with live.working() as runner:
        video = client.videos.edit(prompt="", video=CLIP, extra_body={"reference_url": IMAGE})
        client.videos.poll(video.id, poll_interval_ms=20)
    assert runner.inputs[video.id] == {"video": mp4()}
    assert submission(live, video)["mode"] == "replacement"
    with pytest.raises(openai.BadRequestError, match="the character's picture"):
        client.videos.edit(prompt="", video=CLIP)
    with live.http(client.api_key) as http:
        answer = http.post("/v1/videos/edits", json={"video": {"id": video.id}, "reference_url": IMAGE})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "video")


# Options


def test_options_are_settings(live: Live, client: OpenAI) -> None:
    extra = {
        "mode": "wan-std", "check_image": True, "person": 2, "seed": 7, "num_inference_steps": 4, "watermark": True,
        "preprocess": {"smooth": False},
    }  # fmt: skip
    video = create(client, "a dancer", size="1280x720", seconds="4", extra_body=extra)
    asked = submission(live, video)
    assert (asked["tier"], asked["check_image"], asked["contract"], asked["prompt"]) == (
        "wan-std",
        True,
        True,
        "a dancer",
    )
    job = live.service.job(live.service.keys.find(client.api_key), video.id)  # type: ignore[arg-type]
    read = Submission.model_validate(job.submission)
    preprocess = read.preprocess_settings(live.settings)
    assert (preprocess.person, preprocess.area, preprocess.fps, preprocess.smooth) == ("2", 1280 * 720, 15, False)
    generate = read.generate_settings(live.settings)
    assert (generate.seed, generate.steps, generate.prompt) == (7, 4, "a dancer")
    assert read.output_settings(live.settings).watermark is True
    assert video.size == "1280x720"


@pytest.mark.parametrize(
    ("body", "mode", "model"),
    [
        ({}, "animation", "mannequin"), ({"model": "wan2.2-animate-mix"}, "replacement", "wan2.2-animate-mix"),
        ({"model": "replace"}, "replacement", "replace"), ({"mode": "replacement"}, "replacement", "mannequin"),
        ({"model": "mannequin", "mode": "mix"}, "replacement", "mannequin"),
        ({"model": "wan2.2-animate-mix", "mode": "wan-pro"}, "replacement", "wan2.2-animate-mix"),
    ],
)  # fmt: skip
def test_models_and_modes(live: Live, client: OpenAI, body: dict[str, str], mode: str, model: str) -> None:
    video = create(client, extra_body=body)
    assert submission(live, video)["mode"] == mode
    assert video.model == model


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"model": "sora-2"}, "model", "model_not_found"), ({"mode": "wan-max"}, "mode", "InvalidParameter"),
        ({"check_image": "perhaps"}, "check_image", "InvalidParameter"), ({"size": "huge"}, "size", "InvalidParameter"),
        ({"seed": "x"}, "seed", "InvalidParameter"), ({"seed": -1}, "seed", "InvalidParameter"),
        ({"video_path": "/etc/passwd"}, "video_path", "InvalidParameter"),
        ({"reference_url": "/etc/passwd"}, "reference_url", "InvalidURL"),
        ({"video_url": "file:///etc/passwd"}, "video_url", "InvalidURL"),
        ({"reference_url": None}, "input_reference", "InvalidParameter"), ({"video_url": ""}, "video_url", "InvalidParameter"),
        ({"image_url": IMAGE}, "input_reference", "InvalidParameter"),
        ({"preprocess": {"models": "/"}}, "preprocess.models", "InvalidParameter"),
        ({"preprocess": "all"}, "preprocess", "InvalidParameter"), ({"extra_params": "{"}, "extra_params", "InvalidParameter"),
        ({"image_reference": {"name": "x"}}, "image_reference", "InvalidParameter"),
    ],
)  # fmt: skip
def test_what_is_wrong_names_its_field(client: OpenAI, body: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        create(client, extra_body=body)
    assert (raised.value.param, raised.value.code) == (param, code)
    assert raised.value.type == "invalid_request_error"


def test_files_that_are_wrong(live: Live, client: OpenAI) -> None:
    big = ("big.mp4", mp4() + bytes(2**21), "video/mp4")
    cases: list[tuple[Any, str]] = [
        ([PICTURE, PICTURE, CLIP], "more than one picture"), ([PICTURE, big], "larger than"),
        ([PICTURE, ("a.txt", b"a text", "text/plain")], "no picture and no clip"), ([PICTURE] * 5, "more files"),
    ]  # fmt: skip
    for files, why in cases:
        with pytest.raises(openai.BadRequestError, match=why):
            client.videos.create(
                prompt="", input_reference=files, extra_body={"video_url": VIDEO} if files[-1] != CLIP else {}
            )
    with pytest.raises(openai.BadRequestError, match="has to be a clip"):
        client.post("/videos", cast_to=Video, body={}, files={"input_video": PICTURE},
                    options={"headers": {"Content-Type": "multipart/form-data"}})  # fmt: skip
    with open(__file__, "rb") as file, pytest.raises(openai.BadRequestError, match="http"):
        client.videos.create(prompt="", extra_body={"input_reference": file, "video_url": VIDEO})
    assert list(live.settings.scratch.glob("incoming-*")) == []


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{", "application/json"), (b"[]", "application/json"), (b"", "application/json"), (b"prompt=x", "text/plain"),
        (b"prompt=x", "application/x-www-form-urlencoded"), (b"", "multipart/form-data"), (b"x", FORM),
        (b'{"prompt": "\\u0000"}', "application/json"), (b'{"prompt": ["a"]}', "application/json"),
        (b'--b\r\nContent-Disposition: form-data; name="a[b][c][d][e][f][g][h][i]"\r\n\r\n\r\n--b--\r\n', FORM),
        (b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n\xff\r\n--b--\r\n', FORM),
        (b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 300 + b"--b--\r\n", FORM),
    ],
)  # fmt: skip
def test_bodies_that_are_none(live: Live, key: str, body: bytes, kind: str) -> None:
    with live.http(key) as http:
        answer = http.post("/v1/videos", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


# Errors, repeats


def test_keys(live: Live, client: OpenAI) -> None:
    with (
        OpenAI(api_key="sk-wrong", base_url=f"{live.base}/v1") as wrong,
        pytest.raises(openai.AuthenticationError) as raised,
    ):
        wrong.videos.list()
    assert raised.value.code == "invalid_api_key"
    with OpenAI(api_key=live.key("reader", scopes=["read"]), base_url=f"{live.base}/v1") as reader:
        assert list(reader.videos.list()) == []
        with pytest.raises(openai.PermissionDeniedError):
            create(reader)


def test_too_many_and_too_fast(live: Live, client: OpenAI) -> None:
    quotas = [({"queued": 1}, "Throttling.AllocationQuota"), ({"creations_a_second": 0.001}, "Throttling.RateQuota")]
    for number, (quota, code) in enumerate(quotas):
        key = live.key(f"narrow {number}", quotas=quota)
        with OpenAI(api_key=key, base_url=f"{live.base}/v1", max_retries=0) as narrow:
            create(narrow)
            with pytest.raises(openai.RateLimitError) as raised:
                create(narrow, "another")
        assert raised.value.code == code


def test_a_creation_that_the_client_repeats_is_the_same_video(
    live: Live, client: OpenAI, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are sent again and stored once."""
    submit, made = live.service.submit, []

    def lost(*given: Any, **more: Any) -> Job:
        made.append(submit(*given, **more))
        if len(made) == 1:
            raise sa.exc.OperationalError("COMMIT", None, Exception("the connection was lost"))
        return made[-1]

    monkeypatch.setattr(live.service, "submit", lost)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(client.videos.create, prompt="", input_reference=[PICTURE, CLIP]) for _ in range(4)]  # type: ignore[arg-type]
        ids = {one.result().id for one in asked}
    assert len(made) == 5
    assert ids == {row.id for row in made}
    assert len(ids) == 1
    with live.service.database.read() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Upload).where(Upload.owner == owner)) == 2


def test_an_idempotency_key(live: Live, client: OpenAI) -> None:
    again = {"Idempotency-Key": "night 7"}
    first = client.videos.create(prompt="", input_reference=[PICTURE, CLIP], extra_headers=again)  # type: ignore[arg-type]
    second = client.videos.create(prompt="", input_reference=[PICTURE, CLIP], extra_headers=again)  # type: ignore[arg-type]
    assert first.id == second.id
    with pytest.raises(openai.ConflictError):
        create(client, "another", extra_headers=again)


# List


def test_a_list_is_paged_by_the_client(client: OpenAI) -> None:
    ids = [create(client, str(number)).id for number in range(5)]
    assert [video.id for video in client.videos.list(limit=2)] == ids[::-1]
    assert [video.id for video in client.videos.list(limit=2, order="asc")] == ids
    page = client.videos.list(limit=3)
    assert (page.has_more, page.last_id, len(page.data)) == (True, ids[2], 3)
    assert client.videos.list(limit=5).has_more is False
    assert [video.id for video in client.videos.list(after=ids[1])] == ids[:1]
    for asked in ({"limit": 0}, {"limit": 101}, {"after": "nothing"}, {"order": "up"}):
        with pytest.raises(openai.BadRequestError):
            client.videos.list(**asked)  # type: ignore[arg-type]


def test_a_list_pages_over_videos_of_the_same_millisecond(live: Live, client: OpenAI, owner: str) -> None:
    ids = {create(client, str(number)).id for number in range(4)}
    with live.service.database.write() as session:
        session.execute(sa.update(Job).where(Job.owner == owner).values(created=now()))
    for order in ("asc", "desc"):
        seen = [video.id for video in client.videos.list(limit=1, order=order)]  # type: ignore[arg-type]
        assert len(seen) == 4
        assert set(seen) == ids


# Delete, remix


def test_a_video_is_deleted_with_its_files(live: Live, client: OpenAI) -> None:
    with live.working():
        video = client.videos.poll(create(client).id, poll_interval_ms=20)
    assert live.service.storage.list(f"jobs/{video.id}")
    deleted = client.videos.delete(video.id)
    assert (deleted.id, deleted.object, deleted.deleted) == (video.id, "video.deleted", True)
    assert live.service.storage.list(f"jobs/{video.id}") == live.service.storage.list(f"guides/{video.id}") == []
    for call in (client.videos.retrieve, client.videos.delete, client.videos.download_content):
        with pytest.raises(openai.NotFoundError):
            call(video.id)
    assert create(client).id != video.id, "the same request makes a new one"


def test_a_video_that_is_deleted_while_it_runs_is_stopped(live: Live, client: OpenAI) -> None:
    with live.working() as runner:
        video = create(client, extra_body={"reference_url": HOLD})
        assert runner.running.wait(10)
        client.videos.delete(video.id)
        until(lambda: runner.stopped == [video.id])
        other = client.videos.poll(create(client, "next").id, poll_interval_ms=20)
        assert other.status == "completed", "the worker goes on"
    assert live.row(video.id) is None


def test_a_remix_is_the_same_performance_with_another_prompt(live: Live, client: OpenAI) -> None:
    with live.working() as runner:
        first = client.videos.create(
            prompt="a dancer", input_reference=PICTURE, extra_body={"video_url": VIDEO, "mode": "wan-std", "seed": 3}
        )
        with pytest.raises(openai.BadRequestError):
            client.videos.remix(create(client, extra_body={"reference_url": "http://do/refuse/X"}).id, prompt="early")
        first = client.videos.poll(first.id, poll_interval_ms=20)
        second = client.videos.remix(first.id, prompt="a fencer")
        second = client.videos.poll(second.id, poll_interval_ms=20)
        assert second.id not in runner.inputs, "nobody looks for the performer again"
    assert (second.status, second.prompt, second.remixed_from_video_id) == ("completed", "a fencer", first.id)
    asked = submission(live, second)
    assert (asked["kind"], asked["tier"], asked["generate"]) == ("generate", "wan-std", {"seed": "3"})
    client.videos.delete(first.id)
    assert live.service.storage.list(f"guides/{first.id}"), "the second one still has its guides"


def test_owners_see_nothing_of_each_other(live: Live, client: OpenAI) -> None:
    with live.working():
        video = client.videos.poll(create(client).id, poll_interval_ms=20)
    with OpenAI(api_key=live.key("a stranger"), base_url=f"{live.base}/v1") as stranger:
        videos = stranger.videos
        calls: list[Any] = [videos.retrieve, videos.delete, videos.download_content]
        for call in [*calls, lambda id_: videos.remix(id_, prompt="mine")]:
            with pytest.raises(openai.NotFoundError, match="no such video"):
                call(video.id)
        assert list(videos.list()) == []
        with pytest.raises(openai.BadRequestError, match="no such video"):
            videos.list(after=video.id)
    assert client.videos.retrieve(video.id).status == "completed"


def test_an_expired_video_is_gone(live: Live, client: OpenAI) -> None:
    video = create(client)
    with live.service.database.write() as session:
        session.execute(sa.update(Job).where(Job.id == video.id).values(state=State.SUCCEEDED, expires=now() - 1))
    for id_ in (video.id, "nothing", "a\0b"):
        with pytest.raises(openai.NotFoundError):
            client.videos.retrieve(id_)
    assert list(client.videos.list()) == []


def test_what_is_not_served(live: Live, client: OpenAI) -> None:
    for call in (
        lambda: client.videos.extend(prompt="", seconds="4", video=CLIP),
        lambda: client.videos.create_character(name="x", video=CLIP),
    ):
        with pytest.raises((openai.NotFoundError, openai.APIStatusError)) as raised:
            call()
        assert raised.value.status_code in (404, 405)
        assert raised.value.body is not None
