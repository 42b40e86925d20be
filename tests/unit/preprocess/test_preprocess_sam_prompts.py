from __future__ import annotations

import numpy as np

from wanimate.preprocess.masks.sam_prompts import chunks, clicks, key_frames


def test_published_prompts(golden_json):
    data = golden_json("sam_prompts.json")
    cycle, size = np.array(data["keypoints133_cycle"]), (data["width"], data["height"])
    assert data["cases"]
    for case in data["cases"]:
        spans = chunks(case["n_frames"])
        assert sum(b - a for a, b in spans) == case["n_masks"]
        assert [b - a for a, b in spans] == [c["chunk_len"] for c in case["chunks"]]
        for (start, _), chunk in zip(spans, case["chunks"], strict=True):
            keys = key_frames(chunk["chunk_len"])
            assert keys == chunk["key_frames"]
            points = clicks(cycle[(start + keys[0]) % len(cycle)], *size, compat=True)
            assert points == [tuple(p) for p in chunk["points_first"]]


def test_only_joints_that_are_seen_are_clicked(golden_json):
    data = golden_json("sam_prompts.json")
    points, size = np.array(data["keypoints133_cycle"])[0], (data["width"], data["height"])
    assert len(clicks(points, *size)) == 8
    points[15:17, 2] = 0.1  # ankles that were guessed
    points[0, 0] = -5.0  # a nose outside of the picture
    assert clicks(points, *size) == clicks(points, *size, compat=True)[1:6]
