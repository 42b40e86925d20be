"""`wanimate archive`: results with all that they were made of, put away, checked, and made again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from wanimate.cli.build import One, command
from wanimate.cli.options import Checkpoint, option
from wanimate.cli.records import operator, user
from wanimate.cli.records import reviews as opened_reviews
from wanimate.cli.report import Reporter
from wanimate.cli.review import NAMES as REVIEW_NAMES
from wanimate.cli.review import shot_of
from wanimate.cli.serve import Config, Data, Database, StorageUrl, settings_of
from wanimate.config import RuntimeSettings
from wanimate.config.base import FILES
from wanimate.errors import InputError, OutputError

if TYPE_CHECKING:
    from wanimate.archive.items import Item
    from wanimate.archive.make import Made
    from wanimate.archive.redo import Redone
    from wanimate.review.records import Shot
    from wanimate.serve.reviews import Reviews
    from wanimate.serve.settings import ServeSettings

HOLDS = "What it holds"
_MAKE = "make"
_SHOWN = 20


class Group(TyperGroup):
    """`wanimate archive SHOT --out DIR` is `wanimate archive make SHOT --out DIR`. A shot that is called as a command needs the
    long way."""

    otherwise = _MAKE

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = [self.otherwise, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=Group, no_args_is_help=True,
    help="Put results away with all that they were made of: wanimate archive SHOT --out DIR. Check, and make them again.",
)  # fmt: skip
NAMES = REVIEW_NAMES | {
    "what": "SHOT", "out": "--out", "allow_missing": "--allow-missing", "guides": "--guides", "folder": "DIR",
    "result": "--result", "loras": "--lora", "documents": "--with", "device": "--device",
}  # fmt: skip


@app.command(_MAKE, no_args_is_help=True)
@command(names=NAMES)
def make(
    report: Reporter,
    what: Annotated[
        str,
        typer.Argument(
            help="A finished result, a folder of results, a shot of the service (id, job or name), or a project of it.",
            metavar="SHOT|FILE|PROJECT",
        ),
    ],
    out: Annotated[Path, option(FILES, "The archive: a new folder.", metavar="DIR")],
    guides: Annotated[
        Path | None,
        option(FILES, "Guides of the result, if its record does not know where they are.", show_default="as the record says"),
    ] = None,
    documents: Annotated[
        list[Path] | None,
        option(HOLDS, "A further file: a consent, a contract. Can be given several times.", "--with", show_default="none"),
    ] = None,
    allow_missing: Annotated[
        bool,
        option(HOLDS, "Leave out inputs that are gone, unreadable or changed. The archive lists them.", "--allow-missing"),
    ] = False,
    mhl: Annotated[
        bool, option(HOLDS, "Add a history of ASC MHL 2.0, as camera departments use it.", "--mhl")
    ] = False,
    largest_lora: Annotated[
        int, option(HOLDS, "LoRAs over so many MB are told by their hash, and not copied.", min=0)
    ] = 1024,
    agent: Annotated[str | None, option(HOLDS, "Who has made it.", show_default="the user of this machine")] = None,
    licence: Annotated[str, option(HOLDS, "Terms of what is in it.")] = "not stated",
    data: Data = None, database: Database = None, storage: StorageUrl = None, config: Config = None,
) -> None:  # fmt: skip
    """Make an archive: a BagIt bag with an RO-Crate in it. It holds results with their records and marks, clip, picture, mask,
    guides, LoRAs, comments and decisions, and the hashes of the weights.

    Everything is held against the hashes in the records. The folder appears whole, and none is written over.

    [bold]Examples[/bold]

    [cyan]wanimate archive hero.mp4 --out archive/hero[/cyan]

    [cyan]wanimate archive "Scene 12" --out archive/scene-12 --with consent.pdf[/cyan]

    Exit codes: 0 done, 2 something is missing or changed, or the name is taken.
    """
    from wanimate.archive.make import Choice, Incomplete, Title
    from wanimate.archive.make import make as run

    more: dict[str, Path | bytes] = {path.name: path for path in documents or ()}
    if len(more) < len(documents or ()):
        raise InputError("documents", documents, "two of them have one name", "Rename one of them.")
    who = agent or user()
    options: dict[str, Any] = {"allow_missing": allow_missing, "largest_lora": largest_lora * 10**6, "mhl": mhl}
    path = Path(what)
    try:
        if path.exists() or path.is_symlink():
            items, kind = _on_disk(path, guides)
            made = run(
                items,
                out,
                Title(path.name or str(path.resolve().name), kind, who, licence),
                Choice(**options, documents=more),
            )
        else:
            if guides is not None:
                raise InputError("guides", guides, "the service keeps the guides of its shots", "Leave it out.")
            settings = settings_of(config, data=data, database=database, storage=storage)
            with _gathered(settings, what, out) as (items, said, kind, name):
                made = run(items, out, Title(name, kind, who, licence), Choice(**options, documents={**more, **said}))
    except Incomplete as error:
        for lack in error.lacks:
            report.part("lacks", vars(lack), f"{lack.why}: {escape(lack.told)}")
        raise
    _told(report, made)


@app.command(no_args_is_help=True)
@command(names=NAMES)
def verify(
    report: Reporter, folder: Annotated[Path, typer.Argument(help="The folder of an archive.", metavar="DIR")]
) -> None:
    """Read every byte of an archive, and tell what is missing, changed or added. It asks nothing of the network.

    Exit code 0: it is whole. 1: it is no archive. 2: it is damaged, or has names that lead out of it.

    [bold]Example[/bold]

    [cyan]wanimate archive verify archive/hero[/cyan]
    """
    from wanimate.archive.verify import verify as look

    found = look(folder)
    report.done(found.to_dict(), escape(found.words))
    if found.code:
        raise typer.Exit(found.code)


@app.command(no_args_is_help=True)
@command(names=NAMES)
def redo(
    report: Reporter, folder: Annotated[Path, typer.Argument(help="The folder of an archive.", metavar="DIR")],
    out: Annotated[Path, option(FILES, "The result that is made again, with the ending of the archived one.")],
    checkpoint: Checkpoint = None,
    result: Annotated[
        str | None, option(FILES, "Which result, by its name in the archive.", show_default="the only one")
    ] = None,
    loras: Annotated[
        list[Path] | None,
        option(FILES, "A LoRA that is not in the archive. Can be given several times.", "--lora", show_default="none"),
    ] = None,
    from_inputs: Annotated[
        bool, option(FILES, "Begin with clip and picture, and not with the guides.", "--from-inputs")
    ] = False,
    device: Annotated[str | None, One(RuntimeSettings, "device")] = None,
) -> None:  # fmt: skip
    """Do a job again from an archive alone, and compare the frames. On the same machine, with the same versions, they are the
    same.

    What is not as it was (versions, device) is told first. The checkpoint has to be the job's, by its hashes.

    [bold]Example[/bold]

    [cyan]wanimate archive redo archive/hero --out again.mp4[/cyan]

    Exit codes: 0 the same frames, 1 other frames, 2 bad input, 3 not enough memory, 130 cancelled.
    """
    from wanimate.archive.redo import Again
    from wanimate.archive.redo import redo as run

    chosen = Again(checkpoint, device, from_inputs, result, tuple(loras or ()))
    redone: Redone | None = None
    with closing(run(folder, out, chosen)) as events:
        while redone is None:
            try:
                report.event(next(events))
            except StopIteration as end:
                redone = end.value
    told = {"out": redone.result.out, "began_with": redone.way, **redone.comparison.to_dict()}
    report.done(told, escape(f"{redone.result.out}: {redone.comparison.words}"))
    if not redone.comparison.same:
        raise typer.Exit(1)


def _on_disk(path: Path, guides: Path | None) -> tuple[list[Item], str]:
    """A finished result, or the results below a folder. A folder of pictures is one result."""
    from wanimate.archive.items import item_of, items_below
    from wanimate.finish.lock import record_path

    if path.is_dir() and not record_path(path).exists():
        if guides is not None:
            raise InputError("guides", guides, "a folder of results has more than one job", "Name one result.")
        return items_below(path), "folder"
    return [item_of(path, guides=guides)], "result"


@contextmanager
def _gathered(
    settings: ServeSettings, what: str, out: Path
) -> Iterator[tuple[list[Item], Mapping[str, bytes], str, str]]:
    """A shot, or all shots of a project, brought from the storage into a folder beside `out`: items, what was said of them,
    which of the two it is, and its name."""
    with opened_reviews(settings, what) as reviews:
        from wanimate.serve.reviews.collect import collected

        shots, kind = _shots(reviews, what)
        name = what if kind == "project" else shots[0].name
        try:
            out.absolute().parent.mkdir(parents=True, exist_ok=True)
            place = tempfile.TemporaryDirectory(prefix=".wanimate-archive-", dir=out.absolute().parent)
        except OSError as error:
            raise OutputError("out", out, f"it cannot be written ({error.strerror})", "Name another folder.") from error
        with place as folder:
            items: list[Item] = []
            said: dict[str, bytes] = {}
            for number, shot in enumerate(shots, 1):
                prefix = f"shot-{number:03}-" if kind == "project" else ""
                found, told = collected(reviews.desk, shot, Path(folder), prefix)
                items += found
                said |= told
            yield items, said, kind, name


def _shots(reviews: Reviews, what: str) -> tuple[Sequence[Shot], str]:
    """A shot by id, job or name, or the shots of a project, oldest first."""
    from wanimate.serve.reviews.shots import Wanted

    who = operator(None)
    try:
        return [shot_of(reviews, what)], "shot"
    except InputError as error:
        rows = reviews.shots.listed(who, "", Wanted(project=what, everybody=True, limit=100_000)) if what else []
        if not rows:
            rule = (
                f"{error.rule}, and no file, folder or project of this name" if "no such" in error.rule else error.rule
            )
            raise InputError("what", what, rule, error.remedy) from error
    ordered = sorted(rows, key=lambda row: (row.shot.created, row.shot.id))
    return [reviews.shots.look(who, row.shot.id).shot for row in ordered], "project"


def _told(report: Reporter, made: Made) -> None:
    for lack in made.lacks[:_SHOWN]:
        report.part("lacks", vars(lack), f"left out: {escape(lack.told)}")
    if made.no_guides:
        words = f"without guides, which the job has not kept; redo makes them again: {', '.join(made.no_guides)}"
        report.part("no_guides", {"results": list(made.no_guides)}, escape(words))
    size = f"{made.bytes / 1e6:.1f} MB"
    several = "1 result" if len(made.results) == 1 else f"{len(made.results)} results"
    data = {
        "out": made.out, "results": list(made.results), "files": made.files, "bytes": made.bytes,
        "lacks": [vars(lack) for lack in made.lacks], "no_guides": list(made.no_guides),
    }  # fmt: skip
    without = f", without {len(made.lacks)} that are missing" if made.lacks else ""
    report.done(data, escape(f"{made.out}: {several}, {made.files} files, {size}{without}"))
