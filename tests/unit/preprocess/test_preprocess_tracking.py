"""The chosen person and nobody else: colours, crossings, absences, times, and what is said about doubts."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_preprocess_drive import _figure, _run
from test_preprocess_yolo_vitpose import Stub, _rows

from wanimate.config import PreprocessSettings
from wanimate.errors import InputError
from wanimate.media.probe import probe
from wanimate.media.video import LosslessWriter, iter_backwards, iter_indices
from wanimate.preprocess.detect.mediapipe import MediapipeBackend
from wanimate.preprocess.detect.models import find
from wanimate.preprocess.detect.registry import open_detector
from wanimate.preprocess.detect.yolo_vitpose import PublishedBackend
from wanimate.preprocess.people.appearance import appearance_of, distance
from wanimate.preprocess.people.choice import Choice, parse_choice
from wanimate.preprocess.people.tracking import Tracker
from wanimate.preprocess.performer import frame_at
from wanimate.preprocess.pose.person import PersonPose, nobody
from wanimate.preprocess.report import doubts

RED, BLUE, GREEN = (200, 40, 40), (40, 60, 200), (40, 180, 60)
SIZE = 200.0


def _scene(*people):
    """A grey picture with (x, colour) people in it, their trunks painted, and their keypoints.

    (x, colour, other, rows): so many rows of the trunk have the other colour.
    """
    frame, points = np.full((400, 900, 3), 120, np.uint8), []
    for x, colour, *more in people:
        points.append(_figure(float(x), 80.0, SIZE))
        cv2.rectangle(frame, (x - 30, 70), (x + 30, 160), colour, -1)
        if more:
            cv2.rectangle(frame, (x - 30, 70), (x + 30, 70 + more[1]), more[0], -1)
    return frame, points


def test_appearances():
    frame, (red, blue, other_red) = _scene((100, RED), (400, BLUE), (700, RED))
    look = appearance_of(frame, red)
    assert look is not None
    assert look.sum() == pytest.approx(1, abs=1e-5)
    assert distance(look, appearance_of(frame, other_red)) < 0.1
    assert distance(look, appearance_of(frame, blue)) > 0.9
    darker = (frame * 0.9).astype(np.uint8)
    assert distance(look, appearance_of(darker, red)) < 0.45
    hipless = red.copy()
    hipless[[11, 12], 2] = 0
    assert distance(look, appearance_of(frame, hipless)) < 0.3
    hipless[5, 2] = 0
    assert appearance_of(frame, hipless) is None


def _chosen(*people, text="left"):
    frame, points = _scene(*people)
    tracker = Tracker(parse_choice(text))
    index, how = tracker.find(points, frame)
    assert how == ""
    tracker.keep(points[index], frame)
    tracker.note_others(points, frame)
    return tracker


def test_somebody_else_in_the_same_place_is_not_followed():
    tracker = _chosen((100, RED), (400, BLUE))
    for colour, goes_on in ((RED, True), (BLUE, False), (GREEN, False)):
        frame, (person,) = _scene((110, colour))
        assert tracker.is_next(person, frame) is goes_on
        assert (tracker.find([person], frame) is not None) is goes_on


def test_who_left_is_found_again_anywhere_if_nobody_looks_like_them():
    tracker = _chosen((100, RED), (400, BLUE))
    assert not tracker.has_lookalike
    frame, people = _scene((420, BLUE), (700, GREEN))
    assert tracker.find(people, frame) is None  # gone
    frame, people = _scene((420, BLUE), (700, RED))
    assert tracker.find(people, frame) == (1, "again")
    frame, people = _scene((500, RED), (700, RED))
    assert tracker.find(people, frame) is None  # which of the two cannot be told
    frame, people = _scene((120, RED), (700, RED))
    assert tracker.find(people, frame) == (0, "")  # where they were lost


def test_a_lookalike_is_never_taken_for_who_left():
    tracker = _chosen((100, RED), (400, RED))
    assert tracker.has_lookalike
    frame, people = _scene((430, RED))
    assert tracker.find(people, frame) is None
    frame, people = _scene((100, RED), (125, RED))
    assert tracker.is_unsure(people[0], [people[0], _figure(135.0, 80.0, SIZE)])
    assert not tracker.is_unsure(people[0], people[:1])
    assert not _chosen((100, RED), (400, BLUE)).is_unsure(people[0], people)


def test_light_that_changes_slowly_is_followed():
    tracker = _chosen((100, RED), (400, BLUE))
    for share in np.linspace(1, 0.4, 60):
        frame, (person,) = _scene((100, tuple(int(c * share) for c in RED)))
        assert tracker.is_next(person, frame)
        tracker.keep(person, frame)


@pytest.mark.parametrize("known", [True, False], ids=["seen before", "newcomer"])
def test_somebody_who_steps_in_front_is_not_learnt(known):
    """The other one covers more and more of the torso; a newcomer at a stroke."""
    tracker = _chosen((100, RED), *([(400, BLUE)] if known else []))
    followed = []
    for covered in range(0, 61, 6) if known else (0, 60):
        frame, (person,) = _scene((100, RED))
        frame[70:160, 70 : 70 + covered] = BLUE
        if tracker.is_next(person, frame):
            tracker.keep(person, frame)
            followed.append(covered)
    assert 0 in followed
    assert max(followed) <= 30
    assert tracker.find([person], frame) is None
    frame, (person,) = _scene((110, RED))
    assert tracker.find([person], frame) == (0, "")


@pytest.fixture(scope="module")
def performers():
    clip = probe(Path(__file__).parents[2] / "data" / "performer-wide.mp4")
    return list(iter_indices(clip, range(0, 40, 4)))


def _crossing(performers, other):
    """Two people walk past each other, the second in front: frames, and the places of both."""
    wall = np.median(np.stack(performers)[:, :, :4], axis=(0, 1, 2)).astype(np.uint8)
    for i, mine in enumerate(performers):
        theirs = other(performers[-1 - i][:, ::-1])
        canvas = np.full((384, 720, 3), wall, np.uint8)
        places = [round(336 * t) for t in (i / (len(performers) - 1), 1 - i / (len(performers) - 1))]
        for person, x in zip((mine, theirs), places, strict=True):
            person_here = np.abs(person.astype(int) - wall).max(axis=-1, keepdims=True) > 40
            canvas[:, x : x + 384] = np.where(person_here, person, canvas[:, x : x + 384])
        yield canvas, places[0] + 192, places[1] + 192


def _recoloured(frame):
    """Other clothes, the same head and wall."""
    out = frame.copy()
    wall = frame[0, 0].astype(int)
    dressed = np.abs(frame.astype(int) - wall).max(axis=-1) > 40
    dressed[:150] = False
    out[dressed] = frame[dressed][:, ::-1]
    return out


def _who(person, mine, theirs):
    if not person.valid:
        return "nobody"
    x = person.keypoints[[5, 6], 0].mean()
    return "mine" if abs(x - mine) < abs(x - theirs) else "theirs"


def test_two_people_who_change_places_are_not_mixed_up(performers):
    cv2.setNumThreads(1)
    scenes = list(_crossing(performers, _recoloured))
    people = list(MediapipeBackend(find(), parse_choice("left")).track(f for f, _, _ in scenes))
    seen = [_who(person, *scene[1:]) for person, scene in zip(people, scenes, strict=True)]
    assert "theirs" not in seen
    assert seen[:3] == seen[-3:] == ["mine"] * 3


def test_lookalikes_who_change_places_are_reported(performers):
    cv2.setNumThreads(1)
    scenes = list(_crossing(performers, lambda frame: frame))
    people = list(MediapipeBackend(find(), parse_choice("left")).track(f for f, _, _ in scenes))
    assert any(p.found == "unsure" for p in people)
    (doubt,) = doubts(
        np.stack([p.keypoints for p in people]), np.array([p.valid for p in people]), [p.found for p in people]
    )
    assert "somebody who looks like the chosen person is close to them in" in doubt


def test_doubts_in_words():
    keypoints, valid = np.stack([_figure(100.0, 60.0, 150.0)] * 12), np.ones(12, dtype=bool)
    assert doubts(keypoints, valid, ["track"] * 12) == []
    keypoints[[3, 4, 8], :, 2] = 0.4
    keypoints[6] = 0
    valid[6] = False
    found = ["track"] * 12
    found[7], found[9], found[10] = "again", "unsure", "unsure"
    again, unsure, hardly = doubts(keypoints, valid, found)
    assert again.endswith("found again elsewhere, by their clothes, in frame 7")
    assert "close to them in 2 of 12 frames (9-10); the two may be mixed up" in unsure
    assert hardly == "head and shoulders were seen with low confidence in 3 of 12 frames (3-4, 8)"


class Posed:
    """A pose network that sees the same figure in every crop, in the coordinates of its heat map."""

    def __init__(self):
        self.heat = np.zeros((1, 133, 64, 48), np.float32)
        for k, (x, y) in enumerate(_figure(24.0, 14.0, 44.0)[:, :2].round().astype(int)):
            self.heat[0, k, y, x] = 1

    def __call__(self, crop):
        return self.heat


def _published(scenes, text):
    """The published detectors over scenes of (x, colour) people."""
    answers, frames = [], []
    for people in scenes:
        frames.append(_scene(*people)[0])
        boxes = [((x - 50) * 640 / 900, 10 * 1.6, (x + 50) * 640 / 900, 250 * 1.6, 0.9, 0) for x, *_ in people]
        answers.append(_rows([*boxes, (0, 0, 30, 30, 0.1, 0), (300, 300, 640, 640, 0.95, 56)])[None])
    made = PublishedBackend(Stub(*answers), Posed(), choice=parse_choice(text))
    return list(made.track(frames))


def test_the_published_detectors_follow_the_chosen_one(monkeypatch):
    both = [((200, RED), (600, BLUE)), ((220, RED), (580, BLUE)), ((240, RED), (560, BLUE))]
    for text, wanted in (("left", [200, 220, 240]), ("2", [600, 580, 560]), ("600,100", [600, 580, 560])):
        people = _published(both, text)
        assert [round(p.keypoints[[5, 6], 0].mean(), -1) for p in people] == wanted
    left = [*both[:2], ((580, BLUE),), ((590, BLUE), (800, RED))]
    people = _published(left, "left")
    assert [p.found for p in people] == ["detector", "detector", "", "again"]
    turning = [((200 + rows // 4, RED, GREEN, rows), (600, BLUE)) for rows in range(0, 91, 10)]
    people = _published(turning, "left")
    assert all(p.valid and p.keypoints[0, 0] < 300 for p in people)
    with pytest.raises(InputError, match=r"^person = 3: 2 found where people appear first\. .*person 3@SECONDS\.$"):
        _published(both, "3")
    monkeypatch.setattr("wanimate.preprocess.detect.yolo_vitpose._session", lambda path: Stub())
    assert parse_choice("largest").is_anybody
    assert not parse_choice("largest@1").is_anybody
    made = open_detector(PreprocessSettings(backend="published", models=Path("m"), person="left@2"))
    assert made._choice == Choice("left", at=2.0)
    with pytest.raises(InputError, match=r"^person = left: the published code takes the largest.*or compat out\.$"):
        open_detector(PreprocessSettings(backend="published", models=Path("m"), person="left", compat=True))


COUNT = 12


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Frame i has the level 20 i."""
    path = tmp_path_factory.mktemp("clip") / "levels.mkv"
    with LosslessWriter(path, Fraction(10), 320, 240) as writer:
        for i in range(COUNT):
            writer.write(np.full((240, 320, 3), 20 * i, np.uint8))
    return probe(path, limits=None)


class Numbered:
    """Sees in every frame a figure as far to the right as the frame is bright; the first sight of a pass is "chosen"."""

    name = "fake"

    def __init__(self, gone=()):
        self.passes, self.gone = [], gone

    def detect(self, image):
        return None

    def track(self, frames, tracker=None):
        self.passes.append([])
        for frame in frames:
            number = round(frame[0, 0, 0] / 20)
            self.passes[-1].append(number)
            yield nobody() if number in self.gone else PersonPose(_figure(100.0 + 5 * number, 60.0, 150.0), True)


@pytest.mark.parametrize(
    ("text", "fps", "passes"),
    [
        ("1", None, [[*range(12)]]),
        ("1@0", None, [[*range(12)]]),
        ("1@0.5", None, [[*range(5, 12)], [*range(5, -1, -1)]]),
        ("left@0.68s", None, [[*range(7, 12)], [*range(7, -1, -1)]]),
        ("1@1.2", None, [[11], [*range(11, -1, -1)]]),
        ("1@0.6", Fraction(5), [[6, 8, 10], [6, 4, 2, 0]]),
        ("1@0.5", Fraction(20), [[5, *sorted([*range(6, 12)] * 2)], [*sorted([*range(6)] * 2, reverse=True)]]),
    ],
)
def test_a_time_is_where_following_starts_both_ways(clip, tmp_path, text, fps, passes):
    people = Numbered(gone=(3,))
    guides, _ = _run(clip, tmp_path / "g", people, person=text, fps=fps)
    if 3 in guides.manifest["source"]["frames"]:  # who is gone is looked for from the other side
        assert people.passes.pop()[-1] == 3
    if fps != Fraction(20):  # there, which of two equal frames is the first does not matter
        assert people.passes == passes
    with np.load(tmp_path / "g" / "keypoints.npz") as kept:
        necks = kept["source"][:, [5, 6], 0].mean(axis=1)
    numbers = guides.manifest["source"]["frames"]
    np.testing.assert_allclose(necks, [0 if n == 3 else 100 + 5 * n for n in numbers], atol=1e-3)


def test_times_that_are_not_there(clip):
    with pytest.raises(InputError, match=r"^person = 2@3: the clip ends at 1\.20 s\. Give a time within the clip"):
        frame_at(clip, tuple(range(COUNT)), parse_choice("2@3"))
    tracker = Tracker(parse_choice("2@0.5s"))
    with pytest.raises(InputError, match=r"^person = 2@0\.5: nobody was found at 0\.5 s"):
        tracker.find([], np.zeros((9, 9, 3), np.uint8))
    frame, people = _scene((100, RED))
    with pytest.raises(InputError, match=r"^person = 2@0\.5: 1 found at 0\.5 s\. Look at .*--list-people`\.$"):
        tracker.find(people, frame)


def test_backwards(clip):
    indices = (11, 7, 7, 3, 0)
    assert [round(f[0, 0, 0] / 20) for f in iter_backwards(clip, indices)] == list(indices)
