"""A numbered picture of everybody in a clip, to choose by: `--person 2` is number 2 in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wanimate.config import PreprocessSettings
from wanimate.errors import InputError
from wanimate.media.lock import NameLock
from wanimate.media.places import check_apart_from, check_file, check_names
from wanimate.media.png import write_png
from wanimate.media.video import iter_indices
from wanimate.preprocess.detect.registry import open_detector
from wanimate.preprocess.detect.tiles import DEEP
from wanimate.preprocess.layout import job_frames
from wanimate.preprocess.people.choice import Box, box, numbered, numbered_picture, parse_choice
from wanimate.preprocess.performer import frame_at, nobody_found
from wanimate.types import Clip


@dataclass(frozen=True)
class Crowd:
    """Everybody in one frame of the clip, from left to right; `frame` counts from 0."""

    frame: int
    boxes: tuple[Box, ...]


def write_people(clip: Clip, settings: PreprocessSettings, out: Path, overwrite: bool = False) -> Crowd:
    """Write the picture, a PNG of the clip's size; the numbers are those that `--person` takes.

    It shows the frame in which `--person` would choose: at its time, else the first one with people.

    Args:
        overwrite: the picture may take the place of a file; never of one that is read.

    Raises:
        InputError: `out` does not end in .png, nobody is in the clip, or the clip ends before the time.
        OutputError: the picture cannot be written, or something has its name. It is refused before anybody is looked for.
    """
    if out.suffix.lower() != ".png":
        raise InputError("out", out, "the picture of the people is a PNG", "Give a name that ends in .png")
    check_names("out", out, (out,))
    check_apart_from(
        "out", (out,), [p for p in (clip.path, settings.mask, settings.sam2, settings.models) if p is not None]
    )
    with NameLock(out):
        check_file("out", out, ours=False, overwrite=overwrite)
        return _written(clip, settings, out)


def _written(clip: Clip, settings: PreprocessSettings, out: Path) -> Crowd:
    people, choice, (indices, _) = open_detector(settings), parse_choice(settings.person), job_frames(clip, settings)
    first = frame_at(clip, indices, choice)
    indices = indices[first : None if choice.at is None else first + 1]
    for i, (index, frame) in enumerate(zip(indices, iter_indices(clip, indices), strict=True)):
        found = [person.keypoints for person in people.candidates(frame, deep=i % DEEP == 0)]  # as tracking does
        if found:
            write_png(out, numbered_picture(frame, found))
            return Crowd(index, tuple(box(found[i]) for i in numbered(found)))
    if choice.at is not None:
        raise InputError("preprocess.person", choice, f"nobody was found {choice.when}", "Give another time, or none")
    raise nobody_found(clip, len(indices))
