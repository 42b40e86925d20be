from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from wanimate.errors import InputError
from wanimate.preprocess.detect import heatmaps
from wanimate.preprocess.detect import yolo_vitpose as onnx
from wanimate.preprocess.detect.tiles import tiles
from wanimate.preprocess.people.choice import Choice
from wanimate.preprocess.people.tracking import Tracker
from wanimate.preprocess.pose.keypoints import split


def _rows(given):
    rows = np.zeros((300, 6), dtype=np.float32)
    if given:
        rows[: len(given)] = given
    return rows


def test_person_box_golden(golden_json):
    cases = golden_json("person_box.json")
    assert len(cases) == 13
    for case in cases:
        box = onnx.person_box(_rows(case["rows_xyxy640_score_class"]), case["W"], case["H"])
        assert [box.x1, box.y1, box.x2, box.y2, box.score] == case["bbox_xyxy_score"], case["name"]


def test_pose_crop_golden(golden_json, golden_npz):
    data = golden_npz("pose_crop.npz")
    x, y = data["sample_xy"].T
    for case in golden_json("pose_crop.json"):
        crop, centre, size = onnx.pose_input(data["image"], onnx.Box(*case["bbox"]))
        assert centre == pytest.approx(case["center"])
        assert size == pytest.approx(case["scale_times200"], rel=1e-6)
        x1, y1, x2, y2 = case["effective_bbox"]
        assert centre == ((x1 + x2) / 2, (y1 + y2) / 2)
        np.testing.assert_allclose(crop[0][:, y, x], data[f"values_{case['i']}"], atol=1e-4)


def test_corners_of_the_pose_crop_golden(golden_json, monkeypatch):
    """A frame that holds its own coordinates tells what was cut out, and where the cut went beyond it."""
    cut = []
    resize = onnx.cv2.resize
    monkeypatch.setattr(onnx.cv2, "resize", lambda canvas, *a, **k: cut.append(canvas) or resize(canvas, *a, **k))
    rows, columns = np.mgrid[0:180, 0:320]
    frame = np.stack([rows + 1, columns % 200 + 1, columns // 200 + 1], axis=2).astype(np.uint8)
    for case in golden_json("pose_crop.json"):
        onnx.pose_input(frame, onnx.Box(*case["bbox"]))
        canvas, (x0, y0), (x1, y1) = cut[-1], case["crop_x0y0"], case["crop_x1y1"]
        assert canvas.shape == (y1 - y0, x1 - x0, 3)
        row, column = (int(axis[0]) for axis in np.nonzero(canvas[..., 0]))
        y, x = canvas[row, column, 0] - 1, canvas[row, column, 1] - 1 + 200 * (canvas[row, column, 2] - 1)
        assert (x - column, y - row) == (x0, y0)


def test_the_peak_is_the_published_one(golden_npz, monkeypatch):
    """Without the refinement, heat-map cells are pixels of a box as large as the map."""
    data = golden_npz("heatmap_decode.npz")
    monkeypatch.setattr(heatmaps, "_step", lambda *_: (0.0, 0.0))
    for heat, want in zip(data["heatmaps"], data["argmax_xy"], strict=True):
        height, width = heat.shape[1:]
        got = heatmaps.decode(heat, (width / 2, height / 2), (width, height))
        np.testing.assert_array_equal(got[:, :2], want)


def test_heatmap_decode_golden(golden_npz):
    data = golden_npz("heatmap_decode.npz")
    for i, heat in enumerate(data["heatmaps"]):
        _, centre, size = onnx.pose_input(np.zeros((8, 8, 3), np.uint8), onnx.Box(*data["boxes_xyxy"][i], 1.0))
        assert centre == pytest.approx(data["center"][i])
        assert size == pytest.approx(data["scale_px"][i])
        got = heatmaps.decode(heat, tuple(data["center"][i]), tuple(data["scale_px"][i]))
        np.testing.assert_allclose(got[:, :2], data["keypoints_px"][i], atol=0.01)
        np.testing.assert_array_equal(got[:, 2:].astype(np.float32), data["maxval"][i])
    for k in range(3):
        np.testing.assert_allclose(
            heatmaps.modulate(data["heatmaps"][0, k])[::4, ::4], data["blurred_sample"][0, k], atol=1e-6
        )


class Stub:
    """A network that returns given answers in turn and keeps what it was fed."""

    def __init__(self, *answers):
        self.answers, self.seen = list(answers), []

    def __call__(self, array):
        self.seen.append(array)
        return self.answers[min(len(self.seen), len(self.answers)) - 1]


def test_wiring_golden(golden_json, golden_npz):
    data, info = golden_npz("pose2d_wiring.npz"), golden_json("pose2d_wiring.json")
    detector = Stub(_rows(info["det_rows_frame0"])[None], _rows(info["det_rows_frame1"])[None])
    pose = Stub(data["heat0"], data["heat1"])
    people = list(onnx.PublishedBackend(detector, pose, compat=True).track(data["frames_rgb"]))
    x, y = data["yolo_sample_xy"].T
    np.testing.assert_allclose(detector.seen[0][0][:, y, x], data["yolo_in0"], atol=1e-4)
    x, y = data["vit_sample_xy"].T
    for i in (0, 1):
        np.testing.assert_allclose(pose.seen[i][0][:, y, x], data[f"vit_in{i}"], atol=1e-4)
    height, width = data["frames_rgb"].shape[1:3]
    points = np.stack([p.keypoints for p in people])
    parts = split(points)
    for got, want in ((parts.body, "body"), (parts.left_hand, "lhand"), (parts.right_hand, "rhand")):
        np.testing.assert_allclose(got / (width, height, 1), data[want], atol=1e-4)
    face = np.concatenate([points[:, [22]], parts.face], axis=1)  # the published face begins with the right heel
    np.testing.assert_allclose(face / (width, height, 1), data["face"], atol=1e-4)


def test_channel_orders_golden(golden_json, golden_npz):
    """A frame of one colour: which of its channels does each network get in which place?"""
    data, info = golden_npz("pose2d_wiring.npz"), golden_json("pose2d_wiring.json")
    detector, pose = Stub(_rows(info["det_rows_frame0"])[None]), Stub(data["heat0"])
    colour = np.array([10, 100, 200], np.uint8)
    people = onnx.PublishedBackend(detector, pose, compat=True)
    assert people.detect(np.broadcast_to(colour, (144, 256, 3)).copy()) is not None
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    seen = detector.seen[0][0, :, 320, 320], pose.seen[0][0, :, 128, 96] * std + mean
    for values, network in zip(seen, ("yolo", "vitpose"), strict=True):
        order = info[f"{network}_input_channel_order_of_source_rgb"]
        np.testing.assert_allclose(values * 255, colour[order], atol=1e-3)


def test_default_feeds_rgb_and_marks_frames_without_a_person(golden_json, golden_npz):
    data, info = golden_npz("pose2d_wiring.npz"), golden_json("pose2d_wiring.json")
    detector = Stub(_rows(info["det_rows_frame0"])[None], _rows([])[None])
    pose = Stub(np.maximum(data["heat0"], 0.0) + 0.5)
    people = list(onnx.PublishedBackend(detector, pose).track(data["frames_rgb"]))
    assert [p.valid for p in people] == [True, False]
    assert not people[1].keypoints.any()
    crop, _, _ = onnx.pose_input(data["frames_rgb"][0], onnx.person_box(_rows(info["det_rows_frame0"]), 256, 144))
    np.testing.assert_array_equal(pose.seen[0], crop)


def test_the_person_followed_is_kept_when_another_grows():
    rows = _rows([[20, 100, 120, 400, 0.9, 0], [200, 60, 460, 630, 0.9, 0]])
    before = onnx.Box(30, 100, 130, 410, 0.9)
    assert onnx.nearest_box(onnx.people_boxes(rows, 640, 640), before).x1 == 20
    assert onnx.person_box(rows, 640, 640).x1 == 200


def test_missing_models_and_missing_package(tmp_path: Path, monkeypatch):
    with pytest.raises(InputError, match="process_checkpoint"):
        onnx.PublishedBackend.load(None)
    with pytest.raises(InputError, match=r"yolov10m\.onnx"):
        onnx.PublishedBackend.load(tmp_path)
    for name in ("det/yolov10m.onnx", "pose2d/vitpose_h_wholebody.onnx/end2end.onnx"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"not a network")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"wanimate\[onnx\]"):
        onnx.PublishedBackend.load(tmp_path)


def test_a_file_that_is_no_network_is_named(tmp_path: Path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "det").mkdir()
    (tmp_path / "det/yolov10m.onnx").write_bytes(b"not a network")
    with pytest.raises(InputError, match=r"yolov10m\.onnx.*cannot be loaded"):
        onnx.PublishedBackend.load(tmp_path)


def _sees(array):
    """A detector that sees a bright thing of at least 60 of its 640 pixels."""
    rows, columns = np.nonzero(array[0].max(axis=0) > 0.9)
    if not len(rows) or np.ptp(rows) < 60:
        return _rows([])[None]
    return _rows([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1, 0.9, 0]])[None]


def _knows_upright(array):
    """A pose network that is sure where red, the head, is above green; its points lie between head and feet."""
    red, green = (array[0, c] > array[0, 1 - c] + 1 for c in (0, 1))
    maps = np.zeros((1, 133, 64, 48), np.float32)
    if red.any() and green.any():
        head, feet = (np.array(np.nonzero(part)).mean(axis=1) / 4 for part in (red, green))
        for joint in range(133):
            beside = (0, 4 * (-1) ** joint if joint in (5, 6, 11, 12) else 0)
            place = head + (feet - head) * min(joint, 16) / 16 + beside
            row, column = np.clip(np.round(place).astype(int), 0, (63, 47))
            maps[0, joint, row, column] = 0.9 if head[0] < feet[0] - 10 else 0.35
    return maps


def _doll(size, x, y, tall, turns=0):
    """A doll of `tall` pixels around x, y: a red head and green feet, turned by quarters against the clock."""
    doll = np.full((tall, tall // 2, 3), 255, np.uint8)
    doll[: tall // 4], doll[-(tall // 4) :] = (255, 0, 0), (0, 255, 0)
    doll = np.rot90(doll, turns)
    frame = np.zeros((size[1], size[0], 3), np.uint8)
    high, wide = doll.shape[:2]
    top, left = y - high // 2, x - wide // 2
    frame[top : top + high, left : left + wide] = doll
    head = np.rot90(np.arange(tall)[:, None].repeat(tall // 2, axis=1), turns) < tall // 4
    rows, columns = np.nonzero(head)
    return frame, (left + columns.mean(), top + rows.mean())


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_people_who_lie_or_stand_on_their_heads_are_looked_at_turned(turns):
    frame, head = _doll((640, 480), 300, 250, 200, turns)
    people = onnx.PublishedBackend(_sees, _knows_upright)
    for person in people.track([frame, frame]):
        assert person.keypoints[:17, 2].min() > 0.8
        np.testing.assert_allclose(person.keypoints[0, :2], head, atol=8)


def test_turned_points_are_where_rot90_takes_them():
    size = np.array([7.0, 5.0])
    for turns in range(4):
        picture = np.zeros((5, 7))
        picture[1, 4] = 1
        row, column = np.argwhere(np.rot90(picture, turns))[0]
        np.testing.assert_allclose(onnx.turned(np.array([[4.5, 1.5]]), size, turns), [[column + 0.5, row + 0.5]])


def test_small_people_are_looked_for_in_tiles():
    frame, head = _doll((1280, 720), 1000, 500, 100)  # 50 of 640 pixels
    frame[:40] = 0
    person = onnx.PublishedBackend(_sees, _knows_upright).detect(frame)
    np.testing.assert_allclose(person.keypoints[0, :2], head, atol=5)
    empty = []

    def blind(array):
        empty.append(1)
        return _rows([])[None]

    people = onnx.PublishedBackend(blind, _knows_upright)
    assert not any(p.valid for p in people.track([frame] * 9))
    assert len(empty) == 9 + 2 * len(tiles(1280, 720))


def test_with_compat_nothing_is_turned_and_no_tiles_are_searched():
    calls = []

    def counted(network):
        def run(array):
            calls.append(network)
            return network(array)

        return run

    frame, _ = _doll((1280, 720), 1000, 500, 100, 2)
    people = onnx.PublishedBackend(counted(_sees), counted(_knows_upright), compat=True)
    assert len(list(people.track([frame] * 3))) == 3
    assert calls == [_sees, _knows_upright] * 3


def test_after_a_cut_the_one_who_looks_the_same_is_followed():
    """The larger of two would be taken otherwise. Someone known is followed from their place."""
    colours = {10.0: (255, 40, 40), 360.0: (40, 40, 255), 30.0: (40, 40, 255), 400.0: (255, 40, 40)}

    def scene(*people):
        frame = np.zeros((640, 640, 3), np.uint8)
        for x, size in people:
            frame[100 : 100 + size, int(x) : int(x) + size // 2] = colours[x]
        return frame, _rows([[x, 100, x + size // 2, 100 + size, 0.9, 0] for x, size in people])[None]

    def pose(array):
        maps = np.zeros((1, 133, 64, 48), np.float32)
        for row, (y, x) in {
            0: (12, 24),
            5: (18, 34),
            6: (18, 14),
            11: (40, 30),
            12: (40, 18),
            7: (30, 36),
            8: (30, 12),
        }.items():
            maps[0, row, y, x] = 0.9
        return maps

    (first, seen), (second, seen_then) = scene((10.0, 400), (360.0, 300)), scene((30.0, 400), (400.0, 300))
    answers = iter([seen, seen_then, seen_then, seen_then])
    people, tracker = onnx.PublishedBackend(lambda _: next(answers), pose), Tracker(Choice("largest"))
    (person,) = people.track([first], tracker)
    assert person.keypoints[0, 0] < 320
    assert person.others == 1
    tracker.new_shot()
    (person,) = people.track([second], tracker)
    assert person.valid
    assert person.keypoints[0, 0] > 400
    assert person.found != "other"
