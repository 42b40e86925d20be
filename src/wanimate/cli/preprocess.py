"""`wanimate preprocess`: clip and picture to a guides folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wanimate.cli.build import One, command
from wanimate.cli.options import Checkpoint, option
from wanimate.cli.report import Reporter, told
from wanimate.config import Job, Mode, PreprocessSettings
from wanimate.config.base import FILES, MOTION
from wanimate.config.job import LIBRARY
from wanimate.errors import InputError

Folder = Annotated[Path, option(FILES, "Folder for the guides. They are lossless and have a manifest.")]
ListPeople = Annotated[
    bool,
    typer.Option(
        "--list-people",
        help="Only write a picture of everybody, numbered for --person. It shows the first frame with people, or the time that "
        "--person names. --out is then the name of a PNG, and no --image is needed.",
        rich_help_panel=MOTION,
    ),
]

Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="With --list-people: write over a file of this name. An input is never written over.",
        rich_help_panel=FILES,
    ),
]  # fmt: skip


@command(names={"guides": "--out", "output.overwrite": "--overwrite"})
def preprocess(
    report: Reporter, video: Annotated[Path, One(Job, "video")], out: Folder,
    image: Annotated[Path | None, One(Job, "image")] = None, mode: Annotated[Mode, One(Job, "mode")] = "animation",
    checkpoint: Checkpoint = None, *, settings: PreprocessSettings, list_people: ListPeople = False,
    overwrite: Overwrite = False,
) -> None:  # fmt: skip
    """Find the performer's body, hands and face, and write the guides that the network follows.

    With --mode replacement the clip's scene and its inpaint mask are written as well. Look at them (pose.mkv, face.mkv)
    before a long job. [cyan]wanimate generate[/cyan] continues from the folder. The checkpoint only tells the default --area;
    its weights are not loaded.

    [bold]Example[/bold]

    [cyan]wanimate preprocess --image hero.png --video dance.mp4 --out guides --area 1280x720[/cyan]
    """
    from wanimate.jobs import run as jobs
    from wanimate.media.stretch import probe_used
    from wanimate.weights.locate import read_checkpoint_config

    if any(str(path).startswith(LIBRARY) for path in (image, video)):
        from wanimate.library.home import named_files

        image, video, settings = named_files(image, video, settings)
    if list_people:
        clip = probe_used(video, settings)
        from wanimate.preprocess.candidates import write_people

        crowd = write_people(clip, settings, out, overwrite)
        found = {"picture": out, "people": len(crowd.boxes), "boxes": crowd.boxes, "frame": crowd.frame}
        report.done(found, f"{out}: {len(crowd.boxes)} found in frame {crowd.frame}, numbered from left to right")
        return
    if image is None:
        raise InputError("image", image, "the guides are made for a character", "Give its picture")
    area = settings.area or read_checkpoint_config(checkpoint)[1].defaults.area
    guides = told(report, jobs.preprocess(mode, image, video, out, settings, area))
    width, height = guides.size
    valid = guides.count if guides.valid is None else sum(guides.valid)
    data = {
        "guides": out, "frames": guides.count, "valid": valid, "width": width, "height": height, "fps": guides.fps,
    }  # fmt: skip
    report.done(data, f"{out}: {guides}; the performer was found in {valid} of {guides.count} frames")
