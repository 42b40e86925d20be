"""`wanimate weights`: what lies in files of weights, whether they are whole, and the same in another layout or type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import Field
from rich.markup import escape
from rich.table import Table

from wanimate.cli.build import command
from wanimate.cli.report import Reporter
from wanimate.config.base import Option, Settings
from wanimate.errors import CheckpointError

app = typer.Typer(no_args_is_help=True, help="Look into files of weights, verify them, convert them.")
CONVERSION = "Conversion"
SHOWN = 50
"""Keys of one kind that `verify` lists."""

Weights = Annotated[Path, typer.Argument(help="A checkpoint folder or a file of weights.")]


@app.command(no_args_is_help=True)
@command(names={"checkpoint": "PATH"})
def inspect(report: Reporter, path: Weights) -> None:
    """Tell what lies there: network, layout, types, parameters, bytes. It is told by content; only headers are read.

    [bold]Example[/bold]

    [cyan]wanimate weights inspect ~/models/animate_fp8.safetensors[/cyan]
    """
    from wanimate.weights.tools.inspect import find_networks

    found = [network.described() for network in find_networks(path)]
    table = Table("network", "layout", "types", "parameters", "size", "files", box=None, header_style="bold")
    for one in found:
        table.add_row(*(escape(text) for text in _row(one)))
    report.done({"networks": found}, [table])


def _shares(types: Mapping[str, int]) -> str:
    """How many of the parameters are of each type."""
    whole = max(1, sum(types.values()))
    return "; ".join(f"{name}: {100 * count / whole:.3g} %" for name, count in types.items())


def _row(one: dict[str, Any]) -> list[str]:
    types = _shares(one["types"])
    names = [Path(f).name for f in one["files"]]
    files = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    size = f"{one['bytes'] / 1e9:.2f} GB" if one["bytes"] > 1e8 else f"{one['bytes'] / 1e6:.2f} MB"
    count = f"{one['parameters'] / 1e9:.2f} billion" if one["parameters"] > 1e8 else f"{one['parameters']}"
    return [one["family"], one["layout"], types, f"{count} in {one['tensors']} tensors", size, files]


@app.command(no_args_is_help=True)
@command(names={"checkpoint": "PATH"})
def verify(report: Reporter, path: Weights) -> None:
    """Check every key and shape against the architecture, and every number for NaN. Exit code 2 if anything is wrong.

    [bold]Example[/bold]

    [cyan]wanimate weights verify ~/models/Wan2.2-Animate-14B[/cyan]
    """
    from wanimate.weights.tools.inspect import find_networks
    from wanimate.weights.tools.inspect import verify as check

    found = find_networks(path)
    broken = 0
    for network in found:
        try:
            problems = check(network)
        except CheckpointError as error:
            problems = {error.rule: []}
        broken += bool(problems)
        types = network.types
        what = {"network": network.family, "file": network.files[0], "types": types, "problems": problems}
        name = f"{network.files[0].name}; {_shares(types)}"
        report.part("network", what, f"{network.family} ({name}): {_listed(problems)}")
    if broken:
        rule = f"{broken} of {len(found)} networks {'is' if broken == 1 else 'are'} not whole"
        raise CheckpointError("path", path, rule, "Download what is broken again.")
    report.done({"networks": len(found)}, f"{path}: all is whole")


def _listed(problems: Mapping[str, Sequence[str]]) -> str:
    """What is wrong, a line a key."""
    lines = ["not whole" if problems else "whole"]
    for what, keys in problems.items():
        lines.append(f"  {len(keys)} {what}:" if keys else f"  {what}")
        lines += [f"    {key}" for key in keys[:SHOWN]]
        if len(keys) > SHOWN:
            lines.append(f"    and {len(keys) - SHOWN} more (--json lists all)")
    return "\n".join(lines)


class Form(Settings):
    """How a converted checkpoint is written."""

    layout: Annotated[Literal["published", "diffusers"], Option(CONVERSION, "Names and files.")] = "published"
    dtype: Annotated[
        Literal["keep", "fp32", "bf16", "fp16", "fp8"],
        Option(CONVERSION, "Type of the transformer's weights. fp8: the linear layers of its blocks."),
    ] = "keep"
    shard_size: Annotated[
        float, Field(ge=1e-6), Option(CONVERSION, "Largest file in GB.", metavar="GB", example="5")
    ] = 5.0


@app.command(no_args_is_help=True)
@command(names={"checkpoint": "SOURCE", "path": "SOURCE"})
def convert(
    report: Reporter,
    source: Annotated[Path, typer.Argument(help="A checkpoint folder or a file of one of its networks.")],
    out: Annotated[Path, typer.Argument(help="Folder to write. It appears when it is whole.")],
    form: Form,
) -> None:
    """Write a checkpoint in another layout or type. If it is stopped, the same command goes on where it was.

    The numbers are the same bit for bit, unless a type is asked for that cannot hold them.

    [bold]Example[/bold]

    [cyan]wanimate weights convert ~/models/Wan2.2-Animate-14B ~/models/animate-fp8 --dtype fp8[/cyan]
    """
    from wanimate.events import Stage, StageFinished, StageProgress, StageStarted
    from wanimate.weights.tools.convert import GB
    from wanimate.weights.tools.convert import convert as run

    report.event(StageStarted(Stage.CONVERT))
    for done, total, _ in run(source, out, form.layout, form.dtype, int(form.shard_size * GB)):
        report.event(StageProgress(Stage.CONVERT, done, total))
    report.event(StageFinished(Stage.CONVERT, 0.0))
    report.done({"out": str(out)}, f"{out}: {form.layout} layout, {form.dtype}")
