"""Choosing one of several people, and never taking another for them in silence."""

from __future__ import annotations

from fractions import Fraction
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_preprocess_drive import FakePeople, _figure, _run
from test_preprocess_drive import clip as clip
from typer.testing import CliRunner

from wanimate.cli.main import app
from wanimate.config import PreprocessSettings
from wanimate.errors import InputError
from wanimate.events import Notice
from wanimate.media.probe import probe
from wanimate.media.video import LosslessWriter, iter_indices
from wanimate.preprocess.detect.mediapipe import MediapipeBackend, is_twice
from wanimate.preprocess.detect.models import find
from wanimate.preprocess.detect.registry import open_detector
from wanimate.preprocess.people.choice import (
    Choice,
    box,
    numbered,
    numbered_picture,
    overlap,
    parse_choice,
    pick,
    same_person,
)
from wanimate.preprocess.pose.person import PersonPose

SMALL, LARGE, MIDDLE = _figure(400.0, 80.0, 100.0), _figure(100.0, 60.0, 200.0), _figure(250.0, 60.0, 150.0)
CROWD = [SMALL, LARGE, MIDDLE]


@pytest.mark.parametrize(
    ("text", "index"),
    [("largest", 1), ("left@2.5", 1), ("right", 0), ("1", 1), ("2", 2), ("3", 0), ("400,110", 0), ("250.5,100", 2)],
)
def test_who_is_chosen(text, index):
    assert numbered(CROWD) == [1, 2, 0]
    assert pick(parse_choice(text), CROWD) == index


@pytest.mark.parametrize("text", ["", "0", "-1", "tallest", "1,2,3", "x,y", "1;2", "100", "2@", "@3", "2@x", "2@1:30"])
def test_what_names_nobody(text):
    with pytest.raises(InputError, match=r"^person = .*: names nobody\. Give largest, left, right"):
        parse_choice(text)
    with pytest.raises(InputError, match=r"^person = "):
        open_detector(PreprocessSettings(person=text))


@pytest.mark.parametrize(("text", "rule"), [("4", "3 found where"), ("5,5", "nobody is there")])
def test_who_is_not_there(text, rule):
    with pytest.raises(InputError, match=rf"^person = {text}: {rule}.*--list-people"):
        pick(parse_choice(text), CROWD)


def test_same_person():
    assert same_person(LARGE, LARGE)
    assert same_person(LARGE, _figure(115.0, 62.0, 205.0))
    assert not same_person(LARGE, MIDDLE)  # somebody else, further right
    assert not same_person(LARGE, _figure(100.0, 60.0, 60.0))  # a child in front of them
    assert not same_person(LARGE, np.zeros((133, 3)))
    assert overlap(box(LARGE), box(LARGE)) == 1
    assert overlap(box(LARGE), box(SMALL)) == 0


def test_one_person_from_near_is_not_two_where_one_detection_has_an_arm_more():
    person = np.zeros((133, 3))
    person[[0, 1, 2, 5, 6]] = [[576, 148, 1], [605, 125, 1], [550, 123, 1], [696, 270, 1], [448, 266, 1]]
    again = person + [2, 1, 0] * (person[:, 2:] > 0)
    again[7] = 741, 440, 0.44
    assert overlap(box(person), box(again)) < 0.4
    assert is_twice(person, again)
    again[[0, 1, 2, 5, 6], 0] += 30  # somebody behind them
    assert not is_twice(person, again)


def test_everybody_gets_a_number_in_the_picture():
    frame = np.zeros((300, 500, 3), np.uint8)
    picture = numbered_picture(frame, CROWD)
    for person in CROWD:
        x0, y0, x1, y1 = (round(v) for v in box(person))
        assert picture[y1 - 1 : y1 + 1, x0 : x1 + 1].any()
        assert picture[y0 + 2 : y0 + 8, x0 + 2 : x0 + 8].any()
    assert not frame.any()


class Jumping(FakePeople):
    """From frame 5 on, somebody else is seen."""

    def track(self, frames, tracker=None):
        for i, person in enumerate(super().track(frames, tracker)):
            yield PersonPose(person.keypoints, True, "other") if i == 5 else person


def test_a_jump_to_somebody_else_is_told(clip, tmp_path):
    _, events = _run(clip, tmp_path / "g", Jumping())
    assert any(
        e.message == "the tracked person may be somebody else from frame 5 on; person chooses one"
        for e in events
        if isinstance(e, Notice)
    )


DEMO = Path(str(files("wanimate.weights") / "embedded" / "demo"))
WIDE, IMAGE = Path(__file__).parents[2] / "data" / "performer-wide.mp4", DEMO / "character-2.png"


@pytest.fixture(scope="module")
def pairs():
    """The performer seen from the hips up, side by side with itself in a mirror, running backwards; every fourth frame."""
    clip = probe(WIDE)
    frames = list(iter_indices(clip, range(0, clip.count, 4)))
    return [np.hstack([a, b[:, ::-1]]) for a, b in zip(frames, frames[::-1], strict=True)]


@pytest.mark.parametrize(("text", "right"), [("left", False), ("right", True), ("1", False), ("600,200", True)])
def test_the_chosen_one_is_followed(pairs, text, right):
    cv2.setNumThreads(1)
    people = list(MediapipeBackend(find(), parse_choice(text)).track(pairs[:6]))
    assert all(p.valid and p.found != "other" for p in people)
    assert all((p.keypoints[0, 0] > 384) == right for p in people)
    assert all(p.keypoints[91:, 2].max() > 0.5 for p in people[1:])  # with hands


def test_a_chosen_one_who_leaves_is_not_replaced_by_another(pairs):
    frames = [f.copy() for f in pairs[:5]]
    for frame in frames[2:4]:
        frame[:, :384] = frame[0, 0]
    chosen = list(MediapipeBackend(find(), Choice("left")).track(frames))
    assert [p.valid for p in chosen] == [True, True, False, False, True]
    assert chosen[4].keypoints[0, 0] < 384


def test_whoever_is_there_is_followed_by_default_and_marked(pairs):
    frames = [f.copy() for f in pairs[:4]]
    for frame in frames[:2]:
        frame[:, 384:] = frame[0, 0]
    for frame in frames[2:]:
        frame[:, :384] = frame[0, 400]
    people = list(MediapipeBackend(find()).track(frames))
    assert all(p.valid for p in people)
    assert [p.found == "other" for p in people] == [False, False, True, False]


def test_list_people(pairs, tmp_path):
    clip = tmp_path / "pair.mkv"
    with LosslessWriter(clip, Fraction(5), 768, 384) as writer:
        for frame in [np.zeros_like(pairs[0]), *pairs[:11]]:
            writer.write(frame)
    words = ["preprocess", "--list-people", "--video", str(clip), "--out"]
    done = CliRunner().invoke(app, [*words, str(tmp_path / "people.png")])
    assert done.exit_code == 0, done.output
    assert "2 found in frame 1, numbered from left to right" in done.stdout
    picture = cv2.imread(str(tmp_path / "people.png"))
    assert picture is not None
    assert picture.shape == (384, 768, 3)
    drawn = np.abs(picture[..., ::-1].astype(int) - pairs[0]).max(axis=(0, 2)) > 40
    assert drawn[:384].any()
    assert drawn[384:].any()
    later = CliRunner().invoke(app, [*words, str(tmp_path / "later.png"), "--person", "1@1.1"])
    assert "2 found in frame 6, numbered" in later.stdout  # 1.2 s is the nearest
    for more, rule in {
        (
            "--person",
            "3",
        ): "--person = 3: 2 found where people appear first. Look at the candidates with `wanimate preprocess",
        ("--person", "3@1"): "--person = 3@1: 2 found at 1 s.",
        ("--person", "1@0"): "--person = 1@0: nobody was found at 0 s.",
        ("--person", "1@9"): "--person = 1@9: the clip ends at 2.40 s.",
    }.items():
        job = ["preprocess", "--image", str(IMAGE), "--video", str(clip), "--out", str(tmp_path / "guides"), *more]
        refused = CliRunner().invoke(app, [*job, "--area", "64x64"], env={"COLUMNS": "500"})
        assert (refused.exit_code, rule in refused.stderr) == (2, True), refused.output
        assert not (tmp_path / "guides").exists()
    imageless = CliRunner().invoke(app, ["preprocess", "--video", str(clip), "--out", str(tmp_path / "guides")])
    assert imageless.exit_code == 2
    assert "--image = None" in imageless.stderr
    wrong = CliRunner().invoke(app, [*words, str(tmp_path / "people.jpg")], env={"COLUMNS": "500"})
    assert wrong.exit_code == 2
    assert "the picture of the people is a PNG. Give a name that ends in .png" in wrong.stderr
