"""`wanimate mcp`: a running service as tools of a language model."""

from __future__ import annotations

from typing import Annotated

from wanimate.cli.build import command
from wanimate.cli.options import option
from wanimate.cli.report import Reporter
from wanimate.errors import InputError

_SERVICE = "Service"


@command()
def mcp(
    report: Reporter,
    key: Annotated[str, option(_SERVICE, "A key of the service.", envvar="WANIMATE_KEY")],
    url: Annotated[str, option(_SERVICE, "Where the service is.", envvar="WANIMATE_URL")] = "http://127.0.0.1:8420",
) -> None:
    """Offer a running service to a program that speaks the Model Context Protocol, over stdin and stdout.

    The program starts the command itself and gives the key in its environment, as WANIMATE_KEY. Tools: submit, status, cancel,
    library. Local files that the model names are sent to the service.

    [bold]Example[/bold]

    [cyan]WANIMATE_KEY=wan_... wanimate mcp --url http://127.0.0.1:8420[/cyan]
    """
    try:
        from wanimate.serve.mcp import run
    except ModuleNotFoundError as error:
        rule = f"the package {error.name} is not installed"
        raise InputError("mcp", "mcp", rule, "Install wanimate[mcp].") from error
    run(url, key)
