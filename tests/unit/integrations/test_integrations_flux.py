"""The edited picture gives the lengths of limbs, and nothing else."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wanimate.errors import InputError
from wanimate.integrations.flux import FOLDER, WithEditedProportions, instruction, kontext, with_lengths
from wanimate.preprocess.pose import PersonPose
from wanimate.types import Frame, Keypoints

SHOULDERS, ELBOW, WRIST, HIP, KNEE, ANKLE = ([5, 6], 7, 9, 11, 13, 15)


def person(arm: float, leg: float, scale: float = 1.0, angle: float = 0.0) -> Keypoints:
    """A standing figure: shoulders 40 wide, left arm and leg of two equal limbs, at an angle from straight down."""
    points = np.zeros((133, 3))
    points[:, 2] = 0.9
    for side in (0, 1):
        points[5 + side, :2] = 100 + 40 * side, 100
        points[11 + side, :2] = 105 + 30 * side, 180
        for root, length in ((5, arm), (11, leg)):
            for step in (1, 2):
                drop = np.array([np.sin(angle), np.cos(angle)]) * length * step
                points[root + side + 2 * step, :2] = points[root + side, :2] + drop
    points[91:112, :2] = points[9, :2] + 3
    points[:, :2] *= scale
    return points


def length(points: Keypoints, a: int, b: int) -> float:
    return float(np.hypot(*(points[a, :2] - points[b, :2])))


def test_lengths_come_from_the_edit_and_place_and_pose_stay() -> None:
    own, edited = person(20, 30, angle=0.5), person(35, 50, scale=0.5)
    out = with_lengths(own, edited)
    assert length(out, 5, 7) == pytest.approx(35)
    assert length(out, 13, 15) == pytest.approx(50)
    np.testing.assert_array_equal(out[[5, 6, 11, 12]], own[[5, 6, 11, 12]])
    direction = (out[7] - out[5])[:2] / length(out, 5, 7)
    np.testing.assert_allclose(direction, [np.sin(0.5), np.cos(0.5)])
    np.testing.assert_allclose(out[91, :2] - out[9, :2], own[91, :2] - own[9, :2])


def test_hidden_legs_appear() -> None:
    own, edited = person(20, 30), person(20, 50, angle=0.3)
    own[[13, 14, 15, 16], 2] = 0.1
    out = with_lengths(own, edited)
    assert (out[[13, 15], 2] == 0.9).all()
    np.testing.assert_allclose(out[13, :2] - out[11, :2], 50 * np.array([np.sin(0.3), np.cos(0.3)]))


def test_limbs_that_the_edit_does_not_show_stay() -> None:
    own, edited = person(20, 30), person(50, 50)
    edited[[7, 13], 2] = 0.2
    out = with_lengths(own, edited)
    assert length(out, 5, 7) == pytest.approx(20)
    assert length(out, 11, 13) == pytest.approx(30)


class Detector:
    """Answers each call with the next of `people`."""

    name = "stub"

    def __init__(self, *people: PersonPose | None) -> None:
        self.people, self.seen = iter(people), []  # type: ignore[var-annotated]

    def detect(self, image: Frame) -> PersonPose | None:
        self.seen.append(image)
        return next(self.people)

    def track(self, frames: Iterable[Frame]) -> Iterator[PersonPose]:
        for _ in frames:
            yield PersonPose(person(1, 1), True)


def test_the_detector_sees_both_pictures_at_one_size() -> None:
    own, edited = PersonPose(person(20, 30), True), PersonPose(person(35, 50), True)
    inner, told = Detector(own, edited), []

    def edit(image: Frame, text: str) -> Frame:
        told.append(text)
        return np.full((30, 90, 3), 9, np.uint8)

    found = WithEditedProportions(inner, edit).detect(np.zeros((60, 40, 3), np.uint8))
    assert found is not None
    assert length(found.keypoints, 5, 7) == pytest.approx(35)
    assert [image.shape for image in inner.seen] == [(60, 40, 3)] * 2
    assert told == [instruction(40, 60)]
    assert "hanging down" in told[0]
    assert "T-pose" in instruction(60, 40)


def test_nobody_in_the_edit_keeps_the_person() -> None:
    own = PersonPose(person(20, 30), True)
    found = WithEditedProportions(Detector(own, None), lambda image, text: image).detect(np.zeros((9, 9, 3), np.uint8))
    assert found is own
    assert WithEditedProportions(Detector(None), lambda i, t: i).detect(np.zeros((9, 9, 3), np.uint8)) is None


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=FOLDER):
        kontext(tmp_path)
    (tmp_path / FOLDER).mkdir()
    with pytest.raises(InputError, match="cannot open it"):
        kontext(tmp_path)
    real = builtins.__import__

    def without_diffusers(name: str, *more: Any, **most: Any) -> Any:
        if name == "diffusers":
            raise ImportError(name)
        return real(name, *more, **most)

    monkeypatch.setattr(builtins, "__import__", without_diffusers)
    with pytest.raises(InputError, match=r"wanimate\[diffusers\]"):
        kontext(tmp_path)
