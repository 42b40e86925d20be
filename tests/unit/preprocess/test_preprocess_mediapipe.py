"""The logic of the default backend, with networks that see a known figure: no model files are needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wanimate.config import PreprocessSettings
from wanimate.errors import InputError
from wanimate.preprocess.detect import checks, tiles
from wanimate.preprocess.detect import mediapipe as tracker
from wanimate.preprocess.detect import registry as backends
from wanimate.preprocess.detect.landmarks import Hand, Mesh, Pose
from wanimate.preprocess.detect.litert import Detection, Square
from wanimate.preprocess.people.choice import Choice

FRAME = np.zeros((480, 640, 3), np.uint8)


def _pose(x=320.0, y=150.0, size=100.0, upside_down=False, score=0.99):
    """Shoulders `size` apart around x, y; the head above them, the hips and arms below.

    Upside down it stands for legs that were taken for arms, which the network's heat maps do not support.
    """
    points = np.zeros((33, 3))
    spots = {0: (0, -0.5), 2: (0.1, -0.6), 5: (-0.1, -0.6), 7: (0.2, -0.5), 8: (-0.2, -0.5), 11: (0.5, 0)}
    spots |= {12: (-0.5, 0), 13: (0.7, 0.6), 14: (-0.7, 0.6), 15: (0.8, 1.2), 16: (-0.8, 1.2), 17: (0.85, 1.4)}
    spots |= {18: (-0.85, 1.4), 19: (0.8, 1.45), 20: (-0.8, 1.45), 23: (0.3, 1.4), 24: (-0.3, 1.4)}
    for i, (dx, dy) in spots.items():
        points[i] = (x + size * dx, y + size * (-dy if upside_down else dy), 1.0)
    return Pose(points, score, Square(x, y + size, 6 * size), 0.4 if upside_down else 0.8)


def _mesh(x=320.0, y=100.0, width=50.0, score=0.99):
    points = np.full((468, 3), (x, y, score))
    half, eye = width / 2, width * 0.45
    points[[10, 152], :2] = (x, y - width * 0.625), (x, y + width * 0.625)
    points[[234, 454], :2] = (x - half, y), (x + half, y)
    points[[33, 263], :2] = (x - eye, y - 5), (x + eye, y - 5)
    return Mesh(points, score, Square(x, y, 2 * width))


def _hand(wrist, palm=30.0, score=0.9, rightness=0.0):
    points = np.zeros((21, 3))
    points[:, :2] = np.asarray(wrist) + np.linspace(0, 2 * palm, 21)[:, None] * (0, 1)
    points[[5, 9, 13, 17], :2] = np.asarray(wrist) + np.array([[-8, palm], [-3, palm], [3, palm], [8, palm]])
    points[:, 2] = score
    return Hand(points, score, rightness, Square(wrist[0], wrist[1] + palm, 4 * palm))


class FakeNetworks:
    """Answers from lists or functions; keeps a record of every call."""

    def __init__(self, **answers):
        self.answers, self.calls = answers, []

    def _answer(self, name, where):
        self.calls.append(name)
        answer = self.answers[name]
        return answer(where) if callable(answer) else answer

    def find_faces(self, picture, where):
        return self._answer("find_faces", where)

    def find_people(self, picture, where):
        return self._answer("find_people", where)

    def find_palms(self, picture, where):
        return self._answer("find_palms", where)

    def body(self, picture, where):
        return self._answer("body", where)

    def face(self, picture, where):
        return self._answer("face", where)

    def hand(self, picture, where):
        return self._answer("hand", where)


def _nearest_wrist(where):
    right, left = _pose().points[16, :2], _pose().points[15, :2]
    near_left = abs(where.x - left[0]) < abs(where.x - right[0])
    return _hand(left, rightness=0.0) if near_left else _hand(right, rightness=1.0)


def _face_found():
    return [Detection(0.9, np.array([320.0, 100, 50, 50]), np.array([[310.0, 95], [330.0, 95]]))]


def _person_found():
    return [Detection(0.9, np.array([320.0, 100, 50, 50]), np.array([[320.0, 290], [320.0, 90]]))]


def _backend(**answers):
    usual = {
        "find_faces": _face_found(), "find_people": _person_found(), "find_palms": [], "body": _pose(), "face": _mesh(),
        "hand": _nearest_wrist,
    }  # fmt: skip
    made = tracker.MediapipeBackend.__new__(tracker.MediapipeBackend)
    made._networks, made._choice = FakeNetworks(**(usual | answers)), Choice("largest")
    return made


def test_face_first_then_tracking_costs_one_pass_each():
    backend = _backend()
    first, second = backend.track([FRAME, FRAME])
    assert (first.found, second.found) == ("face", "track")
    calls = backend._networks.calls
    assert calls[:4] == ["find_faces", "face", "body", "body"]
    assert calls[-4:] == ["body", "face", "hand", "hand"]
    assert calls.count("body") == 5  # of them two for the person whom the other detector sees
    assert second.valid
    assert (second.keypoints[[5, 30, 91, 112], 2] > 0.5).all()
    # The arms end at the hands' roots.
    np.testing.assert_array_equal(second.keypoints[9, :2], second.keypoints[91, :2])


def test_an_upside_down_body_is_refused_and_found_elsewhere():
    seen = []

    def body(where):
        seen.append(where)
        return _pose(upside_down=len(seen) <= 2)

    backend = _backend(body=body)
    assert backend.detect(FRAME).found == "detector"
    assert _backend(body=_pose(upside_down=True)).detect(FRAME) is None


@pytest.mark.parametrize(
    ("pose", "mesh", "fits"),
    [
        (_pose(), _mesh(), True),
        (_pose(), None, True),
        (_pose(upside_down=True), _mesh(), False),
        (_pose(upside_down=True), None, True),  # somebody may stand on their head
        (_pose(x=500), _mesh(), False),  # another person's face
        (_pose(size=230, y=215), _mesh(), False),  # shoulders far too wide
        (_pose(size=40, y=120), _mesh(), False),  # and far too narrow
    ],
)
def test_plausible(pose, mesh, fits):
    assert checks.plausible(pose, mesh) is fits


def test_mirrored_shoulders_are_refused():
    pose = _pose()
    pose.points[[11, 12]] = pose.points[[12, 11]]
    assert not checks.plausible(pose, _mesh())


@pytest.mark.parametrize(("support", "is_body"), [(0.8, True), (0.55, True), (0.45, False)])
def test_parts_have_to_agree(support, is_body):
    assert checks.is_body(replace(_pose(), support=support)) is is_body
    head_down = replace(_pose(upside_down=True), support=support)
    head_down.points[0, 1] = 60.0  # bent over: the nose is on the side of the hips
    assert checks.is_body(head_down) is (support >= 0.6)


def test_a_body_that_flips_over_while_it_is_followed_is_looked_at_again():
    bad = []

    def body(where):
        bad.append(len(bad) == 3)  # the first look in the second frame, after two in the first and the one around it
        return _pose(upside_down=bad[-1])

    people = list(_backend(body=body, find_faces=[]).track([FRAME, FRAME, FRAME]))
    assert sum(bad) == 1
    assert [p.found for p in people] == ["detector", "track", "track"]
    assert all(p.keypoints[0, 1] < p.keypoints[5, 1] for p in people)


def test_a_face_that_wandered_off_is_looked_for_anew_and_does_not_lose_the_body():
    faces = iter([_mesh(), _mesh(), _mesh(x=340), _mesh(x=325)])
    people = list(_backend(face=lambda where: next(faces)).track([FRAME, FRAME]))
    assert [p.found for p in people] == ["face", "track"]
    assert people[1].keypoints[30, 0] == 325  # 20 pixels are more than a quarter of the face


def test_a_face_beside_the_head_is_no_face():
    faces = iter([_mesh(), _mesh()])
    people = list(_backend(face=lambda where: next(faces, _mesh(x=380))).track([FRAME, FRAME]))
    assert people[1].valid
    assert not people[1].keypoints[23:91, 2].any()


def test_a_turned_back_keeps_its_body_and_gets_no_face():
    away = replace(_pose(), face_towards=-1.2)
    person = _backend(find_faces=[], body=away).detect(FRAME)
    assert person.valid
    assert not person.keypoints[[0, 1, 2, *range(23, 91)], 2].any()
    assert person.keypoints[[5, 6, 7, 8], 2].all()


def test_a_body_that_claims_a_face_nobody_sees_may_be_a_back():
    """Seen from behind, the first looks take it for its mirror image; a look at a smaller square does not."""
    back = replace(_pose(), face_towards=-1.2)
    person = _backend(find_faces=[], body=lambda where: back if where.side < 600 else _pose()).detect(FRAME)
    assert person.valid
    assert not person.keypoints[0, 2]


def test_a_picture_is_turned_where_nobody_stands_upright():
    """The detectors know people head down only in a picture that is turned by 180 degrees."""
    looks = []

    def upright(found):
        def find(where):
            looks.append(round(np.degrees(where.angle)))
            return found if abs(where.angle) > 3 else []

        return find

    person = _backend(find_faces=upright(_face_found()), find_people=upright([])).detect(FRAME)
    assert person.found == "face"
    assert {0, 90, -90, 180} <= set(looks)


def test_tiles_are_searched_for_small_people_and_only_now_and_then_in_a_clip():
    sides = []

    def people(where):
        sides.append(where.side)
        return []

    backend = _backend(find_faces=[], find_people=people)
    assert not any(p.valid for p in backend.track([FRAME] * 9))
    small = sum(side < 300 for side in sides)
    assert small == 2 * len(tiles.tiles(640, 480))
    backend = _backend(find_faces=[], find_people=lambda w: _person_found() if w.side < 300 else [])
    assert backend.detect(FRAME).found == "detector"


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (720, 1280), (100, 100), (3840, 400)])
def test_tiles_hold_every_small_person_whole(width, height):
    small, found = 0.19 * min(width, height), tiles.tiles(width, height)
    for x in np.linspace(0, width - small, 23):
        for y in np.linspace(0, height - small, 17):
            assert any(a <= x and b <= y and x + small <= a + s and y + small <= b + s for a, b, s in found)


def test_lost_and_found_again():
    present = iter([True, True, False, True])
    state = {}

    def body(where):
        return _pose(score=0.99 if state["there"] else 0.1)

    backend = _backend(body=body, find_people=[])

    def frames():
        for there in present:
            state["there"] = there
            yield FRAME

    people = list(backend.track(frames()))
    assert [p.valid for p in people] == [True, True, False, True]
    assert [p.found for p in people] == ["face", "track", "", "face"]
    assert not people[2].keypoints.any()


def test_a_face_is_searched_on_the_body_when_it_is_too_small_to_see_at_first():
    searched = []

    def faces(where):
        searched.append(where.side)
        return [] if where.side >= 640 else _face_found()

    person = _backend(find_faces=faces).detect(FRAME)
    assert person.found == "detector"
    assert len(searched) == 2
    assert person.keypoints[30, 2] > 0.5


def test_nobody():
    assert _backend(find_faces=[], find_people=[]).detect(FRAME) is None
    nobody = next(iter(_backend(find_faces=[], find_people=[]).track([FRAME])))
    assert not nobody.valid


def test_a_hand_far_from_its_arm_is_dropped():
    person = _backend(hand=_hand((320.0, 20.0))).detect(FRAME)
    assert not person.keypoints[91:, 2].any()
    np.testing.assert_array_equal(person.keypoints[9, :2], _pose().points[15, :2])


def test_one_hand_claimed_by_both_arms_goes_to_the_one_it_fits():
    pose = _pose()
    pose.points[[15, 17, 19], :2] = pose.points[[16, 18, 20], :2] + (4, 0)  # both arms end at the right wrist
    hand = _hand(pose.points[16, :2], rightness=0.95)
    person = _backend(body=pose, hand=hand).detect(FRAME)
    assert not person.keypoints[91:112, 2].any()
    assert person.keypoints[112:, 2].all()


def test_a_hand_not_seen_at_the_arm_is_searched_with_the_palm_detector():
    wrist = _pose().points[15, :2]
    palm = Detection(0.9, np.array([*wrist, 30, 30]), np.array([wrist, wrist, wrist + (0, 20)]))
    scores = iter([0.1, 0.1, 0.9])

    def hand(where):
        return _hand(wrist, score=next(scores, 0.9)) if where.x > 320 else _hand((0.0, 0.0), score=0.0)

    person = _backend(hand=hand, find_palms=[palm]).detect(FRAME)
    assert person.keypoints[91:112, 2].min() == 0.9
    assert not person.keypoints[112:, 2].any()


def test_hidden_arms_are_not_searched():
    pose = _pose()
    pose.points[[15, 16], 2] = 0.05
    backend = _backend(body=pose)
    assert backend.detect(FRAME).valid
    assert "hand" not in backend._networks.calls


def test_backends_tell_what_is_missing(tmp_path: Path):
    with pytest.raises(InputError, match=r"Run `python -m wanimate\.preprocess\.detect\.models --models .*` once\.$"):
        backends.open_detector(PreprocessSettings(models=tmp_path))
    with pytest.raises(InputError, match="process_checkpoint"):
        backends.open_detector(PreprocessSettings(backend="published"))
