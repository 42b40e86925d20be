"""`wanimate studio`: the service of one person at one machine, opened in the browser without a key to copy."""

from __future__ import annotations

import threading
import webbrowser

from wanimate.serve.keys import SCOPES, Keys
from wanimate.serve.service import Service
from wanimate.serve.settings import ServeSettings
from wanimate.serve.supervisor import serve
from wanimate.serve.tables import now

OWNER = "admin"
"""As the key has it that `wanimate serve` makes at its first start: both see the same jobs."""


def launch(settings: ServeSettings, browse: bool = True) -> None:
    """Run the service until SIGTERM or SIGINT, and open its page with a link that signs in once.

    Args:
        browse: open the link in the browser; without it, it is printed.

    Raises:
        InputError: as `supervisor.serve`.
    """

    def opened(address: str, _key: str | None, service: Service) -> None:
        link = f"{address}/#link={service.sessions.link(key_of(service.keys))}"
        print(f"wanimate studio is at {address}/", flush=True)
        if browse:
            threading.Thread(target=_show, args=(link,), name="browser", daemon=True).start()
        else:
            _tell(link)

    serve(settings, opened)


def key_of(keys: Keys) -> str:
    """The id of an admin's key of `OWNER`; one is made where there is none."""
    for row in keys.list(OWNER):
        if "admin" in row.scopes and row.revoked is None and (row.expires is None or row.expires > now()):
            return row.id
    made = keys.find(keys.create(OWNER, SCOPES))
    assert made is not None
    return made.key_id


def _show(link: str) -> None:
    if not webbrowser.open(link):
        _tell(link)


def _tell(link: str) -> None:
    print(f"  Open this link within ten minutes. It signs in once: {link}", flush=True)
