"""`wanimate review`: reviewing a service's results from the command line. It needs the database, not the running service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from wanimate.cli.build import command
from wanimate.cli.options import option
from wanimate.cli.records import operator, valid
from wanimate.cli.records import reviews as opened_reviews
from wanimate.cli.report import Reporter
from wanimate.cli.serve import NAMES as PLACES_NAMES
from wanimate.cli.serve import Config, Data, Database, StorageUrl, settings_of
from wanimate.errors import InputError, OutputError

if TYPE_CHECKING:
    from wanimate.review import chain
    from wanimate.review.records import Shot, State, Version
    from wanimate.serve.reviews import Reviews
    from wanimate.serve.settings import ServeSettings

REVIEW = "Review"
NAMES = {
    **PLACES_NAMES, "shot": "SHOT", "version": "--version", "state": "--state", "frame": "--frame",
    "duration": "--duration", "text": "TEXT", "name": "--name", "reason": "--reason", "format": "--format",
    "days": "--days", "region": "--region", "rights": "--rights", "out": "--out", "x": "--at", "y": "--at", "marks": "--at",
}  # fmt: skip
_WORDS = {"needs_review": "needs review", "changes_asked": "changes asked", "approved": "approved"}
_DECIDED = {**_WORDS, "needs_review": "taken back"}

app = typer.Typer(no_args_is_help=True, help="Look at versions of shots, comment on them, approve them.")
ShotArgument = Annotated[
    str, typer.Argument(help="Its id, the id of one of its jobs, or its name.", metavar="SHOT", show_default=False)
]
VersionNumber = Annotated[int | None, option(REVIEW, "Number of the version.", min=1, show_default="the newest")]
PersonName = Annotated[str | None, option(REVIEW, "What you are called.", show_default="the user of this machine")]
Url = Annotated[
    str | None, option(REVIEW, "How guests reach the service.", show_default="its public_url, or this machine")
]
Reason = Annotated[str, option(REVIEW, "Why. It becomes part of the record.", show_default="none")]


@app.command("list")
@command(names=NAMES)
def list_(
    report: Reporter,
    state: Annotated[
        str | None, option(REVIEW, "needs_review, changes_asked or approved.", show_default="every state")
    ] = None,
    data: Data = None, database: Database = None, storage: StorageUrl = None, config: Config = None,
) -> None:  # fmt: skip
    """List shots, the last changed first.

    [bold]Example[/bold]

    [cyan]wanimate review list --state needs_review[/cyan]
    """
    with opened_reviews(settings_of(config, data=data, database=database, storage=storage)) as reviews:
        from wanimate.serve.reviews.shots import Wanted

        wanted = Wanted(None if state is None else _state(state), everybody=True, limit=1000)
        rows = reviews.shots.listed(operator(None), "", wanted)
    table = Table("id", "name", "owner", "state", "versions", "open", "changed", box=None, header_style="bold")
    told: list[dict[str, Any]] = []
    for row in rows:
        shot = row.shot
        table.add_row(
            shot.id, escape(shot.name), escape(shot.owner), _WORDS[shot.state], str(row.versions), str(row.open),
            moment(shot.changed),
        )  # fmt: skip
        names = ("id", "name", "owner", "state", "created", "changed")
        told.append({name: getattr(shot, name) for name in names} | {"versions": row.versions, "open": row.open})
    report.done({"shots": told}, [table] if told else "there is no shot")


@app.command()
@command(names=NAMES)
def show(
    report: Reporter, shot: ShotArgument,
    data: Data = None, database: Database = None, storage: StorageUrl = None, config: Config = None,
) -> None:  # fmt: skip
    """Show a shot: its versions, what was said of them, and who decided what."""
    with opened_reviews(settings_of(config, data=data, database=database, storage=storage), shot) as reviews:
        found = shot_of(reviews, shot)
    report.done(found.model_dump(mode="json"), _shown(found))


@app.command()
@command(names=NAMES)
def comment(
    report: Reporter, shot: ShotArgument, text: Annotated[str, typer.Argument(help="What to say.")],
    frame: Annotated[int, option(REVIEW, "Frame that it is about, from 0.")] = 0,
    duration: Annotated[int, option(REVIEW, "Frames that it is about.")] = 1,
    at: Annotated[
        str | None,
        option(REVIEW, "Place in the picture, as X,Y in shares of its size: 0.5,0.5.", show_default="the whole picture"),
    ] = None,
    version: VersionNumber = None, name: PersonName = None,
    data: Data = None, database: Database = None, storage: StorageUrl = None, config: Config = None,
) -> None:  # fmt: skip
    """Comment on a version.

    [bold]Example[/bold]

    [cyan]wanimate review comment "Scene 12" "The hand is gone." --frame 42 --at 0.3,0.6[/cyan]
    """
    settings = settings_of(config, data=data, database=database, storage=storage)
    with opened_reviews(settings, shot, frame=frame, duration=duration) as reviews:
        from wanimate.review.records import Remark

        x, y = _place(at)
        remark = valid(Remark, text=text, frame=frame, duration=duration, x=x, y=y)
        found = shot_of(reviews, shot)
        chosen = version_of(found, version)
        made = reviews.notes.add(operator(name), found.id, chosen.job, remark)
    report.done({"comment": made, "shot": found.id}, f"said of {escape(found.name)}, version {chosen.number}")


@app.command()
@command(names=NAMES)
def approve(
    report: Reporter, shot: ShotArgument, reason: Reason = "", version: VersionNumber = None, name: PersonName = None,
    region: Annotated[
        list[str] | None,
        option(REVIEW, "What the approval is for, beside the policy's regions: EU, US-NY; several times.",
               show_default="the policy's alone"),
    ] = None,
    data: Data = None, database: Database = None, storage: StorageUrl = None, config: Config = None,
) -> None:  # fmt: skip
    """Approve a version: the very file that is there now, by its SHA-256.

    [bold]Example[/bold]

    [cyan]wanimate review approve "Scene 12" --name "Ann Lee" --region US-TN[/cyan]
    """
    from wanimate.approval.regions import checked_region

    settings = settings_of(config, data=data, database=database, storage=storage)
    _decide(report, settings, shot, version, "approved", reason, name, tuple(map(checked_region, region or ())))


@app.command("ask-changes")
@command(names=NAMES)
def ask_changes(
    report: Reporter, shot: ShotArgument, reason: Reason = "", version: VersionNumber = None, name: PersonName = None,
    data: Data = None, database: Database = None, storage: StorageUrl = None, config: Config = None,
) -> None:  # fmt: skip
    """Ask for changes of a version."""
    settings = settings_of(config, data=data, database=database, storage=storage)
    _decide(report, settings, shot, version, "changes_asked", reason, name)


@app.command()
@command(names=NAMES)
def export(
    report: Reporter, shot: ShotArgument,
    format: Annotated[str, option(REVIEW, "json, csv or edl.")] = "json",
    out: Annotated[Path | None, option(REVIEW, "File to write.", show_default="the terminal")] = None,
    version: VersionNumber = None,
    data: Data = None, database: Database = None, storage: StorageUrl = None, config: Config = None,
) -> None:  # fmt: skip
    """Export comments: JSON with everything, marker CSV, or EDL with Resolve's markers.

    [bold]Example[/bold]

    [cyan]wanimate review export "Scene 12" --format edl --out scene-12.edl[/cyan]
    """
    with opened_reviews(settings_of(config, data=data, database=database, storage=storage), shot) as reviews:
        from wanimate.review.exports import FORMATS, exported

        chosen = next((one for one in FORMATS if one == format), None)
        if chosen is None:
            raise InputError("format", format, "there is no such format", f"Give {', '.join(FORMATS)}.")
        found = shot_of(reviews, shot)
        number = version_of(found, version)
        text = exported(found, chosen, number, None if chosen == "json" else reviews.results.start(number.job))
    if out is None:
        report.done({"format": chosen, "text": text}, escape(text.rstrip("\n")))
        return
    try:
        out.write_text(text, encoding="utf-8-sig" if chosen == "csv" else "utf-8", newline="")
    except OSError as error:
        raise OutputError("out", out, f"it cannot be written ({error.strerror})", "Give another file.") from error
    report.done({"format": chosen, "out": str(out)}, f"written to {escape(str(out))}")


@app.command()
@command(names=NAMES | {"project": "PROJECT"})
def project(
    report: Reporter, shot: ShotArgument,
    project: Annotated[str, typer.Argument(help="What the shot is part of; an empty name takes it out.")],
    data: Data = None, database: Database = None, storage: StorageUrl = None, config: Config = None,
) -> None:  # fmt: skip
    """Put a shot into a project, by which [cyan]wanimate archive[/cyan] finds all of its shots.

    [bold]Example[/bold]

    [cyan]wanimate review project "Scene 12" "Spring campaign"[/cyan]
    """
    with opened_reviews(settings_of(config, data=data, database=database, storage=storage), shot) as reviews:
        from wanimate.review.records import Member

        chosen = valid(Member, project=project).project
        found = shot_of(reviews, shot)
        reviews.shots.name(operator(None), found.id, project=chosen)
    words = f"is part of {escape(chosen)}" if chosen else "is part of no project"
    report.done({"shot": found.id, "project": chosen}, f"{escape(found.name)} {words}")


@app.command()
@command(names=NAMES)
def link(
    report: Reporter, shot: ShotArgument,
    days: Annotated[float, option(REVIEW, "Days until it expires, 90 at most.")] = 7.0,
    rights: Annotated[str, option(REVIEW, "What guests may do: view, comment, decide, with commas.")] = "view,comment",
    label: Annotated[str, option(REVIEW, "For whom it is.", show_default="nobody in particular")] = "",
    url: Url = None,
    name: PersonName = None,
    data: Data = None, database: Database = None, storage: StorageUrl = None, config: Config = None,
) -> None:  # fmt: skip
    """Make a link for guests, and print it. Whoever has it sees this shot and nothing else.

    [bold]Example[/bold]

    [cyan]wanimate review link "Scene 12" --days 3 --rights view,comment,decide[/cyan]
    """
    settings = settings_of(config, data=data, database=database, storage=storage)
    with opened_reviews(settings, shot) as reviews:
        from wanimate.serve.reviews.guests import LONGEST, RIGHTS

        if not 0 < days <= LONGEST:
            rule = f"it has to be above 0 and at most {LONGEST:g}"
            raise InputError("days", days, rule, "Give a number of days.")
        wanted = [right.strip() for right in rights.split(",") if right.strip()]
        unknown = [right for right in wanted if right not in RIGHTS]
        if unknown:
            raise InputError(
                "rights", ", ".join(unknown), "there is no such right", f"Give some of {', '.join(RIGHTS)}."
            )
        found = shot_of(reviews, shot)
        chosen = [right for right in RIGHTS if right in wanted]
        made, token = reviews.guests.invite(operator(name), found.id, label, chosen, days)
    base = (url or settings.public_url or f"http://{settings.host}:{settings.port}").rstrip("/")
    address = f"{base}/#/guest/{token}"
    report.done({"link": made.id, "url": address, "expires": made.expires, "rights": made.rights}, address)


def _decide(
    report: Reporter, settings: ServeSettings, shot: str, version: int | None, state: str, reason: str,
    name: str | None, regions: tuple[str, ...] = (),
) -> None:  # fmt: skip
    from wanimate.approval.judgement import LACKS

    with opened_reviews(settings, shot) as reviews:
        found = shot_of(reviews, shot)
        chosen = version_of(found, version)
        record = reviews.decisions.decide(operator(name), found.id, chosen.job, _state(state), reason, regions)
        progress = version_of(shot_of(reviews, found.id), chosen.number).approval
    told = _WORDS[state]
    if state == "approved" and progress is not None and progress.missing:
        told = "; ".join(
            [f"{progress.given} of {progress.needed} approvals", *_again(found, record), *progress.missing]
        )
    lacks = [one.evidence for one in record.checks if one.result.startswith(LACKS)]
    if state == "approved" and lacks:
        told += f"; it may not leave yet: {' '.join(lacks)}"
    report.done(
        record.model_dump(mode="json"),
        f"{escape(found.name)}, version {chosen.number}: {escape(told)} (sha256 {record.output_sha256})",
    )


def _again(shot: Shot, record: chain.Record) -> list[str]:
    """That an approval is by somebody who has approved the file before, and so counts no second time."""
    who = record.by.identity
    before = {
        one.record["by"]["identity"]
        for one in shot.decisions
        if (one.record["decision"], one.output_sha256) == ("approved", record.output_sha256)
    }
    return [f"{who} has approved it before and counts once, under whatever name"] if who in before else []


def shot_of(reviews: Reviews, given: str) -> Shot:
    """A shot by its id, the id of one of its jobs, or its name."""
    from wanimate.serve.errors import ServiceError
    from wanimate.serve.reviews.shots import Wanted

    who = operator(None)

    def looked(by_job: bool) -> Shot | None:
        try:
            return reviews.shots.look(who, reviews.shots.of_job(who, given) if by_job else given).shot
        except ServiceError as error:
            if error.status != 404:
                raise
            return None

    found = looked(by_job=False) or looked(by_job=True)
    if found is not None:
        return found
    rows = reviews.shots.listed(who, "", Wanted(search=given, everybody=True, limit=1000))
    named = [row.shot for row in rows if row.shot.name == given]
    if len(named) == 1:
        return reviews.shots.look(who, named[0].id).shot
    rule = "several shots have this name" if named else "there is no such shot"
    raise InputError("shot", given, rule, "Give its id; `wanimate review list` shows them.")


def version_of(shot: Shot, number: int | None) -> Version:
    if not shot.versions:
        raise InputError("shot", shot.name, "it has no versions", "Give another shot.")
    if number is None:
        return shot.versions[-1]
    found = next((one for one in shot.versions if one.number == number), None)
    if found is None:
        known = ", ".join(str(one.number) for one in shot.versions)
        raise InputError("version", number, f"the versions are {known}", "Give one of them.")
    return found


def _state(given: str) -> State:
    from wanimate.review.records import State

    found = next((state for state in State if state.value == given), None)
    if found is None:
        raise InputError("state", given, "there is no such state", f"Give {', '.join(State)}.")
    return found


def _place(at: str | None) -> tuple[float | None, float | None]:
    if at is None:
        return None, None
    try:
        x, y = (float(part) for part in at.split(","))
    except ValueError as error:
        raise InputError("x", at, "it is no place", "Write it as X,Y with numbers from 0 to 1.") from error
    return x, y


def _shown(shot: Shot) -> list[RenderableType]:
    found: list[RenderableType] = [f"[bold]{escape(shot.name)}[/bold]  {shot.id}  {_WORDS[shot.state]}"]
    if not shot.intact:
        found.append("[red]The decisions are not as they were written.[/red]")
    versions = Table("version", "state", "job", "frames", "rate", "file", box=None, header_style="bold")
    for one in shot.versions:
        kept = "kept" if one.kept else "gone"
        versions.add_row(str(one.number), _stands(one), one.job, str(one.frames or ""), one.rate or "", kept)
    found.append(versions)
    numbers = {one.job: one.number for one in shot.versions}
    for said in sorted(shot.comments, key=lambda one: (numbers.get(one.job, 0), one.frame, one.at)):
        mark = "done" if said.resolved else "open"
        head = f"version {numbers.get(said.job, '?')}, frame {said.frame}, {mark}"
        found.append(f"{head}: [bold]{escape(said.author)}[/bold] {escape(said.text)}")
        found += [f"    [bold]{escape(reply.author)}[/bold] {escape(reply.text)}" for reply in said.replies]
    for made in shot.decisions:
        why = f": {escape(made.reason)}" if made.reason else ""
        what = f"version {numbers.get(made.job, '?')} {_DECIDED[made.state]}"
        found.append(f"{moment(made.at)}  {what} by [bold]{escape(made.name)}[/bold] ({made.role}){why}")
    return found


def _stands(version: Version) -> str:
    """A version's state, and how many of several approvals it has."""
    told, progress = _WORDS[version.state], version.approval
    if progress is None or progress.needed < 2 or not progress.given:
        return told
    return f"{told}, {progress.given} of {progress.needed} approvals"


def moment(at: int) -> str:
    """Milliseconds since 1970 as people read them."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d %H:%M")
