"""The `wanimate` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from wanimate.cli.animate import animate, generate, replace
from wanimate.cli.bench import bench
from wanimate.cli.check import check
from wanimate.cli.compat import app as compat
from wanimate.cli.doctor import doctor
from wanimate.cli.finish import finish
from wanimate.cli.jobs import app as jobs
from wanimate.cli.library import app as library
from wanimate.cli.marks import app as marks
from wanimate.cli.marks import verify
from wanimate.cli.mcp import mcp
from wanimate.cli.preprocess import preprocess
from wanimate.cli.report import JsonReporter, OutputClosed, lost
from wanimate.cli.review import app as review
from wanimate.cli.serve import keys, serve, worker
from wanimate.cli.studio import studio
from wanimate.cli.train import app as train
from wanimate.cli.weights import app as weights
from wanimate.versions import version_of

UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""typer has a public name for its kinds only."""

app = typer.Typer(
    name="wanimate",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"wanimate {version_of('wanimate') or 'from its sources'}")
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """A character performs what a performer does in a clip.

    Start with [cyan]wanimate doctor[/cyan] to see what this machine can run, then
    [cyan]wanimate animate --image hero.png --video dance.mp4 --out hero.mp4[/cyan].
    Each command explains itself with --help.
    """


app.command(no_args_is_help=True)(animate)
app.command(no_args_is_help=True)(replace)
app.command(no_args_is_help=True)(preprocess)
app.command(no_args_is_help=True)(generate)
app.command(no_args_is_help=True)(finish)
app.command(no_args_is_help=True)(check)
app.command()(doctor)
app.command()(bench)
app.add_typer(train, name="train")
app.add_typer(compat, name="compat")
app.add_typer(weights, name="weights")
app.add_typer(jobs, name="jobs")
app.add_typer(library, name="library")
app.add_typer(marks, name="marks")
app.command(no_args_is_help=True)(verify)
app.command()(studio)
app.command()(serve)
app.command()(worker)
app.add_typer(keys, name="keys")
app.add_typer(review, name="review")
app.command()(mcp)


def main(*chosen: str) -> NoReturn:
    """Run this process's command line, or, with `chosen`, that of one command: main("compat", "generate")."""
    try:
        try:
            code = _run(*chosen)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if sys.stdout is not None:
            sys.stdout.flush()
    except OutputClosed as error:
        code = lost(error)
    except OSError as error:  # of help and of the version, which typer writes
        code = lost(OutputClosed(error))
    sys.exit(code)


def _run(*chosen: str) -> int:
    words, name = sys.argv[1:], Path(sys.argv[0]).name if chosen else "wanimate"
    whole: Any = typer.main.get_command(app)
    for part in chosen:
        whole = whole.commands[part]
    if "--json" not in words:
        whole.main(words, prog_name=name)
    try:
        code = whole.main(words, prog_name=name, standalone_mode=False)
    except UsageError as error:
        code = _misused(error)
    return code if isinstance(code, int) else 0


def _misused(error: Any) -> int:
    """Tell a command line that typer refuses, for `--json`; returns the exit code."""
    parameter = getattr(error, "param", None)
    flag = parameter.opts[0] if parameter is not None else getattr(error, "option_name", None)
    if flag is not None and not flag.startswith("--"):
        flag = flag.upper()
    JsonReporter().misused(error.format_message(), flag)
    return 2
