"""Arguments that are no settings and that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wanimate.config.base import FILES


def option(panel: str, help: str, *names: str, **more: Any) -> Any:
    """An option of a command's own, under a heading of `--help`."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


Checkpoint = Annotated[
    Path | None,
    option(
        FILES,
        "Checkpoint folder, for instance Wan2.2-Animate-14B, or its transformer's file. Without it, the package's small "
        "[bold]mannequin[/bold] is used. It knows only its mannequins; real characters need the 14B.",
        show_default="mannequin",
    ),
]
