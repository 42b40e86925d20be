"""`wanimate handoff`: a result as a folder for other people's programs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wanimate.cli.build import command
from wanimate.cli.options import option
from wanimate.cli.report import Reporter
from wanimate.cli.report import told as passed_on
from wanimate.cli.review import NAMES as REVIEW_NAMES
from wanimate.cli.review import VersionNumber, chosen_shot, chosen_version, opened_reviews
from wanimate.cli.serve import Config, Data, Database, StorageUrl, settings_of
from wanimate.config.base import FILES
from wanimate.errors import InputError

if TYPE_CHECKING:
    from wanimate.review.records import Shot, Version
    from wanimate.serve.settings import ServeSettings

HANDOFF = "Hand-off"
NAMES = {
    **REVIEW_NAMES,
    "shot": "WHAT",
    "result": "WHAT",
    "master": "WHAT",
    "out": "--to",
    "to": "--to",
    "regions": "--region",
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
    to: Annotated[str, option(FILES, "Folder to make. {shot}, {take} and {version:03} are filled in.", metavar="DIR")],
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
    data: Data = None, database: Database = None, storage: StorageUrl = None, config: Config = None,
) -> None:  # fmt: skip
    """Make a folder of a finished result that editing programs read: review copy, file for the edit, matte, thumbnails,
    timelines with markers, record, hashes.

    It appears whole. A hand-off that was stopped goes on with the same command. Results of replacement need an approval.

    [bold]Examples[/bold]

    [cyan]wanimate handoff S010_v003.mov --to "out/{shot}_v{version:03}"[/cyan]

    [cyan]wanimate handoff "Scene 12" --version 2 --to delivery/scene-12 --mezzanine dnxhr-hqx[/cyan]
    """
    from wanimate.handoff.copies import MEZZANINES
    from wanimate.handoff.gates import gate_for
    from wanimate.handoff.run import Order, handing_off

    kind = next((one for one in MEZZANINES if one == mezzanine), None)
    if kind is None:
        rule = "there is no such file for the edit"
        raise InputError("mezzanine", mezzanine, rule, f"Give one of {', '.join(MEZZANINES)}.")
    order = Order(Path(to), name, kind, tuple(region or ()))
    if _is_file(what):
        if version is not None:
            raise InputError("version", version, "it is for shots of the service", "Leave it out.")
        package = passed_on(report, handing_off(Path(what), order, None, gate_for()))
    else:
        settings = settings_of(config, data=data, database=database, storage=storage)
        with _fetched(settings, what, version) as (result, review):
            package = passed_on(report, handing_off(result, order, review, gate_for()))
    files = [vars(item) for item in package.files]
    told = {"folder": str(package.folder), "output_sha256": package.output_sha256, "files": files}
    size = sum(item.size for item in package.files) / 2**20
    report.done(told, f"{package.folder}: {len(package.files)} files, {size:.1f} MB")


def _is_file(what: str) -> bool:
    """Whether a file or a folder is meant, and no shot of the service."""
    path = Path(what)
    return path.exists() or len(path.parts) > 1 or path.suffix.lower() in (".mp4", ".mov", ".mkv", ".m4v")


@contextmanager
def _fetched(settings: ServeSettings, given: str, number: int | None) -> Iterator[tuple[Path, tuple[Shot, Version]]]:
    """A version's file with its record beside it, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="wanimate-handoff-") as folder:
        with opened_reviews(settings, given, version=number) as reviews:
            shot = chosen_shot(reviews, given)
            version = chosen_version(shot, number)
            result = reviews.results.fetch(version.job, Path(folder))
        yield result, (shot, version)
