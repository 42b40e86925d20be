"""`wanimate marks` and `wanimate verify`: marks that tell what a result is, written and read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wanimate.cli.build import Takes, command
from wanimate.cli.options import option
from wanimate.cli.report import Reporter
from wanimate.config import MarkSettings
from wanimate.config.base import FILES

app = typer.Typer(no_args_is_help=True, help="Mark results: label, watermark, metadata, signature.")
SEEN = "What is trusted"
STEPS = ("c2pa.resized", "c2pa.enhanced")


@app.command()
@command(names={"folder": "--folder"})
def init(
    report: Reporter,
    folder: Annotated[
        Path | None,
        option(FILES, "Folder for the certificates.", show_default="$WANIMATE_MARKS, else wanimate/marks in your data"),
    ] = None,
) -> None:
    """Make a test certificate to sign with. Only this machine trusts it; verifiers elsewhere show it as unknown.

    For work that leaves the house, get a real certificate and name it with --certificate and --private-key.

    [bold]Example[/bold]

    [cyan]wanimate marks init[/cyan]
    """
    from wanimate.provenance.certificates import init as make
    from wanimate.provenance.certificates import marks_folder

    files = make(folder or marks_folder())
    report.done({"files": files}, "\n".join(str(path) for path in files))


@app.command(no_args_is_help=True)
@command(names={"file": "FILE", "record": "--record", "output.overwrite": "--overwrite"})
def apply(
    report: Reporter,
    file: Annotated[Path, typer.Argument(help="A finished result: a video, or a folder of pictures.")],
    settings: Annotated[MarkSettings, Takes(without=("when",))],
    out: Annotated[Path | None, option(FILES, "Marked file.", show_default="NAME.marked beside it")] = None,
    record: Annotated[
        Path | None, option(FILES, "Record of the job.", show_default="NAME.json beside the file")
    ] = None,
    overwrite: Annotated[bool, option(FILES, "Write over files that are there.")] = False,
    finished: Annotated[bool, option(FILES, "The file was enlarged or enhanced; the signature says so.")] = False,
) -> None:
    """Mark a finished result beside its record. The file itself stays as it is.

    A label or an invisible watermark means that the frames are encoded anew; --no-invisible leaves them alone. The job's record
    tells what is written; it is copied beside the marked file.

    [bold]Examples[/bold]

    [cyan]wanimate marks apply hero.mp4 --label eu[/cyan]

    [cyan]wanimate marks apply hero.mp4 --no-invisible --out release/hero.mp4[/cyan]
    """
    from wanimate.finish.lock import record_path
    from wanimate.provenance.apply import apply as run
    from wanimate.provenance.apply import told_in_words

    target = out or file.with_name(f"{file.stem}.marked{file.suffix}")
    told = run(file, record or record_path(file), target, settings, overwrite, STEPS if finished else ())
    report.done(told, "\n".join([*told["files"], told_in_words(told)]))


@command(names={"file": "FILE"})
def verify(
    report: Reporter,
    file: Annotated[Path, typer.Argument(help="Any video, picture, zip or folder of pictures.")],
    settings: Annotated[MarkSettings, Takes(only=("invisible_key",))],
    anchors: Annotated[
        Path | None,
        option(SEEN, "Root certificates to trust, a PEM file.", show_default="that of `wanimate marks init`"),
    ] = None,
) -> None:
    """Tell what marks a file carries, and whether they are whole. It asks nothing of the network.

    Exit code 0: marks were found, and they are whole. 1: nothing was found. 2: a mark is broken.

    [bold]Example[/bold]

    [cyan]wanimate verify hero.mp4[/cyan]
    """
    from wanimate.provenance.frames import key_of
    from wanimate.provenance.verify import verify as look

    found = look(file, key_of(settings), anchors)
    report.done(found.to_dict(), found.words)
    if found.code:
        raise typer.Exit(found.code)
