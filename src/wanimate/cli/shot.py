"""`wanimate shot`: camera, light and size of a clip's shots, as the analysis proposes them and as people confirm them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from wanimate.cli.build import command
from wanimate.cli.options import option
from wanimate.cli.records import user
from wanimate.cli.report import Reporter, told

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wanimate.preprocess.shot.record import ShotRecord, Value

app = typer.Typer(no_args_is_help=True, help="Look at a clip's shot records, confirm and correct them.")
WHAT = "What is said"
Guides = Annotated[Path, typer.Argument(help="A folder made by `wanimate preprocess`.")]
Number = Annotated[int | None, option(WHAT, "Which shot, from 1.", "--shot", min=1, show_default="the only one")]
By = Annotated[str | None, option(WHAT, "Who says so.", show_default="the user of this machine")]
_UNITS = {"temperature": " K", "temperatureDrift": " K", "drift": " stops"}
SAID = {"guides": "GUIDES", "field": "FIELD", "value": "VALUE", "shot": "--shot", "by": "--by"}


@app.command(no_args_is_help=True)
@command(names={"guides": "PATH", "video": "PATH", "path": "PATH"})
def show(
    report: Reporter, path: Annotated[Path, typer.Argument(help="A folder of guides, or a clip.")],
    history: Annotated[bool, option(WHAT, "Also tell what stood there before.")] = False,
) -> None:  # fmt: skip
    """Tell camera move, size, light and advice of every shot. A clip is analysed by itself, which takes seconds.

    Values come from the analysis, with its confidence, from the file, or from a person.

    [bold]Examples[/bold]

    [cyan]wanimate shot show guides[/cyan]

    [cyan]wanimate shot show dance.mp4 --json[/cyan]
    """
    from wanimate.media.probe import probe
    from wanimate.preprocess.shot.clip import analyse_clip
    from wanimate.preprocess.shot.stored import read_record

    record = read_record(path) if path.is_dir() else told(report, analyse_clip(probe(path, None)))
    report.done({"path": str(path), **record.plain()}, _tables(record, history))


@app.command(no_args_is_help=True)
@command(names=SAID)
def confirm(
    report: Reporter, guides: Guides, fields: Annotated[list[str], typer.Argument(help="Fields whose values are right.")],
    shot: Number = None, by: By = None,
) -> None:  # fmt: skip
    """Confirm values. What was proposed stays in the history.

    [bold]Example[/bold]

    [cyan]wanimate shot confirm guides cameraMove shotSize --by Ann[/cyan]
    """
    from wanimate.preprocess.shot.stored import change_record

    def confirmed(record: ShotRecord) -> ShotRecord:
        for field in fields:
            record = record.confirmed(shot, field, by or user())
        return record

    record = change_record(guides, confirmed)
    report.done(
        {"path": str(guides), **record.plain()}, f"confirmed: {', '.join(fields)}. Advice: {record.advice.text}"
    )


@app.command("set", no_args_is_help=True)
@command(names=SAID)
def set_(
    report: Reporter, guides: Guides, field: Annotated[str, typer.Argument(help="cameraMove, for instance.")],
    value: Annotated[str, typer.Argument(help="Its value.")], shot: Number = None, by: By = None,
) -> None:  # fmt: skip
    """Give a field its value: a correction, or what no analysis can know. What stood there stays in the history.

    [bold]Examples[/bold]

    [cyan]wanimate shot set guides cameraMove "Dolly In" --by Ann[/cyan]

    [cyan]wanimate shot set guides place INT --shot 2[/cyan]
    """
    from wanimate.preprocess.shot.stored import change_record

    record = change_record(guides, lambda one: one.corrected(shot, field, value, by or user()))
    report.done({"path": str(guides), **record.plain()}, f"{field}: {value}. Advice: {record.advice.text}")


def _tables(record: ShotRecord, history: bool) -> list[RenderableType]:
    found: list[RenderableType] = []
    for number, shot in enumerate(record.shots, start=1):
        found += [f"[bold]shot {number}[/bold], frames {shot.first} to {shot.stop - 1}", _table(shot.values)]
        found += [f"advice: {escape(shot.advice.text)}", ""]
    if any(value.value not in (None, []) for value in record.clip.values()):
        found += ["[bold]clip[/bold]", _table(record.clip), ""]
    if len(record.shots) > 1:
        found.append(f"advice for the clip: {escape(record.advice.text)}")
    if history and record.history:
        table = Table("shot", "field", "value before", "by", "at", box=None, header_style="bold", padding=(0, 2))
        for one in record.history:
            table.add_row(str(one.shot or ""), one.field, escape(_shown(one.value)), escape(one.by), one.at)
        found += ["", table]
    return found


def _table(values: Mapping[str, Value]) -> Table:
    table = Table("field", "value", "confidence", "by", box=None, header_style="bold", padding=(0, 2))
    for name, one in values.items():
        if name != "moves":
            table.add_row(
                name,
                escape(_shown(one.value) + _UNITS.get(name, "") * (one.value is not None)),
                f"{one.confidence:.2f}",
                escape(one.by),
            )
    return table


def _shown(value: Any) -> str:
    if value is None or value == []:
        return "not known" if value is None else "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
