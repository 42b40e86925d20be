from __future__ import annotations

import numpy as np

from wanimate.preprocess.pose import keypoints as kp

RIGHT_HEEL = kp.FEET.stop - 1
"""The published face has 69 points: this row stands before the 68."""


def test_split_golden(golden_json, golden_npz):
    points = golden_npz("keypoints133.npz")
    cases = golden_json("split.json")
    assert len(cases) == 9
    for name, want in cases.items():
        scaled = kp.move(points[name], (1 / want["width"], 1 / want["height"]), (0, 0))
        got = kp.split(scaled)
        np.testing.assert_allclose(got.body, want["body"], atol=1e-8)
        np.testing.assert_allclose(got.left_hand, want["left_hand"], atol=1e-8)
        np.testing.assert_allclose(got.right_hand, want["right_hand"], atol=1e-8)
        np.testing.assert_allclose([scaled[RIGHT_HEEL], *got.face], want["face69"], atol=1e-8)


def test_all_negative_golden(golden_npz):
    data = golden_npz("allneg_fallback.npz")
    scaled = kp.move(data["kp"], (1 / data["width"], 1 / data["height"]), (0, 0))
    parts = kp.split(scaled)
    np.testing.assert_allclose(kp.reuse_body_when_outside(parts.body), data["body"], atol=1e-9)
    face = np.concatenate([scaled[:, [RIGHT_HEEL]], parts.face], axis=1)
    np.testing.assert_allclose(face, data["face"], atol=1e-9)
    assert not np.allclose(parts.body, data["body"])


def test_all_negative_first_frame_is_kept():
    body = np.full((2, 20, 3), -1.0)
    np.testing.assert_array_equal(kp.reuse_body_when_outside(body), body)


def test_mediapipe_map_takes_each_landmark_to_its_row():
    pose = np.stack([np.arange(33), np.arange(33) * 10, np.full(33, 0.7)], axis=1).astype(float)
    left, right = np.full((21, 3), 5.0), np.full((21, 3), 6.0)
    mesh = np.stack([np.arange(468), np.arange(468), np.ones(468)], axis=1).astype(float)
    out = kp.from_mediapipe(pose, mesh, left, right)
    assert out[5, 0] == 11  # left shoulder
    assert out[10, 0] == 16  # right wrist
    assert out[[17, 18, 19], 0].tolist() == [31, 31, 29]  # left toes share the foot index, then the heel
    assert out[23 + 8, 0] == 152  # chin
    assert (out[kp.LEFT_HAND] == 5).all()
    assert (out[kp.RIGHT_HAND] == 6).all()
    assert len(set(out[kp.FACE, 0].tolist())) == 68
    bare = kp.from_mediapipe(pose, None, None, None)
    assert not bare[kp.FACE].any()
    assert not bare[91:].any()


def test_person_needs_four_confident_joints_inside():
    points = np.zeros((133, 3))
    points[:3] = (10, 10, 0.3)
    assert not kp.has_person(points, 100, 100)
    points[3] = (10, 10, 0.3)
    assert kp.has_person(points, 100, 100)
    points[3, 0] = 101
    assert not kp.has_person(points, 100, 100)


def test_runs():
    assert kp.runs([True, True, False, True]) == [(0, 2), (3, 4)]
    assert kp.runs([False]) == []
