"""Performers that were found before: `preprocess.performers` names a folder that keeps where they are in each clip.

A file's name is a hash of all that decides where somebody is found: the clip's content, the frames, detector and settings,
and the program's version. What a character looks like is not among them.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
import zipfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np

from wanimate.config import PreprocessSettings
from wanimate.errors import OutputError
from wanimate.events import Event, Notice, Stage, StageFinished, StageStarted
from wanimate.media.files import AtomicFile, sha256
from wanimate.preprocess.detect.base import PoseBackend
from wanimate.preprocess.layout import Layout
from wanimate.preprocess.performer import Performer, find_performer
from wanimate.versions import version_of

_ARRAYS = {"keypoints": (133, 3), "steady": (133, 3), "valid": (), "found": (), "squares": (3,), "others": ()}
"""Fields of `Performer` that have a row for each frame, and the shape of a row."""


def known_performer(
    people: PoseBackend, layout: Layout, settings: PreprocessSettings
) -> Generator[Event, None, Performer]:
    """The performer as an earlier job has kept them, else as `find_performer`, and kept for later ones.

    Nothing is kept of a clip with damaged frames: what is damaged has to be told each time.

    Raises:
        InputError: as `find_performer`.
    """
    if settings.performers is None:
        return (yield from find_performer(people, layout, settings))
    started = time.perf_counter()
    place = settings.performers / f"{_key(people.name, layout, settings)}.npz"
    kept = _read(place, layout.count)
    if kept is not None:
        yield StageStarted(Stage.DETECT, layout.count)
        yield Notice("where the performer is in this clip is known from an earlier job")
        yield StageFinished(Stage.DETECT, time.perf_counter() - started)
        return kept
    performer = yield from find_performer(people, layout, settings)
    if not layout.damage.frames:
        try:
            _write(place, performer)
        except (OSError, OutputError) as error:
            text = f"where the performer is could not be kept ({error}); the job goes on without"
            yield Notice(text, "warning")
    return performer


def _key(detector: str, layout: Layout, settings: PreprocessSettings) -> str:
    decides: dict[str, Any] = {
        "wanimate": version_of("wanimate"), "clip": sha256(layout.clip.path), "frames": layout.indices,
        "fps": str(layout.fps), "seen": layout.seen, "resized": layout.resized, "detector": detector,
        "person": settings.person, "smooth": settings.smooth, "compat": settings.compat,
    }  # fmt: skip
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _write(place: Path, performer: Performer) -> None:
    arrays = {name: np.asarray(getattr(performer, name)) for name in _ARRAYS}
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays, cuts=np.array(performer.cuts, np.int64))  # type: ignore[arg-type]
    with AtomicFile(place, "preprocess.performers") as file:
        file.write(packed.getbuffer())


def _read(place: Path, count: int) -> Performer | None:
    """None where nothing is kept, or nothing that can be used."""
    try:
        with np.load(place, allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in _ARRAYS}
            cuts = kept["cuts"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if any(arrays[name].shape != (count, *row) for name, row in _ARRAYS.items()):
        return None
    return Performer(
        arrays["keypoints"], arrays["steady"], arrays["valid"], tuple(arrays["found"].tolist()), arrays["squares"],
        tuple(arrays["others"].tolist()), tuple(cuts.tolist()),
    )  # fmt: skip
