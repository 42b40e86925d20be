"""`wanimate rules` and `wanimate policy`: what regions ask of a result, and what the house does."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from wanimate.cli.build import command
from wanimate.cli.options import option
from wanimate.cli.records import identity, user
from wanimate.cli.report import Reporter
from wanimate.config.base import FILES
from wanimate.errors import InputError

if TYPE_CHECKING:
    from wanimate.approval.policy import House
    from wanimate.approval.rules import Rule

RULES = "Rules"
NAMES = {
    "policy": "--policy", "rules": "rules", "region": "--region", "rule": "WHAT", "what": "WHAT", "by": "--name",
    "reason": "--reason", "days": "--days",
}  # fmt: skip
POLICY_NAMES = {"policy": "FILE"}

rules = typer.Typer(no_args_is_help=True, help="What regions ask of a result: the table, and who lets what pass.")
policy = typer.Typer(no_args_is_help=True, help="The policy of the house: what a result needs before it leaves.")
PolicyFile = Annotated[
    Path | None,
    option(
        FILES, "TOML file with the policy of the house.", "--policy",
        show_default="$WANIMATE_POLICY, else wanimate/policy.toml in your config folder",
    ),
]  # fmt: skip


@rules.command("list")
@command(names=NAMES)
def list_(
    report: Reporter,
    region: Annotated[
        str | None, option(RULES, "What counts for this region: EU, DE, US-NY.", show_default="every region")
    ] = None,
    policy: PolicyFile = None,
) -> None:  # fmt: skip
    """List the rules, and what named persons have approved. --json has their texts and sources as well.

    [bold]Example[/bold]

    [cyan]wanimate rules list --region DE[/cyan]
    """
    from wanimate.approval.policy import House
    from wanimate.approval.regions import checked_region

    house = House.read(policy)
    table = house.rules()
    rows = table.rows if region is None else table.of(checked_region(region))
    at = datetime.now(UTC)
    shown = Table(box=None, header_style="bold")
    for column in ("id", "region", "from", "asks for", "checked", "state"):
        shown.add_column(column, overflow="fold")
    for row in rows:
        state = row.outdated(at, house.policy.rules_days) or ("in force" if row.in_force(at) else "not in force yet")
        begins, checked = (str(day or "") for day in (row.begins, row.checked_on))
        shown.add_row(row.id, row.region, begins, ", ".join(row.requires), checked, state)
    approvals = [one for one in table.approvals if region is None or one.region == region]
    lines = [f"{one.region or one.rule}: {escape(one.words)}" for one in approvals]
    told = {
        "rules": [_told(row, house, at) for row in rows], "sha256": table.sha256, "file": house.rules_file,
        "approved": [one.model_dump(mode="json") | {"holds": one.holds(at)} for one in approvals],
    }  # fmt: skip
    report.done(told, [shown, *lines] if rows else "no rule is about it")


@rules.command()
@command(names=NAMES)
def check(
    report: Reporter,
    regions: Annotated[
        list[str] | None,
        option(RULES, "A region. Can be given several times.", "--region", show_default="those of the policy"),
    ] = None,
    policy: PolicyFile = None,
) -> None:
    """Tell which rules are outdated, and which regions nobody knows the rules of.

    Exit code 0: all can be relied on. 1: something is missing until a named person approves it.
    """
    from wanimate.approval.judgement import Case, judge
    from wanimate.approval.policy import House
    from wanimate.approval.regions import checked_region

    house = House.read(policy)
    table = house.rules()
    at = datetime.now(UTC)
    places = tuple(checked_region(one) for one in regions or house.policy.regions)
    outdated = {row.id: why for row in table.rows if (why := row.outdated(at, house.policy.rules_days)) is not None}
    found = judge(Case("animation", regions=places), house.policy, table, {}, at)
    about = [
        one for one in found.checks
        if one.result == "outdated" or (one.rule.startswith("region:") and one.result == "missing")
    ]  # fmt: skip
    told = {
        "regions": places, "outdated": outdated, "missing": [one.evidence for one in about], "sha256": table.sha256,
    }  # fmt: skip
    lines = [one.evidence for one in about] if places else [f"{name}: {why}" for name, why in outdated.items()]
    report.done(told, "\n".join(map(escape, lines)) or "all rules can be relied on")
    if about or (not places and outdated):
        raise typer.Exit(1)


@rules.command(no_args_is_help=True)
@command(names=NAMES)
def approve(
    report: Reporter,
    what: Annotated[str, typer.Argument(help="A region (DE, US-TN), or the id of a rule.", metavar="WHAT")],
    reason: Annotated[str, option(RULES, "Why. It becomes part of the record.")],
    name: Annotated[str | None, option(RULES, "Who approves.", show_default="the user of this machine")] = None,
    days: Annotated[int, option(RULES, "Days until the approval expires.", min=1, max=3650)] = 90,
    policy: PolicyFile = None,
) -> None:
    """Let a region pass whose rules nobody knows or has checked, or take what a rule asks as met.

    The approval is written into the rules file of the house, with its name, reason and end. Of a region whose rules are
    outdated, they still count. If the policy names people, only they approve, as users of this machine, under the names
    that it gives them.

    [bold]Examples[/bold]

    [cyan]wanimate rules approve JP --name "Ann Lee" --reason "Counsel has looked, file 17."[/cyan]

    [cyan]wanimate rules approve eu-ai-act-50-4-works --name "Ann Lee" --reason "In the credits." --days 30[/cyan]
    """
    from pydantic import ValidationError

    from wanimate.approval.faults import first_fault
    from wanimate.approval.policy import House
    from wanimate.approval.rules import Approved, add_approval

    house = House.read(policy)
    by = house.signed_as(identity(), name or user())
    at = datetime.now(UTC).replace(microsecond=0)
    kind = "rule" if what[:1].islower() else "region"
    try:
        given = {kind: what, "by": by, "reason": reason, "on": at, "expires": at + timedelta(days=days)}
        approved = Approved.model_validate(given)
    except ValidationError as error:
        where = error.errors()[0]["loc"]
        field = "what" if where[:1] in ((), (kind,)) else str(where[0])
        raise InputError(
            field, {"by": by, "reason": reason}.get(field, what), first_fault(error), "Give another."
        ) from error
    add_approval(house.rules_file, approved)
    told = approved.model_dump(mode="json", exclude_none=True) | {"file": house.rules_file}
    report.done(told, f"{escape(what)}: {escape(approved.words)} ({escape(str(house.rules_file))})")


@policy.command()
@command(names=NAMES)
def show(report: Reporter, policy: PolicyFile = None) -> None:
    """Show the policy that counts here, and where it comes from."""
    from wanimate.approval.policy import House

    house = House.read(policy)
    report.done(_policy(house), [_policy_table(house)])


@policy.command("check", no_args_is_help=True)
@command(names=POLICY_NAMES)
def check_policy(report: Reporter, file: Annotated[Path, typer.Argument(help="TOML file with a policy.")]) -> None:
    """Tell whether a policy and its rules file can be used."""
    from wanimate.approval.policy import House

    house = House.read(file)
    house.rules()
    report.done(_policy(house), f"{escape(str(file))}: it can be used (sha256 {house.sha256})")


@policy.command()
@command(names=POLICY_NAMES)
def init(
    report: Reporter,
    file: Annotated[
        Path | None, typer.Argument(help="File to write.", show_default="wanimate/policy.toml in your config folder")
    ] = None,
) -> None:
    """Write a policy with every key, its default and what it means. Nothing is written over a file that is there."""
    from wanimate.approval.policy import write_template

    place = write_template(file)
    report.done({"policy": place}, f"written to {escape(str(place))}")


def _told(row: Rule, house: House, at: datetime) -> dict[str, Any]:
    told = row.model_dump(mode="json", by_alias=True)
    return told | {"outdated": row.outdated(at, house.policy.rules_days), "in_force": row.in_force(at)}


def _policy(house: House) -> dict[str, Any]:
    told = house.policy.model_dump(mode="json")
    return {"policy": told, "file": house.path, "sha256": house.sha256, "rules_file": house.rules_file}


def _policy_table(house: House) -> Table:
    table = Table(box=None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    rows: dict[str, Any] = {"file": str(house.path or "none: the defaults"), "sha256": house.sha256}
    for key, value in (rows | house.policy.model_dump(mode="json")).items():
        table.add_row(key, escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    return table
