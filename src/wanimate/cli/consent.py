"""`wanimate consent`: what performers and people in pictures have agreed to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from wanimate.cli.build import command
from wanimate.cli.options import option
from wanimate.cli.records import opened, operator, user
from wanimate.cli.report import Reporter
from wanimate.cli.serve import NAMES as PLACES_NAMES
from wanimate.cli.serve import PLACES, Config, Data, Database, settings_of
from wanimate.errors import InputError

if TYPE_CHECKING:
    from wanimate.serve.consents import Consents, Kept

CONSENT, USE = "Consent", "Use"
NAMES = PLACES_NAMES | {
    "consent": "ID", "file": "FILE", "of": "--of", "document": "--document", "out": "OUT", "at": "--at",
    "region": "--region",
}  # fmt: skip

app = typer.Typer(no_args_is_help=True, help="What performers and people in pictures have agreed to: consent records.")
Id = Annotated[str, typer.Argument(help="The uid of the agreement.", metavar="ID", show_default=False)]
By = Annotated[str | None, option(CONSENT, "Who does it.", "--name", show_default="the user of this machine")]
Owner = Annotated[
    str | None,
    option(PLACES, "Whose consents: the owner of a key of the service.", show_default="the house's, which all see"),
]
Of = Annotated[
    str | None,
    option(CONSENT, "The clip or picture: a file, or its SHA-256.", "--of", show_default="all"),
]
At = Annotated[str | None, option(USE, "When, as 2026-11-30T12:00:00Z.", show_default="now")]


@app.command(no_args_is_help=True)
@command(names=NAMES)
def add(
    report: Reporter, file: Annotated[Path, typer.Argument(help="A record as JSON.")], name: By = None,
    owner: Owner = None, data: Data = None, database: Database = None, config: Config = None,
) -> None:  # fmt: skip
    """Take in a consent, or the next version of one. Earlier versions stay.

    [bold]Example[/bold]

    [cyan]wanimate consent add ann-wave-03.json[/cyan]
    """
    from wanimate.approval.consents import read_consent

    consent = read_consent(file)
    with _opened(config, data, database) as consents:
        kept = consents.add(consent, owner or "", name or user())
        report.done(kept.told(_now()), f"{consent.id}: version {kept.version}, {kept.state(_now())}")


@app.command()
@command(names=NAMES)
def new(
    report: Reporter,
    out: Annotated[Path | None, typer.Argument(help="File to write.", show_default="the terminal")] = None,
    of: Of = None,
    document: Annotated[
        Path | None, option(CONSENT, "The signed paper, for its SHA-256.", show_default="to be filled in")
    ] = None,
) -> None:
    """Write a record to begin with. What is empty in it has to be filled in before it is taken in.

    [bold]Example[/bold]

    [cyan]wanimate consent new ann-wave-03.json --of wave.mp4 --document signed.pdf[/cyan]
    """
    from wanimate.approval.consents import draft
    from wanimate.media.files import json_bytes, output_error, write_new

    asset = "" if of is None else _asset(of)
    made = draft(asset, "" if document is None else _hash(document, "document"))
    text = json_bytes(made, indent=2)
    if out is None:
        report.done({"consent": made}, escape(text.decode().rstrip()))
        return
    try:
        write_new(out, text)
    except OSError as error:
        raise output_error(out, error) from error
    report.done({"out": out, "consent": made}, f"written to {escape(str(out))}")


@app.command("list")
@command(names=NAMES)
def list_(
    report: Reporter, of: Of = None, limit: Annotated[int, option(CONSENT, "Rows at most.", min=1, max=10_000)] = 100,
    owner: Owner = None, data: Data = None, database: Database = None, config: Config = None,
) -> None:  # fmt: skip
    """List consents, the last written first."""
    asset = None if of is None else _asset(of)
    with _opened(config, data, database) as consents:
        rows, total = consents.listed(owner, asset, limit=limit)
    at = _now()
    table = Table(box=None, header_style="bold")
    for column in ("id", "version", "state", "subject", "about", "expires", "used"):
        table.add_column(column, overflow="fold")
    for kept in rows:
        one = kept.consent
        table.add_row(
            escape(one.id), str(kept.version), kept.state(at), escape(one.subject.id), one.asset[:12], one.expires or "",
            str(kept.used),
        )  # fmt: skip
    told = {"consents": [kept.told(at) for kept in rows], "total": total}
    report.done(told, [table] if rows else "there is no consent")


@app.command(no_args_is_help=True)
@command(names=NAMES)
def show(
    report: Reporter, consent: Id, owner: Owner = None, data: Data = None, database: Database = None,
    config: Config = None,
) -> None:  # fmt: skip
    """Show a consent with all of its versions."""
    with _opened(config, data, database) as consents:
        versions = consents.versions(consent, owner)
    if not versions:
        raise _unknown(consent)
    at = _now()
    told = versions[-1].told(at) | {"versions": [one.told(at) for one in versions]}
    report.done(told, _shown(versions, at))


@app.command(no_args_is_help=True)
@command(names=NAMES)
def withdraw(
    report: Reporter, consent: Id, name: By = None, owner: Owner = None, data: Data = None, database: Database = None,
    config: Config = None,
) -> None:  # fmt: skip
    """Withdraw a consent from now on, for good.

    Entries of the library that name it are retired. Approvals that rest on it are revoked, and what left under it is to be
    taken back.
    """
    settings = settings_of(config, data=data, database=database)
    with _opened(config, data, database) as consents:
        kept = consents.withdraw(consent, owner, name or user())
    with opened(settings) as (_, reviews):
        reason = f"The consent {consent} is withdrawn."
        records, left = reviews.decisions.withdraw(operator(name), consent, reason)
    back = [one for one in left if one.state == "to_be_taken_back"]
    told = kept.told(_now()) | {
        "revoked": [record.id for record in records], "to_be_taken_back": [one.told() for one in back],
    }  # fmt: skip
    words = [f"{escape(consent)} is withdrawn since {kept.consent.withdrawn_at}"]
    words += [f"revoked: the approval of {record.output_sha256} ({record.job})" for record in records]
    words += [f"to be taken back: {escape(one.release.place)} ({one.release.id})" for one in back]
    report.done(told, "\n".join(words))


@app.command(no_args_is_help=True)
@command(names=NAMES)
def check(
    report: Reporter, consent: Id,
    regions: Annotated[
        list[str] | None,
        option(
            USE, "EU, a country (DE) or a part of one (US-NY). Can be given several times.", "--region",
            show_default="nobody has said",
        ),
    ] = None,
    purposes: Annotated[
        list[str] | None,
        option(USE, "What for: ad, for instance. Can be given several times.", "--purpose", show_default="nobody has said"),
    ] = None,
    media: Annotated[
        list[str] | None,
        option(USE, "Where it shows: video, tv, web. Can be given several times.", "--medium", show_default="video"),
    ] = None,
    at: At = None,
    owner: Owner = None, data: Data = None, database: Database = None, config: Config = None,
) -> None:  # fmt: skip
    """Tell whether a consent allows a use, and what speaks against it.

    Exit code 0: it does. 1: something speaks against it.

    [bold]Example[/bold]

    [cyan]wanimate consent check urn:consent:ann-wave-03 --region DE --purpose ad[/cyan]
    """
    from wanimate.approval.regions import checked_region
    from wanimate.approval.terms import Use

    moment = _moment(at)
    use = Use([checked_region(one) for one in regions or ()], purposes or (), media or ("video",))
    with _opened(config, data, database) as consents:
        kept = consents.find(consent, owner)
    if kept is None:
        raise _unknown(consent)
    reasons = kept.consent.allows(use, moment, kept.used)
    told = {
        "id": kept.consent.id,
        "allowed": not reasons,
        "reasons": reasons,
        "used": kept.used,
        "duties": kept.consent.duties,
    }
    words = [escape(one) for one in reasons] or ["It allows this."]
    words += [f"Owed: {escape(one)}." for one in kept.consent.duties]
    report.done(told, "\n".join(words))
    if reasons:
        raise typer.Exit(1)


@contextmanager
def _opened(config: Path | None, data: Path | None, database: str | None) -> Iterator[Consents]:
    settings = settings_of(config, data=data, database=database)
    from wanimate.serve.consents import open_consents

    consents = open_consents(settings)
    try:
        yield consents
    finally:
        consents.close()


def _unknown(consent: str) -> InputError:
    return InputError("consent", consent, "there is no such consent", "`wanimate consent list` shows them.")


def _asset(of: str) -> str:
    """The SHA-256 of a file, or the one that was given itself."""
    plain = of.removeprefix("sha256:").lower()
    return plain if len(plain) == 64 and set(plain) <= set("0123456789abcdef") else _hash(Path(of), "of")


def _hash(path: Path, field: str) -> str:
    from wanimate.media.files import sha256

    try:
        return sha256(path)
    except OSError as error:
        raise InputError(field, path, f"it cannot be read ({error.strerror})", "Name a file.") from error


def _moment(at: str | None) -> datetime:
    from wanimate.approval.times import instant

    try:
        return _now() if at is None else instant(at)
    except ValueError as error:
        raise InputError("at", at, str(error), "Give a date and a time with its zone.") from error


def _now() -> datetime:
    return datetime.now(UTC)


def _shown(versions: Sequence[Kept], at: datetime) -> list[RenderableType]:
    kept = versions[-1]
    one = kept.consent
    table = Table(box=None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    rows: dict[str, Any] = {
        "state": kept.state(at), "about": f"sha256:{one.asset}", "subject": one.subject.id, "minor": one.subject.minor,
        "deceased": one.subject.deceased, "given by": one.by, "represented by": one.represented_by,
        "uses described": one.uses_described, "document": one.document_sha256, "signed": one.signed_at,
        "expires": one.expires or "never", "withdrawn": one.withdrawn_at or "no", "release": one.release or "none told",
        "used": kept.used, "owner": kept.owner or "the house", "owed": ", ".join(one.duties) or "nothing",
    }  # fmt: skip
    for name, value in rows.items():
        text = ("yes" if value else "no") if isinstance(value, bool) else str(value)
        table.add_row(name, escape(text))
    for permission in one.agreement.permission:
        table.add_row("permitted", escape(permission.words))
    for prohibition in one.agreement.prohibition:
        table.add_row("prohibited", escape(prohibition.words))
    written = [
        f"version {one.version}: {escape(one.by)}, {datetime.fromtimestamp(one.at / 1000, UTC):%Y-%m-%d %H:%M} UTC"
        for one in versions
    ]
    return [f"[bold]{escape(one.id)}[/bold]", table, *written]
