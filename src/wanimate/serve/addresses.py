"""Which addresses a stranger may have us connect to: public ones, and those of a closed network that the operator names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import httpx

from wanimate.errors import InputError

_NOT_PUBLIC_4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",  # private
        "100.64.0.0/10",  # shared between a provider and its customers
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, clouds' metadata
        "168.63.129.16/32",  # a cloud's host, under a public address
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24",  # documentation
        "192.31.196.0/24", "192.52.193.0/24", "192.175.48.0/24",  # AS112, multicast relays
        "192.88.99.0/24",  # 6to4 relays
        "198.18.0.0/15",  # benchmarks
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)  # fmt: skip
_PUBLIC_6 = IPv6Network("2000::/3")
"""All that is given out. Loopback, mapped, unique local, link-local, site-local and multicast addresses lie outside."""
_NOT_PUBLIC_6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
        "2001:db8::/32", "3fff::/20",  # documentation
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",  # AS112
    )
)  # fmt: skip
_NAT64 = IPv6Network("64:ff9b::/96")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*)", re.ASCII)
_DEFAULT_PORT = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Target:
    """A URL taken apart. `host`: lower-case ASCII, an IPv6 address without brackets. `authority`: as the Host header has it.
    `path`: path and query as sent."""

    scheme: str
    host: str
    port: int
    authority: str
    path: bytes
    url: str


def parse_url(url: str) -> Target:
    """A URL as it will be connected to. Only this function reads URLs, so that no two parsers can differ.

    Raises:
        ValueError: it is no http or https URL, holds a user name or password, or has an odd host or port.
    """
    try:
        found = httpx.URL(url)
        host = found.raw_host.decode("ascii")
    except (httpx.InvalidURL, UnicodeError) as e:
        raise ValueError("it is no URL") from e
    if found.scheme not in _DEFAULT_PORT:
        raise ValueError("it does not begin with http:// or https://")
    if found.userinfo or "@" in found.netloc.decode("ascii"):
        raise ValueError("it holds a user name or a password")
    port = found.port or _DEFAULT_PORT[found.scheme]
    if not _is_host(host) or not 0 < port < 65536 or found.port == 0:
        raise ValueError("its host or port is none")
    return Target(
        found.scheme, host, port, found.netloc.decode("ascii"), found.raw_path, str(found.copy_with(fragment=None))
    )


def join_url(base: Target, location: str) -> Target:
    """Where a redirect leads. Raises ValueError as `parse_url` does."""
    try:
        joined = str(httpx.URL(base.url).join(location))
    except httpx.InvalidURL as e:
        raise ValueError("it is no URL") from e
    return parse_url(joined)


def is_public(address: str) -> bool:
    """Whether an IP address, as the system's resolver writes it, is one that everybody on the internet could connect to.
    An IPv6 address that stands for an IPv4 one is not, but for NAT64, which a network without IPv4 needs: there the inner
    address counts."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv4Address):
        return not any(found in network for network in _NOT_PUBLIC_4)
    if found.scope_id is None and found in _NAT64:
        return is_public(str(IPv4Address(int(found) & 0xFFFFFFFF)))
    return found.scope_id is None and found in _PUBLIC_6 and not any(found in network for network in _NOT_PUBLIC_6)


@dataclass(frozen=True)
class Allowed:
    """Hosts and ports of a closed network that may be fetched although they are not public. A host counts as it is written in
    the URL; what its name resolves to is not judged."""

    pairs: frozenset[tuple[str, int]] = frozenset()

    @classmethod
    def parse(cls, texts: Iterable[str], field: str = "serve.allow_fetch") -> Allowed:
        """From `HOST:PORT` texts; an IPv6 address stands in brackets.

        Raises:
            InputError: one is not of this form.
        """
        pairs = set()
        for text in texts:
            try:
                found = parse_url(f"http://{text}")
                port = int(text.rpartition(":")[2])
            except ValueError:
                raise _unfit(field, text) from None
            if (
                found.port != port
                or found.path != b"/"
                or found.url.removeprefix("http://").rstrip("/") != found.authority
            ):
                raise _unfit(field, text)
            pairs.add((found.host, port))
        return cls(frozenset(pairs))

    def covers(self, target: Target) -> bool:
        return (target.host, target.port) in self.pairs


def _unfit(field: str, text: str) -> InputError:
    return InputError(field, text, "not HOST:PORT", "Give a host as URLs have it, and a port, as in media.local:9000.")


def _is_host(host: str) -> bool:
    try:
        return IPv6Address(host).scope_id is None
    except ValueError:
        return len(host) < 254 and _HOST.fullmatch(host) is not None
