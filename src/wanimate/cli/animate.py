"""`wanimate animate`, `wanimate replace` and `wanimate generate`: all end in a video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wanimate.cli.build import One, Takes, command
from wanimate.cli.engine import run
from wanimate.cli.options import Checkpoint
from wanimate.cli.report import Reporter
from wanimate.config import (
    FORMATS,
    Codec,
    GenerateSettings,
    Job,
    MarkSettings,
    OutputSettings,
    ParallelSettings,
    RuntimeSettings,
)
from wanimate.errors import InputError
from wanimate.finish.lock import OutputLock
from wanimate.finish.naming import named

if TYPE_CHECKING:
    from wanimate.api import Animator
    from wanimate.events import Event

IN_THE_SCENE = ("mask", "sam2", "iterations", "k", "w_len", "h_len", "composite", "feather")
"""Settings that mean something in replacement only."""
Animation = Annotated[Job, Takes(without=IN_THE_SCENE, fixed=(("mode", "animation"),))]
Replacement = Annotated[Job, Takes(without=("retarget",), fixed=(("mode", "replacement"),))]


@command(names={"guides": "--keep-guides"})
def animate(
    report: Reporter, checkpoint: Checkpoint = None, *, job: Animation, parallel: ParallelSettings, runtime: RuntimeSettings
) -> None:  # fmt: skip
    """Let the character of a picture perform what a performer does in a clip.

    The clip's body, hands and face are found and drawn as guides. The network then draws the character frame by frame after
    them. Rate, length and sound are the clip's. Everything that can be checked is checked before anything is loaded. Ctrl-C
    stops at any time and leaves nothing half-written; the same command goes on from the segments that are finished.

    [bold]Examples[/bold]

    [cyan]wanimate animate --image hero.png --video dance.mp4 --out hero.mp4 --sheet[/cyan]

    [cyan]wanimate animate --image hero.png --video dance.mp4 --out hero.mp4 --area 1280x720 --seed 7
    --checkpoint ~/models/Wan2.2-Animate-14B[/cyan]

    Exit codes: 0 done, 2 bad input, 3 not enough memory, 130 cancelled.
    """
    run(report, checkpoint, runtime, parallel, (named(job.out, job.output).out, lambda animator: animator.run(job)))


@command(names={"guides": "--keep-guides"})
def replace(
    report: Reporter, checkpoint: Checkpoint = None, *, job: Replacement, parallel: ParallelSettings, runtime: RuntimeSettings
) -> None:  # fmt: skip
    """Put the character of a picture in the place of the performer of a clip; the scene stays.

    The performer is found and cut out of every frame. The network draws the character into the inpaint mask after the
    performer's skeleton and face. Size, rate, length and sound are the clip's. Frames without the performer stay as they
    are, and so does everything around the mask unless --no-composite is given.

    [bold]Examples[/bold]

    [cyan]wanimate replace --image hero.png --video dance.mp4 --out hero.mp4 --sheet[/cyan]

    [cyan]wanimate replace --image hero.png --video dance.mp4 --out hero.mp4 --w-len 8 --h-len 16[/cyan]

    Exit codes: 0 done, 2 bad input, 3 not enough memory, 130 cancelled.
    """
    run(report, checkpoint, runtime, parallel, (named(job.out, job.output).out, lambda animator: animator.run(job)))


Guides = Annotated[
    list[Path],
    typer.Argument(
        help="Folders made by [cyan]wanimate preprocess[/cyan], or published sets of src_*.mp4 files. Several are made "
        "with the same weights, one after the other; --out is then a folder."
    ),
]


@command()
def generate(
    report: Reporter, guides: Guides, out: Annotated[Path, One(Job, "out")], checkpoint: Checkpoint = None, *,
    settings: GenerateSettings, output: OutputSettings, marks: MarkSettings, parallel: ParallelSettings,
    runtime: RuntimeSettings,
) -> None:  # fmt: skip
    """Make the video from guides that exist already: try seeds and settings without finding the performer again.

    [bold]Examples[/bold]

    [cyan]wanimate generate guides --out hero.mp4 --steps 30 --seed 8[/cyan]

    [cyan]wanimate generate monday tuesday wednesday --out week[/cyan]
    """
    places = results(guides, out, output.codec)
    if len(places) > 1:
        if output.matte is not None:
            rule = f"{len(places)} results cannot have one matte"
            raise InputError("output.matte", output.matte, rule, "Run them apart, or leave it out.")
        for folder, place in zip(
            guides, places, strict=True
        ):  # what cannot be written is refused before the first hours
            OutputLock(place, output, [folder], marks.asked(output.final, output.watermark)).release()
    jobs = [
        (named(place, output).out, partial(_generate, folder, place, settings, output, marks))
        for folder, place in zip(guides, places, strict=True)
    ]
    run(report, checkpoint, runtime, parallel, *jobs)


def _generate(
    folder: Path, place: Path, settings: GenerateSettings, output: OutputSettings, marks: MarkSettings, animator: Animator
) -> Iterator[Event]:  # fmt: skip
    return animator.generate(folder, place, settings, output, marks=marks)


def results(guides: Sequence[Path], out: Path, codec: Codec) -> list[Path]:
    """Where each folder's result goes: `out`, or within it, called as the folder is.

    Raises:
        InputError: the results of several folders cannot be told apart, or one of the folders holds no guides.
    """
    if len(guides) == 1:
        return [out]
    if out.suffix or out.is_file():
        raise InputError("out", out, f"{len(guides)} results need a folder", "Name a folder.")
    names = [folder.resolve().name for folder in guides]
    for folder, name in zip(guides, names, strict=True):
        if names.count(name) > 1:
            raise InputError("guides", folder, f"several folders are called {name}", "Rename one, or run them apart.")
        from wanimate.preprocess.guides import load_guides

        load_guides(folder)  # what cannot be used is refused before the first one takes its hours
    return [out / f"{name}{FORMATS[codec].endings[0]}" for name in names]
