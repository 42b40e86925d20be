"""A mask video that the user gives: shaped like any other, and refused where it cannot be the performer's."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import cv2
import numpy as np
import pytest
from test_preprocess_drive import COUNT, FakePeople
from test_preprocess_replacement import AREA, IMAGE, _run
from test_preprocess_replacement import clip as clip

from wanimate.config import PreprocessSettings
from wanimate.errors import InputError
from wanimate.media.video import LosslessWriter, iter_indices, write_h264
from wanimate.preprocess.layout import plan_layout
from wanimate.preprocess.masks.registry import open_masks

WHERE = np.s_[20:200, 60:140]
"""Around the walking figure of `FakePeople` in its first frames; it moves 5 pixels a frame."""


def _mask(i, gone=(), invert=False, shift=0):
    mask = np.zeros((240, 320, 3), np.uint8)
    if i not in gone:
        mask[20:200, max(60 + 5 * i + shift, 0) : 140 + 5 * i + shift] = 255
    return 255 - mask if invert else mask


def _write(path, masks, size=(320, 240)):
    with LosslessWriter(path, Fraction(25), *size) as writer:
        for mask in masks:
            writer.write(mask)
    return path


def _opened(clip, settings, area=AREA):
    layout = plan_layout("replacement", clip, (300, 400), settings, area)
    return open_masks(settings, clip, layout.indices, layout.fitted)


def _guides(clip, folder, path, people=None, **settings):
    settings = {"mask": path, **settings}
    made, why = _opened(clip, PreprocessSettings(**settings))
    assert (made.name, why) == ("given", "a mask video was given")
    return _run(clip, folder, people or FakePeople(), made, **settings)


def test_it_is_shaped_like_any_mask(clip, tmp_path):
    path = _write(tmp_path / "m.mkv", [_mask(i) for i in range(COUNT)])
    before = hashlib.sha256(path.read_bytes()).digest()
    guides, notices = _guides(clip, tmp_path / "g", path, iterations=3)
    assert all(one.startswith("advice on the light") for one in notices)
    inpaint = guides.mask.take(range(COUNT))
    scene, source = guides.background.take(range(COUNT)), np.stack(list(iter_indices(clip, range(COUNT))))
    for i in range(COUNT):
        grown = cv2.dilate(_mask(i), np.ones((19, 19), np.uint8))  # three rounds of 7 x 7
        np.testing.assert_array_equal(inpaint[i], grown)
        np.testing.assert_array_equal(scene[i], np.where(grown > 0, 0, source[i]))
    assert guides.manifest["mask"]["backend"] == "given"
    assert guides.manifest["mask"]["given"] == str(path)
    exact, _ = _guides(clip, tmp_path / "exact", path, iterations=0)
    np.testing.assert_array_equal(exact.mask.take([3])[0], _mask(3))
    box, _ = _guides(clip, tmp_path / "box", path, iterations=3, w_len=1, h_len=1)
    assert box.mask.take([3]).sum() >= inpaint[3].sum()
    assert hashlib.sha256(path.read_bytes()).digest() == before


def test_a_lossy_one_is_made_black_and_white_again(clip, tmp_path):
    path = tmp_path / "m.mp4"
    with write_h264(path, Fraction(25), 320, 240, 30) as writer:
        for i in range(COUNT):
            writer.write(_mask(i))
    guides, _ = _guides(clip, tmp_path / "g", path, iterations=0)
    inpaint = guides.mask.take(range(COUNT))
    assert set(np.unique(inpaint)) == {0, 255}
    assert (inpaint != np.stack([_mask(i) for i in range(COUNT)])).mean() < 0.01


def test_it_follows_the_frames_and_the_size_of_the_job(clip, tmp_path):
    path = _write(tmp_path / "m.mkv", [_mask(i) for i in range(COUNT)])
    settings = PreprocessSettings(mask=path, fps=Fraction(25, 2))
    made, _ = _opened(clip, settings, 160 * 112)
    size = plan_layout("replacement", clip, (300, 400), settings, 160 * 112).size
    masks = list(made._masks(range(COUNT // 2)))
    assert len(masks) == COUNT // 2
    assert masks[0].shape == size[::-1]
    left = [np.flatnonzero(m.any(axis=0))[0] * 320 / size[0] for m in masks]
    np.testing.assert_allclose(np.diff(left), 10, atol=2.5)  # every second frame of the mask
    compat, _ = _guides(clip, tmp_path / "compat", path, compat=True)
    assert compat.mask.take([0]).any()


def test_frames_without_the_person_keep_their_pixels_whatever_the_mask_says(clip, tmp_path):
    path = _write(tmp_path / "m.mkv", [_mask(i, gone=(8, 9)) for i in range(COUNT)])
    guides, notices = _guides(clip, tmp_path / "g", path, FakePeople(gone=(2,)))
    empty = [not guides.mask.take([i]).any() for i in range(COUNT)]
    assert [i for i in range(COUNT) if empty[i]] == [2, 8, 9]
    np.testing.assert_array_equal(guides.background.take([2])[0], next(iter(iter_indices(clip, [2]))))
    assert any("no pixel of the performer was found in 2 of 12 frames (8-9)" in n for n in notices)


@pytest.mark.parametrize(
    ("count", "size", "found"),
    [
        (COUNT - 1, (320, 240), "320x240 pixels and 11 frames"),
        (COUNT + 5, (320, 240), "320x240 pixels and 17 frames"),
        (COUNT, (240, 320), "240x320 pixels and 12 frames"),
        (COUNT, (640, 480), "640x480 pixels and 12 frames"),
    ],
)
def test_another_length_or_size_is_refused(clip, tmp_path, count, size, found):
    path = _write(tmp_path / "m.mkv", [np.zeros((*size[::-1], 3), np.uint8)] * count, size)
    rule = (
        rf"^mask = .*m\.mkv: has {found}, but the clip walk\.mkv has 320x240 pixels and 12 frames\. Give one mask frame"
    )
    with pytest.raises(InputError, match=rule):
        _opened(clip, PreprocessSettings(mask=path))


@pytest.mark.parametrize(
    ("masks", "rule"),
    [
        (
            {"invert": True},
            r"only 0 % of the performer's keypoints lie in its white part: it is inverted\. Make the perf",
        ),
        ({"shift": 120}, r"only \d+ % of the performer's keypoints .*somebody else\. .* with person\.$"),
        ({"gone": range(COUNT)}, r"black in every frame.*white where the performer is"),
    ],
)
def test_what_cannot_be_the_performers_is_refused(clip, tmp_path, masks, rule):
    path = _write(tmp_path / "m.mkv", [_mask(i, **masks) for i in range(COUNT)])
    with pytest.raises(InputError, match=rule) as caught:
        _guides(clip, tmp_path / "g", path)
    assert caught.value.field == "preprocess.mask"
    assert caught.value.exit_code == 2
    assert not (tmp_path / "g").exists()


def test_what_is_no_video_is_refused(clip, tmp_path):
    (tmp_path / "m.mkv").write_text("words\n" * 100)
    for name in ("m.mkv", "none.mkv"):
        with pytest.raises(InputError, match=r"^mask = "):
            _opened(clip, PreprocessSettings(mask=tmp_path / name))


def test_only_one_source_of_masks(clip, tmp_path):
    with pytest.raises(InputError, match=r"^sam2 = s: the masks are given with mask already"):
        _run(clip, tmp_path / "g", mask="m.mkv", sam2="s", image=IMAGE)
