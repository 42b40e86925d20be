"""`wanimate finish`: a master to what is delivered."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wanimate.approval.quarantine import in_house
from wanimate.cli.build import One, Takes, command
from wanimate.cli.engine import finish as told
from wanimate.cli.options import option
from wanimate.cli.report import Reporter
from wanimate.config import Job, MarkSettings, OutputSettings, RuntimeSettings
from wanimate.config.base import FILES
from wanimate.config.values import parse_rate
from wanimate.errors import InputError

OF_A_JOB = ("sheet", "fresh", "keep_segments", "composite", "feather")
"""Settings of the result that mean something only where frames are generated."""
Finishing = Annotated[OutputSettings, Takes(without=OF_A_JOB)]
Master = Annotated[
    Path,
    typer.Argument(
        help="A video, or a folder of numbered PNG or OpenEXR pictures. FFV1 and PNG keep what enlarging needs."
    ),
]
Fps = Annotated[
    str | None,
    option(
        FILES, "Frames a second of a folder of pictures that tell none.", metavar="RATE", show_default="24",
    ),
]  # fmt: skip


@command(names={"master": "MASTER", "fps": "--fps"})
def finish(
    report: Reporter, master: Master, out: Annotated[Path, One(Job, "out")], fps: Fps = None,
    device: Annotated[str | None, One(RuntimeSettings, "device")] = None, *, output: Finishing, marks: MarkSettings,
) -> None:  # fmt: skip
    """Enlarge, interpolate and encode a video that is there already.

    The master is only read. Frames stay in float between decoder and encoder, and memory does not grow with the length. The
    same options of [cyan]wanimate animate[/cyan] finish the network's frames before they are encoded at all.

    [bold]Examples[/bold]

    [cyan]wanimate finish hero.mkv --out hero.mov --upscale 1080p --fps-out 25 --codec prores-hq[/cyan]

    [cyan]wanimate finish frames --fps 24 --out hero-4k.mp4 --upscale 2160p --codec h265[/cyan]

    Exit codes: 0 done, 2 bad input, 3 not enough memory, 130 cancelled.
    """
    from wanimate.jobs.finish import finish as job

    try:
        rate = None if fps is None else parse_rate(fps)
    except ValueError as error:
        raise InputError("fps", fps, str(error), "Give 24 or 24000/1001, for instance.") from error
    told(report, out, job(master, out, in_house(output), rate, device, marks=marks))
