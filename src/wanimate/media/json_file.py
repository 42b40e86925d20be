"""JSON from files that somebody else may have written: bounded in size and depth, finite numbers, text that can be shown."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

MAX_BYTES = 64 * 2**20
MAX_DEPTH = 32
_DIGITS = 19
"""Whole numbers of more digits are no size, count or place of anything."""


def open_plain(path: Path, links: bool = True) -> int:
    """A descriptor of a regular file, for reading. A pipe or a device is refused instead of waited for. `links`: a link of that
    name is followed.

    Raises:
        OSError: it cannot be opened. ValueError: it is no regular file, or its name is none that a file can have.
    """
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW))
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise ValueError("it is not a file")
    return opened


def read_json(path: Path, most_bytes: int = MAX_BYTES) -> Any:
    """The content of a JSON file.

    Raises:
        OSError: it cannot be opened. ValueError: as `parse_json`, or it is larger than `most_bytes`.
    """
    with os.fdopen(open_plain(path), "rb") as file:
        data = file.read(min(os.fstat(file.fileno()).st_size, most_bytes) + 1)
    if len(data) > most_bytes:
        raise ValueError(f"it is larger than {most_bytes / 2**20:g} MB")
    return parse_json(data)


def parse_json(data: bytes | str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is no JSON in UTF-8, is nested deeper than `MAX_DEPTH`, or holds a number that is not finite, a whole
            number of more than 19 digits, or half of a character. The message is a phrase about the text.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        found = json.loads(text, parse_int=_whole, parse_float=_finite, parse_constant=_finite)
        _check(found)
    except _Refused as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels") from None
    except UnicodeError:
        raise ValueError("it is not text in UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: line {error.lineno}, column {error.colno}") from None
    return found


class _Refused(Exception):
    pass


def _whole(text: str) -> int:
    if len(text.lstrip("-")) > _DIGITS:
        raise _Refused(f"a whole number in it has more than {_DIGITS} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Refused("a number in it is not finite")
    return value


def _check(value: Any) -> None:
    """Depth and texts, without recursion."""
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, str):
                item.encode()  # half of a surrogate pair is a UnicodeError
            elif isinstance(item, dict):
                inner += [*item, *item.values()]
            elif isinstance(item, list):
                inner += item
        if not inner:
            return
        level = inner
    raise _Refused(f"it is nested deeper than {MAX_DEPTH} levels")
