"""Small videos of a job's guides and of its clip, which browsers play.

The guides themselves are lossless, and no browser opens them. All of a job have its rate and its number of
frames, so that frame i of one belongs to frame i of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from wanimate.errors import Cancelled
from wanimate.jobs.cancel import CancelToken
from wanimate.media.probe import probe
from wanimate.media.resize import AREA, letterbox
from wanimate.media.video import iter_indices
from wanimate.media.writer import Encoding, StreamWriter
from wanimate.types import Frame, FrameSource, Guides

_LONGEST = 640
"""Longer side in pixels."""
_AT_ONCE = 16
_ENCODING = Encoding(
    "mp4", "libx264", "yuv420p", {"preset": "veryfast", "crf": "24", "g": "15"}, {"movflags": "+faststart"}
)
"""A key frame every 15 frames, so that stepping backwards is quick."""


def write_previews(guides: Guides, clip: Path, folder: Path, cancel: CancelToken) -> None:
    """Write `driver.mp4` (the clip's frames), `pose.mp4`, `face.mp4` and, in replacement, `mask.mp4` into a new folder.

    Raises:
        Cancelled: somebody stopped the job. InputError: the clip cannot be read any more. OutputError: the disk is full.
    """
    folder.mkdir()
    parts = {"pose": guides.pose, "face": guides.face, "mask": guides.mask}
    for name, source in parts.items():
        if source is not None:
            _write(folder / f"{name}.mp4", guides, source.size, _taken(source), cancel)
    film = probe(clip, None)
    frames = iter_indices(film, guides.manifest["source"]["frames"])
    _write(folder / "driver.mp4", guides, (film.width, film.height), frames, cancel)


def _taken(source: FrameSource) -> Iterator[Frame]:
    for start in range(0, source.count, _AT_ONCE):
        yield from source.take(range(start, min(start + _AT_ONCE, source.count)))


def _write(path: Path, guides: Guides, size: tuple[int, int], frames: Iterable[Frame], cancel: CancelToken) -> None:
    width, height = small(*size)
    with StreamWriter(path, guides.fps, width, height, _ENCODING, "previews") as writer:
        for frame in frames:
            if cancel.is_cancelled:
                raise Cancelled("stopped")
            writer.write(letterbox(frame, width, height, AREA))


def small(width: int, height: int) -> tuple[int, int]:
    """The size of a preview, even, of nearly the same aspect and never larger."""
    scale = min(1.0, _LONGEST / max(width, height))
    return max(2, round(scale * width / 2) * 2), max(2, round(scale * height / 2) * 2)
