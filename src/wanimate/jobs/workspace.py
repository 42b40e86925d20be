"""The places of a job: its result, held by a lock, and its guides. What cannot be written is refused before any work."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wanimate.config import Codec, OutputSettings
from wanimate.errors import OutputError
from wanimate.finish.lock import OutputLock, record_path, sheet_path
from wanimate.jobs.store import Store
from wanimate.types import Mode

_BESIDE = 2**20
"""Bytes for the record and the contact sheet."""
_BYTES: dict[Codec, float] = {"h264": 0.004, "h265": 0.002, "ffv1": 0.3, "png": 0.3}
"""Bytes of a pixel that a result takes at the least."""
_GUIDE_BYTES: dict[Mode, float] = {"animation": 0.01, "replacement": 0.3}


@dataclass(frozen=True)
class Workspace:
    """`out` is held by `lock`; `store` is what a job that was killed goes on from; `guides` is the user's folder for them, or
    one in the store."""

    out: Path
    lock: OutputLock
    store: Store
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
        OutputError: as `OutputLock`; the sheet would get the name of an input; as `check_apart`.
    """
    with OutputLock(out, output.codec, inputs) as lock:
        if output.sheet and _among(sheet_path(out), inputs):
            raise OutputError("out", out, f"its sheet {sheet_path(out)} is an input of the job", "Choose another name.")
        if keep_guides is not None:
            check_apart("keep_guides", keep_guides, inputs, (out, record_path(out), sheet_path(out)))
        store = Store(out, output.fresh, output.keep_segments)
        try:
            yield Workspace(out, lock, store, keep_guides or store.guides_folder)
        finally:
            store.tidy()


def check_apart(field: str, guides: Path, inputs: Sequence[Path], results: Sequence[Path] = ()) -> None:
    """Refuse a folder for guides that has to be kept from others: it is written whole, and what lay in it goes.

    Raises:
        OutputError: an input lies in it, or a result would lie in it, around it or at its place.
    """
    place = guides.resolve()
    for path in inputs:
        if place in path.resolve().parents:
            raise OutputError(field, guides, f"{path.name} in it is an input of the job", "Choose another folder.")
    for path in (result.resolve() for result in results):
        if place == path or place in path.parents or path in place.parents:
            rule = f"the guides and {path.name} of the result would be in each other's way"
            raise OutputError(field, guides, rule, "Choose a folder beside the result.")


def _among(place: Path, inputs: Sequence[Path]) -> bool:
    return place.exists() and any(path.exists() and place.samefile(path) for path in inputs)


def _existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
