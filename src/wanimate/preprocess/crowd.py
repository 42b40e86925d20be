"""A numbered picture of everybody in a clip, to choose by: `--person 2` is number 2 in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2

from wanimate.config import PreprocessSettings
from wanimate.errors import InputError
from wanimate.media.files import AtomicFile
from wanimate.media.video import iter_indices, plan_frames
from wanimate.preprocess.models import find
from wanimate.preprocess.people import Box, box, numbered, numbered_picture
from wanimate.preprocess.tracker import MediapipeBackend
from wanimate.types import Clip


@dataclass(frozen=True)
class Crowd:
    """Everybody in the first frame of the clip that shows people, from left to right; `frame` counts from 0."""

    frame: int
    boxes: tuple[Box, ...]


def write_people(clip: Clip, settings: PreprocessSettings, out: Path) -> Crowd:
    """Write the picture, a PNG of the clip's size; the numbers are those that `--person` takes.

    Raises:
        InputError: `out` does not end in .png, other detectors are asked for, or nobody is in the clip.
        OutputError: the picture cannot be written.
    """
    if out.suffix.lower() != ".png":
        raise InputError("--out", out, "the picture of the people is a PNG", "Give a name that ends in .png")
    if settings.backend != "mediapipe":
        rule = "only the default detectors tell several people apart"
        raise InputError("--backend", settings.backend, rule, "Leave it out with --list-people")
    people = MediapipeBackend(find(settings.models))
    indices, _ = plan_frames(clip, settings.fps, settings.max_fps)
    for index, frame in zip(indices, iter_indices(clip, indices), strict=True):
        found = [person.keypoints for person in people.candidates(frame)]
        if found:
            done, data = cv2.imencode(".png", numbered_picture(frame, found)[..., ::-1])
            assert done
            with AtomicFile(out) as file:
                file.write(data.tobytes())
            return Crowd(index, tuple(box(found[i]) for i in numbered(found)))
    remedy = "Give a clip in which somebody's head and shoulders are plainly visible"
    raise InputError("--video", clip.path, f"nobody was found in any of its {len(indices)} frames", remedy)
