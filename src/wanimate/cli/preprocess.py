"""`wanimate preprocess`: clip and picture to a guides folder."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from wanimate.cli import options as o
from wanimate.cli.report import reporting
from wanimate.errors import InputError

Folder = Annotated[
    Path, typer.Option(help="Folder for the guides; lossless, with a manifest.", rich_help_panel=o.FILES)
]
ListPeople = Annotated[
    bool,
    typer.Option(
        "--list-people",
        help="Only write a picture of everybody in the first frame with people, or at the time that --person names, numbered "
        "for --person; --out is then the name of a PNG, and no --image is needed.",
        rich_help_panel=o.MOTION,
    ),
]


def preprocess(
    video: o.Video,
    out: Folder,
    image: Annotated[Path | None, o.IMAGE] = None,
    mode: o.Mode = o.MODE,
    checkpoint: o.Checkpoint = None,
    models: o.Models = o.PREPROCESS["models"],
    area: o.Area = o.PREPROCESS["area"],
    fps: o.Fps = o.PREPROCESS["fps"],
    max_fps: o.MaxFps = o.PREPROCESS["max_fps"],
    allow_any_length: o.AllowAnyLength = False,
    retarget: o.RetargetMode = o.PREPROCESS["retarget"],
    smooth: o.Smooth = o.PREPROCESS["smooth"],
    backend: o.Backend = o.PREPROCESS["backend"],
    face_size: o.FaceSize = o.PREPROCESS["face_size"],
    person: o.Person = o.PREPROCESS["person"],
    mask: o.MaskFile = o.PREPROCESS["mask"],
    sam2: o.Sam2 = o.PREPROCESS["sam2"],
    iterations: o.Iterations = o.PREPROCESS["iterations"],
    k: o.KernelSide = o.PREPROCESS["k"],
    w_len: o.GridColumns = o.PREPROCESS["w_len"],
    h_len: o.GridRows = o.PREPROCESS["h_len"],
    compat: o.Compat = o.PREPROCESS["compat"],
    list_people: ListPeople = False,
    as_json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Find the performer's body, hands and face, and write the guides that the network follows.

    With --mode replacement the clip's scene and the hole in it are written as well. Look at them (pose.mkv, face.mkv)
    before a long job; [cyan]wanimate generate[/cyan] continues from the folder.
    The checkpoint only tells the default --area; its weights are not loaded.

    [bold]Example[/bold]

    [cyan]wanimate preprocess --image hero.png --video dance.mp4 --out guides --area 1280x720[/cyan]
    """
    with reporting(as_json, debug) as report:
        settings = o.preprocess_settings(
            area, fps, max_fps, allow_any_length,
            retarget=retarget, smooth=smooth, backend=backend, face_size=face_size, person=person, compat=compat, models=models,
            mask=mask, sam2=sam2, iterations=iterations, k=k, w_len=w_len, h_len=h_len,
        )  # fmt: skip
        from wanimate.media.image import load_image
        from wanimate.media.probe import probe
        from wanimate.preprocess.drive import preprocess as make_guides
        from wanimate.weights.locate import read_checkpoint_config

        clip = probe(video, settings.limits)
        if list_people:
            from wanimate.preprocess.candidates import write_people

            crowd = write_people(clip, settings, out)
            found = {"picture": out, "people": len(crowd.boxes), "boxes": crowd.boxes, "frame": crowd.frame}
            report.done(found, f"{out}: {len(crowd.boxes)} found in frame {crowd.frame}, numbered from left to right")
            return
        if image is None:
            raise InputError("image", image, "the guides are made for a character", "Give its picture")
        picture = load_image(image)
        pixels = settings.area or read_checkpoint_config(checkpoint)[1].defaults.area
        with closing(make_guides(o.parse_mode(mode), clip, picture, settings, out, pixels)) as events:
            while True:
                try:
                    report.event(next(events))
                except StopIteration as end:
                    guides = end.value
                    break
        width, height = guides.size
        valid = guides.count if guides.valid is None else sum(guides.valid)
        data = {
            "guides": out, "frames": guides.count, "valid": valid, "width": width, "height": height, "fps": guides.fps,
        }  # fmt: skip
        report.done(data, f"{out}: {guides}; the performer was found in {valid} of {guides.count} frames")
