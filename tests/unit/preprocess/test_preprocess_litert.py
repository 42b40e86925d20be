from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest

from wanimate.errors import InputError
from wanimate.preprocess.detect import landmarks, litert, models
from wanimate.preprocess.detect.litert import Picture, Square


def test_squares_there_and_back():
    square = Square(100, 50, 40, 0.7)
    points = np.random.default_rng(0).uniform(-1, 2, (9, 2))
    np.testing.assert_allclose(square.to_square(square.to_picture(points)), points, atol=1e-12)
    np.testing.assert_allclose(square.to_picture(np.array([0.5, 0.5])), (100, 50))
    quarter = Square(100, 50, 40, np.pi / 2)  # turned clockwise: its top points to the right
    np.testing.assert_allclose(quarter.to_picture(np.array([0.5, 0.0])), (120, 50), atol=1e-9)
    moved = quarter.shifted(0, -0.5)
    assert (moved.x, moved.y) == pytest.approx((120, 50))


def test_crop_of_the_whole_picture_is_the_picture():
    frame = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    picture = Picture(frame)
    np.testing.assert_allclose(picture.crop(picture.whole(), 64, 0.0), frame / 255, atol=1e-6)
    np.testing.assert_allclose(picture.crop(picture.whole(), 64, -1.0), frame / 127.5 - 1, atol=1e-6)
    # A quarter of the size takes the mean of 4 x 4 pixels: no aliasing.
    small = frame.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(picture.crop(picture.whole(), 16, 0.0) * 255, small, atol=1.01)


def test_crop_beyond_the_picture():
    picture = Picture(np.full((32, 32, 3), 255, np.uint8))
    outside = picture.crop(Square(32, 16, 32), 32, 0.0)
    assert outside[:, :15].min() == 1
    assert outside[:, 17:].max() == 0
    assert picture.crop(Square(32, 16, 32), 32, 0.0, cv2.BORDER_REPLICATE).min() == 1


def test_a_turned_crop_shows_what_its_square_says():
    frame = np.zeros((200, 200, 3), np.uint8)
    square = Square(90, 110, 80, 0.5)
    x, y = square.to_picture(np.array([0.25, 0.75]))
    cv2.circle(frame, (round(x), round(y)), 3, (255, 255, 255), -1)
    rows, columns = np.nonzero(Picture(frame).crop(square, 80, 0.0)[..., 0] > 0.5)
    assert (columns.mean() + 0.5) / 80 == pytest.approx(0.25, abs=0.02)
    assert (rows.mean() + 0.5) / 80 == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize(
    ("size", "groups", "count"),
    [(192, landmarks._FACE_GROUPS, 2304), (224, landmarks._POSE_GROUPS, 2254), (192, landmarks._PALM_GROUPS, 2016)],
)
def test_as_many_anchors_as_the_models_have(size, groups, count):
    anchors = litert.anchor_centres(size, groups)
    assert anchors.shape == (count, 2)
    assert anchors.min() > 0
    assert anchors.max() < 1
    np.testing.assert_allclose(anchors[0], groups[0][0] / size / 2)


def test_a_file_that_is_no_model_is_named(tmp_path, capfd):
    path = tmp_path / "face_landmark.tflite"
    path.write_bytes(b"x" * 1000)
    with pytest.raises(InputError, match=r"face_landmark\.tflite.*Run `python -m"):
        litert.Network(path)
    print("still heard", file=sys.stderr)
    assert capfd.readouterr().err == "still heard\n"


def test_a_model_with_one_wrong_bit_never_reaches_litert(tmp_path, monkeypatch):
    def opened(**_):
        raise AssertionError("opened")

    monkeypatch.setattr(litert, "Interpreter", opened)
    whole = bytearray((models.find() / "face_landmark.tflite").read_bytes())
    whole[4000] ^= 1
    for name in ("face_landmark.tflite", "my_own.tflite"):
        (tmp_path / name).write_bytes(whole)
        with pytest.raises(InputError, match="its checksum is wrong"):
            litert.Network(tmp_path / name)


class FakeNetwork:
    size = 192

    def __init__(self, path):
        self.boxes = np.zeros((2016, 18), np.float32)
        self.logits = np.full((2016, 1), -500, np.float32)

    def __call__(self, crop):
        return [self.boxes, self.logits]


def test_detector_averages_overlapping_boxes_and_keeps_others(monkeypatch):
    monkeypatch.setattr(litert, "Network", FakeNetwork)
    find = litert.Detector("unused", landmarks._PALM_GROUPS, 0.0, 0.4)
    network, centre = find._network, litert.anchor_centres(192, landmarks._PALM_GROUPS)
    for anchor, logit in ((600, 3.0), (602, 2.0), (1000, 1.0), (1500, -3.0)):
        network.logits[anchor] = logit
        network.boxes[anchor, 2:4] = 38.4  # a fifth of the square
        network.boxes[anchor, 4:6] = (19.2, -19.2)
    picture = Picture(np.zeros((100, 200, 3), np.uint8))
    first, second = find(picture, Square(100, 50, 200))
    assert first.score == pytest.approx(1 / (1 + np.exp(-3)))
    weights = 1 / (1 + np.exp([-3.0, -2.0]))
    want = np.average(centre[[600, 602]], axis=0, weights=weights) * 200 + (0, -50)
    np.testing.assert_allclose(first.box, [*want, 40, 40], atol=1e-4)
    np.testing.assert_allclose(first.points[0], want + (20, -20), atol=1e-4)
    np.testing.assert_allclose(second.box[:2], centre[1000] * 200 + (0, -50), atol=1e-4)
    network.logits[:] = -500
    assert find(picture, picture.whole()) == []


def test_landmarks_move_to_the_centre_of_a_sure_heat_map():
    heat = np.full((64, 64, 3), -20, np.float32)
    heat[20, 31:33, 0] = 5
    heat[10, 10, 1] = -1  # not sure
    local = np.array([[30.2, 20.5], [9.5, 10.5], [-5, 3]]) / 64
    out, most = landmarks._refined(local, heat)
    np.testing.assert_allclose(out[0] * 64, (31.5, 20.0), atol=0.01)
    np.testing.assert_allclose(out[1:], local[1:])
    np.testing.assert_allclose(most, 1 / (1 + np.exp([-5, 1, np.inf])), atol=1e-6)
