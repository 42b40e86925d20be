"""`wanimate weights`: what lies in files of weights, whether they are whole, and the same in another layout or type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wanimate.cli import options as o
from wanimate.cli.report import reporting
from wanimate.errors import CheckpointError, InputError

app = typer.Typer(no_args_is_help=True, help="Look into files of weights, verify them, convert them.")
SHOWN = 50
"""Keys of one kind that `verify` lists."""

Weights = Annotated[Path, typer.Argument(help="A checkpoint folder or a file of weights.")]


@app.command(no_args_is_help=True)
def inspect(path: Weights, as_json: o.Json = False, debug: o.Debug = False) -> None:
    """Tell what lies there: network, layout, types, parameters, bytes. Told by content; reads headers only.

    [bold]Example[/bold]

    [cyan]wanimate weights inspect ~/models/animate_fp8.safetensors[/cyan]
    """
    with reporting(False, debug):
        from wanimate.weights.tools.inspect import find_networks

        found = [network.described() for network in find_networks(path)]
        if as_json:
            print(json.dumps(found, ensure_ascii=False))
            return
        table = Table("network", "layout", "types", "parameters", "size", "files", box=None, header_style="bold")
        for one in found:
            table.add_row(*(escape(text) for text in _row(one)))
        Console(highlight=False, soft_wrap=True).print(table)


def _row(one: dict[str, Any]) -> list[str]:
    whole = max(1, sum(one["types"].values()))
    types = ", ".join(f"{name} {100 * count / whole:.3g} %" for name, count in one["types"].items())
    names = [Path(f).name for f in one["files"]]
    files = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    size = f"{one['bytes'] / 1e9:.2f} GB" if one["bytes"] > 1e8 else f"{one['bytes'] / 1e6:.2f} MB"
    count = f"{one['parameters'] / 1e9:.2f} billion" if one["parameters"] > 1e8 else f"{one['parameters']}"
    return [one["family"], one["layout"], types, f"{count} in {one['tensors']} tensors", size, files]


@app.command(no_args_is_help=True)
def verify(path: Weights, as_json: o.Json = False, debug: o.Debug = False) -> None:
    """Check every key and shape against the architecture, and every number for NaN. Exit code 2 if anything is wrong.

    [bold]Example[/bold]

    [cyan]wanimate weights verify ~/models/Wan2.2-Animate-14B[/cyan]
    """
    with reporting(False, debug):
        from wanimate.weights.tools.inspect import find_networks
        from wanimate.weights.tools.inspect import verify as check

        console = Console(highlight=False, soft_wrap=True)
        report = []
        for network in find_networks(path):
            name = f"{network.family} ({network.files[0].name})"
            try:
                problems = check(network)
            except CheckpointError as error:
                problems = {error.rule: []}
            report.append({"network": network.family, "file": str(network.files[0]), "problems": problems})
            if as_json:
                continue
            console.print(f"{escape(name)}: " + ("[red]not whole[/red]" if problems else "[green]whole[/green]"))
            for what, keys in problems.items():
                console.print(escape(f"  {len(keys)} {what}:" if keys else f"  {what}"))
                for key in keys[:SHOWN]:
                    console.print(escape(f"    {key}"))
                if len(keys) > SHOWN:
                    console.print(f"    and {len(keys) - SHOWN} more (--json lists all)")
        if as_json:
            print(json.dumps(report, ensure_ascii=False))
        if any(one["problems"] for one in report):
            raise typer.Exit(2)


@app.command(no_args_is_help=True)
def convert(
    source: Annotated[Path, typer.Argument(help="A checkpoint folder or a file of one of its networks.")],
    out: Annotated[Path, typer.Argument(help="Folder to write; appears when it is whole.")],
    layout: Annotated[str, typer.Option(help="Names and files.", metavar="[published|diffusers]")] = "published",
    dtype: Annotated[
        str,
        typer.Option(
            help="Type of the transformer's weights; fp8: the linear layers of its blocks.",
            metavar="[keep|fp32|bf16|fp16|fp8]",
        ),
    ] = "keep",
    shard_size: Annotated[float, typer.Option(help="Largest file in GB.", min=0.000001)] = 5.0,
    as_json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Write a checkpoint in another layout or type. If it is stopped, the same command goes on where it was.

    Bit for bit the same numbers, unless a type is asked for that cannot hold them.

    [bold]Example[/bold]

    [cyan]wanimate weights convert ~/models/Wan2.2-Animate-14B ~/models/animate-fp8 --dtype fp8[/cyan]
    """  # fmt: skip
    with reporting(as_json, debug) as report:
        if layout not in ("published", "diffusers"):
            raise InputError("--layout", layout, "there is no such layout", "Give published or diffusers.")
        if dtype not in ("keep", "fp32", "bf16", "fp16", "fp8"):
            raise InputError("--dtype", dtype, "there is no such type", "Give keep, fp32, bf16, fp16 or fp8.")
        from wanimate.events import Stage, StageFinished, StageProgress, StageStarted
        from wanimate.weights.tools.convert import GB
        from wanimate.weights.tools.convert import convert as run

        report.event(StageStarted(Stage.CONVERT))
        for done, total, _ in run(source, out, layout, dtype, int(shard_size * GB)):  # type: ignore[arg-type]
            report.event(StageProgress(Stage.CONVERT, done, total))
        report.event(StageFinished(Stage.CONVERT, 0.0))
        report.done({"out": str(out)}, f"{out}: {layout} layout, {dtype}")
