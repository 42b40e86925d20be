"""`wanimate studio`: the page, for one person at one machine."""

from __future__ import annotations

from typing import Annotated

from wanimate.cli.build import command
from wanimate.cli.options import option
from wanimate.cli.report import Reporter
from wanimate.cli.serve import (
    LISTENING,
    NAMES,
    Checkpoint,
    Config,
    Data,
    Device,
    Fetch,
    Speed,
    settings_of,
)
from wanimate.errors import InputError

_LOOPBACK = "127.0.0.1"


@command(names=NAMES)
def studio(
    report: Reporter,
    port: Annotated[int | None, option(LISTENING, "Port; 0 is any free one.", show_default="8420")] = None,
    browse: Annotated[
        bool, option(LISTENING, "Open the page in the browser, or print its link.", "--open/--no-open")
    ] = True,
    data: Data = None, config: Config = None, checkpoint: Checkpoint = None, allow_fetch: Fetch = None, speed: Speed = None,
    device: Device = None,
) -> None:  # fmt: skip
    """Open the studio: a page in the browser that does what the commands do.

    It starts the service on this machine alone, and signs in by a link that works once.

    [bold]Example[/bold]

    [cyan]wanimate studio --checkpoint Wan2.2-Animate-14B[/cyan]
    """
    settings = settings_of(
        config,
        host=_LOOPBACK,
        port=port,
        data=data,
        checkpoint=checkpoint,
        allow_fetch=allow_fetch,
        speed=speed,
        device=device,
    )
    if settings.public_url is not None:
        rule, remedy = "the studio is for this machine alone", "Use `wanimate serve` behind a proxy."
        raise InputError("serve.public_url", settings.public_url, rule, remedy)
    from wanimate.serve.ops.logs import set_up
    from wanimate.serve.studio.launch import launch

    set_up(settings.log_json)
    launch(settings, browse)
