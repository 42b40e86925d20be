"""Bodies of requests: JSON, and multipart forms part by part as they come.

A file of a form goes to the disk while it arrives. What is wrong with the fields before it is said before it is read.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from wanimate.serve.errors import ServiceError, wrong
from wanimate.serve.places import on_disk

MALFORMED = "BadRequest.IllegalInput"
_MOST_PARTS = 200
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_KEY = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_DEEPEST = 8


def is_clean(text: str) -> bool:
    """Whether a text has no control characters, and nothing that no database takes."""
    return _UNPRINTABLE.search(text) is None


async def json_object(request: Request) -> dict[str, Any]:
    """The JSON object that a request brings. Raises ServiceError (400): another content type, no JSON, no object."""
    kind = media_type(request)
    if kind != "application/json" and not kind.endswith("+json"):
        raise wrong("body", "The Content-Type has to be application/json.", MALFORMED)
    try:
        found = json.loads(await request.body())
    except ClientDisconnect as error:
        raise _broken_off() from error
    except (ValueError, RecursionError) as error:
        raise wrong("body", "The body is no JSON.", MALFORMED) from error
    if not isinstance(found, dict):
        raise wrong("body", "The body has to be a JSON object.", MALFORMED)
    return found


def media_type(request: Request) -> str:
    """The content type of a request without its parameters, in lower case; "" where there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass
class Part:
    """One part of a form. `filename` is None for a field. Its bytes can be had once, and before the next part."""

    name: str
    filename: str | None
    content_type: str
    _pieces: AsyncIterator[bytes] = field(repr=False)

    def stream(self) -> AsyncIterator[bytes]:
        return self._pieces

    async def text(self, limit: int) -> str:
        """A field's value. Raises ServiceError (400): longer than `limit` bytes, or no UTF-8."""
        found = bytearray()
        async for piece in self._pieces:
            found += piece
            if len(found) > limit:
                raise wrong(self.name, f"{self.name}: the fields of the form are too long.")
        try:
            return found.decode()
        except UnicodeDecodeError as error:
            raise wrong(self.name, f"{self.name}: it is no UTF-8 text.") from error


async def parts(request: Request) -> AsyncIterator[Part]:
    """The parts of a multipart body, in order. Raises ServiceError (400) where it is malformed or breaks off."""
    events = _events(request)
    count = 0
    async for event in events:
        assert isinstance(event, _Begun)
        count += 1
        if count > _MOST_PARTS:
            raise _malformed(f"it has more than {_MOST_PARTS} parts")
        pieces = _pieces(events)
        yield event.part(pieces)
        async for _ in pieces:  # what nobody wanted
            pass


@contextmanager
def landing(folder: Path) -> Iterator[Path]:
    """A new folder within `folder` for what arrives; it is removed at the end of the block. Raises StorageAway."""
    with on_disk():
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        found = tempfile.TemporaryDirectory(prefix="incoming-", dir=folder, ignore_cleanup_errors=True)
    with found as place:
        yield Path(place)


def nested(fields: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Form fields as JSON would hold them: `a[b]` is a value of the object `a`, `a[]` one of the list `a`.

    Raises:
        ServiceError: 400, a name that is used for two kinds of things, or nested more than 8 deep.
    """
    found: dict[str, Any] = {}
    for name, value in fields:
        match = _KEY.fullmatch(name)
        keys = [name] if match is None else [match[1], *re.findall(r"\[([^\[\]]*)\]", match[2])]
        if len(keys) > _DEEPEST:
            raise wrong(keys[0], f"{keys[0]}: it is nested too deep.")
        _put(found, keys, value, keys[0])
    return found


def _put(place: dict[str, Any], keys: list[str], value: Any, name: str) -> None:
    key, rest = keys[0], keys[1:]
    if not rest:
        if isinstance(place.get(key), (dict, list)):
            raise wrong(name, f"{name}: it is given in two ways.")
        place[key] = value
    elif rest[0] == "":
        several = place.setdefault(key, [])
        if not isinstance(several, list):
            raise wrong(name, f"{name}: it is given in two ways.")
        if rest[1:]:  # of `a[][b]` the n-th one belongs to the n-th object: clients send them by name or by object
            room = next((one for one in several if isinstance(one, dict) and rest[1] not in one), None)
            if room is None:
                several.append(room := {})
            _put(room, rest[1:], value, name)
        else:
            several.append(value)
    else:
        inner = place.setdefault(key, {})
        if not isinstance(inner, dict):
            raise wrong(name, f"{name}: it is given in two ways.")
        _put(inner, rest, value, name)


@dataclass
class _Begun:
    headers: dict[bytes, bytes]

    def part(self, pieces: AsyncIterator[bytes]) -> Part:
        _, options = parse_options_header(self.headers.get(b"content-disposition"))
        if b"name" not in options:
            raise _malformed("a part has no name")
        filename = options.get(b"filename")
        kind = self.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        return Part(
            options[b"name"].decode("utf-8", "replace"),
            None if filename is None else filename.decode("utf-8", "replace"),
            kind.decode("latin-1"),
            pieces,
        )


class _Ended:
    pass


async def _pieces(events: AsyncIterator[_Begun | bytes | _Ended]) -> AsyncIterator[bytes]:
    async for event in events:
        if isinstance(event, bytes):
            yield event
        else:
            return


async def _events(request: Request) -> AsyncIterator[_Begun | bytes | _Ended]:
    """What the parser finds, as the body comes. No more is held than one piece of it."""
    _, options = parse_options_header(request.headers.get("content-type"))
    if b"boundary" not in options:
        raise _malformed("it has no boundary")
    found = _Found()
    try:
        parser = MultipartParser(options[b"boundary"], found.callbacks)  # type: ignore[arg-type]
        async for piece in request.stream():
            parser.write(piece)
            for event in found.take():
                yield event
    except FormParserError as error:
        raise _malformed("it cannot be parsed") from error
    except ClientDisconnect as error:
        raise _broken_off() from error
    if not found.whole:
        raise _malformed("it ends in the middle")


class _Found:
    """What the parser has called back since it was last asked."""

    def __init__(self) -> None:
        self.whole = False
        self._events: list[_Begun | bytes | _Ended] = []
        self._headers: dict[bytes, bytes] = {}
        self._name, self._value = b"", b""
        self.callbacks = {
            "on_part_begin": self._headers.clear,
            "on_header_field": self._on_name,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header,
            "on_headers_finished": lambda: self._events.append(_Begun(dict(self._headers))),
            "on_part_data": lambda data, start, end: self._events.append(bytes(data[start:end])),
            "on_part_end": lambda: self._events.append(_Ended()),
            "on_end": self._on_end,
        }

    def take(self) -> list[_Begun | bytes | _Ended]:
        events, self._events = self._events, []
        return events

    def _on_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name, self._value = b"", b""

    def _on_end(self) -> None:
        self.whole = True


def _malformed(why: str) -> ServiceError:
    return wrong("body", f"The form cannot be read: {why}.", MALFORMED)


def _broken_off() -> ServiceError:
    return wrong("body", "The body ended before it was whole.", MALFORMED)
