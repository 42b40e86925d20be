"""Fetching of strangers' URLs: what is refused, what is bounded, and what is told about it."""

from __future__ import annotations

import base64
import datetime
import gzip
import hashlib
import os
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpcore
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from local_server import Server, answer, serving

from wanimate.errors import InputError
from wanimate.media.files import AtomicFile
from wanimate.serve import fetch as room
from wanimate.serve.addresses import Allowed, is_public, parse_url
from wanimate.serve.fetch import (
    FetchError,
    FetchFailed,
    FetchInvalid,
    FetchLimits,
    FetchRefused,
    FetchTimeout,
    FetchTooLarge,
    decode_data_uri,
    fetch,
    post,
)
from wanimate.serve.places import StorageAway

LIMITS = FetchLimits(max_bytes=1000, seconds=5, redirects=2, read_seconds=2)
REFUSED = str(FetchRefused())

NOT_PUBLIC = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255",
    "192.168.0.1", "100.64.0.1", "100.100.100.200", "100.127.255.255", "169.254.169.254", "169.254.0.1", "168.63.129.16",
    "192.0.0.1", "192.0.0.192", "192.0.2.1", "198.51.100.1", "203.0.113.1", "192.88.99.1", "198.18.0.1", "198.19.255.255",
    "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::8.8.8.8", "100::1",
    "2001::1", "2001:0:7f00:1::", "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::1",
    "3fff::1", "5f00::1", "fc00::1", "fd00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1",
    "2606:4700::1%eth0", "", "x", "localhost",
]  # fmt: skip
PUBLIC = [
    "8.8.8.8", "1.1.1.1", "11.0.0.1", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.0.1.1",
    "223.255.255.255", "2606:4700::1111", "2001:4860:4860::8888", "2a00:1450::1", "64:ff9b::8.8.8.8",
]  # fmt: skip


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)


class Net:
    """A made-up internet: names lead to addresses, and every address leads to a server on loopback, or to nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: dict[str, list[list[str]]] = {}
        self.servers: dict[str, Server] = {}
        self.connected: list[tuple[str, int]] = []
        self._resolve, self._connect = room.resolve, httpcore.SyncBackend.connect_tcp
        monkeypatch.setattr(room, "resolve", self.resolve)
        net = self

        def connect(backend: Any, host: str, port: int, **more: Any) -> Any:
            net.connected.append((host, port))
            if host in net.servers:
                return net._connect(backend, "127.0.0.1", net.servers[host].port, **more)
            raise httpcore.ConnectError("nobody there")

        monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect)

    def resolve(self, host: str, port: int) -> list[str]:
        if host not in self.names:
            return self._resolve(host, port)
        answers = self.names[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Net:
    return Net(monkeypatch)


HOSTS = [
    "127.0.0.1", "localhost", "LOCALHOST", "localhost.", "127.0.0.1.", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1",
    "0", "0x0", "017700000001", "0177.1", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]",
    "[0:0:0:0:0:ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[fe80::1]", "169.254.169.254", "[fd00:ec2::254]",
    "10.0.0.1", "192.168.1.1", "127。0。0。1",
]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_spellings_of_private_addresses_are_refused_unconnected(
    net: Net, tmp_path: Path, host: str, scheme: str
) -> None:
    with pytest.raises(FetchRefused) as refused:
        fetch(f"{scheme}://{host}:8000/x.mp4", tmp_path / "x", LIMITS)
    assert str(refused.value) == REFUSED
    assert net.connected == []


NO_URLS = [
    "", "x", "/x.mp4", "file:///etc/passwd", "ftp://a.example/x", "gopher://a.example", "data:image/png;base64,AAAA", "http://",
    "http:///x", "http://:80/", "http://user@a.example/", "http://user:word@a.example/", "//a.example/x",
    "http://8.8.8.8@127.0.0.1/", "http://a.example#@127.0.0.1/\n", "http://a.example:0/", "http://a.example:99999/",
    "http://a b/", "http://a.example:x/", "http://a.example\\@127.0.0.1/", "http://127.0.0.1\\.a.example/", "http://[::1", "http://[fe80::1%25lo]/",
    "http://①②⑦.⓪.⓪.①/", "http://ⓛocalhost/", "http://0177.0.0.1/", "http://%31%32%37.0.0.1/", "http://a.example%00/",
    "http://a.example/\r\nHost: b", "http://" + "a" * 300 + "/", "http://a.example/" + "a" * 70000, "HTTP+UNIX://x/",
]  # fmt: skip


@pytest.mark.parametrize("url", NO_URLS)
def test_what_is_no_url_is_refused_unconnected(net: Net, tmp_path: Path, url: str) -> None:
    with pytest.raises(FetchInvalid, match=r"^The URL cannot be used") as invalid:
        fetch(url, tmp_path / "x", LIMITS)
    assert invalid.value.code == "InvalidURL"
    assert net.connected == []


def test_all_refusals_sound_alike(net: Net, tmp_path: Path) -> None:
    """A name that is none, a closed port, a private address, a server that speaks no HTTP, and one that hangs up."""
    net.names = {
        "closed.example": [["8.8.8.8"]],
        "private.example": [["10.0.0.1"]],
        "mixed.example": [["8.8.4.4", "10.0.0.1"]],
    }
    net.names |= {"strange.example": [["1.1.1.1"]], "silent.example": [["1.1.1.2"]], "none.example": [[]]}
    with serving(b"SSH-2.0-x\r\n\r\n") as strange, serving(b"") as silent:
        net.servers = {"1.1.1.1": strange, "1.1.1.2": silent}
        for host in net.names:
            with pytest.raises(FetchRefused) as refused:
                fetch(f"http://{host}/x", tmp_path / "x", LIMITS)
            assert (refused.value.code, str(refused.value)) == ("InvalidURL.ConnectionRefused", REFUSED)
    assert {host for host, _ in net.connected} == {"8.8.8.8", "1.1.1.1", "1.1.1.2"}


def test_a_name_is_resolved_once_and_that_address_is_connected_to(net: Net, tmp_path: Path) -> None:
    """A name that is public when it is looked at, and private afterwards."""
    net.names["rebound.example"] = [["8.8.8.8"], ["127.0.0.1"]]
    with serving(answer(b"public")) as server:
        net.servers["8.8.8.8"] = server
        fetch("http://rebound.example:8080/x", tmp_path / "x", LIMITS)
        assert net.connected == [("8.8.8.8", 8080)]
        assert b"\r\nHost: rebound.example:8080\r\n" in server.asked[0]
        with pytest.raises(FetchRefused):
            fetch("http://rebound.example:8080/x", tmp_path / "x", LIMITS)
    assert net.connected == [("8.8.8.8", 8080)]


def test_the_next_address_is_tried_where_one_does_not_answer(net: Net, tmp_path: Path) -> None:
    net.names["two.example"] = [["2606:4700::1", "8.8.8.8"]]
    with serving(answer(b"public")) as server:
        net.servers["8.8.8.8"] = server
        assert fetch("http://two.example/x", tmp_path / "x", LIMITS).size == 6
    assert net.connected == [("2606:4700::1", 80), ("8.8.8.8", 80)]


LOCATIONS = [
    "http://10.0.0.1/", "http://[::ffff:10.0.0.1]/", "//127.0.0.1/", "http://inside.example/", "file:///etc/passwd", "http://u:p@public.example/",
    "https://localhost/", "http://2130706433/", "gopher://public.example/",
]  # fmt: skip


@pytest.mark.parametrize("location", LOCATIONS)
def test_redirects_are_judged_again(net: Net, tmp_path: Path, location: str) -> None:
    net.names = {"public.example": [["8.8.8.8"]], "inside.example": [["192.168.0.1"]]}
    with serving(answer(b"", "302 Found", f"Location: {location}")) as server:
        net.servers["8.8.8.8"] = server
        with pytest.raises(FetchRefused):
            fetch("http://public.example/x", tmp_path / "x", LIMITS)
    assert net.connected == [("8.8.8.8", 80)]


def test_a_name_may_not_become_private_within_a_redirect(net: Net, tmp_path: Path) -> None:
    net.names["rebound.example"] = [["8.8.8.8"], ["127.0.0.1"]]
    with serving(answer(b"", "302 Found", "Location: /again")) as server:
        net.servers["8.8.8.8"] = server
        with pytest.raises(FetchRefused):
            fetch("http://rebound.example/x", tmp_path / "x", LIMITS)
        assert len(server.asked) == 1


def test_redirects_are_followed_so_far(net: Net, tmp_path: Path) -> None:
    def say(send: Callable[[bytes], None], head: bytes) -> None:
        number = int(head.split(b" ")[1].rpartition(b"/")[2].partition(b"?")[0])
        send(answer(b"there") if number == 0 else answer(b"", "307 X", f"Location: {number - 1}?a=b"))

    net.names["public.example"] = [["8.8.8.8"]]
    with serving(say) as server:
        net.servers["8.8.8.8"] = server
        assert fetch("http://public.example/deep/2", tmp_path / "x", LIMITS).url == "http://public.example/deep/0?a=b"
        with pytest.raises(FetchFailed, match="too often"):
            fetch("http://public.example/deep/3", tmp_path / "y", LIMITS)
    assert os.listdir(tmp_path) == ["x"]


def allowed(server: Server) -> Allowed:
    return Allowed.parse([server.address])


def test_what_is_fetched(tmp_path: Path) -> None:
    said = [
        "Content-Type: Video/MP4; codecs=x",
        "Content-Disposition: attachment; filename*=UTF-8''..%2F..%2FT%C3%A4nzer.mp4",
    ]
    with serving(answer(b"film", "200 OK", *said)) as server:
        found = fetch(f"http://{server.address}/a/b.mp4?sig=1#part", tmp_path / "x", LIMITS, allowed(server))
        head = server.asked[0].decode()
    assert (tmp_path / "x").read_bytes() == b"film"
    assert (found.size, found.content_type, found.filename) == (4, "video/mp4", "Tänzer.mp4")
    assert found.sha256 == hashlib.sha256(b"film").hexdigest()
    assert found.url == f"http://{server.address}/a/b.mp4?sig=1"
    assert head.startswith("GET /a/b.mp4?sig=1 HTTP/1.1\r\n")
    assert "\r\nAccept-Encoding: identity\r\n" in head


NAMES = {
    "attachment": "b c.mp4",
    'x; filename="a \\"b.mp4"; y="z"': "a _b.mp4",
    "x; FileName=a.mp4; y": "a.mp4",
    'x; filename="../../a.mp4"': "a.mp4",
    'x; filename="': "b c.mp4",
    "x; filename*=utf-8'en'%E8%88%9E.mp4; filename=b.mp4": "舞.mp4",
    "x; filename*=idna''x": "b c.mp4",
    "x; filename*=": "b c.mp4",
    "x; filename=": "b c.mp4",
    'x; filename=""': "file",
    "x; filename*=UTF-8''%FF%2F%00": "_",
    "x; filename*=UTF-8''": "b c.mp4",
}


@pytest.mark.parametrize("said", NAMES)
def test_names_of_fetched_files(tmp_path: Path, said: str) -> None:
    with serving(answer(b"film", "200 OK", f"Content-Disposition: {said}")) as server:
        found = fetch(f"http://{server.address}/a/b%20c.mp4?d=/e", tmp_path / "x", LIMITS, allowed(server))
    assert found.filename == NAMES[said]


def test_nothing_of_this_machine_is_sent_on(net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies of the environment, passwords of ~/.netrc, and cookies of an earlier answer."""
    (tmp_path / ".netrc").write_text("machine public.example login me password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    net.names["public.example"] = [["8.8.8.8"]]
    with serving(answer(b"x", "200 OK", "Set-Cookie: a=b; Path=/")) as server:
        net.servers["8.8.8.8"] = server
        for _ in range(2):
            fetch("http://public.example/x", tmp_path / "x", LIMITS)
        heads = b"".join(server.asked).lower()
    assert net.connected == [("8.8.8.8", 80)] * 2
    assert b"cookie" not in heads
    assert b"authorization" not in heads


def test_allowed_is_host_and_port_as_written(tmp_path: Path) -> None:
    with serving(answer(b"x")) as server:
        only = allowed(server)
        fetch(f"http://{server.address}/x", tmp_path / "x", LIMITS, only)
        for other in (
            f"localhost:{server.port}",
            f"127.1:{server.port}",
            f"127.0.0.1.:{server.port}",
            "127.0.0.1:80",
            "127.0.0.1",
        ):
            with pytest.raises(FetchRefused):
                fetch(f"http://{other}/x", tmp_path / "x", LIMITS, only)
        name = Allowed.parse([f"LocalHost:{server.port}"])
        fetch(f"http://localhost:{server.port}/x", tmp_path / "x", LIMITS, name)
        with pytest.raises(FetchRefused):
            fetch(f"http://{server.address}/x", tmp_path / "x", LIMITS, name)
    assert Allowed.parse(["[::1]:80"]).covers(parse_url("http://[::1]/"))
    assert Allowed.parse(["a.example:443"]).covers(parse_url("https://A.example/"))
    assert not Allowed.parse(["a.example:443"]).covers(parse_url("http://a.example/"))


def test_an_allowed_host_does_not_lead_on_to_others(tmp_path: Path) -> None:
    with (
        serving(answer(b"secret")) as inside,
        serving(answer(b"", "302 X", f"Location: http://{inside.address}/")) as door,
    ):
        with pytest.raises(FetchRefused):
            fetch(f"http://{door.address}/", tmp_path / "x", LIMITS, allowed(door))
        assert inside.asked == []
        both = Allowed.parse([door.address, inside.address])
        assert fetch(f"http://{door.address}/", tmp_path / "x", LIMITS, both).size == 6


@pytest.mark.parametrize(
    "text", ["", "a", "a:", ":1", "a:0", "a:x", "a:99999", "http://a:1", "a:1/x", "a@b:1", "::1", "a:1#x", "a b:1"]
)
def test_what_cannot_be_allowed(text: str) -> None:
    with pytest.raises(InputError, match=r"^allow_fetch = .*: not HOST:PORT"):
        Allowed.parse([text])


def endless(send: Callable[[bytes], None], head: bytes) -> None:
    send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        send(b"100\r\n" + b"x" * 256 + b"\r\n")


def until_closed(send: Callable[[bytes], None], head: bytes) -> None:
    send(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        send(b"x" * 256)


@pytest.mark.parametrize(
    "say",
    [endless, until_closed, answer(b"x" * 1001), answer(b"", length=10**12)],
    ids=["chunks", "closed", "more", "said"],
)
def test_too_much_is_refused_while_it_comes(tmp_path: Path, say: Any) -> None:
    with serving(say) as server, pytest.raises(FetchTooLarge, match="larger than 1000 bytes") as large:
        fetch(f"http://{server.address}/", tmp_path / "x", LIMITS, allowed(server))
    assert large.value.code == "InvalidFile.Size"
    assert os.listdir(tmp_path) == []


def test_just_as_much_as_is_allowed(tmp_path: Path) -> None:
    with serving(answer(b"x" * 1000)) as server:
        assert fetch(f"http://{server.address}/", tmp_path / "x", LIMITS, allowed(server)).size == 1000


def drip(body: bool) -> Callable[[Callable[[bytes], None], bytes], None]:
    def say(send: Callable[[bytes], None], head: bytes) -> None:
        send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n" + (b"\r\n" if body else b""))
        for number in range(100):
            send(b"x" if body else f"X-{number}: y\r\n".encode())
            time.sleep(0.05)

    return say


def silent(send: Callable[[bytes], None], head: bytes) -> None:
    time.sleep(2)


@pytest.mark.parametrize(
    ("say", "limits"),
    [
        (drip(body=True), FetchLimits(1000, seconds=0.4)),
        (drip(body=False), FetchLimits(1000, seconds=0.4)),
        (silent, FetchLimits(1000, seconds=0.4)),
        (silent, FetchLimits(1000, seconds=60, read_seconds=0.3)),
    ],
    ids=["body", "head", "silent", "one read"],
)
def test_slow_servers_are_left(tmp_path: Path, say: Any, limits: FetchLimits) -> None:
    start = time.monotonic()
    with serving(say) as server, pytest.raises(FetchTimeout) as slow:
        fetch(f"http://{server.address}/", tmp_path / "x", limits, allowed(server))
    assert time.monotonic() - start < 1.5
    assert slow.value.code == "InvalidURL.Timeout"
    assert os.listdir(tmp_path) == []


def test_time_counts_over_redirects(tmp_path: Path) -> None:
    def say(send: Callable[[bytes], None], head: bytes) -> None:
        time.sleep(0.2)
        send(answer(b"", "302 Found", "Location: /again"))

    start = time.monotonic()
    with serving(say) as server, pytest.raises(FetchTimeout):
        fetch(f"http://{server.address}/", tmp_path / "x", FetchLimits(10, seconds=0.5, redirects=50), allowed(server))
    assert time.monotonic() - start < 1.5


def test_a_slow_resolver_is_left(net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "resolve", lambda host, port: time.sleep(2) or ["8.8.8.8"])
    start = time.monotonic()
    with pytest.raises(FetchError):
        fetch("http://slow.example/", tmp_path / "x", FetchLimits(10, seconds=0.3))
    assert time.monotonic() - start < 1.5
    assert net.connected == []


BROKEN = {
    "a status": (answer(b"no", "404 Not Found"), 404),
    "a fault": (answer(b"no", "503 Busy"), 503),
    "nothing": (b"HTTP/1.1 204 No\r\n\r\n", 204),
    "a part": (answer(b"x", "206 Part", "Content-Range: bytes 0-0/9"), 206),
    "broken off": (answer(b"short", length=100), 200),
    "gzip": (answer(gzip.compress(b"\0" * 10**6), "200 OK", "Content-Encoding: gzip")[:900], 200),
    "a redirect to nowhere": (answer(b"", "302 Found"), 302),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_answers_that_are_not_the_file(tmp_path: Path, what: str) -> None:
    say, status = BROKEN[what]
    with serving(say) as server, pytest.raises(FetchFailed) as failed:
        fetch(f"http://{server.address}/", tmp_path / "x", LIMITS, allowed(server))
    assert (failed.value.status, failed.value.code) == (status, "BadRequest.InputDownloadFailed")
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_not_the_senders_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AtomicFile, "write", full)
    with serving(answer(b"x")) as server, pytest.raises(StorageAway, match="No space"):
        fetch(f"http://{server.address}/", tmp_path / "x", LIMITS, allowed(server))
    assert os.listdir(tmp_path) == []


def certificate(folder: Path, host: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's TLS with a certificate for `host`, and a client's that believes it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False).sign(key, hashes.SHA256())
    )  # fmt: skip
    pem, secret = folder / "cert.pem", folder / "key.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem, secret)
    return server, ssl.create_default_context(cafile=str(pem))


def test_tls_is_spoken_with_the_name_and_not_the_address(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = certificate(tmp_path, "public.example")
    named: list[str | None] = []
    ours.sni_callback = lambda connection, name, context: named.append(name)
    net.names = {"public.example": [["8.8.8.8"]], "other.example": [["8.8.8.8"]]}
    with serving(answer(b"x"), ours) as server:
        net.servers["8.8.8.8"] = server
        with pytest.raises(FetchRefused):  # nobody has signed the certificate
            fetch("https://public.example/", tmp_path / "x", LIMITS)
        monkeypatch.setattr(room, "_tls", lambda: theirs)
        assert fetch("https://public.example/", tmp_path / "x", LIMITS).size == 1
        with pytest.raises(FetchRefused):
            fetch("https://other.example/", tmp_path / "x", LIMITS)
    assert named == ["public.example", "public.example", "other.example"]


def test_a_tls_server_that_never_shakes_hands(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(FetchError):
            fetch(f"https://{address}/", tmp_path / "x", FetchLimits(10, seconds=0.3), Allowed.parse([address]))
    assert time.monotonic() - start < 1.5


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_ipv6_hosts_keep_their_brackets(tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 on loopback")
    with serving(answer(b"x"), host="::1") as server:
        address = f"[::1]:{server.port}"
        fetch(f"http://{address}/", tmp_path / "x", LIMITS, Allowed.parse([address]))
        assert f"\r\nHost: {address}\r\n".encode() in server.asked[0]


def test_webhooks_go_the_same_road(net: Net) -> None:
    net.names = {"public.example": [["8.8.8.8"]]}
    with serving(answer(b"", "302 Found", "Location: http://127.0.0.1/")) as server:
        net.servers["8.8.8.8"] = server
        headers = {"Content-Type": "application/json", "webhook-id": "1"}
        assert post("http://public.example/hook?a=b", b'{"x": 1}', headers, LIMITS) == 302
        head = server.asked[0]
    assert head.startswith(b"POST /hook?a=b HTTP/1.1\r\n")
    assert b"\r\nwebhook-id: 1\r\n" in head
    assert b"\r\nContent-Length: 8\r\n" in head
    assert net.connected == [("8.8.8.8", 80)]
    with pytest.raises(FetchRefused):
        post("http://127.0.0.1/hook", b"", {}, LIMITS)
    with pytest.raises(FetchInvalid):
        post("file:///x", b"", {}, LIMITS)


def test_a_webhooks_answer_is_not_waited_for(tmp_path: Path) -> None:
    with serving(endless) as server:
        assert post(f"http://{server.address}/", b"{}", {}, LIMITS, allowed(server)) == 200


def test_data_uris() -> None:
    text = base64.b64encode(b"\x89PNG picture+/?").decode()
    assert decode_data_uri(f"data:image/png;base64,{text}", 100) == b"\x89PNG picture+/?"
    assert decode_data_uri(f"data:IMAGE/JPEG;x=y;BASE64,{text.replace('+', '%2B')}", 100) == b"\x89PNG picture+/?"
    for limit in (14, 1):
        with pytest.raises(FetchTooLarge):
            decode_data_uri(f"data:image/png;base64,{text}", limit)


@pytest.mark.parametrize(
    "text",
    [
        "", "data:", "data:,x", "data:image/png,x", "data:text/html;base64,AAAA", "data:video/mp4;base64,AAAA",
        "data:image/png;base64", "data:image/svg+xml;base64,AAAA", "data:image/png;base64,A", "data:image/png;base64,AA!A",
        "data:image/png;base64,ä", "image/png;base64,AAAA",
    ],
)  # fmt: skip
def test_what_is_no_picture_as_data_uri(text: str) -> None:
    with pytest.raises(FetchInvalid):
        decode_data_uri(text, 100)
