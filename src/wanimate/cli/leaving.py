"""`wanimate release`, and what `wanimate review` has for results that leave: bring them in, revoke, take back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from wanimate.cli.build import command
from wanimate.cli.options import option
from wanimate.cli.records import gate, identity, opened, operator, reviews, valid
from wanimate.cli.report import Reporter
from wanimate.cli.review import (
    NAMES,
    REVIEW,
    PersonName,
    Reason,
    ShotArgument,
    VersionNumber,
    app,
    moment,
    shot_of,
    version_of,
)
from wanimate.cli.serve import Config, Data, Database, StorageUrl, settings_of
from wanimate.config.base import FILES
from wanimate.errors import InputError

if TYPE_CHECKING:
    from wanimate.serve.approvals.releases import Gone

OWN = {**NAMES, "file": "FILE", "result": "FILE", "release": "RELEASE", "note": "--note"}
Result = Annotated[Path, typer.Argument(help="A finished result: a video, or a folder of pictures.")]
_WORDS = {"left": "left", "to_be_taken_back": "to be taken back", "taken_back": "taken back"}


@command(names=OWN)
def release(
    report: Reporter, file: Result,
    out: Annotated[Path | None, option(FILES, "The name it leaves by.", show_default="FILE without quarantined")] = None,
    keep: Annotated[bool, option(FILES, "Keep the quarantined files.")] = False,
    data: Data = None, database: Database = None, storage: StorageUrl = None, config: Config = None,
) -> None:  # fmt: skip
    """Give a result its release name, once it is approved.

    The very bytes are held against the decisions about them. Nothing is written over.

    [bold]Example[/bold]

    [cyan]wanimate release hero.quarantined.mp4 --out hero.mp4[/cyan]
    """
    settings = settings_of(config, data=data, database=database, storage=storage)
    with gate(settings) as asked:
        from wanimate.finish.naming import freed
        from wanimate.serve.approvals.release import release as run

        written = run(asked, file, out or freed(file), keep)
    report.done({"files": [str(path) for path in written]}, "\n".join(escape(str(path)) for path in written))


@app.command("add")
@command(names=OWN)
def add(
    report: Reporter, file: Result,
    shot: Annotated[str | None, option(REVIEW, "Name of its shot.", show_default="the file's")] = None,
    data: Data = None, database: Database = None, storage: StorageUrl = None, config: Config = None,
) -> None:  # fmt: skip
    """Bring a result of the command line into review: it becomes the first version of a shot.

    [bold]Example[/bold]

    [cyan]wanimate review add hero.quarantined.mp4 --shot "Scene 12"[/cyan]
    """
    settings = settings_of(config, data=data, database=database, storage=storage)
    with opened(settings) as (base, found):
        from wanimate.review.records import Signature
        from wanimate.serve.approvals.local import add as run
        from wanimate.serve.storage import Storage

        name = None if shot is None else valid(Signature, name=shot).name
        store: Storage = found.storage
        made = run(base, store, settings, file, name, identity())
    told = {"shot": made.shot, "version": made.job, "sha256": made.sha256, "mode": made.mode, "warning": made.why}
    words = f"{made.shot}: {escape(file.name)} is in review (sha256 {made.sha256})"
    why = [] if made.why is None else [f"[yellow]It is taken for a replacement: {escape(made.why)}.[/yellow]"]
    report.done(told, [words, *why])


@app.command()
@command(names=OWN)
def revoke(
    report: Reporter, shot: ShotArgument, reason: Reason = "", version: VersionNumber = None, name: PersonName = None,
    data: Data = None, database: Database = None, storage: StorageUrl = None, config: Config = None,
) -> None:  # fmt: skip
    """Take back what was decided of a version, and list where it went: all of that is to be taken back.

    [bold]Example[/bold]

    [cyan]wanimate review revoke "Scene 12" --reason "The performer has withdrawn."[/cyan]
    """
    with reviews(settings_of(config, data=data, database=database, storage=storage), shot) as found:
        from wanimate.review.records import State

        known = shot_of(found, shot)
        chosen = version_of(known, version)
        who = operator(name)
        record = found.decisions.decide(who, known.id, chosen.job, State.NEEDS_REVIEW, reason)
        left = [one for one in found.decisions.gone(who, known.id) if one.release.output == record.output_sha256]
    data_told = {"decision": record.model_dump(mode="json"), "releases": [one.told() for one in left]}
    words = f"{escape(known.name)}, version {chosen.number}: revoked"
    report.done(data_told, f"{words}\n{_lines(left)}" if left else f"{words}; nothing of it has left")


@app.command()
@command(names=OWN)
def left(
    report: Reporter, shot: ShotArgument,
    data: Data = None, database: Database = None, storage: StorageUrl = None, config: Config = None,
) -> None:  # fmt: skip
    """List where results of a shot went, and what of it is to be taken back."""
    with reviews(settings_of(config, data=data, database=database, storage=storage), shot) as found:
        gone = found.decisions.gone(operator(None), shot_of(found, shot).id)
    report.done({"releases": [one.told() for one in gone]}, _lines(gone) if gone else "nothing has left")


@app.command()
@command(names=OWN)
def recalled(
    report: Reporter, shot: ShotArgument,
    release: Annotated[str, typer.Argument(help="Its id, as `wanimate review left` shows it.", metavar="RELEASE")],
    note: Annotated[str, option(REVIEW, "How it was taken back.", show_default="none")] = "", name: PersonName = None,
    data: Data = None, database: Database = None, storage: StorageUrl = None, config: Config = None,
) -> None:  # fmt: skip
    """Confirm that something that left is taken back."""
    settings = settings_of(config, data=data, database=database, storage=storage)
    with reviews(settings, shot, release=release) as found:
        known = shot_of(found, shot)
        if all(one.release.id != release for one in found.decisions.gone(operator(name), known.id)):
            rule = "nothing of the shot has left under this id"
            raise InputError("release", release, rule, "`wanimate review left SHOT` lists what has.")
        gone = found.decisions.recalled(operator(name), known.id, release, note)
    report.done(gone.told(), f"{escape(gone.release.place)}: taken back")


def _lines(gone: Sequence[Gone]) -> str:
    """What left, a line each: narrow terminals cut the ids of tables."""
    found = []
    for one in gone:
        row = one.release
        files = f" (with {', '.join(name for name, _ in row.derived)})" if row.derived else ""
        found.append(f"{row.id}  {moment(row.at)}  {_WORDS[one.state]}: {row.way}, {escape(row.place + files)}")
    return "\n".join(found)
