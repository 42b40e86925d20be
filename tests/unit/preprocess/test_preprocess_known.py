"""A performer who was found once is not looked for again, whatever the character; anything that decides where they are does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_preprocess_drive import AREA, IMAGE, FakePeople
from test_preprocess_drive import clip as clip

from wanimate.config import PreprocessSettings
from wanimate.events import Event, Notice
from wanimate.preprocess.drive import preprocess
from wanimate.types import Clip, Guides


class Counting(FakePeople):
    """Remembers how many frames it was asked to track."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.tracked = 0

    def track(self, frames: Any, tracker: Any = None) -> Any:
        def counted() -> Any:
            for frame in frames:
                self.tracked += 1
                yield frame

        return super().track(counted(), tracker)


def made(clip: Clip, folder: Path, image: Any = IMAGE, **given: Any) -> tuple[Guides, int, list[Event]]:
    """The guides, the number of frames that were looked at, and what was told."""
    people, events = Counting(gone=(3,)), []
    settings = PreprocessSettings(performers=folder.parent / "kept", **given)
    making = preprocess("animation", clip, image, settings, folder, AREA, people)  # type: ignore[arg-type]
    while True:
        try:
            events.append(next(making))
        except StopIteration as end:
            return end.value, people.tracked, events


def pictures(guides: Guides) -> Any:
    return np.concatenate([source.take(range(guides.count)).ravel() for source in (guides.pose, guides.face)])


def test_the_same_guides_come_of_a_known_performer(clip: Clip, tmp_path: Path) -> None:
    first, looked, _ = made(clip, tmp_path / "a")
    again, looked_again, events = made(clip, tmp_path / "b")
    assert looked >= clip.count
    assert looked_again == 0
    assert any(isinstance(event, Notice) and "earlier job" in event.message for event in events)
    assert np.array_equal(pictures(first), pictures(again))
    assert first.valid == again.valid
    for name in ("no_person", "cuts", "others", "warnings"):
        assert first.manifest[name] == again.manifest[name]


def test_another_character_uses_them_too(clip: Clip, tmp_path: Path) -> None:
    made(clip, tmp_path / "a")
    _, looked, _ = made(clip, tmp_path / "b", np.ascontiguousarray(IMAGE[:, ::-1]))
    assert looked == 0


@pytest.mark.parametrize("given", [{"fps": 5}, {"person": "left"}, {"smooth": False}], ids=str)
def test_what_decides_where_they_are_makes_them_anew(clip: Clip, tmp_path: Path, given: dict[str, Any]) -> None:
    made(clip, tmp_path / "a")
    assert made(clip, tmp_path / "b", **given)[1] > 0


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"\x93NUMPY"])
def test_what_cannot_be_read_is_found_anew(clip: Clip, tmp_path: Path, content: bytes) -> None:
    made(clip, tmp_path / "a")
    (kept,) = (tmp_path / "kept").glob("*.npz")
    kept.write_bytes(content)
    assert made(clip, tmp_path / "b")[1] > 0
    assert made(clip, tmp_path / "c")[1] == 0


def test_a_folder_that_cannot_be_written_is_a_warning(clip: Clip, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file")
    _, _, events = made(clip, tmp_path / "a")
    assert any(isinstance(event, Notice) and "could not be kept" in event.message for event in events)
