"""What a job takes over from an earlier run of its name: its guides, its seed, its finished segments."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from wanimate.config import PreprocessSettings
from wanimate.engines.base import Engine
from wanimate.engines.resolved import ResolvedJob
from wanimate.errors import InputError, setting
from wanimate.events import Event, Notice
from wanimate.finish.lock import record_path
from wanimate.finish.record import Hashes
from wanimate.jobs.store import Archive, Redraw, Store, StoredJob, difference, plain
from wanimate.media.files import read_own_json
from wanimate.preprocess.guides import PUBLISHED_REFERENCE
from wanimate.types import Frame, Guides, Mode, Segment
from wanimate.versions import version_of

_SEEDS = 2**32
_PICTURES = (".mkv", ".mp4", ".png")


def guides_key(
    mode: Mode, settings: PreprocessSettings, area: int, inputs: Mapping[str, Path], hashes: Hashes
) -> dict[str, Any]:
    """What decides the guides. Waits for the hashes of the inputs."""
    files = {name: hashes.of(path).get("sha256") for name, path in inputs.items()}
    chosen = settings.model_dump(mode="json", exclude={"performers"}) | {"area": area, "mask": files.get("mask")}
    return {"wanimate": version_of("wanimate"), "mode": mode, **files, **chosen}


def frames_key(engine: Engine, job: ResolvedJob, guides: Guides, hashes: Hashes) -> dict[str, Any]:
    """What decides the frames, with the seed as it was asked for.

    Waits for the hashes of guides, checkpoint and LoRAs, which have been added.
    """
    assert guides.folder is not None
    facts = engine.facts()
    settings = job.generate.model_dump(mode="json", exclude={"lora", "redraw"})
    settings |= job.settings.model_dump(mode="json", exclude={"area"})
    files = hashes.of(guides.folder)["files"]
    videos = {*guides.manifest.get("files", {}).values()}
    pictures = {name: found for name, found in files.items() if name in videos or Path(name).suffix in _PICTURES}
    pictures[guides.manifest.get("reference", PUBLISHED_REFERENCE)] = _pixels(guides.reference)
    return plain(
        {
            "wanimate": version_of("wanimate"), "torch": torch.__version__, "mode": guides.mode, "frames": guides.count,
            "size": guides.size, **settings,
            "lora": [
                [hashes.of(use.path)["sha256"], *use.model_dump(exclude={"path"}).values()] for use in job.generate.lora
            ],
            "checkpoint": hashes.by_name(engine.files, facts["checkpoint"]["path"]), "patches": facts["patches"],
            "guides": pictures,
            "without the person": [i for i, valid in enumerate(guides.valid or ()) if not valid],
            "device": facts["device"].partition(":")[0], "attention": facts["attention_asked"],
            "speed": facts["runtime"]["speed"], "weights_dtype": facts["runtime"]["weights_dtype"],
        }
    )  # fmt: skip


def _pixels(picture: Frame) -> str:
    return f"sha256:{hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).hexdigest()}"


def circumstances(engine: Engine) -> dict[str, Any]:
    """What changes frames by rounding only."""
    facts = engine.facts()
    names = ("gpus", "placement", "attention")  # of attention, `auto` may choose another backend each time
    return {name: facts[name] for name in names} | {"threads": torch.get_num_threads()}


class Resumption:
    """What one job takes over. `seed`: of the job's noise. `archive`: its finished segments; None where the guides lie in no
    folder, so that nothing can tell them from others."""

    def __init__(
        self, store: Store, engine: Engine, job: ResolvedJob, guides: Guides, segments: tuple[Segment, ...], hashes: Hashes
    ) -> None:  # fmt: skip
        self._store, self._engine, self._job, self._guides = store, engine, job, guides
        self._on_disk = lie_in_their_folder(guides)
        self._segments, self._hashes = segments, hashes
        self.seed = 0
        self.archive: Archive | None = None

    def prepare(self) -> Iterator[Event]:
        """Find seed and segments, and tell what comes of an earlier run.

        Raises:
            InputError: a segment is to be redrawn of a result that was made with other settings.
        """
        if self._job.generate.redraw is not None:
            yield from self._redraw(self._job.generate.redraw - 1)
            return
        asked, before = self._job.generate.seed, self._store.job
        unfinished = before is not None and not before.finished
        if self._on_disk:
            self.archive = Archive(self._store, self._stored, {})
        if asked is not None:
            self.seed = asked
        elif before is not None and unfinished:
            self.seed = before.seed
        other = "" if before is None or not self._on_disk else difference(before.key, self._key())
        if other and unfinished:
            yield Notice(_of_another_job(other))
        if asked is None and (other or not unfinished):
            self.seed = secrets.randbelow(_SEEDS)
            yield Notice(f"seed {self.seed} was drawn; pass it to get the same frames again")
        elif before is not None and not other and self._on_disk:
            yield from self._told(before)

    @cached_property
    def finished(self) -> int:
        """Segments that need not be made, as it is before the first one."""
        if self.archive is None or self._store.job is None:
            return 0
        return self.archive.count(self._segments)

    @property
    def redraws(self) -> dict[str, Any]:
        """For the record."""
        if self.archive is None:
            return {}
        return {str(index + 1): one.model_dump() for index, one in sorted(self.archive.redraws.items())}

    @property
    def key(self) -> dict[str, Any]:
        """For the record; empty where no folder holds the guides."""
        return {} if self.archive is None else self.archive.job.key

    def _redraw(self, index: int) -> Iterator[Event]:
        """The result's own record tells what it is; the store can be of a job that was broken off since."""
        record, begun = recorded(self._store.out), self._store.job
        base = record or begun
        assert base is not None, "as `check_redraw` has found"
        number, asked = index + 1, self._job.generate.seed
        self.seed = base.seed
        if other := difference(base.key, self._key()):
            remedy = f"Give the same settings, or make the result anew without {setting('generate.redraw')}."
            raise InputError("generate.redraw", number, f"the result was made otherwise ({other})", remedy)
        ours = begun is not None and not difference(begun.key, base.key)
        earlier = {int(i): one for i, one in base.redraws.items()}
        if asked is None and begun is not None and ours and not begun.finished:
            drawn = begun.redraws.get(str(index))
            asked = None if drawn is None or (record is not None and drawn == earlier.get(index)) else drawn.seed
        if asked is None:
            asked = secrets.randbelow(_SEEDS)
            yield Notice(f"seed {asked} was drawn for segment {number}; pass it to get the same frames again")
        same = earlier.get(index)
        redraws = {i: one for i, one in earlier.items() if i < index}
        redraws |= {i: Redraw(seed=one.seed) for i, one in earlier.items() if i > index}
        redraws[index] = same if same is not None and same.seed == asked else Redraw(seed=asked)
        self.archive = Archive(self._store, self._stored, redraws)
        if begun is not None and ours:
            yield from self._told(begun)
            return
        if begun is not None and not begun.finished:
            yield Notice(_of_another_job(difference(begun.key, base.key)))
        yield Notice("the finished segments were not kept: those that are needed are made again, with the same frames")

    def _told(self, before: StoredJob) -> Iterator[Event]:
        if finished := self.finished:
            yield Notice(f"{finished} of {len(self._segments)} segments are there from an earlier run")
            if other := difference(before.circumstances, circumstances(self._engine)):
                yield Notice(f"the machine is another than theirs ({other}): frames can differ by rounding")

    def _key(self) -> dict[str, Any]:
        return self._decided | {"seed": self.seed}

    @cached_property
    def _decided(self) -> dict[str, Any]:
        """The key, with the seed as it was asked for."""
        return frames_key(self._engine, self._job, self._guides, self._hashes)

    def _stored(self) -> StoredJob:
        return StoredJob(
            key=self._key(),
            circumstances=plain(circumstances(self._engine)),
            seed=self.seed,
            segments=len(self._segments),
        )


def check_redraw(job: ResolvedJob, count: int, store: Store, guides: Guides | None = None) -> None:
    """Refuse a redraw that cannot be, before anything is loaded. `count`: frames of the job; `guides`: where they are there
    already.

    Raises:
        InputError: there is no such segment, no result that it is of, or nothing that tells whether the guides are the same.
    """
    number, segments = job.generate.redraw, len(job.segments(count))
    if number is None:
        return
    if guides is not None and not lie_in_their_folder(guides):
        rule = "its guides are in memory, so that nothing tells whether they are the same"
        raise InputError("generate.redraw", number, rule, "Give a folder of guides.")
    if number > segments:
        raise InputError("generate.redraw", number, f"the job has {segments} segments", f"Give 1 to {segments}.")
    if store.job is None and recorded(store.out) is None:
        rule = f"there is no {store.out.name} with its record of which a segment could be redrawn"
        raise InputError("generate.redraw", number, rule, f"Make it first, without {setting('generate.redraw')}.")


def lie_in_their_folder(guides: Guides) -> bool:
    """Whether the videos are those of `guides.folder`, so that the folder's files tell what they are."""
    videos = (guides.pose, guides.face, guides.background, guides.mask)
    places = {getattr(video, "path", Path()).parent for video in videos if video is not None}
    return guides.folder is not None and places == {guides.folder}


def _of_another_job(how: str) -> str:
    return f"the finished segments of an earlier run are of another job ({how}); they are removed"


def recorded(out: Path) -> StoredJob | None:
    """The job that the record beside `out` tells of; None where there is no such record."""
    with suppress(ValueError, KeyError, TypeError):
        record = read_own_json(record_path(out))
        if record["out"] == out.name and out.exists():
            redraws = {str(int(number) - 1): Redraw(**one) for number, one in record["redraws"].items()}
            return StoredJob(
                key=record["fingerprint"], circumstances={}, seed=record["seed"], segments=len(record["segments"]),
                redraws=redraws, finished=True,
            )  # fmt: skip
    return None
