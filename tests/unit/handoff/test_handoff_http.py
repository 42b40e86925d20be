"""The HTTP client: limits, waits, what is sent again and what is not, and a token that nobody sees."""

from __future__ import annotations

import email.utils
import io
import json
import logging
import pickle
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from parcels import Studio, frameio_studio
from standin import Reply, Request, TestClock
from standin_frameio import FrameIoStandIn

from wanimate.errors import InputError
from wanimate.handoff.remote.base import parse_target
from wanimate.handoff.remote.frameio import FrameIo
from wanimate.handoff.remote.http import Ask, RemoteError, Service, UnsureError, Wire
from wanimate.handoff.remote.limits import CallClass, Limits, pause_after, retry_after
from wanimate.handoff.remote.secret import Secret, secret_of
from wanimate.handoff.remote.send import frameio
from wanimate.handoff.remote.tokens import CLIENT_ID, CLIENT_SECRET, FRAMEIO_TOKEN, Given, descript_token, frameio_token

PLACE = parse_target("frameio:Spots")
CALLS = CallClass("other", 100, 60.0)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[FrameIoStandIn, Studio]]:
    with frameio_studio(tmp_path) as found:
        yield found


@pytest.fixture
def service(world: tuple[FrameIoStandIn, Studio]) -> Iterator[Service]:
    standin, studio = world
    wire = Wire("Frame.io", studio.services.clock)
    yield Service(wire, standin.url, Given(Secret(standin.token)))
    wire.close()


# Limits


@pytest.mark.parametrize(("calls", "seconds"), [(5, 1.0), (10, 60.0), (100, 60.0)])
def test_no_stretch_of_time_has_more_calls_than_it_may(calls: int, seconds: float) -> None:
    clock = TestClock()
    limits, kind, made = Limits(clock), CallClass("x", calls, seconds), list[float]()
    for number in range(3 * calls):
        limits.wait(kind)
        made.append(clock.time)
        clock.time += seconds / calls * (0.1 if number % 7 else 3.0)
    assert all(later - first >= seconds * 0.999 for first, later in zip(made, made[calls:], strict=False))
    assert sum(clock.sleeps) < 3 * seconds, "and it waits no longer than it has to"


def test_what_the_service_says_of_its_limits_is_heeded() -> None:
    clock = TestClock()
    limits = Limits(clock)
    told = {"x-ratelimit-limit": "2", "x-ratelimit-remaining": "0", "x-ratelimit-window": "30000"}
    assert limits.told(CALLS, told) == 15.0
    began = clock.time
    limits.wait(CALLS)
    assert clock.time - began == pytest.approx(15.0, abs=0.1)


def test_waits_double_and_differ() -> None:
    for failures in range(1, 9):
        waits = {pause_after(failures) for _ in range(50)}
        longest = min(60.0, 0.5 * 2 ** (failures - 1))
        assert len(waits) > 40
        assert longest / 2 <= min(waits) <= max(waits) <= longest


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7.0), ("", None), ("soon", None), ("-3", None), (email.utils.formatdate(1090, usegmt=True), 90.0),
     (email.utils.formatdate(900, usegmt=True), 0.0)],
)  # fmt: skip
def test_retry_after_as_number_and_date(text: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": text}, 1000.0) == seconds


def test_retry_after_is_waited_for(world: tuple[FrameIoStandIn, Studio], service: Service) -> None:
    standin, studio = world
    answers = iter([Reply(None, 429, {"Retry-After": "42"}), Reply(None, 503, {"Retry-After": "11"})])
    original = standin.handle
    standin.handle = lambda request: next(answers, None) or original(request)  # type: ignore[method-assign]
    assert service.get(CALLS, "/v4/accounts")["data"]
    assert isinstance(studio.services.clock, TestClock)
    assert studio.services.clock.sleeps == [42.0, 11.0]


# What is sent again


def test_a_call_that_makes_something_is_not_sent_twice(world: tuple[FrameIoStandIn, Studio], service: Service) -> None:
    standin, _ = world
    path = f"/v4/accounts/{standin.account}/folders/{standin.root}/folders"
    for kind in ("before", "after", "cut"):
        standin.fault = lambda kind=kind: kind  # type: ignore[method-assign, misc]
        asked = len(standin.asked)
        with pytest.raises(UnsureError):
            service.post(CALLS, path, {"data": {"name": "A"}})
        assert len(standin.asked) == asked + 1


def test_it_is_made_again_when_the_service_says_so(world: tuple[FrameIoStandIn, Studio]) -> None:
    standin, studio = world
    original, refused = standin.make_folder, [Reply(None, 503, {"Retry-After": "33"}), Reply(None, 500)]
    standin.make_folder = lambda *args: refused.pop(0) if refused else original(*args)  # type: ignore[method-assign]
    with frameio(None, studio.services) as api:
        api.make_folder(api.find(PLACE), "Finals")
    assert isinstance(studio.services.clock, TestClock)
    assert studio.services.clock.sleeps[0] == 33.0
    assert 0.5 <= studio.services.clock.sleeps[1] <= 1.0
    assert len(standin.nodes) == 2


def test_other_calls_are_sent_until_the_patience_ends(world: tuple[FrameIoStandIn, Studio], service: Service) -> None:
    standin, studio = world
    standin.faults = 1.0
    standin.fault = lambda: "cut"  # type: ignore[method-assign]
    with pytest.raises(RemoteError, match="cannot be reached"):
        service.get(CALLS, "/v4/accounts")
    assert len(standin.asked) == 12
    assert isinstance(studio.services.clock, TestClock)
    assert sum(studio.services.clock.sleeps) <= 900.0


def test_nobody_there() -> None:
    wire = Wire("Frame.io", TestClock())
    with pytest.raises(RemoteError, match="nobody answers"):
        wire.send(Ask("POST", "http://127.0.0.1:9/x", again=False))


@pytest.mark.parametrize(
    ("status", "said"),
    [(402, "no minutes left"), (403, "may not do this"), (404, "no such thing"), (422, "answered 422")],
)
def test_refusals_have_a_remedy(world: tuple[FrameIoStandIn, Studio], service: Service, status: int, said: str) -> None:
    standin, _ = world
    standin.handle = lambda request: Reply({"errors": [{"detail": "the reason"}]}, status)  # type: ignore[method-assign]
    with pytest.raises(RemoteError, match=said) as caught:
        service.get(CALLS, "/v4/accounts")
    assert "the reason" in str(caught.value)
    assert caught.value.status == status
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), RemoteError)


# Where the token goes


@pytest.mark.parametrize("where", ["https://elsewhere.example/v4/accounts", "/v4/other"])
def test_redirects_are_not_followed(world: tuple[FrameIoStandIn, Studio], service: Service, where: str) -> None:
    standin, _ = world
    standin.redirect = where
    with pytest.raises(RemoteError, match="sends us to"):
        service.get(CALLS, "/v4/accounts")
    assert standin.asked == ["GET /v4/accounts"]


def test_pages_at_another_host_are_not_asked_for(world: tuple[FrameIoStandIn, Studio]) -> None:
    standin, studio = world
    page = Reply({"data": [], "links": {"next": "https://elsewhere.example/v4/accounts?after=1"}})
    standin.accounts = lambda request: page  # type: ignore[method-assign]
    with frameio(None, studio.services) as api, pytest.raises(RemoteError, match="another place"):
        api.find(PLACE)


@pytest.mark.parametrize(
    "url", ["http://elsewhere.example/a", "ftp://x/a", "https://user:pass@x/a", "nothing", "http://[1"]
)
def test_bytes_go_to_encrypted_places_only(service: Service, url: str) -> None:
    with pytest.raises(RemoteError, match="not encrypted"):
        service.put(url, {}, lambda: iter([b""]))


def test_a_service_on_the_web_cannot_point_at_this_machine() -> None:
    service = Service(Wire("Frame.io", TestClock()), "https://api.frame.io", Given(Secret("x")))
    with pytest.raises(RemoteError, match="not encrypted"):
        service.put("http://127.0.0.1:1/x", {}, lambda: iter([b""]))


# Nobody sees it


def everything_said(error: BaseException) -> str:
    """What any report of an error could show: texts of the whole chain, with the local variables of every frame."""
    found = []
    for one in (error, error.__context__, error.__cause__):
        if one is not None:
            shown = traceback.TracebackException(type(one), one, one.__traceback__, capture_locals=True)
            found.append("".join(shown.format(chain=True)))
    return "".join(found) + repr(error) + str(error)


@pytest.mark.parametrize("trouble", ["refused", "cut", "echo", "redirect", "nonsense"])
def test_a_token_is_in_no_error_log_or_traceback(
    world: tuple[FrameIoStandIn, Studio], caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    standin, studio = world
    token, standin.faults = standin.token, float(trouble == "cut")
    if trouble == "refused":
        standin.token = "another"
    if trouble == "echo":

        def echo(request: Request) -> Reply:
            return Reply({"message": f"not {request.headers['authorization']}"}, 400)

        standin.handle = echo  # type: ignore[method-assign]
    if trouble == "nonsense":
        standin.handle = lambda request: Reply([request.headers["authorization"]])  # type: ignore[method-assign]
    standin.redirect = "https://x.example/v4" if trouble == "redirect" else None
    with caplog.at_level(logging.DEBUG), pytest.raises(InputError) as caught:
        studio.send(studio.package(), "frameio:Spots")
    (_, _, start), said = caught._excinfo, everything_said(caught.value)  # type: ignore[misc]
    frames = [frame for frame in traceback.walk_tb(start) if "wanimate" in frame[0].f_code.co_filename]
    assert len(frames) > 3, "the frames of this program are looked at"
    text = said.replace(f"standin = {standin!r}", "") + caplog.text
    own = [line for line in text.splitlines() if token in line and "token = '" not in line]
    assert own == []


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_a_defect_shows_no_token(
    world: tuple[FrameIoStandIn, Studio], monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    standin, studio = world

    def broken(*args: object) -> None:
        raise kind("a defect of a library")

    monkeypatch.setattr("httpx.HTTPTransport.handle_request", broken)
    with pytest.raises(kind) as caught:
        studio.send(studio.package(), "frameio:Spots")
    said = everything_said(caught.value)
    assert "in _once" in said
    assert "Secret(hidden)" in said
    assert standin.token not in said


def test_signed_addresses_stay_out_of_the_log(
    world: tuple[FrameIoStandIn, Studio], caplog: pytest.LogCaptureFixture
) -> None:
    standin, studio = world
    with caplog.at_level(logging.INFO):
        studio.send(studio.package(), "frameio:Spots")
    assert f"{standin.url}/bucket" in caplog.text, "the HTTP library tells of requests"
    assert "X-Amz-Signature" not in caplog.text


def test_a_secret_does_not_show() -> None:
    secret = Secret("abc123")
    shown = io.StringIO()
    print(secret, repr(secret), [secret], file=shown)
    assert "abc123" not in shown.getvalue()
    assert secret.hide(b"x abc123 y") == b"x (hidden) y"
    with pytest.raises(TypeError, match="not stored"):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        json.dumps(secret)


# Where it comes from


def test_tokens_from_the_environment_and_from_files(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-a-file\n")
    file.chmod(0o600)
    told = {FRAMEIO_TOKEN: " from-the-environment "}
    found = [
        secret_of(FRAMEIO_TOKEN, told), secret_of(FRAMEIO_TOKEN, told, file),
        secret_of(FRAMEIO_TOKEN, {**told, f"{FRAMEIO_TOKEN}_FILE": str(file)}), secret_of(FRAMEIO_TOKEN, {}),
    ]  # fmt: skip
    assert [one and one.reveal() for one in found] == ["from-the-environment", "from-a-file", "from-a-file", None]


@pytest.mark.parametrize("mode", [0o644, 0o602, 0o666])
def test_files_that_everybody_may_read_or_write_are_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "token"
    file.write_text("from-a-file")
    file.chmod(mode)
    with pytest.raises(InputError, match="chmod 600"):
        secret_of(FRAMEIO_TOKEN, {}, file)


def test_what_can_be_no_token_is_refused_without_showing_it(tmp_path: Path) -> None:
    for text in ("two words", "a\nb", "ä", " "):
        with pytest.raises(InputError, match="no secret has") as caught:
            secret_of(FRAMEIO_TOKEN, {FRAMEIO_TOKEN: text})
        assert text.strip() == "" or text not in str(caught.value)
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError):
            secret_of(FRAMEIO_TOKEN, {}, path)


def test_without_a_token_nothing_begins(tmp_path: Path) -> None:
    wire = Wire("Frame.io", TestClock())
    with pytest.raises(InputError, match="no token for Frame"):
        frameio_token(wire, environment={CLIENT_ID: "client-1"})
    with pytest.raises(InputError, match="no token for Descript"):
        descript_token(environment={})


# Adobe's tokens


@pytest.fixture
def adobe(world: tuple[FrameIoStandIn, Studio]) -> Iterator[FrameIo]:
    standin, studio = world
    wire = Wire("Frame.io", studio.services.clock)
    environment = {CLIENT_ID: "client-1", CLIENT_SECRET: standin.secret}
    token = frameio_token(wire, None, environment, standin.url)
    yield FrameIo(Service(wire, standin.url, token))
    wire.close()


def test_adobe_gives_a_token_once(world: tuple[FrameIoStandIn, Studio], adobe: FrameIo) -> None:
    standin, _ = world
    adobe.find(PLACE)
    adobe.find(PLACE)
    assert standin.ims_tokens == 1


def test_a_token_is_renewed_when_it_is_refused_or_expires(world: tuple[FrameIoStandIn, Studio], adobe: FrameIo) -> None:
    standin, studio = world
    adobe.find(PLACE)
    standin.token = "revoked"
    adobe.find(PLACE)
    assert standin.ims_tokens == 2
    studio.services.clock.sleep(86_400.0)
    asked = len(standin.asked)
    adobe.find(PLACE)
    assert standin.ims_tokens == 3
    assert standin.asked[asked] == "POST /ims/token/v3", "before a call fails"


def test_a_token_that_is_refused_again_is_told(world: tuple[FrameIoStandIn, Studio], adobe: FrameIo) -> None:
    standin, _ = world
    adobe.find(PLACE)
    standin.ims_tokens, standin.token = 0, "x"
    original = standin.ims

    def useless(request: Request) -> Reply:
        found = original(request)
        standin.token = "x"
        return found

    standin.ims = useless  # type: ignore[method-assign]
    with pytest.raises(RemoteError, match="the token is refused"):
        adobe.find(PLACE)
    assert standin.ims_tokens == 1


def test_a_wrong_secret_is_told_and_not_shown(world: tuple[FrameIoStandIn, Studio]) -> None:
    standin, studio = world
    wire = Wire("Frame.io", studio.services.clock)
    token = frameio_token(wire, None, {CLIENT_ID: "client-1", CLIENT_SECRET: "not-the-secret"}, standin.url)
    with pytest.raises(RemoteError, match="gives no token") as caught:
        FrameIo(Service(wire, standin.url, token)).find(PLACE)
    frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
    assert all("not-the-secret" not in line for line in "".join(frames).splitlines() if "CLIENT_SECRET" not in line)
    wire.close()
