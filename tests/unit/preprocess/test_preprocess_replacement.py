"""Replacement guides with people and masks that are known beforehand."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_preprocess_drive import COUNT, FakePeople, _figure

from wanimate.config import PreprocessSettings
from wanimate.errors import InputError, OutputError
from wanimate.events import Notice
from wanimate.media.probe import probe
from wanimate.media.video import LosslessWriter, iter_indices
from wanimate.preprocess.drive import preprocess
from wanimate.preprocess.guides import export_published, load_guides
from wanimate.preprocess.modes import mask_shape
from wanimate.preprocess.pose.person import PersonPose

AREA = 320 * 240


class FakeMasks:
    """A box around the neck of the person; `blind` frames have none."""

    name = "fake"

    def __init__(self, blind=()):
        self.blind, self.shapes = blind, []

    def follow(self, frames, people, valid, cuts=()):
        for i, frame in enumerate(frames):
            self.shapes.append(frame.shape)
            mask = np.zeros(frame.shape[:2], np.uint8)
            if valid[i] and i not in self.blind:
                x, y = people[i, [5, 6], :2].mean(axis=0).astype(int)
                mask[y - 20 : y + 100, x - 15 : x + 15] = 1
            yield frame, mask


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "walk.mkv"
    random = np.random.default_rng(0)
    with LosslessWriter(path, Fraction(25), 320, 240) as writer:
        for _ in range(COUNT):
            writer.write(random.integers(60, 255, (240, 320, 3), dtype=np.uint8))
    return probe(path, limits=None)


IMAGE = np.full((400, 300, 3), 90, np.uint8)


def _run(clip, folder, people=None, masks=None, image=IMAGE, **settings):
    settings = PreprocessSettings(**({"face_size": 64} | settings))
    events = []
    people, masks = people or FakePeople(), masks or FakeMasks()
    steps = preprocess("replacement", clip, image, settings, folder, AREA, people, masks)
    while True:
        try:
            events.append(next(steps))
        except StopIteration as stop:
            return stop.value, [e.message for e in events if isinstance(e, Notice)]


def test_the_scene_is_the_clip_with_a_hole_where_the_person_is(clip, tmp_path):
    guides, notices = _run(clip, tmp_path / "g", iterations=3)
    assert (guides.mode, guides.count, guides.fps, guides.size) == ("replacement", COUNT, Fraction(25), (320, 240))
    assert [notice.partition(":")[0] for notice in notices] == ["advice on the light"]
    source = np.stack(list(iter_indices(clip, range(COUNT))))
    mask, scene, pose = (s.take(range(COUNT)) for s in (guides.mask, guides.background, guides.pose))
    assert set(np.unique(mask)) == {0, 255}
    np.testing.assert_array_equal(scene, np.where(mask > 0, 0, source))
    # 9 pixels of growth each way: 3 rounds of a 7 x 7 square
    assert (mask[0, ..., 0] > 0).sum() == (30 + 18) * (120 + 18)
    for i in range(COUNT):
        columns = np.flatnonzero(mask[i].any(axis=(0, 2)))
        assert abs(columns.mean() - (100 + 5 * i)) < 2
        drawn = np.flatnonzero(pose[i].any(axis=(0, 2)))
        assert abs(drawn.mean() - (100 + 5 * i)) < 4
    assert guides.manifest["mask"]["shape"] == {"iterations": 3, "k": 7, "w_len": None, "h_len": None}
    assert guides.manifest["mask"]["backend"] == "fake"


def test_the_clip_decides_the_size_and_the_picture_is_made_to_fit(clip, tmp_path):
    tall = np.full((4000, 1000, 3), 90, np.uint8)
    guides, _ = _run(clip, tmp_path / "g", image=tall)
    assert guides.size == (320, 240)
    assert guides.reference.shape == (240, 60, 3)


def test_frames_without_the_person_keep_their_pixels(clip, tmp_path):
    gone = (2, 6, 7)
    guides, notices = _run(clip, tmp_path / "g", FakePeople(gone=gone))
    source = list(iter_indices(clip, range(COUNT)))
    for i in gone:
        assert not guides.mask.take([i]).any()
        assert not guides.pose.take([i]).any()
        np.testing.assert_array_equal(guides.background.take([i])[0], source[i])
    assert any("3 of 12 frames (2, 6-7); these keep the clip's own picture" in n for n in notices)


def test_frames_without_a_mask_are_reported(clip, tmp_path):
    guides, notices = _run(clip, tmp_path / "g", masks=FakeMasks(blind=(4, 5)))
    assert any("no pixel of the performer was found in 2 of 12 frames (4-5)" in n for n in notices)
    assert guides.manifest["mask"]["empty"] == [[4, 6]]


def test_compat_is_the_published_box_at_the_published_size(clip, tmp_path):
    masks = FakeMasks()
    guides, _ = _run(clip, tmp_path / "g", masks=masks, compat=True)
    assert guides.manifest["mask"]["shape"]["w_len"] == guides.manifest["mask"]["shape"]["h_len"] == 1
    mask = guides.mask.take([0])[0, ..., 0] > 0
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    assert mask[rows[0] : rows[-1], columns[0] : columns[-1]].all()
    np.testing.assert_array_equal(guides.reference, IMAGE)
    assert set(masks.shapes) == {(240, 320, 3)}


def test_a_grid(clip, tmp_path):
    outline, grid = (_run(clip, tmp_path / n, **s)[0] for n, s in (("a", {}), ("b", {"w_len": 3, "h_len": 4})))
    assert grid.mask.take([0]).sum() >= outline.mask.take([0]).sum()
    assert grid.manifest["mask"]["shape"]["h_len"] == 4


@pytest.mark.parametrize("retarget", ["auto", "published"])
def test_retargeting_is_refused(clip, tmp_path, retarget):
    with pytest.raises(InputError, match=rf"^retarget = {retarget}: .*performer's place.*Leave it out"):
        _run(clip, tmp_path / "g", retarget=retarget)
    assert not (tmp_path / "g").exists()


class Stretched(FakePeople):
    """A character with arms of twice the length."""

    def detect(self, image):
        points = _figure(150.0, 120.0, 200.0)
        for shoulder, joints in ((5, [7, 9]), (6, [8, 10])):
            points[joints, :2] += points[joints, :2] - points[shoulder, :2]
        return PersonPose(points, True)


def test_proportions_that_differ_are_told(clip, tmp_path):
    _, notices = _run(clip, tmp_path / "a", Stretched())
    assert any("proportions of character and performer differ by a factor of" in n for n in notices)
    _, notices = _run(clip, tmp_path / "b", FakePeople(character=False))
    assert any("no person was found in the character image" in n for n in notices)


def test_the_published_set_is_read_with_a_black_and_white_mask(clip, tmp_path):
    guides, _ = _run(clip, tmp_path / "g")
    export_published(guides, tmp_path / "published")
    read = load_guides(tmp_path / "published")
    assert read.mode == "replacement"
    ours, theirs = guides.mask.take(range(COUNT)), read.mask.take(range(COUNT))
    assert set(np.unique(theirs)) == {0, 255}
    assert (ours != theirs).mean() < 0.01


def test_two_runs_give_the_same_bytes_and_a_run_given_up_leaves_nothing(clip, tmp_path):
    a, b = (_run(clip, tmp_path / name)[0] for name in ("a", "b"))
    for part in ("pose", "face", "background", "mask"):
        np.testing.assert_array_equal(getattr(a, part).take(range(COUNT)), getattr(b, part).take(range(COUNT)))
    settings, folder = PreprocessSettings(), tmp_path / "c"
    steps = preprocess("replacement", clip, IMAGE, settings, folder, AREA, FakePeople(), FakeMasks())
    for _ in range(COUNT + 6):
        next(steps)
    steps.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize(
    ("size", "more", "rounds"),
    [
        ((1280, 720), {}, 3),
        ((192, 192), {}, 2),
        ((192, 144), {}, 1),
        ((64, 64), {}, 1),
        ((192, 192), {"iterations": 3}, 3),
        ((192, 192), {"iterations": 0}, 0),
        ((192, 192), {"k": 1}, 3),
        ((64, 64), {"compat": True}, 3),
    ],
)
def test_rounds_fit_the_frame(size: tuple[int, int], more: dict[str, Any], rounds: int) -> None:
    assert mask_shape(PreprocessSettings(**more), size).iterations == rounds


def _sheet(path):
    return np.asarray(Image.open(path).convert("RGB"))


def test_the_mask_sheet_shows_outline_and_inpaint_mask(clip, tmp_path):
    _run(clip, tmp_path / "g", mask_debug=tmp_path / "why.png", iterations=3)
    sheet = _sheet(tmp_path / "why.png")
    white = (sheet == 255).all(axis=-1).sum(axis=1)
    outline, inpaint = white[-432:-232].sum(), white[-224:-24].sum()
    assert 0 < outline < inpaint


def test_a_mask_sheet_never_replaces_a_file(clip, tmp_path):
    place = tmp_path / "why.png"
    place.write_text("mine")
    with pytest.raises(
        OutputError, match=r"why\.png: something of this name is there already\. Choose another name\.$"
    ):
        _run(clip, tmp_path / "g", mask_debug=place)
    assert place.read_text() == "mine"
    assert not (tmp_path / "g").exists()
    with pytest.raises(InputError, match=r"mask_debug = .*why\.jpg: the sheet is a PNG"):
        _run(clip, tmp_path / "g", mask_debug=tmp_path / "why.jpg")


def test_a_quality_that_nothing_uses_is_refused(clip, tmp_path):
    with pytest.raises(InputError, match=r"^mask_quality = high: the masks come from elsewhere\. Leave it out"):
        _run(clip, tmp_path / "g", mask="m.mkv", mask_quality="high")
    settings = PreprocessSettings(mask_quality="high")
    with pytest.raises(InputError, match=r"^mask_quality = high: the performer's pixels are not looked for here"):
        next(preprocess("animation", clip, IMAGE, settings, tmp_path / "g", AREA, FakePeople()))
