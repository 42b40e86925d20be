"""The guides' manifest says everything that a record of a later job needs: warnings, settings, hashes."""

from __future__ import annotations

import gc
import hashlib
import json
import weakref
from collections.abc import Generator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_preprocess_drive import COUNT, IMAGE, FakePeople
from test_preprocess_drive import clip as clip
from test_preprocess_replacement import FakeMasks, Stretched

from wanimate.config import PreprocessSettings
from wanimate.errors import InputError
from wanimate.events import Event, Notice
from wanimate.integrations.published import write_published_guides
from wanimate.preprocess.drive import preprocess
from wanimate.preprocess.guides import load_guides
from wanimate.preprocess.pose.person import PersonPose
from wanimate.types import Clip, Guides, Mode

MODES: tuple[Mode, ...] = ("animation", "replacement")


class Doubtful(FakePeople):
    """Gone in some frames, taken for somebody else in another, and never in the character's picture."""

    def __init__(self) -> None:
        super().__init__(gone=(2, 3), character=False)

    def track(self, frames: Any, tracker: Any = None) -> Any:
        for i, person in enumerate(super().track(frames, tracker)):
            keypoints = person.keypoints.copy()
            keypoints[:, 2] *= 0.4 if i == 7 else 1
            yield PersonPose(keypoints, person.valid, "other" if i == 5 else "track")


def ended(steps: Generator[Event, None, Guides]) -> tuple[Guides, list[Event]]:
    events: list[Event] = []
    while True:
        try:
            events.append(next(steps))
        except StopIteration as stop:
            return stop.value, events


def warned(events: Sequence[Event]) -> list[str]:
    return [e.message for e in events if isinstance(e, Notice) and e.level == "warning"]


@pytest.mark.parametrize(
    ("mode", "people", "count"), [("animation", Doubtful(), 5), ("replacement", Doubtful(), 6),
                                  ("replacement", Stretched(), 2), ("animation", FakePeople(), 0)]
)  # fmt: skip
def test_every_warning_is_in_the_manifest(clip: Clip, tmp_path: Path, mode: Mode, people: Any, count: int) -> None:
    settings = PreprocessSettings(face_size=64)
    steps = preprocess(mode, clip, IMAGE, settings, tmp_path / "g", 128 * 128, people, FakeMasks(blind=(4,)))
    guides, events = ended(steps)
    assert guides.manifest["warnings"] == warned(events)
    assert len(warned(events)) == count
    assert all(text.isprintable() for text in guides.manifest["warnings"])


@pytest.mark.parametrize("mode", MODES)
def test_settings_and_hashes(clip: Clip, tmp_path: Path, mode: Mode) -> None:
    settings = PreprocessSettings(face_size=64, fps=Fraction(25, 2), models=tmp_path, iterations=2)
    steps = preprocess(mode, clip, IMAGE, settings, tmp_path / "g", 128 * 128, FakePeople(), FakeMasks())
    manifest = ended(steps)[0].manifest
    assert PreprocessSettings(**manifest["settings"]) == settings
    assert (manifest["mode"], manifest["area"]) == (mode, 128 * 128)
    assert_hashed(tmp_path / "g")


@pytest.mark.parametrize("mode", MODES)
def test_the_same_job_gives_the_same_hashes(clip: Clip, tmp_path: Path, mode: Mode) -> None:
    settings, hashes = PreprocessSettings(face_size=64), []
    for name in ("a", "b"):
        steps = preprocess(mode, clip, IMAGE, settings, tmp_path / name, 128 * 128, FakePeople(), FakeMasks())
        hashes.append(ended(steps)[0].manifest["sha256"])
    assert hashes[0] == hashes[1]


def assert_hashed(folder: Path) -> None:
    """Every file but the manifest is hashed."""
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {p.name: p for p in folder.iterdir() if p.name != "manifest.json"}
    assert manifest["sha256"] == {name: hashlib.sha256(p.read_bytes()).hexdigest() for name, p in files.items()}


def test_the_published_names_are_hashed(clip: Clip, tmp_path: Path) -> None:
    settings = PreprocessSettings(face_size=64, area=128 * 128)
    ended(write_published_guides("animation", clip, IMAGE, settings, tmp_path / "set", FakePeople(), (), {}))
    assert_hashed(tmp_path / "set")


def test_older_guides_can_be_read(clip: Clip, tmp_path: Path) -> None:
    settings = PreprocessSettings(face_size=64)
    ended(preprocess("animation", clip, IMAGE, settings, tmp_path / "g", 128 * 128, FakePeople()))
    path = tmp_path / "g" / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in ("settings", "area", "sha256"):
        del manifest[name]
    path.write_text(json.dumps(manifest))
    assert load_guides(tmp_path / "g").count == COUNT


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("end", ["finished", "closed", "refused"])
def test_no_model_is_referenced_afterwards(
    clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Mode, end: str
) -> None:
    alive: list[weakref.ref[Any]] = []

    def opened(made: Any) -> Any:
        alive.append(weakref.ref(made))
        return made

    gone = range(COUNT) if end == "refused" else ()
    monkeypatch.setattr("wanimate.preprocess.drive.open_detector", lambda settings: opened(FakePeople(gone)))
    monkeypatch.setattr("wanimate.preprocess.drive.open_masks", lambda *_: (opened(FakeMasks()), "as asked"))
    image = np.full((400, 300, 3), 90, np.uint8)
    steps = preprocess(mode, clip, image, PreprocessSettings(face_size=64), tmp_path / "g", 128 * 128)
    if end == "finished":
        ended(steps)
    elif end == "closed":
        for _ in range(COUNT + 6):
            next(steps)
        assert all(ref() is not None for ref in alive)
        steps.close()
    else:
        with pytest.raises(InputError):
            ended(steps)
    gc.collect()
    assert len(alive) == (2 if mode == "replacement" else 1)
    assert [ref() for ref in alive] == [None] * len(alive)
