"""All names that a job writes, checked against what it reads and held from before its first work until its end."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from wanimate.config import FORMATS, MarkSettings, OutputSettings
from wanimate.config.codecs import endings_told
from wanimate.errors import OutputError, setting
from wanimate.media.files import read_marked, read_own_json
from wanimate.media.lock import NameLock
from wanimate.media.names import is_real_folder, owner_pid, remove_leftovers
from wanimate.media.places import check_apart_from, check_file, check_names, is_within
from wanimate.provenance.forms import every_beside, record_beside, written_beside
from wanimate.weights.fingerprint import fingerprint

STORE_MARK, STORE_FORMAT = "job.json", "wanimate-work"


def record_path(out: Path) -> Path:
    """Where the job's record goes: out.mp4 -> out.json, frames/ -> frames.json."""
    return record_beside(out)


def sheet_path(out: Path) -> Path:
    """Where the contact sheet goes: out.mp4 -> out.sheet.png."""
    return out.with_name(out.stem + ".sheet.png")


def work_path(out: Path) -> Path:
    """Where the job keeps its finished work (`jobs.store`): out.mp4 -> .out.mp4.work/."""
    return out.with_name(f".{out.name}.work")


@dataclass(frozen=True)
class Older:
    """Hashes of an older result, sheet and matte that the record beside them proves to be ours; None where there are none.
    beside: of what holds its marks beside it, those that are there."""

    result: str | None = None
    sheet: str | None = None
    matte: str | None = None
    beside: dict[Path, str] = field(default_factory=dict)


class OutputLock:
    """Holds the names of a job against other jobs, of this process or another, until `release` or the end of the `with` block:
    result, record, sheet, matte, what holds marks beside the result, work folder.

    Args:
        out: the final name: a video file, or the folder of a sequence.
        output: what will be written, and whether it may go over files that are not ours.
        inputs: files and folders of the user's that are read.
        marks: what is put into and beside the result; None is nothing.

    Attributes:
        older: what lies under the names and will be replaced.
        notices: what the user should be told.

    Raises:
        OutputError: there is no name, or it is too long; the folder cannot be written; the name's ending does not suit the
            codec; one of the names is an input; something that is not ours has one of the names; another job is writing `out`.
    """

    def __init__(
        self, out: Path, output: OutputSettings = OutputSettings(), inputs: Sequence[Path] = (),
        marks: MarkSettings | None = None,
    ) -> None:  # fmt: skip
        self.out, self.output, self.matte, self.marks = Path(out), output, output.matte, marks
        if not self.out.name:
            raise OutputError("out", out, "it names no file", "Give the result a name.")
        self._check_ending()
        names = self.names
        check_names("out", self.out, names)
        check_apart_from("out", names, inputs)
        self._check_matte(inputs)
        self._check_kinds()
        with ExitStack() as undo:
            lock = undo.enter_context(NameLock(self.out))
            undo.enter_context(NameLock(record_path(self.out)))  # hero.mp4 and hero.mkv have one record, and one sheet
            for beside in (sheet_path(self.out), *every_beside(self.out)):
                remove_leftovers(beside)
            if self.matte is not None:
                undo.enter_context(NameLock(self.matte, "output.matte"))
            self.older = self._check_ours()
            matte = () if self.matte is None else (self.matte,)
            self._seen = {path: _state(path) for path in (*names, *matte)}
            self._held = undo.pop_all()
        self.notices = lock.notices

    @property
    def _makes_folder(self) -> bool:
        return FORMATS[self.output.codec].is_folder

    @property
    def names(self) -> tuple[Path, ...]:
        """Everything that will be written beside the matte."""
        sheet = (sheet_path(self.out),) if self.output.sheet else ()
        marks = written_beside(self.out, self.marks)
        return (self.out, record_path(self.out), *sheet, *marks, work_path(self.out))

    def newcomer(self) -> Path | None:
        """A name under which somebody else has put a file, or changed one, since the lock was taken."""
        return next((path for path, state in self._seen.items() if _state(path) != state), None)

    def release(self) -> None:
        """Let others write `out`. Does nothing the second time."""
        self._held.close()

    def _check_ending(self) -> None:
        codec = self.output.codec
        if self.out.suffix.lower() not in FORMATS[codec].endings:
            rule = f"codec {codec} needs {endings_told(codec)}"
            raise OutputError("out", self.out, rule, f"Change the name or {setting('output.codec')}.")

    def _check_matte(self, inputs: Sequence[Path]) -> None:
        """Refuse a matte that is, or lies in, something else that the job reads or writes."""
        if self.matte is None:
            return
        check_names("output.matte", self.matte, (self.matte,))
        check_apart_from("output.matte", (self.matte,), inputs)
        for name in self.names:
            if is_within(self.matte, name) or is_within(name, self.matte):
                rule = f"the matte and {name.name} of the result would be in each other's way"
                raise OutputError("output.matte", self.matte, rule, "Choose another name.")

    def _check_kinds(self) -> None:
        """Refuse what no permission can change."""
        work = work_path(self.out)
        if self._makes_folder:
            _check_free("out", self.out)
            if self.matte is not None:
                _check_free("output.matte", self.matte)
        if os.path.lexists(work) and not _is_store(work):
            rule = f"{work.name} beside it is no folder of this program"
            raise OutputError("out", self.out, rule, "Remove it, or choose another name.")

    def _check_ours(self) -> Older:
        """Hashes of what is ours. Raises OutputError for what is not."""
        out, record = self.out, record_path(self.out)
        made = _record_of(record)
        if os.path.lexists(record):
            if made is None:
                raise OutputError("out", out, f"{record.name} beside it is not ours to replace", "Choose another name.")
            other = out.with_name(made["out"])
            if other.name != out.name and os.path.lexists(other):
                rule = f"{record.name} beside it is the record of {other.name}"
                raise OutputError("out", out, rule, f"Choose another name, or remove {other.name} and its record.")
            check_file("out", record, ours=True, overwrite=False)
        if made is None or made["out"] != out.name:
            made = {}
        sheet = sheet_path(out)
        older = Older(
            None if self._makes_folder else _proved(out, made.get("result")),
            _proved(sheet, made.get("sheet")) if self.output.sheet else None,
            None if self._makes_folder or self.matte is None else _proved(self.matte, made.get("matte")),
            _proved_beside(out, made.get("beside")),
        )
        overwrite = self.output.overwrite
        if older.result is not None and made.get("version") is not None and not overwrite:
            rule = f"it is version {made['version']}, and a version is never written over"
            remedy = f"Name it with {{version}}, or allow it with {setting('output.overwrite')}."
            raise OutputError("out", out, rule, remedy)
        if not self._makes_folder:
            check_file("out", out, older.result is not None, overwrite)
            if self.matte is not None:
                check_file("output.matte", self.matte, older.matte is not None, overwrite)
        if self.output.sheet:
            check_file("out", sheet, older.sheet is not None, overwrite)
        for path in written_beside(out, self.marks):
            check_file("out", path, path in older.beside, overwrite)
        return older

    def __enter__(self) -> OutputLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.release()


def _state(path: Path) -> tuple[int, ...] | None:
    """What a plain file or a link shows of itself while nobody changes it; None for anything else."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return None if stat.S_ISDIR(found.st_mode) else (found.st_ino, found.st_size, found.st_mtime_ns)


def _check_free(field: str, folder: Path) -> None:
    """Refuse a folder for a sequence that is there and not empty, and anything else of its name."""
    if not os.path.lexists(folder):
        return
    remedy = "Name a new folder for the sequence."
    if folder.is_symlink() or not folder.is_dir():
        raise OutputError(field, folder, "the name is taken", remedy)
    if any(folder.iterdir()):
        raise OutputError(field, folder, "the folder is not empty", remedy)


def holds_nothing_finished(folder: Path) -> bool:
    """Whether it is a folder with nothing in it but what a killed process had not finished."""
    return is_real_folder(folder) and all(owner_pid(path) is not None for path in folder.iterdir())


def _is_store(folder: Path) -> bool:
    """Whether it is a folder of finished work, or one in which nothing was finished when its process was killed."""
    if holds_nothing_finished(folder):
        return True
    return is_real_folder(folder) and read_marked(folder / STORE_MARK, STORE_FORMAT) is not None


def _record_of(path: Path) -> dict[str, Any] | None:
    """A record of this program; None where there is none."""
    made = read_own_json(path)
    if not isinstance(made, dict) or not {"wanimate", "schema", "out"} <= made.keys():
        return None
    name = made["out"]
    return made if isinstance(name, str) and name and name == Path(name).name and "\0" not in name else None


def _proved(path: Path, said: object) -> str | None:
    """The hash of the file, if the record says that it made it: by its own hash, or by that of the file it was to replace,
    which is there still where a job was killed between the two."""
    if not isinstance(said, dict) or not {said.get("sha256"), said.get("replaces")} - {None}:
        return None
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return None
        found = fingerprint(path)
    except OSError:
        return None
    return found if found in (said.get("sha256"), said.get("replaces")) else None


def _proved_beside(out: Path, said: object) -> dict[Path, str]:
    """The same of what holds marks beside a result, by name."""
    told = {one.get("name"): one for one in said if isinstance(one, dict)} if isinstance(said, list) else {}
    found = {path: _proved(path, told.get(path.name)) for path in every_beside(out)}
    return {path: one for path, one in found.items() if one is not None}
