"""Tokens: given ones, and those that Adobe's identity service makes for a server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode

from wanimate.errors import InputError
from wanimate.handoff.remote.http import Ask, RemoteError, Token, Wire, checked
from wanimate.handoff.remote.secret import Secret, secret_of

FRAMEIO_TOKEN, DESCRIPT_TOKEN = "WANIMATE_FRAMEIO_TOKEN", "WANIMATE_DESCRIPT_TOKEN"
CLIENT_ID, CLIENT_SECRET = "WANIMATE_FRAMEIO_CLIENT_ID", "WANIMATE_FRAMEIO_CLIENT_SECRET"
IMS_URL = "https://ims-na1.adobelogin.com"
SCOPE = "openid AdobeID frame.s2s.all"
_EARLY = 60.0
"""Seconds before its end at which a token counts as expired."""


class Given:
    """A token that somebody has made. There is no other one."""

    def __init__(self, secret: Secret) -> None:
        self._secret = secret

    def value(self) -> Secret:
        return self._secret

    def renew(self) -> bool:
        return False


class Ims:
    """Tokens of Adobe IMS, server to server: asked for when one is needed, and again when one expires or is refused."""

    def __init__(self, wire: Wire, client: str, secret: Secret, url: str = IMS_URL) -> None:
        self._wire, self._client, self._secret = wire, client, secret
        self._url = checked(url, "Adobe IMS").rstrip("/")
        self._found: Secret | None = None
        self._expires = 0.0

    def value(self) -> Secret:
        """Raises RemoteError: Adobe gives none."""
        if self._found is None or self._wire.clock.now() >= self._expires:
            self._found, lasts = self._asked()
            self._expires = self._wire.clock.now() + lasts - _EARLY
        return self._found

    def renew(self) -> bool:
        self._found = None
        return True

    def _asked(self) -> tuple[Secret, float]:
        def form() -> list[bytes]:
            fields = {"grant_type": "client_credentials", "client_id": self._client, "scope": SCOPE}
            return [urlencode({**fields, "client_secret": self._secret.reveal()}).encode()]

        headers = {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(len(form()[0]))}
        answer = self._wire.send(Ask("POST", f"{self._url}/ims/token/v3", headers, body=form, hidden=(self._secret,)))
        data = answer.data()
        if not answer.good or not isinstance(data, dict) or not isinstance(data.get("access_token"), str):
            remedy = f"Compare {CLIENT_ID} and {CLIENT_SECRET} with the credential in Adobe's developer console"
            raise RemoteError("token", "Adobe IMS", f"it gives no token (it answered {answer.status})", remedy)
        lasts = data.get("expires_in")
        found = Secret(data.pop("access_token"))
        if not found.fit:
            raise RemoteError("token", "Adobe IMS", "it gives a token that cannot be used", "Try again later")
        return found, float(lasts) if isinstance(lasts, int | float) else 3600.0


def frameio_token(
    wire: Wire, file: Path | None = None, environment: Mapping[str, str] = os.environ, ims_url: str = IMS_URL
) -> Token:
    """The token for Frame.io: a given one, else Adobe's for a server.

    Args:
        file: holds a token; it goes before the environment.

    Raises:
        InputError: there is neither a token nor a client's id and secret.
    """
    given = secret_of(FRAMEIO_TOKEN, environment, file)
    if given is not None:
        return Given(given)
    client, secret = environment.get(CLIENT_ID, "").strip(), secret_of(CLIENT_SECRET, environment)
    if client and secret is not None:
        return Ims(wire, client, secret, ims_url)
    remedy = f"Put a token into {FRAMEIO_TOKEN} or a file, or set {CLIENT_ID} and {CLIENT_SECRET}"
    raise InputError("token", FRAMEIO_TOKEN, "there is no token for Frame.io", remedy)


def descript_token(file: Path | None = None, environment: Mapping[str, str] = os.environ) -> Token:
    """The personal token for Descript. Raises InputError where there is none."""
    given = secret_of(DESCRIPT_TOKEN, environment, file)
    if given is None:
        remedy = f"Make a personal token in Descript's settings and put it into {DESCRIPT_TOKEN} or a file"
        raise InputError("token", DESCRIPT_TOKEN, "there is no token for Descript", remedy)
    return Given(given)
