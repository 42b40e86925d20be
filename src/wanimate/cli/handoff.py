"""`wanimate handoff`: a result for other people's programs, as a folder or sent to a service."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wanimate.cli import handoff_remote as remote
from wanimate.cli.build import command
from wanimate.cli.options import option
from wanimate.cli.records import gate as opened_gate
from wanimate.cli.records import reviews as opened_reviews
from wanimate.cli.report import Reporter
from wanimate.cli.report import told as passed_on
from wanimate.cli.review import NAMES as REVIEW_NAMES
from wanimate.cli.review import VersionNumber, shot_of, version_of
from wanimate.cli.serve import Config, Data, Database, StorageUrl, settings_of
from wanimate.config.base import FILES
from wanimate.errors import InputError

if TYPE_CHECKING:
    from wanimate.approval.leaving import Gate
    from wanimate.handoff.package import Package
    from wanimate.handoff.remote.base import Options, Shipment
    from wanimate.handoff.run import Order
    from wanimate.review.records import Shot, Version
    from wanimate.serve.settings import ServeSettings

HANDOFF = "Hand-off"
NAMES = {
    **REVIEW_NAMES,
    **remote.NAMES,
    "shot": "WHAT",
    "result": "WHAT",
    "master": "WHAT",
    "out": "--to",
    "to": "--to",
    "regions": "--region",
    "region": "--region",
}
What = Annotated[
    str,
    typer.Argument(
        help="A finished result with its record beside it; or a shot of the service: its id, the id of one of its jobs, or "
        "its name.",
        metavar="WHAT",
        show_default=False,
    ),
]


@command(names=NAMES)
def handoff(
    report: Reporter, what: What,
    to: Annotated[
        str,
        option(
            FILES, "Folder to make, in whose name {shot}, {take} and {version:03} are filled in; or frameio:PROJECT/FOLDER, "
            "or descript:PROJECT.", metavar="PLACE",
        ),
    ],
    name: Annotated[
        str | None,
        option(
            FILES, "Name of its files, without ending; fields as in --to.",
            show_default="the result's; of a shot {shot}_v{version:03}",
        ),
    ] = None,
    mezzanine: Annotated[
        str,
        option(
            HANDOFF, "File for the edit: auto, prores-hq, dnxhr-hqx, prores-4444 or none. auto is the result itself where it "
            "is one, prores-4444 where it has opacity, else prores-hq.",
        ),
    ] = "auto",
    region: Annotated[
        list[str] | None,
        option(HANDOFF, "Where it will be shown: EU, US-NY; several times.", show_default="what the house's policy says"),
    ] = None,
    version: VersionNumber = None,
    role: remote.Roles = None, make_folders: remote.MakeFolders = False, token_file: remote.TokenFile = None,
    journals: remote.Journals = None,
    data: Data = None, database: Database = None, storage: StorageUrl = None, config: Config = None,
) -> None:  # fmt: skip
    """Make a folder of a finished result that editing programs read: review copy, file for the edit, matte, thumbnails,
    timelines with markers, record, hashes. Frame.io and Descript get the same.

    The folder appears whole. A hand-off that was stopped goes on with the same command. Results of replacement need an
    approval.

    [bold]Examples[/bold]

    [cyan]wanimate handoff S010_v003.mov --to "out/{shot}_v{version:03}"[/cyan]

    [cyan]wanimate handoff "Scene 12" --version 2 --to delivery/scene-12 --mezzanine dnxhr-hqx[/cyan]

    [cyan]wanimate handoff "Scene 12" --to "frameio:Advert/Shots"[/cyan]
    """
    from wanimate.handoff.copies import MEZZANINES
    from wanimate.handoff.run import Order

    kind = next((one for one in MEZZANINES if one == mezzanine), None)
    if kind is None:
        rule = "there is no such file for the edit"
        raise InputError("mezzanine", mezzanine, rule, f"Give one of {', '.join(MEZZANINES)}.")
    settings = settings_of(config, data=data, database=database, storage=storage)
    order = Order(Path(to), name, kind, tuple(region or ()))
    with opened_gate(settings) as gate, _opened(settings, what, version) as (result, review):
        if remote.is_remote(to):
            options = remote.options(tuple(role or ()), make_folders, token_file, journals)
            _send(report, result, order, review, gate, options)
            return
        _refuse_remote(role=role, make_folders=make_folders, token_file=token_file, journals=journals)
        package = _made(report, result, order, review, gate)
    files = [vars(item) for item in package.files]
    told = {"folder": str(package.folder), "output_sha256": package.output_sha256, "files": files}
    size = sum(item.size for item in package.files) / 2**20
    report.done(told, f"{package.folder}: {len(package.files)} files, {size:.1f} MB")


def _made(
    report: Reporter, result: Path, order: Order, review: tuple[Shot, Version] | None, gate: Gate
) -> Package:  # fmt: skip
    from wanimate.handoff.run import handing_off

    return passed_on(report, handing_off(result, order, review, gate))


def _send(
    report: Reporter, result: Path, order: Order, review: tuple[Shot, Version] | None, gate: Gate, options: Options
) -> None:
    """Make the package where the same command finds it again, send it, and remove it."""
    from dataclasses import replace

    from wanimate.handoff.gates import Inside
    from wanimate.handoff.remote.base import parse_target

    place = parse_target(str(order.to))
    remote.check_token(place.service, options)
    shipment = _shipment(result, order, review)
    folder = remote.work_folder(options.journals, shipment.shot, shipment.version)
    inside = replace(order, to=folder, way=place.service, place=place.text)
    package = _made(report, result, inside, review, Inside(gate))
    remote.hand_over(report, package, place.text, gate, shipment, options)
    shutil.rmtree(folder, ignore_errors=True)


def _shipment(result: Path, order: Order, review: tuple[Shot, Version] | None) -> Shipment:
    from wanimate.handoff.remote.base import Shipment
    from wanimate.handoff.source import open_source

    source = open_source(result)
    if review is None:
        shot = str(source.history[0].output.get("shot") or result.stem)
        return Shipment(result, shot, source.output_sha256, result.stem, tuple(order.regions), source.slate)
    shot, version = review[0].id, review[1]
    label = f"{review[0].name}, version {version.number}"
    return Shipment(result, shot, version.job, label, tuple(order.regions), source.slate)


def _refuse_remote(**given: object) -> None:
    """Options of sending have no meaning for a folder."""
    for name, value in given.items():
        if value:
            rule = "it is for hand-offs to Frame.io and Descript"
            raise InputError(name, value, rule, "Leave it out, or give --to frameio:PROJECT/FOLDER.")


def _is_file(what: str) -> bool:
    """Whether a file or a folder is meant, and no shot of the service."""
    path = Path(what)
    return path.exists() or len(path.parts) > 1 or path.suffix.lower() in (".mp4", ".mov", ".mkv", ".m4v")


@contextmanager
def _opened(
    settings: ServeSettings, given: str, number: int | None
) -> Iterator[tuple[Path, tuple[Shot, Version] | None]]:
    """A result with its record beside it, and its review. Of a shot of the service it is a copy that is gone afterwards."""
    if _is_file(given):
        if number is not None:
            raise InputError("version", number, "it is for shots of the service", "Leave it out.")
        yield Path(given), None
        return
    with tempfile.TemporaryDirectory(prefix="wanimate-handoff-") as folder:
        with opened_reviews(settings, given, version=number) as reviews:
            shot = shot_of(reviews, given)
            version = version_of(shot, number)
            result = reviews.results.fetch(version.job, Path(folder))
        try:
            yield result, (shot, version)
        except InputError as error:  # what the user has named is the shot
            if str(folder) not in str(error.value):
                raise
            raise InputError(error.field, given, error.rule, error.remedy) from error
