"""A performer, from the thighs up, turned, small, cut, in company and late: found, followed, and told in words."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from test_preprocess_drive import FakePeople, _figure, _run

from wanimate.config import PreprocessSettings
from wanimate.events import Notice
from wanimate.media.probe import probe
from wanimate.media.video import LosslessWriter, iter_indices
from wanimate.preprocess.detect.mediapipe import MediapipeBackend
from wanimate.preprocess.detect.models import find
from wanimate.preprocess.layout import plan_layout
from wanimate.preprocess.people.choice import parse_choice
from wanimate.preprocess.people.tracking import Tracker
from wanimate.preprocess.performer import Performer, find_performer
from wanimate.preprocess.pose.person import PersonPose, nobody
from wanimate.preprocess.report import told

JOINTS = [0, 5, 6, 7, 8, 9, 10, 11, 12]
WIDE = Path(__file__).parents[2] / "data" / "performer-wide.mp4"


@pytest.fixture(scope="module")
def frames():
    return list(iter_indices(probe(WIDE), range(0, 48, 4)))


@pytest.fixture(scope="module")
def backend():
    return MediapipeBackend(find())


@pytest.fixture(scope="module")
def truth(frames, backend):
    """The points in the frames as they are, [12, 133, 3]: what every other picture of them is measured by."""
    return np.stack([p.keypoints for p in backend.track(frames)])


def _wall(frame, size):
    return np.full((size[1], size[0], 3), frame[2, 2], np.uint8)


def _placed(frame, points, matrix, size):
    """A frame and its points [133, 3] under an affine map [2, 3], before its own wall."""
    picture = _wall(frame, size)
    cv2.warpAffine(frame, matrix, size, picture, cv2.INTER_AREA, cv2.BORDER_TRANSPARENT)
    out = points.copy()
    out[:, :2] = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    return picture, out


def _rotated(frame, points, degrees):
    return _placed(frame, points, cv2.getRotationMatrix2D((192, 192), degrees, 0.9), (384, 384))


def _assert_right(found, true):
    """No sure joint is half a shoulder width off, and most of them are sure."""
    wide = np.hypot(*(true[5] - true[6])[:2])
    sure = (found[JOINTS, 2] > 0.5) & (true[JOINTS, 2] > 0.5)
    assert sure.sum() >= 7
    assert np.hypot(*(found - true)[JOINTS, :2][sure].T).max() < 0.5 * wide


@pytest.mark.parametrize("degrees", [60, 90, 135, 180, 225, 270, 315])
def test_a_person_at_any_angle_is_found(frames, truth, backend, degrees):
    picture, true = _rotated(frames[3], truth[3], degrees)
    person = backend.detect(picture)
    assert person is not None
    _assert_right(person.keypoints, true)
    assert (person.keypoints[23:91, 2] > 0.5).all()


def _written(path, pictures, rate=10):
    with LosslessWriter(path, Fraction(rate), *pictures[0].shape[1::-1]) as writer:
        for picture in pictures:
            writer.write(picture)
    return probe(path, limits=None)


def _searched(clip, people, **settings) -> Performer:
    given = PreprocessSettings(**settings)
    steps = find_performer(people, plan_layout("animation", clip, (320, 320), given, 320 * 320), given)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def test_a_cartwheel(frames, truth, backend, tmp_path):
    """33 degrees a frame, once around: joints and faces follow, and nobody is told of somebody else."""
    pictures, true = zip(
        *(_rotated(f, t, 33 * i) for i, (f, t) in enumerate(zip(frames, truth, strict=True))), strict=True
    )
    performer = _searched(_written(tmp_path / "wheel.mkv", pictures), backend)
    assert performer.valid.all()
    assert performer.cuts == ()
    for i, points in enumerate(true):
        _assert_right(performer.steady[i], points)
        assert np.hypot(*(performer.squares[i, :2] - points[0, :2])) < 0.5 * performer.squares[i, 2]
    assert told(performer, PreprocessSettings()) == []


def test_a_small_person(frames, truth, backend):
    """130 of 720 rows."""
    matrix = np.array([[0.36, 0, 870], [0, 0.36, 410]])
    for person, (_, true) in zip(
        backend.track(_placed(f, t, matrix, (1280, 720))[0] for f, t in zip(frames[:2], truth, strict=False)),
        (_placed(f, t, matrix, (1280, 720)) for f, t in zip(frames[:2], truth, strict=False)),
        strict=True,
    ):
        _assert_right(person.keypoints, true)


def test_a_cut_from_close_to_wide(frames, truth, backend, tmp_path):
    """What is found on either side is what is found in each shot alone."""
    close = [
        _placed(f, t, np.array([[2.6, 0, -320], [0, 2.6, -50]]), (384, 384))[0]
        for f, t in zip(frames[:6], truth, strict=False)
    ]
    wide = [
        _placed(f, t, np.array([[0.8, 0, 60], [0, 0.8, 60]]), (384, 384))[0]
        for f, t in zip(frames[6:], truth, strict=False)
    ]
    both = _searched(_written(tmp_path / "both.mkv", close + wide), backend)
    assert both.cuts == (6,)
    alone = [_searched(_written(tmp_path / f"{i}.mkv", shot), backend) for i, shot in enumerate((close, wide))]
    np.testing.assert_allclose(both.squares, np.concatenate([p.squares for p in alone]), atol=1.0)
    np.testing.assert_allclose(both.steady, np.concatenate([p.steady for p in alone]), atol=1.0)
    assert both.squares[5, 2] > 2.5 * both.squares[6, 2]
    assert told(both, PreprocessSettings()) == [
        "the clip is cut at frame 6: the performer is looked for afresh there, by their clothes"
    ]


class Late(FakePeople):
    """Sees a figure from frame 5 of a shot on, and in every frame when following it from a known place."""

    def __init__(self, others=0):
        super().__init__()
        self.tracks, self.others = [], others

    def track(self, frames, tracker=None):
        self.tracks.append([])
        for i, frame in enumerate(frames):
            self.tracks[-1].append(int(frame[0, 0, 0]))
            there = tracker.known is not None or i >= 5
            person = PersonPose(_figure(150.0, 60.0, 150.0), True, "track", self.others)
            yield person if there and frame[0, 0, 0] > 1 else nobody()


def _levels(tmp_path, count=9):
    return _written(tmp_path / "levels.mkv", [np.full((240, 320, 3), i, np.uint8) for i in range(count)], 25)


def test_who_is_found_late_is_followed_backwards(tmp_path):
    people = Late()
    performer = _searched(_levels(tmp_path), people)
    assert people.tracks == [[*range(9)], [5, 4, 3, 2, 1]]
    assert performer.valid.tolist() == [False, False, *[True] * 7]


class Replaced(FakePeople):
    """One person up to frame 2, another from frame 6 on, whom it sees from frame 4 on when it follows them back."""

    def track(self, frames, tracker=None):
        back = tracker.known is not None
        for level in (int(frame[0, 0, 0]) for frame in frames):
            there = level < 3 or level >= (4 if back else 6)
            found = "other" if level == 6 and not back else "track"
            yield PersonPose(_figure(150.0, 60.0, 150.0), True, found) if there else nobody()


def test_somebody_else_is_told_from_their_first_frame_on(tmp_path):
    """Frames that are filled from behind show the other person, too."""
    performer = _searched(_levels(tmp_path), Replaced())
    assert performer.found == ("track", "track", "track", "", "other", "track", "track", "track", "track")
    assert told(performer, PreprocessSettings())[0].startswith(
        "the tracked person may be somebody else from frame 4 on"
    )


def test_with_compat_nothing_is_looked_for_again(tmp_path):
    people = Late()
    performer = _searched(_levels(tmp_path), people, compat=True)
    assert people.tracks == [[*range(9)]]
    assert performer.valid.tolist() == [False] * 5 + [True] * 4


def test_nobody_is_followed_across_a_cut(tmp_path):
    """Forwards a new run begins there, backwards it ends there."""
    random = np.random.default_rng(3)
    rooms = [
        cv2.resize(random.integers(40, 255, (6, 8, 3), dtype=np.uint8), (320, 240), interpolation=cv2.INTER_NEAREST)
        for _ in "ab"
    ]
    pictures = [room.copy() for room in rooms for _ in range(8)]
    for i, picture in enumerate(pictures):
        picture[0, 0] = i + 10
    people = Late()
    performer = _searched(_written(tmp_path / "two.mkv", pictures, 25), people)
    assert performer.cuts == (8,)
    assert people.tracks == [[*range(10, 18)], [*range(18, 26)], [15, 14, 13, 12, 11, 10], [23, 22, 21, 20, 19, 18]]
    assert performer.valid.all()


def test_others_are_told_with_how_to_choose(tmp_path):
    clip = _levels(tmp_path)
    _, events = _run(clip, tmp_path / "g", Late(others=2))
    (text,) = (e.message for e in events if isinstance(e, Notice) and "other" in e.message)
    assert text == (
        "up to 2 other people are in the picture (first seen in frame 2); the largest one was followed, and person chooses "
        "another. Look at the candidates with `wanimate preprocess --list-people`"
    )
    _, events = _run(clip, tmp_path / "h", Late(others=2), person="left")
    assert not [e for e in events if isinstance(e, Notice) and "other" in e.message]


def test_others_are_counted(frames, backend):
    pair = [np.hstack([frame, frame[:, ::-1]]) for frame in frames[:2]]
    assert next(backend.track(pair)).others == 1
    assert [p.others for p in backend.track(frames[:2])] == [0, 0]


def test_faces_not_found_are_told():
    points = np.stack([_figure(100.0, 60.0, 150.0)] * 12)
    points[2:6, 23:91, 2] = 0
    squares = np.ones((12, 3))
    squares[4:6] = math.nan
    performer = SimpleNamespace(
        keypoints=points, valid=np.ones(12, bool), found=["track"] * 12, others=[0] * 12, cuts=(), squares=squares
    )
    assert told(performer, PreprocessSettings()) == [
        "the face was not made out in 2 of 12 frames (2-3); the face crop follows the head there",
        "the face is turned away or hidden in 2 of 12 frames (4-5); the face crop is black there",
    ]
    assert told(performer, PreprocessSettings(compat=True)) == []
    performer.cuts, performer.squares, performer.keypoints = (
        tuple(range(1, 13)),
        np.ones((12, 3)),
        points[:1].repeat(12, 0),
    )
    assert told(performer, PreprocessSettings())[0].startswith(
        "the clip is cut at frames 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more: "
    )


def test_the_chosen_one_is_found_by_look_after_a_cut(frames, truth, backend):
    """Left before the cut, right after it: clothes decide, not the place, nor who is larger."""
    other = [np.where(np.abs(f.astype(int) - f[2, 2]).max(-1, keepdims=True) > 40, f[..., ::-1], f) for f in frames]
    for frame, mine in zip(other, frames, strict=True):
        frame[:150] = mine[:150]
    for text in ("left", "largest"):
        tracker = Tracker(parse_choice(text))
        first = np.hstack([cv2.resize(frames[0], (480, 480)), cv2.resize(other[0], (480, 480))[:, :384]])
        (person,) = backend.track([first[:, :480] if text == "largest" else first], tracker)
        assert person.keypoints[0, 0] < 480
        tracker.new_shot()
        second = np.hstack(
            [cv2.resize(other[1], (420, 420)), np.pad(frames[1], ((36, 0), (0, 0), (0, 0)), mode="edge")]
        )
        (person,) = backend.track([second], tracker)
        assert person.valid
        assert person.keypoints[0, 0] > 420


def test_a_close_up_does_not_tell_what_somebody_wears(frames, truth):
    from wanimate.preprocess.people.appearance import appearance_of

    close, points = _placed(frames[0], truth[0], np.array([[3.0, 0, -390], [0, 3.0, -80]]), (384, 250))
    assert appearance_of(frames[0], truth[0]) is not None
    assert appearance_of(close, points) is None
