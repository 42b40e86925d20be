from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from wanimate.errors import InputError
from wanimate.preprocess.detect import yolo_vitpose as onnx
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
        np.testing.assert_allclose(crop[0][:, y, x], data[f"values_{case['i']}"], atol=1e-4)


def test_heatmap_decode_golden(golden_npz):
    data = golden_npz("heatmap_decode.npz")
    for i, heat in enumerate(data["heatmaps"]):
        got = onnx.decode(heat, tuple(data["center"][i]), tuple(data["scale_px"][i]))
        np.testing.assert_allclose(got[:, :2], data["keypoints_px"][i], atol=0.01)
        np.testing.assert_array_equal(got[:, 2:].astype(np.float32), data["maxval"][i])
    for k in range(3):
        np.testing.assert_allclose(
            onnx.modulate(data["heatmaps"][0, k])[::4, ::4], data["blurred_sample"][0, k], atol=1e-6
        )


class Stub:
    """A network that returns given answers in turn and keeps what it was fed."""

    def __init__(self, *answers):
        self.answers, self.seen = list(answers), []

    def __call__(self, array):
        self.seen.append(array)
        return self.answers[len(self.seen) - 1]


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
    parts = split(np.stack([p.keypoints for p in people]))
    for got, want in ((parts.body, "body"), (parts.left_hand, "lhand"), (parts.right_hand, "rhand")):
        np.testing.assert_allclose(got / (width, height, 1), data[want], atol=1e-4)
    np.testing.assert_allclose(parts.face / (width, height, 1), data["face"][:, 1:], atol=1e-4)


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
    assert onnx.person_box(rows, 640, 640, before).x1 == 20
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
