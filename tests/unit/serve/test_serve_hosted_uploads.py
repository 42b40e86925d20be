"""Local files through the hosted contract: the SDK's own uploads, and what a form may not do."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import dashscope
import httpx
import pytest
import sqlalchemy as sa
from dashscope import VideoSynthesis
from dashscope.common.error import UploadFileException
from dashscope.utils.oss_utils import OssUtils
from live import VIDEO, Live, mp4, png, quick_dashscope

from wanimate.serve import policies
from wanimate.serve.content import AtomicFile
from wanimate.serve.tables import Upload, now

MOVE, MIX = "wan2.2-animate-move", "wan2.2-animate-mix"
RESOLVE = {"X-DashScope-OssResourceResolve": "enable"}
MOST = 3 * 2**20


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with Live(tmp_path_factory.mktemp("serve"), largest_clip=MOST, largest_picture=MOST) as served:
        yield served


@pytest.fixture
def key(live: Live, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    made = live.key(request.node.name)
    quick_dashscope(monkeypatch, live.base, made)
    yield made
    live.clear()


@pytest.fixture
def client(live: Live, key: str) -> Iterator[dashscope.Client]:
    with dashscope.Client(api_key=key, base_url=f"{live.base}/api/v1") as made:
        yield made


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "Mädchen mit Hut (1).png"
    path.write_bytes(png())
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(mp4())
    return path


def create(image: str, video: str = VIDEO, model: str = MOVE, headers: dict[str, str] | None = None) -> Any:
    inner = {"image_url": image, "video_url": video}
    return VideoSynthesis.async_call(
        model=model, task="image2video", mode="wan-std", extra_input=inner, headers=dict(headers or {})
    )


def policy(live: Live, key: str, model: str = MOVE) -> dict[str, Any]:
    with live.http(key) as http:
        answer = http.get("/api/v1/uploads", params={"action": "getPolicy", "model": model})
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["data"])


def fields(given: dict[str, Any], name: str = "a.png") -> dict[str, str]:
    return {
        "OSSAccessKeyId": given["oss_access_key_id"], "Signature": given["signature"], "policy": given["policy"],
        "key": f"{given['upload_dir']}/{name}", "x-oss-object-acl": given["x_oss_object_acl"],
        "x-oss-forbid-overwrite": given["x_oss_forbid_overwrite"], "success_action_status": "200",
        "x-oss-content-type": "image/png",
    }  # fmt: skip


def send(given: dict[str, Any], form: dict[str, str], data: bytes = b"picture", **headers: str) -> httpx.Response:
    files = {"file": ("a.png", data)}
    return httpx.post(given["upload_host"], data=form, files=files, headers=headers, trust_env=False, timeout=20)


def code_of(answer: httpx.Response) -> str:
    """From the XML that a store answers with."""
    assert answer.headers["content-type"].startswith("application/xml")
    root = ElementTree.fromstring(answer.text)
    assert root.tag == "Error"
    assert root.findtext("RequestId")
    assert root.findtext("Message")
    return str(root.findtext("Code"))


# The SDK


def test_the_new_surface_uploads_local_files_itself(
    live: Live, client: dashscope.Client, picture: Path, clip: Path
) -> None:
    with live.working() as runner:
        job = client.videos.generate(
            model=MIX, extra_input={"image_url": str(picture), "video_url": f"file://{clip}"},
            parameters={"mode": "wan-std"},
        )  # fmt: skip
    assert job.succeeded
    assert runner.inputs[job.task_id] == {"image": png(), "video": mp4()}


def test_the_old_surface_uploads_by_hand_with_one_policy(live: Live, key: str, picture: Path, clip: Path) -> None:
    image, certificate = OssUtils.upload(MOVE, str(picture))
    video, again = OssUtils.upload(MOVE, str(clip), upload_certificate=certificate)
    assert again is certificate
    assert image == f"oss://{certificate['upload_dir']}/{picture.name}"
    with live.working() as runner:
        response = VideoSynthesis.wait(create(image, video, headers=RESOLVE))
    assert response.output.task_status == "SUCCEEDED"
    assert runner.inputs[response.output.task_id] == {"image": png(), "video": mp4()}


def test_an_upload_needs_the_header_that_resolves_it(key: str, picture: Path) -> None:
    image, _ = OssUtils.upload(MOVE, str(picture))
    response = create(image)
    assert (response.status_code, response.code) == (400, "InvalidParameter")
    assert "X-DashScope-OssResourceResolve" in response.message
    assert create(image, headers=RESOLVE).status_code == 200


def test_an_upload_is_for_its_account_and_its_model(live: Live, key: str, picture: Path) -> None:
    image, certificate = OssUtils.upload(MOVE, str(picture))
    wrong = create(image, model=MIX, headers=RESOLVE)
    assert (wrong.status_code, wrong.code) == (400, "InvalidParameter")
    missing = create(image.replace(".png", ".jpg"), headers=RESOLVE)
    with live.http(live.key("a stranger")) as stranger:
        body = {
            "model": MOVE, "input": {"image_url": image, "video_url": VIDEO}, "parameters": {"mode": "wan-std"},
        }  # fmt: skip
        path = "/api/v1/services/aigc/image2video/video-synthesis"
        foreign = stranger.post(path, json=body, headers=RESOLVE | {"X-DashScope-Async": "enable"})
    assert (foreign.status_code, foreign.json()["message"]) == (400, missing.message), (
        "told apart from what is not there"
    )
    with live.http(key) as http:
        for path in (f"/api/v1/uploads/{certificate['upload_dir']}", f"/{image.removeprefix('oss://')}"):
            assert http.get(path).status_code in (404, 405)


def test_an_upload_expires(live: Live, key: str, picture: Path) -> None:
    image, _ = OssUtils.upload(MOVE, str(picture))
    with live.service.database.write() as session:
        row = session.scalar(sa.select(Upload).where(Upload.name == image))
        assert row is not None
        assert abs(row.expires - row.created - 48 * 3_600_000) < 1000
        row.expires = now() - 1
    response = create(image, headers=RESOLVE)
    assert (response.status_code, response.code) == (400, "InvalidParameter")


def test_the_same_name_twice_in_one_policy_is_refused_and_in_two_is_not(
    live: Live, key: str, picture: Path, tmp_path: Path
) -> None:
    other = tmp_path / "b" / picture.name
    other.parent.mkdir()
    other.write_bytes(png(10))
    first, certificate = OssUtils.upload(MOVE, str(picture))
    with pytest.raises(UploadFileException, match="FileAlreadyExists"):
        OssUtils.upload(MOVE, str(other), upload_certificate=certificate)
    second, _ = OssUtils.upload(MOVE, str(other))
    assert first != second
    with live.working() as runner:
        tasks = [VideoSynthesis.wait(create(image, headers=RESOLVE)).output.task_id for image in (first, second)]
    assert [runner.inputs[task]["image"] for task in tasks] == [png(), png(10)]


@pytest.mark.parametrize(("model", "action"), [("wan3", "getPolicy"), (MOVE, "putPolicy")])
def test_a_policy_that_cannot_be_had(live: Live, key: str, model: str, action: str) -> None:
    with live.http(key) as http:
        answer = http.get("/api/v1/uploads", params={"action": action, "model": model})
    assert (answer.status_code, answer.json()["code"]) == (400, "InvalidParameter")
    if model != MOVE:
        with pytest.raises(UploadFileException, match="Model not exist"):
            OssUtils.upload(model, __file__)
    with live.http(live.key("reader", scopes=["read"])) as reader:
        assert reader.get("/api/v1/uploads", params={"action": "getPolicy", "model": MOVE}).status_code == 403
    with live.http() as nobody:
        assert nobody.get("/api/v1/uploads", params={"action": "getPolicy", "model": MOVE}).status_code == 401


def test_policies_that_are_asked_for_too_fast(live: Live, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wanimate.serve.faces.hosted_uploads._A_SECOND", 0.01)
    policy(live, key)
    policy(live, key, MIX)
    with live.http(key) as http:
        answer = http.get("/api/v1/uploads", params={"action": "getPolicy", "model": MOVE})
    assert (answer.status_code, answer.json()["code"]) == (429, "Throttling.RateQuota")


# The form


def test_the_policy_says_what_the_form_needs(live: Live, key: str) -> None:
    given = policy(live, key)
    assert given["upload_host"].startswith(live.base)
    assert given["max_file_size_mb"] == MOST // 2**20
    assert given["expire_in_seconds"] == 300
    assert (given["x_oss_object_acl"], given["x_oss_forbid_overwrite"]) == ("private", "true")
    assert policy(live, key)["upload_dir"] != given["upload_dir"]
    assert key not in json.dumps(given)


def test_the_form_answers_exactly_200_and_needs_no_key(live: Live, key: str) -> None:
    given = policy(live, key)
    answer = send(given, fields(given))
    assert (answer.status_code, answer.content) == (200, b"")
    answer = send(given, fields(given, "b.png") | {"success_action_status": "204"})
    assert answer.status_code == 200


def test_a_forged_or_changed_policy_is_refused(live: Live, key: str) -> None:
    given = policy(live, key)
    told = json.loads(base64.b64decode(given["policy"]))
    richer = base64.b64encode(json.dumps(told | {"owner": "a stranger"}).encode()).decode()
    for change in ({"policy": richer}, {"Signature": "x" * 44}, {"Signature": "ä"}, {"policy": "no base64"}):
        answer = send(given, fields(given) | change)
        assert (answer.status_code, code_of(answer)) == (403, "SignatureDoesNotMatch"), change


def test_an_expired_policy_is_refused(live: Live, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = policy(live, key)
    monkeypatch.setattr("wanimate.serve.faces.hosted_uploads.now", lambda: now() + policies.LASTS * 1000)
    answer = send(given, fields(given))
    assert (answer.status_code, code_of(answer)) == (403, "AccessDenied")


@pytest.mark.parametrize(
    "name", ["", "../x.png", "a/b.png", "a\nb.png", "a\0b.png", "n" * 300], ids=["none", "up", "deep", "line", "zero", "long"]
)  # fmt: skip
def test_a_key_outside_of_the_policy_is_refused(live: Live, key: str, name: str) -> None:
    given = policy(live, key)
    answer = send(given, fields(given, name))
    assert (answer.status_code, code_of(answer)) == (403, "AccessDenied")
    answer = send(given, fields(given) | {"key": f"dashscope-instant/elsewhere/{name or 'x'}"})
    assert (answer.status_code, code_of(answer)) == (403, "AccessDenied")


def test_a_file_that_is_too_large_is_refused_and_leaves_nothing(live: Live, key: str) -> None:
    given = policy(live, key)
    answer = send(given, fields(given), bytes(MOST + 1))
    assert (answer.status_code, code_of(answer)) == (400, "EntityTooLarge")
    assert send(given, fields(given), bytes(MOST)).status_code == 200
    assert list(live.settings.scratch.glob("incoming-*")) == []


def test_refusals_are_json_for_who_accepts_json(live: Live, key: str) -> None:
    given = policy(live, key)
    answer = send(given, fields(given) | {"Signature": "x"}, accept="application/json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["code"] == "SignatureDoesNotMatch"


def test_a_form_that_is_none(live: Live, key: str) -> None:
    given = policy(live, key)
    form = fields(given)
    host = given["upload_host"]
    kind = "multipart/form-data; boundary=x"
    early = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nbytes\r\n--x--\r\n'
    part = f'--x\r\nContent-Disposition: form-data; name="policy"\r\n\r\n{form["policy"]}\r\n'.encode()
    cases = [
        (b"{}", "application/json", "MalformedPOSTRequest"), (early, kind, "InvalidArgument"),
        (b"no form at all", kind, "InvalidArgument"), (part, kind, "InvalidArgument"),
        (part + b"--x--\r\n", kind, "InvalidArgument"), (part, "multipart/form-data", "InvalidArgument"),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\n\r\n--x--\r\n", kind, "InvalidArgument"),
        (part, "multipart/form-data; boundary=" + "y" * 999, "InvalidArgument"),
        (b"--x\r\n" + b"A: b\r\n" * 999 + b"\r\n", kind, "InvalidArgument"),
    ]  # fmt: skip
    for body, content_type, code in cases:
        answer = httpx.post(host, content=body, headers={"Content-Type": content_type}, trust_env=False)
        assert (answer.status_code, code_of(answer)) == (400, code), (body[:60], content_type)


def test_a_field_that_never_ends_is_refused(live: Live, key: str) -> None:
    given = policy(live, key)
    answer = send(given, {"x-note": "n" * 10**6} | fields(given))
    assert (answer.status_code, code_of(answer)) == (400, "InvalidArgument")


def test_a_client_that_goes_away_leaves_nothing(live: Live, key: str) -> None:
    given = policy(live, key)
    sent: list[int] = []

    def pieces() -> Iterator[bytes]:
        head = "".join(
            f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields(given).items()
        )
        yield head.encode()
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        yield bytes(2**20)
        sent.append(len(list(live.settings.scratch.glob("incoming-*"))))
        raise RuntimeError("the cable was pulled")

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    with pytest.raises(RuntimeError, match="cable"):
        httpx.post(given["upload_host"], content=pieces(), headers=headers, trust_env=False)
    end = time.monotonic() + 5
    while list(live.settings.scratch.glob("incoming-*")) and time.monotonic() < end:
        time.sleep(0.02)
    assert list(live.settings.scratch.glob("incoming-*")) == []
    with live.service.database.read() as session:
        assert session.scalar(sa.select(Upload).where(Upload.name.contains(given["upload_dir"]))) is None


def test_a_full_disk_is_nobodys_fault(live: Live, key: str, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AtomicFile, "write", full)
    given = policy(live, key)
    answer = send(given, fields(given))
    assert answer.status_code == 503
    with pytest.raises(UploadFileException):
        OssUtils.upload(MOVE, str(picture))


def test_uploads_are_streamed(live: Live, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No block that is written is much larger than what the network brings."""
    write, blocks = AtomicFile.write, []

    def counted(self: AtomicFile, data: bytes) -> int:
        blocks.append(len(data))
        return write(self, data)

    monkeypatch.setattr(AtomicFile, "write", counted)
    given = policy(live, key)
    assert send(given, fields(given), bytes(MOST)).status_code == 200
    assert sum(blocks) >= MOST
    assert max(blocks) < 2 * 2**20
