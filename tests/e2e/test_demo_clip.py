"""The default detectors find the packaged people: a first run must not fail on what the package itself brings.

The models are those that `make models` fetches.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest

from wanimate.config import PreprocessSettings
from wanimate.media.image import load_image
from wanimate.media.probe import probe
from wanimate.media.video import iter_indices
from wanimate.preprocess.detect.base import PoseBackend
from wanimate.preprocess.detect.models import find
from wanimate.preprocess.detect.registry import open_detector
from wanimate.preprocess.pose.keypoints import FACE, LEFT_HAND, RIGHT_HAND
from wanimate.types import Keypoints

SHIPPED = Path(str(files("wanimate.weights") / "embedded" / "demo"))
WIDE = Path(__file__).parents[1] / "data" / "performer-wide.mp4"
"""Somebody seen from the hips up."""
NOSE, SHOULDERS, ELBOWS, WRISTS, HIPS = 0, [5, 6], [7, 8], [9, 10], [11, 12]


@pytest.fixture(scope="module")
def people() -> PoseBackend:
    cv2.setNumThreads(1)
    return open_detector(PreprocessSettings(models=find()))


def every_second(people: PoseBackend, path: Path) -> Keypoints:
    """Keypoints of every second frame of a clip, [27, 133, 3]."""
    clip = probe(path)
    return np.stack([p.keypoints for p in people.track(iter_indices(clip, range(0, clip.count, 2)))])


@pytest.fixture(scope="module")
def near(people: PoseBackend) -> Keypoints:
    return every_second(people, SHIPPED / "performer.mp4")


@pytest.fixture(scope="module")
def found(people: PoseBackend) -> Keypoints:
    return every_second(people, WIDE)


def facing(points: Keypoints) -> np.ndarray:
    """Whether people [..., 133, 3] hold their heads up and face the camera."""
    left, right = points[..., 5, :], points[..., 6, :]
    return (points[..., NOSE, 1] + 20 < points[..., SHOULDERS, 1].mean(-1)) & (left[..., 0] > right[..., 0] + 30)


def upright(points: Keypoints) -> np.ndarray:
    """Whether people [..., 133, 3] stand on their feet and face the camera."""
    neck, hips = points[..., SHOULDERS, 1].mean(-1), points[..., HIPS, 1].mean(-1)
    return facing(points) & (neck + 40 < hips)


def mouth_opening(points: Keypoints) -> np.ndarray:
    """Gap of the inner lips over the distance of the outer corners of the eyes, [n]."""
    lips = points[:, FACE.start + 66, 1] - points[:, FACE.start + 62, 1]
    return lips / np.abs(points[:, FACE.start + 36, 0] - points[:, FACE.start + 45, 0])


def test_the_performer_is_found_in_every_frame_and_faces_the_camera(near: Keypoints) -> None:
    assert len(near) == 27
    assert near[:, [NOSE, *SHOULDERS], 2].min() > 0.5
    assert near[:, FACE, 2].min() > 0.5
    assert facing(near).all()


def test_the_performer_speaks_and_raises_both_hands(near: Keypoints) -> None:
    opening = mouth_opening(near)
    assert opening[[0, -1]].max() < 0.1
    assert opening.max() > 0.2
    for hand in (LEFT_HAND, RIGHT_HAND):
        assert (near[:, hand, 2].max(axis=1) > 0.5).sum() >= 5


def test_body_and_face_are_found_in_every_frame(found: Keypoints) -> None:
    assert len(found) == 27
    joints = [NOSE, *SHOULDERS, *ELBOWS, *WRISTS, *HIPS]
    assert found[:, joints, 2].min() > 0.5
    assert found[:, FACE, 2].min() > 0.5


def test_hands_are_found_in_at_least_four_of_five_frames(found: Keypoints) -> None:
    for hand in (LEFT_HAND, RIGHT_HAND):
        assert (found[:, hand, 2].max(axis=1) > 0.5).mean() >= 0.8
        assert (found[:, hand, :2] >= 0).all()  # and never leave the picture
        assert (found[:, hand, :2] <= 384).all()


def test_every_skeleton_is_upright(found: Keypoints) -> None:
    assert upright(found).all()


def test_the_performance_is_seen(found: Keypoints) -> None:
    nose, wrists = found[:, NOSE, 1], found[:, WRISTS, 1]
    assert (wrists[:, 1] < nose + 40).sum() >= 5  # the right hand waves beside the head
    assert wrists[[0, -1]].min() > found[:, HIPS, 1].mean() - 60  # calm at both ends
    opening = mouth_opening(found)
    assert opening[[0, -1]].max() < 0.1
    assert opening.max() > 0.2


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_characters_are_found(people: PoseBackend, number: int) -> None:
    person = people.detect(load_image(SHIPPED / f"character-{number}.png"))
    assert person is not None
    points = person.keypoints
    assert points[[NOSE, *SHOULDERS], 2].min() > 0.5
    assert points[FACE, 2].min() > 0.5
    assert facing(points)
