"""What a job would be told of its inputs, without drawing anything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from test_preprocess_drive import COUNT, IMAGE, FakePeople, _figure
from test_preprocess_drive import clip as clip

from wanimate.config import PreprocessSettings
from wanimate.errors import InputError
from wanimate.preprocess import inspection
from wanimate.preprocess.inspection import Inspection, Span, inspect
from wanimate.preprocess.pose.person import PersonPose
from wanimate.types import Clip

AREA = 320 * 240


def looked(
    clip: Clip, people: Any, mode: Any = "animation", notices: tuple[str, ...] = (), **settings: Any
) -> Inspection:
    steps = inspect(mode, clip, IMAGE, PreprocessSettings(**settings), AREA, notices, people)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]


def test_nothing_is_said_of_a_clip_in_order(clip: Clip) -> None:
    found = looked(clip, FakePeople())
    assert (found.count, found.fps, found.findings) == (COUNT, 25, ())


def test_frames_without_a_person_are_told_as_frames_of_the_clip(clip: Clip) -> None:
    found = looked(clip, FakePeople(gone=(0, 1, 5, 8)), start=clip.times[3])
    (nobody,) = found.findings
    assert nobody.kind == "nobody"
    assert [(span.first, span.stop) for span in nobody.spans] == [(3, 5), (8, 9), (11, 12)]
    assert nobody.spans[-1].end == pytest.approx(clip.duration)
    assert nobody.spans[0] == Span(3, 5, clip.times[3], clip.times[5])


def test_the_picture_and_the_clip_are_told_of(clip: Clip) -> None:
    hdr = replace(clip, notices=("it is HLG", "it is odd"), hdr="it is HLG")
    found = looked(hdr, FakePeople(character=False), "replacement", ("the picture is grey",))
    assert [(one.kind, one.text) for one in found.findings[:3]] == [
        ("hdr", "it is HLG"), ("other", "it is odd"), ("other", "the picture is grey"),
    ]  # fmt: skip
    assert found.findings[3].kind == "character"
    assert looked(clip, FakePeople(character=False), retarget="off").findings == (), (
        "nobody looks for the character then"
    )


class Crowded(FakePeople):
    """Two more people in the later half, and a character with short arms."""

    def track(self, frames: Any, tracker: Any = None) -> Any:
        for i, pose in enumerate(super().track(frames, tracker)):
            yield replace(pose, others=2 if i > 5 else 0) if pose.valid else pose

    def detect(self, image: Any) -> PersonPose:
        points = _figure(150, 120, 280)
        points[[7, 8, 9, 10], :2] = points[[5, 6, 5, 6], :2] + np.array([[2, 20], [-2, 20], [3, 40], [-3, 40]])
        return PersonPose(points, True)


def test_others_and_proportions(clip: Clip) -> None:
    found = {one.kind: one for one in looked(clip, Crowded(), "replacement").findings}
    assert (found["others"].count, found["others"].spans[0].first) == (2, 6)
    assert found["proportions"].factor is not None
    assert found["proportions"].factor > 1.4
    chosen = looked(clip, Crowded(), "replacement", person="left")
    assert "others" not in {one.kind for one in chosen.findings}
    assert "proportions" not in {one.kind for one in looked(clip, Crowded()).findings}


def test_a_long_stretch_is_looked_at_with_fewer_frames(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "_MOST", 4)
    found = looked(clip, FakePeople(gone=(1,)))
    assert 3 <= found.count <= 5
    (nobody,) = found.findings
    assert 2 <= nobody.spans[0].first <= 4


def test_a_clip_without_anybody_is_an_error(clip: Clip) -> None:
    with pytest.raises(InputError, match="nobody was found"):
        looked(clip, FakePeople(gone=range(COUNT)))
