"""The places of a job: its result, held by a lock, and its guides. What cannot be written is refused before any work."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wanimate.config import Codec, OutputSettings
from wanimate.errors import OutputError
from wanimate.finish.lock import OutputLock
from wanimate.types import Mode

_BESIDE = 2**20
"""Bytes for the record and the contact sheet."""
_BYTES: dict[Codec, float] = {"h264": 0.004, "h265": 0.002, "ffv1": 0.3, "png": 0.3}
"""Bytes of a pixel that a result takes at the least."""
_GUIDE_BYTES: dict[Mode, float] = {"animation": 0.01, "replacement": 0.3}


@dataclass(frozen=True)
class Workspace:
    """`out` is held by `lock`; `guides` is the user's folder for them, or one that vanishes with the job."""

    out: Path
    lock: OutputLock
    guides: Path

    def check_room(self, size: tuple[int, int], count: int, mode: Mode, codec: Codec) -> None:
        """Refuse a disk that cannot hold `count` frames of `size` (width, height).

        Raises:
            OutputError: less is free than the result or the guides take at the least.
        """
        pixels = size[0] * size[1] * count
        for field, place, needed in (
            ("out", self.out, _BESIDE + int(_BYTES[codec] * pixels)),
            ("keep_guides", self.guides, int(_GUIDE_BYTES[mode] * pixels)),
        ):
            free = shutil.disk_usage(_existing(place)).free
            if free < needed:
                rule = f"the disk has {free / 1e6:.1f} MB free, and the job needs at least {needed / 1e6:.1f} MB"
                raise OutputError(field, place, rule, "Free some space or choose another folder.")


@contextmanager
def workspace(
    out: Path, output: OutputSettings, inputs: Sequence[Path], keep_guides: Path | None = None
) -> Iterator[Workspace]:
    """The places of a job, held until the end of the block.

    Raises:
        OutputError: as `OutputLock`.
    """
    with OutputLock(out, output.codec, inputs) as lock:
        if keep_guides is not None:
            yield Workspace(out, lock, keep_guides)
            return
        with tempfile.TemporaryDirectory(prefix="wanimate-") as folder:
            yield Workspace(out, lock, Path(folder) / "guides")


def _existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
