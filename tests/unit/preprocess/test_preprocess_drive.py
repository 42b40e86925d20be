from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from wanimate.config import PreprocessSettings
from wanimate.errors import InputError
from wanimate.events import Notice, Stage, StageFinished, StageProgress, StageStarted
from wanimate.media.probe import probe
from wanimate.media.video import LosslessWriter
from wanimate.preprocess.drive import preprocess
from wanimate.preprocess.pose.person import PersonPose, nobody

AREA = 320 * 240
COUNT = 12


def _figure(x, y, size):
    """A standing person of `size` pixels whose neck is at x, y: all joints confident, face and hands included."""
    points = np.zeros((133, 3))
    spots = {0: (0, -0.15), 1: (0.03, -0.18), 2: (-0.03, -0.18), 3: (0.06, -0.17), 4: (-0.06, -0.17)}
    spots |= {5: (0.12, 0), 6: (-0.12, 0), 7: (0.15, 0.2), 8: (-0.15, 0.2), 9: (0.17, 0.38), 10: (-0.17, 0.38)}
    spots |= {11: (0.07, 0.35), 12: (-0.07, 0.35), 13: (0.08, 0.6), 14: (-0.08, 0.6), 15: (0.08, 0.8)}
    spots |= {16: (-0.08, 0.8)} | dict.fromkeys((17, 18, 19), (0.1, 0.83)) | dict.fromkeys((20, 21, 22), (-0.1, 0.83))
    for i, spot in spots.items():
        points[i, :2] = spot
    angles = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    points[23:91, :2] = np.stack([0.06 * np.cos(angles), 0.08 * np.sin(angles) - 0.15], axis=1)
    for first, wrist in ((91, 9), (112, 10)):
        points[first : first + 21, 0] = points[wrist, 0]
        points[first : first + 21, 1] = points[wrist, 1] + np.linspace(0, 0.1, 21)
    points[:, :2] = points[:, :2] * size + (x, y)
    points[:, 2] = 1
    return points


class FakePeople:
    """A backend that knows where everybody is: a figure that walks to the right; `gone` frames are empty."""

    name = "fake"

    def __init__(self, gone=(), character=True):
        self.gone, self.character, self.seen = gone, character, []

    def detect(self, image):
        self.seen.append(image.shape)
        height, width = image.shape[:2]
        return PersonPose(_figure(width / 2, height * 0.3, height * 0.7), True) if self.character else None

    def track(self, frames, tracker=None):
        if tracker is not None and tracker.known is not None:  # nobody is found from the other side either
            yield from (nobody() for _ in frames)
            return
        for i, frame in enumerate(frames):
            self.seen.append(frame.shape)
            yield nobody() if i in self.gone else PersonPose(_figure(100 + 5 * i, 60, 150), True)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "walk.mkv"
    random = np.random.default_rng(0)
    with LosslessWriter(path, Fraction(25), 320, 240) as writer:
        for _ in range(COUNT):
            writer.write(random.integers(60, 255, (240, 320, 3), dtype=np.uint8))
    return probe(path, limits=None)


IMAGE = np.full((400, 300, 3), 90, np.uint8)


def _run(clip, folder, people, image=IMAGE, **settings):
    settings = PreprocessSettings(**({"face_size": 64} | settings))
    events, steps = [], preprocess("animation", clip, image, settings, folder, AREA, people)
    while True:
        try:
            events.append(next(steps))
        except StopIteration as stop:
            return stop.value, events


def test_guides_follow_the_performer(clip, tmp_path):
    guides, events = _run(clip, tmp_path / "g", FakePeople())
    assert (guides.count, guides.fps, guides.mode) == (COUNT, Fraction(25), "animation")
    width, height = guides.size
    assert width % 16 == height % 16 == 0
    assert 0.88 * AREA <= width * height <= AREA
    assert guides.reference.shape == (height, width, 3)
    assert all(guides.valid)
    columns = [np.flatnonzero(f.any(axis=(0, 2))).mean() for f in guides.pose.take(range(COUNT))]
    assert np.all(np.diff(columns) > 1)
    assert guides.face.size == (64, 64)
    assert guides.face.take([3]).mean() > 60
    assert guides.manifest["retarget"]["mode"] == "auto"
    assert guides.manifest["source"]["frames"] == list(range(COUNT))
    assert guides.manifest["backend"] == "fake"
    assert not [e for e in events if isinstance(e, Notice)]
    for stage in (Stage.DETECT, Stage.DRAW):
        assert StageStarted(stage, COUNT) in events
        assert StageProgress(stage, COUNT, COUNT) in events
        assert any(isinstance(e, StageFinished) and e.stage == stage for e in events)


def test_frames_without_a_person_are_kept_marked_and_reported(clip, tmp_path):
    guides, events = _run(clip, tmp_path / "g", FakePeople(gone=(2, 6, 7, 8, 9, 10, 11)), retarget="off")
    notice = next(e for e in events if isinstance(e, Notice))
    assert notice.level == "warning"
    assert "7 of 12 frames (2, 6-11)" in notice.message
    assert guides.valid == tuple(i not in (2, 6, 7, 8, 9, 10, 11) for i in range(COUNT))
    assert not guides.face.take([2, 7]).any()
    drawn = guides.pose.take(range(COUNT)).any(axis=(1, 2, 3))
    assert drawn.tolist() == [True] * 9 + [False] * 3  # the last pose is held for three frames


def test_nobody_in_the_clip_is_an_error_and_leaves_nothing(clip, tmp_path):
    with pytest.raises(InputError, match=r"nobody was found in any of its 12 frames"):
        _run(clip, tmp_path / "g", FakePeople(gone=range(COUNT)))
    assert list(tmp_path.iterdir()) == []


def test_nobody_in_the_image_is_a_warning_and_turns_retargeting_off(clip, tmp_path):
    guides, events = _run(clip, tmp_path / "g", FakePeople(character=False))
    assert any(isinstance(e, Notice) and "character image" in e.message for e in events)
    assert guides.manifest["retarget"] == {"mode": "off"}
    assert "character image" in guides.manifest["warnings"][0]


def test_a_run_given_up_leaves_nothing(clip, tmp_path):
    settings = PreprocessSettings(face_size=64)
    steps = preprocess("animation", clip, IMAGE, settings, tmp_path / "g", AREA, FakePeople())
    for event in steps:
        if isinstance(event, StageProgress) and event.stage == Stage.DRAW:
            break
    assert list(tmp_path.iterdir())
    steps.close()
    assert list(tmp_path.iterdir()) == []


def test_the_rate_asked_for(clip, tmp_path):
    guides, _ = _run(clip, tmp_path / "g", FakePeople(), fps=Fraction(10))
    assert (guides.count, guides.fps) == (5, Fraction(10))


def test_compat_draws_on_the_source_canvas_and_keeps_the_picture(clip, tmp_path):
    guides, _ = _run(clip, tmp_path / "g", FakePeople(), compat=True, retarget="off")
    assert guides.size == (240, 320)  # published size rule for 300 x 400
    np.testing.assert_array_equal(guides.reference, IMAGE)
    rows = np.flatnonzero(guides.pose.take([0])[0].any(axis=(1, 2)))
    assert rows.min() >= 70  # a 320x240 canvas letterboxed into 240x320 has 70 rows of bars
    assert rows.max() < 250
    assert guides.manifest["smooth"] is False


@pytest.mark.parametrize(
    ("settings", "mode"), [({"retarget": "published"}, "published"), ({"compat": True}, "published")]
)
def test_published_retargeting_starts_at_the_first_frame_with_a_person(clip, tmp_path, settings, mode):
    guides, _ = _run(clip, tmp_path / "g", FakePeople(gone=(0,)), **settings)
    assert guides.manifest["retarget"]["mode"] == mode
    assert guides.pose.take([5]).any()
    with np.load(tmp_path / "g" / "keypoints.npz") as arrays:
        assert np.isfinite(arrays["body"][5, :, :2]).all()


def test_two_runs_give_the_same_bytes(clip, tmp_path):
    frames = [_run(clip, tmp_path / name, FakePeople())[0] for name in ("a", "b")]
    for part in ("pose", "face"):
        a, b = (getattr(g, part).take(range(COUNT)) for g in frames)
        np.testing.assert_array_equal(a, b)


def test_what_is_odd_about_a_clip_is_told_and_kept(clip, tmp_path):
    """What probing saw, and frames that the first pass could not decode, as events and in the manifest."""
    with av.open(str(clip.path)) as container:
        position, size = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size][5]
    data = bytearray(clip.path.read_bytes())
    data[position + size // 3 : position + size] = bytes(size - size // 3)
    path = tmp_path / "damaged.mkv"
    path.write_bytes(data)
    damaged = replace(probe(path, limits=None), notices=("it is odd",))
    guides, events = _run(damaged, tmp_path / "guides", FakePeople())
    told = ["it is odd", "1 frame is damaged or missing in the clip (at 0.20 s); the clip goes on"]
    assert [event.message for event in events if isinstance(event, Notice)] == told
    assert guides.manifest["warnings"] == told
    assert guides.count == COUNT
