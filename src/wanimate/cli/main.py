"""The `wanimate` command."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from wanimate.cli.animate import animate, generate
from wanimate.cli.compat import app as compat
from wanimate.cli.doctor import doctor
from wanimate.cli.preprocess import preprocess
from wanimate.cli.replace import replace
from wanimate.cli.train import app as train
from wanimate.cli.weights import app as weights

app = typer.Typer(
    name="wanimate",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"wanimate {version('wanimate')}")
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
app.command()(doctor)
app.add_typer(train, name="train")
app.add_typer(compat, name="compat")
app.add_typer(weights, name="weights")


def main() -> None:
    """Entry point of the console script."""
    app()
