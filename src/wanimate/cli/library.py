"""`wanimate library`: clips and characters that are used again, with tags, licence and approval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from wanimate.cli.build import command
from wanimate.cli.options import option
from wanimate.cli.records import user
from wanimate.cli.report import Reporter
from wanimate.cli.serve import NAMES, PLACES, Config, Data, Database, StorageUrl, settings_of
from wanimate.errors import InputError

if TYPE_CHECKING:
    from wanimate.library.entries import About, Library
    from wanimate.library.names import Status
    from wanimate.serve.tables import LibraryEntry

app = typer.Typer(no_args_is_help=True, help="Clips and characters that are used again: add, find, approve, export.")
ENTRY, FILTER = "Entry", "Which"
SAID = NAMES | {"entry": "NAME", "file": "FILE", "folder": "FOLDER", "consent_ids": "--consent"}

Name = Annotated[str, typer.Argument(help="Name or id of an entry.")]
Owner = Annotated[
    str | None,
    option(PLACES, "Whose library: the owner of a key of the service.", show_default="the house's, which all see"),
]
Title = Annotated[str | None, option(ENTRY, "Title, for people.", show_default="the file's name")]
Kind = Annotated[
    str | None, option(ENTRY, "Of a clip: dance-loop, presenter, expression or other.", show_default="other")
]
Tags = Annotated[list[str] | None, option(ENTRY, "A tag. Can be given several times.", "--tag", show_default="none")]
Licence = Annotated[
    str | None,
    option(
        ENTRY, "SPDX id, CC-BY-4.0 for instance, or LicenseRef-NAME. An approval needs one.", show_default="not known"
    ),
]
Consents = Annotated[
    list[str] | None,
    option(ENTRY, "Id of a consent record. Can be given several times.", "--consent", show_default="none"),
]
Search = Annotated[
    str, typer.Argument(help="Words, or their beginnings, in name, title, kind and tags.", show_default="all")
]
Shelf = Annotated[str, option(FILTER, "clip or character.", show_default="both")]
OfKind = Annotated[str, option(FILTER, "dance-loop, presenter, expression or other.", "--kind", show_default="any")]
OfStatus = Annotated[str, option(FILTER, "proposed, approved or retired.", "--status", show_default="any")]
WithTags = Annotated[
    list[str] | None, option(FILTER, "With this tag. Can be given several times.", "--tag", show_default="any")
]


@app.command(no_args_is_help=True)
@command(names=SAID)
def add(
    report: Reporter, file: Annotated[Path, typer.Argument(help="A clip or a picture of a character.")],
    name: Annotated[
        str | None, option(ENTRY, "What jobs call it: a-z, 0-9 and -.", show_default="after the file")
    ] = None,
    title: Title = None, kind: Kind = None, tags: Tags = None, licence: Licence = None, consents: Consents = None,
    owner: Owner = None, data: Data = None, database: Database = None, storage: StorageUrl = None, config: Config = None,
) -> None:  # fmt: skip
    """Add a clip or a character. Its content tells which it is; loop points and a preview are made.

    It is proposed until somebody approves it.

    [bold]Example[/bold]

    [cyan]wanimate library add wave.mp4 --name wave-03 --kind dance-loop --tag slow --licence CC-BY-4.0[/cyan]
    """
    with _opened(config, data, database, storage) as library:
        from wanimate.library.bundle import add_file, described

        entry = add_file(library, owner or "", file, _about(name, title, kind, tags, licence, consents))
        report.done(described(entry), f"{entry.name}: {_what(entry)}, proposed")


@app.command("import", no_args_is_help=True)
@command(names=SAID)
def import_(
    report: Reporter, folder: Annotated[Path, typer.Argument(help="A folder of clips and pictures, or of an export.")],
    kind: Kind = None, tags: Tags = None, licence: Licence = None, consents: Consents = None, owner: Owner = None,
    data: Data = None, database: Database = None, storage: StorageUrl = None, config: Config = None,
) -> None:  # fmt: skip
    """Add every clip and picture below a folder. What an export has said of them is taken over, approvals are not.

    Files that cannot be used, or are in the library already, are told and left out.

    [bold]Example[/bold]

    [cyan]wanimate library import ~/takes --tag studio-2 --licence LicenseRef-house[/cyan]
    """
    with _opened(config, data, database, storage) as library:
        from wanimate.library.bundle import add_folder, described

        added, left = 0, 0
        for one in add_folder(library, owner or "", folder, _about(None, None, kind, tags, licence, consents)):
            if one.entry is not None:
                added += 1
                report.part("added", described(one.entry), f"{one.entry.name}: {_what(one.entry)}")
            else:
                left += 1
                assert one.why is not None
                why = one.why.spelled(report.spelling)
                report.part("left_out", {"file": one.path, "message": why}, f"left out: {why}")
        report.done({"added": added, "left_out": left}, f"{folder}: {added} added, {left} left out")


@app.command()
@command(names=NAMES)
def search(
    report: Reporter, words: Search = "", shelf: Shelf = "", kind: OfKind = "", status: OfStatus = "", tags: WithTags = None,
    limit: Annotated[int, option(FILTER, "Rows at most.", min=1, max=10_000)] = 100, owner: Owner = None, data: Data = None,
    database: Database = None, storage: StorageUrl = None, config: Config = None,
) -> None:  # fmt: skip
    """List entries: the best match first, without words the newest.

    [bold]Examples[/bold]

    [cyan]wanimate library search[/cyan]

    [cyan]wanimate library search wave --tag slow --status approved[/cyan]
    """
    with _opened(config, data, database, storage) as library:
        from wanimate.library.bundle import described
        from wanimate.library.names import KINDS, SHELVES, STATUSES, checked_choice
        from wanimate.library.search import Wanted

        for field, given, known in (("shelf", shelf, SHELVES), ("kind", kind, KINDS), ("status", status, STATUSES)):
            if given:
                checked_choice(field, given, known)
        chosen = tuple(tag.strip().casefold() for tag in tags or ())
        found = library.search(Wanted(shelf, words, chosen, kind, status, limit=limit), owner)
        told = {"entries": [described(entry) for entry in found.entries], "total": found.total}
        report.done(told, [_table(found.entries)] if found.entries else "nothing in the library matches")


@app.command(no_args_is_help=True)
@command(names=SAID)
def show(
    report: Reporter, name: Name, owner: Owner = None, data: Data = None, database: Database = None,
    storage: StorageUrl = None, config: Config = None,
) -> None:  # fmt: skip
    """Tell everything of one entry."""
    with _opened(config, data, database, storage) as library:
        from wanimate.library.bundle import described

        told = described(_entry(library, name, owner))
        table = Table(box=None, show_header=False)
        for key, value in told.items():
            table.add_row(key, escape(_shown(key, value)))
        report.done(told, [table])


@app.command(no_args_is_help=True)
@command(names=SAID)
def change(
    report: Reporter, name: Name, title: Title = None, kind: Kind = None, tags: Tags = None, licence: Licence = None,
    consents: Consents = None, owner: Owner = None, data: Data = None, database: Database = None,
    storage: StorageUrl = None, config: Config = None,
) -> None:  # fmt: skip
    """Change title, kind, tags, licence or consents; what is not given stays."""
    with _opened(config, data, database, storage) as library:
        from wanimate.library.bundle import described

        about = _about(None, title, kind, tags, licence, consents)
        entry = library.change(_entry(library, name, owner).id, about, decides=True)
        report.done(described(entry), f"{entry.name}: {_what(entry)}")


@app.command(no_args_is_help=True)
@command(names=SAID)
def approve(
    report: Reporter, name: Name,
    by: Annotated[str | None, option(ENTRY, "Who approves.", show_default="the user of this machine")] = None,
    owner: Owner = None, data: Data = None, database: Database = None, storage: StorageUrl = None, config: Config = None,
) -> None:  # fmt: skip
    """Approve an entry. It needs a licence."""
    with _opened(config, data, database, storage) as library:
        _decide(report, library, _entry(library, name, owner), "approved", by)


@app.command(no_args_is_help=True)
@command(names=SAID)
def retire(
    report: Reporter, name: Name, owner: Owner = None, data: Data = None, database: Database = None,
    storage: StorageUrl = None, config: Config = None,
) -> None:  # fmt: skip
    """Retire an entry: no new job may take it. It can be approved again."""
    with _opened(config, data, database, storage) as library:
        _decide(report, library, _entry(library, name, owner), "retired", None)


@app.command(no_args_is_help=True)
@command(names=SAID)
def remove(
    report: Reporter, name: Name, owner: Owner = None, data: Data = None, database: Database = None,
    storage: StorageUrl = None, config: Config = None,
) -> None:  # fmt: skip
    """Remove an entry with its files. Files that a job of the service needs stay as long as that."""
    with _opened(config, data, database, storage) as library:
        entry = _entry(library, name, owner)
        library.remove(entry.id)
        report.done({"removed": entry.name, "id": entry.id}, f"{entry.name} is removed")


@app.command(no_args_is_help=True)
@command(names=SAID)
def export(
    report: Reporter, out: Annotated[Path, typer.Argument(help="A new folder.")],
    names: Annotated[list[str] | None, typer.Argument(help="Names or ids of entries.", show_default="all that match")] = None,
    shelf: Shelf = "", kind: OfKind = "", status: OfStatus = "", tags: WithTags = None, owner: Owner = None,
    data: Data = None, database: Database = None, storage: StorageUrl = None, config: Config = None,
) -> None:  # fmt: skip
    """Write clips and characters into a folder, with a list of what is said of them, for an import.

    [bold]Example[/bold]

    [cyan]wanimate library export ~/approved --status approved[/cyan]
    """
    with _opened(config, data, database, storage) as library:
        from wanimate.library.bundle import export as run
        from wanimate.library.search import Wanted

        if names:
            entries: Sequence[LibraryEntry] = [_entry(library, name, owner) for name in names]
        else:
            chosen = tuple(tag.strip().casefold() for tag in tags or ())
            entries = library.search(Wanted(shelf, "", chosen, kind, status, limit=10**6), owner).entries
        run(library, entries, out)
        report.done({"out": out, "entries": [entry.name for entry in entries]}, f"{out}: {len(entries)} entries")


@contextmanager
def _opened(config: Path | None, data: Path | None, database: str | None, storage: str | None) -> Iterator[Library]:
    from wanimate.library.home import open_library

    settings = settings_of(config, data=data, database=database, storage=storage)
    library = open_library(settings)
    try:
        yield library
    finally:
        library.database.close()


def _about(
    name: str | None, title: str | None, kind: str | None, tags: Sequence[str] | None, licence: str | None,
    consents: Sequence[str] | None,
) -> About:  # fmt: skip
    from wanimate.library.entries import About

    return About(name, title, kind, tags or None, licence, consents or None)


def _entry(library: Library, name: str, owner: str | None) -> LibraryEntry:
    found = library.find(name.removeprefix("library:"), owner)
    if found is None:
        raise InputError("entry", name, "the library has no such entry", "`wanimate library search` lists them.")
    return found


def _decide(report: Reporter, library: Library, entry: LibraryEntry, status: Status, by: str | None) -> None:
    from wanimate.library.bundle import described

    entry = library.decide(entry.id, status, by or user())
    report.done(described(entry), f"{entry.name} is {status}")


def _what(entry: LibraryEntry) -> str:
    """A clip's length and size in words, or a picture's size."""
    size = f"{entry.width}x{entry.height}"
    if entry.shelf == "character":
        return f"character, {size}"
    loop = "" if entry.loop is None else f", loop from frame {entry.loop['start']} to {entry.loop['stop']}"
    return f"{entry.kind}, {entry.seconds:.2f} s, {size}{loop}"


def _table(entries: Sequence[LibraryEntry]) -> Table:
    table = Table(box=None, header_style="bold")
    for column in ("name", "kind", "status", "length", "size", "loop"):
        table.add_column(column, no_wrap=True)
    for column in ("tags", "licence"):
        table.add_column(column, overflow="fold")
    for entry in entries:
        length = "" if entry.seconds is None else f"{entry.seconds:.1f} s"
        size = "" if entry.width is None else f"{entry.width}x{entry.height}"
        loop = "" if entry.loop is None else f"{entry.loop['start']}-{entry.loop['stop']}"
        cells = (
            entry.name, entry.kind or entry.shelf, entry.status, length, size, loop, ", ".join(entry.tags), entry.licence or "",
        )  # fmt: skip
        table.add_row(*map(escape, cells))
    return table


def _shown(key: str, value: Any) -> str:
    if value is None or value == []:
        return "none"
    if key == "loop":
        return f"frames {value['start']} to {value['stop']}, closes within {value['seam']:g} steps of the motion"
    if key in ("created", "approved_at"):
        return datetime.fromtimestamp(value / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if key == "owner":
        return value or "the house"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
