"""Secrets of services: from the environment or a file, in no text that anybody sees."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from wanimate.errors import InputError
from wanimate.media.json_file import open_plain

HIDDEN = "(hidden)"
_FIT = re.compile(r"[\x21-\x7e]{1,16384}")
_OTHERS = 0o006
"""Permissions of everybody on this machine to read and to write."""
_LARGEST = 20_000


class Secret:
    """A text that is shown nowhere: neither printed, nor logged, nor stored. Only `reveal` gives it away."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def hide(self, text: bytes) -> bytes:
        """Somebody else's text without the secret in it."""
        return text.replace(self._text.encode(), HIDDEN.encode())

    @property
    def fit(self) -> bool:
        """Whether it can stand in a header: visible ASCII without spaces."""
        return _FIT.fullmatch(self._text) is not None

    def __repr__(self) -> str:
        return f"Secret{HIDDEN}"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not stored")


def secret_of(name: str, environment: Mapping[str, str] = os.environ, file: Path | None = None) -> Secret | None:
    """A secret, or None where nobody gives it.

    Args:
        name: of the environment variable, for instance "WANIMATE_FRAMEIO_TOKEN". The variable NAME_FILE names a file instead.
        file: a file that holds it and nothing else; it goes before both variables.

    Raises:
        InputError: the file cannot be read, others may read or write it, or what is there can be no secret.
    """
    if file is None and environment.get(f"{name}_FILE"):
        file = Path(environment[f"{name}_FILE"])
    if file is None and not environment.get(name):
        return None
    found = Secret(environment[name].strip()) if file is None else _of_file(name, file)
    if not found.fit:
        rule = "it is empty, or has spaces or letters that no secret has"
        raise InputError("token", name if file is None else file, rule, "Copy it from the service once more.")
    return found


def _of_file(name: str, file: Path) -> Secret:
    try:
        with os.fdopen(open_plain(file), "rb") as opened:
            if os.fstat(opened.fileno()).st_mode & _OTHERS:
                rule = "everybody on this machine may read or change this file"
                raise InputError("token", file, rule, f"Take that right away: chmod 600 {file}.")
            return Secret(opened.read(_LARGEST).decode("ascii", "replace").strip())
    except OSError as error:
        remedy = f"Name another file, or put the secret into {name}."
        raise InputError("token", file, f"it cannot be read ({error.strerror})", remedy) from None
    except ValueError:
        raise InputError("token", file, "it is not a file", "Name a file that holds the secret.") from None
