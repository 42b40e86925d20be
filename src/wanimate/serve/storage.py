"""Where uploads, results and segments lie: a folder, or an object store through fsspec. A signed link leads to one file.

Names are made of letters, digits, `.`, `_` and `-`, in segments joined by `/`, so that no name leads out of the storage and
every store takes it. A file is there whole or not at all.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wanimate.serve.places import Folder, NotStored, Objects, Place, StorageAway, Stored, checked_name

__all__ = ["NotStored", "Signed", "Storage", "StorageAway", "Stored", "checked_name"]

_MAC = 16
_EXPIRY = 5
"""Bytes of the authentication code and of the expiry in a token."""


@dataclass(frozen=True)
class Signed:
    """What a signed link leads to: a stored name, and the file name that a browser saves it under."""

    name: str
    filename: str


class Storage:
    """Files by name in one place.

    Args:
        url: a folder (path or `file://`), `s3://bucket/prefix`, `memory://prefix`, or another URL that fsspec writes to.
        secret: the key of signed links, at least 16 bytes; every process that opens links needs the same.
        options: what fsspec is given beside the URL ("endpoint_url" of an S3 server); nothing for a folder.

    Raises:
        InputError: fsspec does not know the URL, or a package for it is missing. OutputError: the folder cannot be made.

    Every method raises ValueError for a bad name, `StorageAway` where the storage does not work, and `NotStored` where it
    needs a file that is not there. Methods may be called from several threads.
    """

    def __init__(self, url: str | Path, secret: bytes, options: Mapping[str, Any] | None = None) -> None:
        if len(secret) < 16:
            raise ValueError("the secret of signed links has at least 16 bytes")
        self._key = hmac.digest(secret, b"wanimate: link to a stored file", "sha256")
        scheme, _, rest = str(url).partition("://")
        if not rest:
            self._place: Place = Folder(Path(url))
        elif scheme == "file":
            self._place = Folder(Path(rest))
        else:
            self._place = Objects(str(url), scheme, options or {})

    def put(self, name: str, source: Path | Iterable[bytes]) -> int:
        """Store a file under a name, in place of what is there, and return its bytes. It is there whole or not at all.

        Raises:
            StorageAway: it could not be stored. OSError and others: `source` could not be read.
        """
        return self._place.put(checked_name(name), source)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to `stop` (None: to the end), in pieces. A missing file is told at once."""
        if start < 0 or (stop is not None and stop < 0):
            raise ValueError("ranges count from the beginning")
        size = self.stat(name).size
        return self._place.read(name, start, size if stop is None else min(stop, size))

    def stat(self, name: str) -> Stored:
        """Name, size in bytes and time of a file."""
        return self._place.stat(checked_name(name))

    def size(self, name: str) -> int:
        """The bytes of a file."""
        return self.stat(name).size

    def exists(self, name: str) -> bool:
        """Whether a file has this name. A storage that is away raises `StorageAway`; it does not say no."""
        try:
            self.stat(name)
        except NotStored:
            return False
        return True

    def fetch(self, name: str, path: Path) -> None:
        """Bring a file to a local path, whole or not at all. It may be a hard link into the storage: do not write into it."""
        self._place.fetch(checked_name(name), path)

    def remove(self, name: str) -> None:
        """Remove a file; nothing happens where there is none."""
        self._place.remove(checked_name(name))

    def remove_tree(self, prefix: str) -> None:
        """Remove every file below `prefix/`; nothing happens where there is none."""
        self._place.remove_tree(checked_name(prefix))

    def list(self, prefix: str = "") -> list[Stored]:
        """Every file below `prefix/`, at any depth, by name; all files without a prefix."""
        found = self._place.list(checked_name(prefix) if prefix else "")
        return sorted(found, key=lambda one: one.name)

    def local_path(self, name: str) -> Path | None:
        """Where the file lies on this machine's disk, for reading; None in an object store."""
        return self._place.local_path(checked_name(name))

    def sweep(self) -> int:
        """Remove what processes of this machine that died have left half-written; returns how many files."""
        return self._place.sweep()

    def sign(self, name: str, expires: int, download_as: str) -> str:
        """A token for a URL that opens one file until `expires` (seconds since 1970), to be saved as `download_as`.

        The token holds name and file name, readable for who has it; only `secret` can make one.
        """
        text = f"{checked_name(name)}\0{download_as}".encode()
        payload = expires.to_bytes(_EXPIRY, "big") + text
        return base64.urlsafe_b64encode(self._mac(payload) + payload).rstrip(b"=").decode()

    def opened(self, token: str, now: float) -> Signed | None:
        """What a token opens at `now` (seconds since 1970); None where it was not made with this secret, or is expired."""
        try:
            data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except ValueError:
            return None
        mac, payload = data[:_MAC], data[_MAC:]
        if not hmac.compare_digest(mac, self._mac(payload)) or now >= int.from_bytes(payload[:_EXPIRY], "big"):
            return None
        name, _, filename = payload[_EXPIRY:].decode().partition("\0")
        return Signed(name, filename)

    def _mac(self, payload: bytes) -> bytes:
        return hmac.digest(self._key, payload, "sha256")[:_MAC]
