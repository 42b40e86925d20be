"""The places of a job: its result, held by a lock, and its guides. What cannot be written is refused before any work."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from wanimate.config import FORMATS, GenerateSettings, MarkSettings, OutputSettings, PreprocessSettings
from wanimate.errors import OutputError, setting
from wanimate.events import Notice
from wanimate.finish.encode import check_size
from wanimate.finish.lock import OutputLock, sheet_path
from wanimate.finish.naming import named, quarantined
from wanimate.jobs.store import Store
from wanimate.media.exr import check_installed
from wanimate.media.lock import HeldError, NameLock
from wanimate.media.places import check_apart_from, check_names, is_within
from wanimate.post.base import VideoSpec
from wanimate.post.stages import result_for
from wanimate.preprocess.folder import check_folder, resolved_folder
from wanimate.types import Mode

_RECORD, _SHEET = 2**20, 2**23
"""Bytes that the record and the contact sheet take at the most."""
_COPIES = 3
"""Of a result while it is marked: as it was encoded, with metadata, and signed."""
_JOBS_AT_ONCE = 64
"""Versions of one name that can be in work at once."""
_GUIDE_BYTES: dict[Mode, float] = {"animation": 0.01, "replacement": 0.3}


@dataclass(frozen=True)
class Workspace:
    """`out` is held by `lock`; `store` is what a job that was killed goes on from; `guides` is the user's folder for them, or
    one in the store. `notices`: what the user should be told about the places. `version`: of the result, where its name was
    given with {version}."""

    out: Path
    lock: OutputLock
    store: Store
    guides: Path
    notices: Sequence[Notice] = ()
    version: int | None = None

    def check_room(self, spec: VideoSpec, mode: Mode) -> VideoSpec:
        """Refuse finishing that cannot be done, a codec that cannot hold its result, a disk without room for result or guides.

        spec: of the network's frames, which are the guides', too.

        Returns what finishing makes of them.

        Raises:
            InputError: networks of finishing are missing. OutputError: as `check_space`.
        """
        result = result_for(self.lock.output, spec)
        check_space(self.out, self.lock.output, result, self.lock.marks)
        _check_free("keep_guides", self.guides, int(_GUIDE_BYTES[mode] * spec.size[0] * spec.size[1] * spec.count))
        return result


def check_space(out: Path, output: OutputSettings, result: VideoSpec, marks: MarkSettings | None = None) -> None:
    """Refuse a codec that cannot hold the result, and a disk that has no room for it.

    Raises:
        OutputError: as `check_size`; less is free than the result takes at the least.
    """
    check_size(output, *result.size)
    pixels = result.size[0] * result.size[1] * result.count
    beside = _RECORD + (_SHEET if output.sheet else 0)
    copies = _COPIES if marks is not None and marks.whole else 1
    _check_free("out", out, beside + copies * int(FORMATS[output.codec].bytes * pixels))


def _check_free(field: str, place: Path, needed: int) -> None:
    free = shutil.disk_usage(_existing(place)).free
    if free < needed:
        rule = f"the disk has {free / 1e6:.1f} MB free, and the job needs at least {needed / 1e6:.1f} MB"
        raise OutputError(field, place, rule, "Free some space or choose another folder.")


@contextmanager
def workspace(
    out: Path, output: OutputSettings, inputs: Sequence[Path], keep_guides: Path | None = None,
    marks: MarkSettings | None = None, mode: Mode | None = None,
) -> Iterator[Workspace]:  # fmt: skip
    """The places of a job, held until the end of the block.

    Args:
        inputs: every file and folder that it reads.
        marks: of the result.
        mode: a result of some modes may be asked to get a quarantined name.

    Raises:
        OutputError: as `OutputLock` and `guides_folder`; the guides and the result would be in each other's way.
    """
    with ExitStack() as held:
        quarantine = mode in (output.quarantine or ())
        lock, version = locked(out, output, inputs, marks, quarantine)
        held.enter_context(lock)
        out = lock.out
        places = [*lock.notices, *([quarantined_told(out)] if quarantine else [])]
        if output.codec == "exr":
            check_installed("output.codec")
        store = Store(out, output.fresh, output.keep_segments)
        held.callback(store.tidy)
        if keep_guides is None:
            yield Workspace(out, lock, store, store.guides_folder, [Notice(text) for text in places], version)
            return
        matte = () if lock.matte is None else (lock.matte,)
        for name in (*lock.names, sheet_path(out), *matte):
            if is_within(name, keep_guides) or is_within(keep_guides, name):
                rule = f"the guides and {name.name} of the result would be in each other's way"
                raise OutputError("keep_guides", keep_guides, rule, "Choose a folder beside the result.")
        notices = held.enter_context(guides_folder(keep_guides, inputs, "keep_guides"))
        told = [Notice(text) for text in places] or notices
        yield Workspace(out, lock, store, keep_guides, told, version)


def locked(
    out: Path, output: OutputSettings, inputs: Sequence[Path], marks: MarkSettings | None = None, quarantine: bool = False
) -> tuple[OutputLock, int | None]:  # fmt: skip
    """The lock of a result whose name may be a template. A version that another job is writing is passed over. `quarantine`: it
    gets the name of one that may not leave yet."""
    for skip in range(_JOBS_AT_ONCE):
        found = named(out, output, skip)
        try:
            place = quarantined(found.out) if quarantine else found.out
            return OutputLock(place, output, inputs, marks), found.version
        except HeldError:
            if found.version is None or skip == _JOBS_AT_ONCE - 1:
                raise
    raise AssertionError


def marks_for(output: OutputSettings, marks: MarkSettings) -> tuple[MarkSettings | None, list[Notice]]:
    """What is put into and beside a result, and what is to be told of it."""
    found = marks.asked(output.final, output.watermark)
    if not output.final and marks.whole and marks != MarkSettings():
        how = f"{setting('output.final')} makes it a final"
        return found, [Notice(f"the result is a take, which gets none of the marks that are asked for; {how}")]
    return found, []


def quarantined_told(out: Path) -> str:
    """What is told of a quarantined name."""
    return (
        f"the house's policy asks for an approval: the result is {out.name} until `wanimate release` gives it its name"
    )


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


def files_read(
    preprocess: PreprocessSettings | None, generate: GenerateSettings | None = None, output: OutputSettings | None = None,
    marks: MarkSettings | None = None,
) -> list[Path]:  # fmt: skip
    """Files and folders that the settings name, to be read."""
    named = [] if preprocess is None else [preprocess.mask, preprocess.sam2, preprocess.models]
    loras = [] if generate is None else [use.path for use in generate.lora]
    networks = [] if output is None or output.upscale_network is None else [output.upscale_network]
    own = [] if marks is None else marks.files()
    return [*(path for path in named if path is not None), *loras, *networks, *own]


def _existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
