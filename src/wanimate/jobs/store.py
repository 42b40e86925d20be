"""The finished work of a job, on disk beside its result, so that a job that was killed goes on where it was.

    .hero.mp4.work/     what it belongs to: hero.mp4 beside it
      job.json          who made it, and what decides guides and frames (`StoreFile`)
      guides/           the guides, where the user keeps them nowhere else
      segment-0000-1f0c3a9be2d45a67.safetensors    latents, tail and the noise generator of a finished segment

A segment's name ends in its key: a hash of what decides its frames, the segments it goes on from included. A file is
therefore right for a job or not found by it.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from torch import Tensor

from wanimate.errors import InputError, OutputError, setting
from wanimate.finish.anchor import State as AnchorState
from wanimate.finish.lock import STORE_MARK, holds_nothing_finished, work_path
from wanimate.jobs.packed import packed, unpacked
from wanimate.media.files import AtomicFile, output_error, read_own_json, sha256
from wanimate.media.names import Owner, remove, remove_folder
from wanimate.preprocess.folder import MANIFEST
from wanimate.preprocess.guides import load_guides
from wanimate.preprocess.shot.stored import hash_without_record
from wanimate.provenance.about import new_id
from wanimate.types import AttentionStep, Guides, Segment

GUIDES, SEGMENTS = "guides", "segment-*.safetensors"
SEEDS = 2**63
"""Seeds are below it."""
_ANCHOR, _ATTENTION = "anchor.", "attention"
_LARGEST = 2**24
"""Bytes of `job.json` that are read at the most."""


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class StoredOwner(_Stored):
    """The process that works in a store."""

    pid: int
    start: int
    host: str

    @classmethod
    def this(cls) -> StoredOwner:
        return cls(**vars(Owner.this()))

    @property
    def alive(self) -> bool:
        """As `media.names.Owner`."""
        return Owner(self.pid, self.start, self.host).alive


class Redraw(_Stored):
    """A segment that is made with noise of its own. `blended`: it fades back into the frames it replaces, so that the segments
    after it stay; None until that is decided."""

    seed: int = Field(ge=0, lt=SEEDS)
    blended: bool | None = None


class StoredGuides(_Stored):
    """`key`: what decides them. `files`: SHA-256 of the folder's files by name."""

    folder: str
    key: dict[str, Any]
    files: dict[str, str]


class StoredJob(_Stored):
    """`key`: what decides the frames. `circumstances`: what changes them by rounding only. `redraws`: by number of the segment,
    from 0, as text. `finished`: its result was written."""

    key: dict[str, Any]
    circumstances: dict[str, Any]
    seed: int = Field(ge=0, lt=SEEDS)
    segments: int = Field(ge=1)
    redraws: dict[Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,8})$")], Redraw] = {}
    finished: bool = False


class StoreFile(_Stored):
    """`job.json`. `keep`: it stays when the job is finished. `result_id`: of a result that is marked (`provenance.about`)."""

    format: Literal["wanimate-work"] = "wanimate-work"
    version: Literal[1] = 1
    out: str
    owner: StoredOwner
    begun: str
    keep: bool = False
    guides: StoredGuides | None = None
    job: StoredJob | None = None
    result_id: str | None = Field(default=None, pattern=r"^[0-9a-f]{32}$")


@dataclass(frozen=True)
class StoredSegment:
    """A finished segment: latents [16, T, h, w] without the reference frame, the frames the next one goes on from [3, r, H, W],
    the state of the noise generator after it, the steps that a cache has answered, what holds the colours of the next one
    (`finish.anchor`; empty: nothing does), and what attention has left out in each step (empty: nothing)."""

    latents: Tensor
    tail: Tensor
    generator: Tensor
    skipped: int
    anchor: AnchorState = field(default_factory=dict)
    attention: tuple[AttentionStep, ...] = ()


class Store:
    """The folder `.NAME.work` of one result. The caller holds the output lock; nothing is written before there is work to keep.

    Args:
        fresh: what an earlier run has left is not looked at, and removed as soon as there is new work.
        keep: the segments stay when the job is finished.

    Raises:
        OutputError: something that is no store has its name.
    """

    def __init__(self, out: Path, fresh: bool = False, keep: bool = False) -> None:
        self.out, self.folder = out, work_path(out)
        found = read_store(self.folder)
        if found is None and os.path.lexists(self.folder) and not holds_nothing_finished(self.folder):
            rule = f"{self.folder.name} beside it holds no work of this program that can be read"
            raise OutputError("out", out, rule, "Remove that folder, or choose another name.")
        self._stale = found is None or fresh
        if found is None or fresh:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            found = StoreFile(out=out.name, owner=StoredOwner.this(), begun=now)
        self._file = found.model_copy(update={"owner": StoredOwner.this(), "keep": keep or found.keep})

    @property
    def job(self) -> StoredJob | None:
        return self._file.job

    @property
    def has_segments(self) -> bool:
        return not self._stale and any(self.folder.glob(SEGMENTS))

    @property
    def guides_folder(self) -> Path:
        return self.folder / GUIDES

    def begin(self) -> None:
        """Make the folder, so that guides can be put into it; older ones in it are removed. Raises OutputError where it cannot
        be made."""
        self._write(self._file.model_copy(update={"guides": None}))
        remove(self.guides_folder)

    def has_guides(self, folder: Path) -> bool:
        """Whether an earlier run has put guides into `folder`, of whatever settings."""
        return self._file.guides is not None and self._file.guides.folder == _absolute(folder)

    def guides(self, folder: Path, key: Mapping[str, Any]) -> Guides | None:
        """The guides that an earlier run has put into `folder`, if they were made with `key` and are whole."""
        found = self._file.guides
        if found is None or not self.has_guides(folder) or difference(found.key, key):
            return None
        with suppress(OSError, ValueError, InputError):
            if found.files == _hashes(folder):
                return load_guides(folder)
        return None

    def add_guides(self, guides: Guides, key: Mapping[str, Any]) -> None:
        """Remember where the job's guides lie; their manifest has the hashes. Raises OutputError where that cannot be
        written."""
        assert guides.folder is not None
        files = guides.manifest["sha256"] | {MANIFEST: hash_without_record(guides.folder / MANIFEST)}
        found = StoredGuides(folder=_absolute(guides.folder), key=plain(key), files=files)
        self._write(self._file.model_copy(update={"guides": found}))

    def set_job(self, job: StoredJob) -> None:
        """Keep segments for this job, and remove those of another. Raises OutputError where that cannot be written."""
        before = self._file.job
        if before is not None and difference(before.key, job.key):
            for file in self.folder.glob(SEGMENTS):
                file.unlink(missing_ok=True)
        self._write(self._file.model_copy(update={"job": job}))

    def result_id(self, given: str | None = None) -> str:
        """The id of the result that is made: the given one, that of an earlier run that was not finished, or a new one."""
        job, found = self.job, self._file.result_id
        if found is None or (job is not None and job.finished) or given not in (None, found):
            found = given or new_id()
            self._file = self._file.model_copy(update={"result_id": found})
            if not self._stale:
                with suppress(OutputError):  # a full disk ends the job elsewhere, or not at all
                    self._write(self._file)
        return found

    def segment(self, index: int, key: str) -> StoredSegment | None:
        """A finished segment; None where there is none, or a damaged one."""
        try:
            tensors = unpacked(self._segment(index, key).read_bytes())
            skipped = int(tensors["skipped"].item())
            anchor = {name[len(_ANCHOR) :]: tensor for name, tensor in tensors.items() if name.startswith(_ANCHOR)}
            steps = tensors[_ATTENTION].tolist() if _ATTENTION in tensors else []
            attention = tuple(AttentionStep(*step) for step in steps)
            found = StoredSegment(tensors["latents"], tensors["tail"], tensors["generator"], skipped, anchor, attention)
            torch.Generator("cpu").set_state(found.generator)
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError, TypeError):
            return None
        return found

    def add_segment(self, index: int, key: str, segment: StoredSegment) -> None:
        """Bring a finished segment to the disk. Raises OutputError where it does not get there."""
        tensors = {"latents": segment.latents, "tail": segment.tail, "generator": segment.generator}
        tensors["skipped"] = torch.tensor(segment.skipped)
        tensors |= {_ANCHOR + name: sums for name, sums in segment.anchor.items()}
        if segment.attention:
            steps = [[step.density, step.error] for step in segment.attention]
            tensors[_ATTENTION] = torch.tensor(steps, dtype=torch.float64)
        with AtomicFile(self._segment(index, key)) as file:
            for part in packed({name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}):
                file.write(part)
        _sync(self.folder)

    def done(self) -> None:
        """The result has its name: remove the store, unless its segments are to be kept."""
        if not self._file.keep or self._file.job is None:
            remove_folder(self.folder, self.out)
            return
        job = self._file.job.model_copy(update={"finished": True})
        self._write(self._file.model_copy(update={"job": job}))

    def tidy(self) -> None:
        """The job has ended: remove a store that holds no finished work."""
        if not self._stale and self._file.guides is None and not self.has_segments:
            remove_folder(self.folder, self.out)

    def _segment(self, index: int, key: str) -> Path:
        return self.folder / f"segment-{index:04d}-{key}.safetensors"

    def _write(self, file: StoreFile) -> None:
        if self._stale:
            remove_folder(self.folder, self.out)
            self._stale = False
        make_private(self.folder)
        with AtomicFile(self.folder / STORE_MARK) as written:
            written.write(json.dumps(file.model_dump(), indent=1).encode())
        self._file = file


class Archive:
    """The finished segments of one job. A segment is found by its path: the noise of every segment up to it, where "" is the
    job's own and a number is the seed of a redrawn one.

    Args:
        job: gives the job; asked once, when it is needed first, since its key waits for hashes of files.
        redraws: as `StoredJob.redraws`, by number.
    """

    def __init__(self, store: Store, job: Callable[[], StoredJob], redraws: Mapping[int, Redraw]) -> None:
        self._store, self._ask = store, job
        self.redraws = dict(redraws)
        self._kept = store.has_segments

    @cached_property
    def job(self) -> StoredJob:
        return self._ask()

    def get(self, segment: Segment, path: tuple[str, ...]) -> StoredSegment | None:
        """A segment that is finished already."""
        if not self._kept:
            return None
        found = self._store.segment(segment.index, self._key(path))
        return found if found is not None and found.latents.shape[1] == segment.latent_frames else None

    def count(self, segments: Sequence[Segment]) -> int:
        """How many of the job's segments need not be made, as far as is known before it begins."""
        path: tuple[str, ...] = ()
        found = 0
        for segment in segments:
            redraw = self.redraws.get(segment.index)
            own = "" if redraw is None else str(redraw.seed)
            found += self.get(segment, (*path, own)) is not None
            path = (*path, "" if redraw is None or redraw.blended else own)
        return found

    def add(self, segment: Segment, path: tuple[str, ...], finished: StoredSegment) -> str | None:
        """Bring a finished segment to the disk; why that is impossible, if it is. The job goes on then."""
        try:
            if self._store.job != self._current:
                self._store.set_job(self._current)
            self._store.add_segment(segment.index, self._key(path), finished)
        except OutputError as error:
            return str(error)
        self._kept = True
        return None

    def decide(self, index: int, blended: bool) -> None:
        """How a redrawn segment ends, from now on."""
        self.redraws[index] = self.redraws[index].model_copy(update={"blended": blended})
        if self._store.has_segments:
            self._store.set_job(self._current)

    @property
    def _current(self) -> StoredJob:
        return self.job.model_copy(update={"redraws": {str(index): one for index, one in self.redraws.items()}})

    def _key(self, path: tuple[str, ...]) -> str:
        return digest(self.job.key, path)


def read_store(folder: Path) -> StoreFile | None:
    """What a store says of itself; None where `folder` is none of ours, or damaged."""
    try:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return None
        return StoreFile.model_validate(read_own_json(folder / STORE_MARK, _LARGEST))
    except (OSError, ValueError):
        return None


def finished_segments(folder: Path) -> int:
    """How many of a job's segments a store holds, a redrawn one counted once."""
    return len({file.name.split("-")[1] for file in folder.glob(SEGMENTS)})


def kept_words(out: Path) -> str | None:
    """What is kept of a job that has ended early, for its user; None where that is nothing."""
    if not out.name:
        return None
    folder = work_path(out)
    found = read_store(folder)
    if found is None or (found.job is not None and found.job.finished):
        return None
    if found.owner.alive and found.owner.pid != os.getpid():
        return None  # another job is at it
    segments = finished_segments(folder)
    what = "the guides are" if not segments or found.job is None else f"{segments} of {found.job.segments} segments are"
    how = f"the same command goes on from there, without {setting('output.fresh')}"
    return f"{what} kept in {folder.name}: {how}. `wanimate jobs clean` removes them"


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What two keys say differently, in words: "steps 20, now 8; guides: pose.mkv is another"; empty where nothing does."""
    return "; ".join(_differences(plain(before), plain(now)))


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in {**before, **now}:
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            for one in _differences(old, new):
                yield f"{name}: {one}"
        elif old != new and _is_hash(old) and _is_hash(new):
            yield f"{name} is another"
        elif old != new:
            yield f"{name} {_short(old)}, now {_short(new)}"


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("sha256:", "sampled:"))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def digest(*values: Any) -> str:
    """16 hex digits that tell values apart which JSON can hold."""
    return hashlib.sha256(json.dumps(plain(values), sort_keys=True, allow_nan=False).encode()).hexdigest()[:16]


def plain(values: Any) -> Any:
    """As they are when they come back from JSON."""
    return json.loads(json.dumps(values, default=str))


def make_private(folder: Path) -> None:
    """Make a folder that only its user can look into; one that is there has to be a folder. Raises OutputError."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise NotADirectoryError(20, "not a folder")
    except OSError as error:
        raise output_error(folder, error) from error


def _absolute(folder: Path) -> str:
    return str(folder.absolute())


def _hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of a folder's files; that of a manifest is the one without the shot record. Raises OSError, ValueError."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    return {file.name: (hash_without_record if file.name == MANIFEST else sha256)(file) for file in files}


def _sync(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
