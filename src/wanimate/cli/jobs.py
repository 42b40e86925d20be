"""`wanimate jobs`: what jobs have left beside their results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from wanimate.cli.build import command
from wanimate.cli.report import Reporter

if TYPE_CHECKING:
    from wanimate.jobs.housekeeping import Left


class _ListUnlessSaid(TyperGroup):
    """`wanimate jobs` and `wanimate jobs FOLDER` list."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_ListUnlessSaid, help="List what jobs have left beside their results, or remove it.")

Folders = Annotated[
    list[Path] | None,
    typer.Argument(help="Folders of results. Three levels below them are looked at, too.", show_default="this folder"),
]


@app.command("list")
@command(names={"folder": "FOLDERS"})
def list_(report: Reporter, folders: Folders = None) -> None:
    """List finished work of jobs that were stopped, and leftovers, with age and size.

    Work: the same command as before goes on from it, --fresh starts anew. Temporary files and locks of dead processes: the
    next job of that name removes them.

    [bold]Examples[/bold]

    [cyan]wanimate jobs[/cyan]

    [cyan]wanimate jobs ~/videos[/cyan]
    """
    from wanimate.jobs.housekeeping import find

    found = find(folders or [Path()])
    report.done({"jobs": [_told(left) for left in found]}, [_table(found)] if found else "nothing is left of any job")


@app.command()
@command(names={"folder": "FOLDERS"})
def clean(report: Reporter, folders: Folders = None) -> None:
    """Remove what dead processes have left: unfinished files, and work that a job could go on from. What a running job needs
    stays.

    [bold]Example[/bold]

    [cyan]wanimate jobs clean ~/videos[/cyan]
    """
    from wanimate.jobs.housekeeping import clean as run

    removed = run(folders or [Path()])
    table: list[RenderableType] = [_table(removed), f"{_size(sum(left.bytes for left in removed))} are free again"]
    report.done({"removed": [_told(left) for left in removed]}, table if removed else "nothing was to be removed")


def _told(left: Left) -> dict[str, Any]:
    return {
        "kind": left.kind, "path": left.path, "of": left.of, "running": left.running, "finished": left.finished,
        "age_seconds": round(left.age), "bytes": left.bytes, "segments": left.segments, "segments_in_all": left.total,
    }  # fmt: skip


def _table(found: Sequence[Left]) -> Table:
    table = Table("result", "what", "state", "age", "size", "where", box=None, header_style="bold")
    for left in found:
        cells = (str(left.of), _what(left), _state(left), _ago(left.age), _size(left.bytes), left.path.name)
        table.add_row(*(escape(cell) for cell in cells))
    return table


def _what(left: Left) -> str:
    if left.kind != "work":
        return {"temporary": "unfinished file", "lock": "lock"}[left.kind]
    return f"{left.segments} of {left.total} segments" if left.total else "guides"


def _state(left: Left) -> str:
    if left.finished:
        return "kept"
    return "running" if left.running else "stopped"


def _ago(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _size(count: int) -> str:
    for unit, length in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count} bytes"
