"""Looking into a file of the library: what it holds, a preview, a poster, loop points, how many people."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wanimate.config import PreprocessSettings
from wanimate.errors import InputError
from wanimate.library.loop import Loop, loop_of
from wanimate.library.names import Shelf
from wanimate.library.places import POSTER, PREVIEW
from wanimate.media.files import AtomicFile
from wanimate.media.image import load_image
from wanimate.media.probe import probe
from wanimate.media.resize import AREA, letterbox
from wanimate.media.timing import cap_rate
from wanimate.media.video import iter_indices, plan_frames
from wanimate.media.writer import Encoding, StreamWriter
from wanimate.preprocess.detect.registry import open_detector
from wanimate.preprocess.shot.clip import analyse_clip
from wanimate.types import Clip, Frame
from wanimate.weights.checkpoint import drained

_PREVIEW_SIDE, _POSTER_SIDE = 320, 480
"""Longer sides in pixels."""
_PREVIEW_RATE, _PREVIEW_SECONDS = Fraction(15), 6.0
_ENCODING = Encoding("mp4", "libx264", "yuv420p", {"preset": "fast", "crf": "28"}, {"movflags": "+faststart"})
_QUALITY = 80
_ANALYSED = 30.0
"""Seconds of a clip whose camera is looked at."""


@dataclass(frozen=True)
class Seen:
    """What a file holds. Of a character only its size is known.

    people: at most in the frames that were looked at, and camera: the
    move of its longest shot, as a value of a shot record; None where no detector is there."""

    width: int
    height: int
    seconds: float | None = None
    fps: str | None = None
    people: int | None = None
    loop: dict[str, Any] | None = None
    camera: dict[str, Any] | None = None

    def values(self) -> dict[str, Any]:
        """Its columns of `LibraryEntry`."""
        return asdict(self)


def look_at(shelf: Shelf, file: Path, folder: Path) -> Seen:
    """Look into a file, and write `PREVIEW` (of a clip) and `POSTER` into an existing folder.

    Raises:
        InputError: it is no clip or no picture that can be read. OutputError: the disk is full.
    """
    if shelf == "character":
        picture = load_image(file)
        _write_poster(picture, folder / POSTER)
        return Seen(picture.shape[1], picture.shape[0])
    clip = probe(file, None)
    loop = loop_of(clip)
    _write_preview(clip, loop, folder / PREVIEW)
    first = 0 if loop is None else loop.start
    _write_poster(next(iter_indices(clip, [first + (clip.count - first) // 3])), folder / POSTER)
    told = None if loop is None else {"start": loop.start, "stop": loop.stop, "seam": round(loop.seam, 3)}
    people, camera = _people_and_camera(clip)
    return Seen(clip.width, clip.height, round(clip.duration, 3), str(clip.fps), people, told, camera)


def _write_preview(clip: Clip, loop: Loop | None, path: Path) -> None:
    """The loop, where there is one, else the clip's beginning; at most 6 s, without sound."""
    indices, rate = plan_frames(clip, cap_rate(clip.fps, _PREVIEW_RATE))
    chosen = [i for i in indices if loop is None or loop.start <= i < loop.stop]
    chosen = chosen[: max(1, round(_PREVIEW_SECONDS * rate))] or [indices[0]]
    width, height = _scaled(clip.width, clip.height, _PREVIEW_SIDE)
    with StreamWriter(path, rate, width, height, _ENCODING, "preview") as writer:
        for frame in iter_indices(clip, chosen):
            writer.write(letterbox(frame, width, height, AREA))


def _write_poster(picture: Frame, path: Path) -> None:
    size = _scaled(picture.shape[1], picture.shape[0], _POSTER_SIDE)
    with AtomicFile(path) as file:
        Image.fromarray(letterbox(picture, *size, AREA)).save(file, "WEBP", quality=_QUALITY)


def _scaled(width: int, height: int, side: int) -> tuple[int, int]:
    """Even, of nearly the same aspect, the longer side at most `side`."""
    scale = min(1.0, side / max(width, height))
    return max(2, round(scale * width / 2) * 2), max(2, round(scale * height / 2) * 2)


def _people_and_camera(clip: Clip) -> tuple[int | None, dict[str, Any] | None]:
    """The most people in one of three frames, and how the camera moves."""
    settings = PreprocessSettings(end=_ANALYSED if clip.duration > _ANALYSED else None)
    try:
        detector = open_detector(settings)
    except InputError:  # its models are not there
        return None, None
    indices = np.linspace(0, clip.count - 1, 3).round().astype(int).tolist()
    people = max(len(detector.candidates(frame, deep=True)) for frame in iter_indices(clip, indices))
    record = drained(analyse_clip(clip, settings, detector))
    longest = max(record.shots, key=lambda shot: shot.stop - shot.first)
    return people, longest.values["xmpDM:cameraMove"].model_dump(mode="json")
