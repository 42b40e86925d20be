"""The places of a job: its result, held by a lock, and its guides. What cannot be written is refused before any work."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from wanimate.config import Codec, GenerateSettings, OutputSettings, PreprocessSettings
from wanimate.errors import OutputError
from wanimate.events import Notice
from wanimate.finish.lock import OutputLock, sheet_path
from wanimate.jobs.store import Store
from wanimate.media.lock import NameLock
from wanimate.media.places import check_apart_from, check_names, is_within
from wanimate.preprocess.folder import check_folder, resolved_folder
from wanimate.types import Mode

_RECORD, _SHEET = 2**20, 2**23
"""Bytes that the record and the contact sheet take at the most."""
_BYTES: dict[Codec, float] = {"h264": 0.004, "h265": 0.002, "ffv1": 0.3, "png": 0.3}
"""Bytes of a pixel that a result takes at the least."""
_GUIDE_BYTES: dict[Mode, float] = {"animation": 0.01, "replacement": 0.3}


@dataclass(frozen=True)
class Workspace:
    """`out` is held by `lock`; `store` is what a job that was killed goes on from; `guides` is the user's folder for them, or
    one in the store. `notices`: what the user should be told about the places."""

    out: Path
    lock: OutputLock
    store: Store
    guides: Path
    notices: Sequence[Notice] = ()

    def check_room(self, size: tuple[int, int], count: int, mode: Mode, codec: Codec) -> None:
        """Refuse a disk that cannot hold `count` frames of `size` (width, height).

        Raises:
            OutputError: less is free than the result or the guides take at the least.
        """
        pixels = size[0] * size[1] * count
        beside = _RECORD + (_SHEET if self.lock.output.sheet else 0)
        for field, place, needed in (
            ("out", self.out, beside + int(_BYTES[codec] * pixels)),
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
    """The places of a job, held until the end of the block. `inputs`: every file and folder that it reads.

    Raises:
        OutputError: as `OutputLock` and `guides_folder`; the guides and the result would be in each other's way.
    """
    with ExitStack() as held:
        lock = held.enter_context(OutputLock(out, output, inputs))
        store = Store(out, output.fresh, output.keep_segments)
        held.callback(store.tidy)
        if keep_guides is None:
            yield Workspace(out, lock, store, store.guides_folder, [Notice(text) for text in lock.notices])
            return
        for name in (*lock.names, sheet_path(out)):
            if is_within(name, keep_guides) or is_within(keep_guides, name):
                rule = f"the guides and {name.name} of the result would be in each other's way"
                raise OutputError("keep_guides", keep_guides, rule, "Choose a folder beside the result.")
        notices = held.enter_context(guides_folder(keep_guides, inputs, "keep_guides"))
        yield Workspace(out, lock, store, keep_guides, [Notice(text) for text in lock.notices] or notices)


@contextmanager
def guides_folder(folder: Path, inputs: Sequence[Path], field: str = "guides") -> Iterator[list[Notice]]:
    """A folder that guides will be written to, held until the end of the block. Gives what the user should be told of it.

    Raises:
        OutputError: an input lies in it; another job is writing it; as `check_folder`.
    """
    place = resolved_folder(folder, field)
    check_names(field, folder, (place,))
    check_apart_from(field, (folder,), inputs)
    with NameLock(place, field) as lock:
        check_folder(folder, field)
        yield [Notice(text) for text in lock.notices]


def check_mask_sheet(settings: PreprocessSettings, *written: Path | None) -> None:
    """Refuse a sheet of masks that is or lies in something else that the job writes.

    Raises:
        OutputError: it does.
    """
    sheet = settings.mask_debug
    for place in written:
        if sheet is not None and place is not None and is_within(sheet, place):
            rule = f"it would be in the way of {place}, which the job writes"
            raise OutputError("preprocess.mask_debug", sheet, rule, "Choose another name outside of it.")


def files_read(preprocess: PreprocessSettings | None, generate: GenerateSettings | None = None) -> list[Path]:
    """Files and folders that the settings name."""
    named = [] if preprocess is None else [preprocess.mask, preprocess.sam2, preprocess.models]
    loras = [] if generate is None else [use.path for use in generate.lora]
    return [*(path for path in named if path is not None), *loras]


def _existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
