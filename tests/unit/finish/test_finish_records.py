"""Manifests and contact sheets."""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from wanimate.config import OutputSettings
from wanimate.finish.lock import OutputLock
from wanimate.finish.record import SCHEMA, peak_rss, record_bytes
from wanimate.media.png import png_bytes
from wanimate.media.sheet import contact_sheet, sample_columns, sheet_of_sources
from wanimate.media.video import ArrayFrames
from wanimate.weights.fingerprint import file_hash


def test_record_holds_what_it_is_given_and_the_versions(tmp_path: Path) -> None:
    data = {
        "fps": Fraction(30000, 1001),
        "seed": np.int64(7),
        "settings": OutputSettings(crf=20),
        "image": tmp_path / "a.png",
        "seconds": {"denoise": 1.5},
        "valid": np.array([True, False]),
    }
    read = json.loads(record_bytes(tmp_path / "out.mp4", data))
    assert read["schema"] == SCHEMA
    assert read["fps"] == "30000/1001"
    assert read["seed"] == 7
    assert read["settings"] == OutputSettings(crf=20).model_dump(mode="json")
    assert read["image"] == str(tmp_path / "a.png")
    assert read["valid"] == [True, False]
    assert read["versions"]["torch"]
    assert read["wanimate"]
    assert read["peak_rss_bytes"] > 10 * 2**20
    (tmp_path / "out.json").write_bytes(record_bytes(tmp_path / "out.mp4", data))
    OutputLock(tmp_path / "out.mp4").release()  # our own record may be replaced


def test_record_refuses_what_json_cannot_say() -> None:
    with pytest.raises(ValueError, match="JSON"):
        record_bytes(Path("out.mp4"), {"loss": float("nan")})
    with pytest.raises(TypeError, match="object"):
        record_bytes(Path("out.mp4"), {"thing": object()})


def test_hash_of_a_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 9000
    (tmp_path / "a").write_bytes(content)
    assert file_hash(tmp_path / "a") == "sha256:" + hashlib.sha256(content).hexdigest()


def test_peak_memory_is_in_bytes_and_no_less_than_the_present() -> None:
    assert psutil.Process().memory_info().rss * 0.9 <= peak_rss() < psutil.virtual_memory().total


def test_columns_lie_inside_and_cover() -> None:
    assert sample_columns(80, 8) == [5, 15, 25, 35, 45, 55, 65, 75]
    assert sample_columns(3, 8) == [0, 1, 2]
    assert sample_columns(1, 8) == [0]


def test_sheet_shows_every_row_in_its_place() -> None:
    colours = {"driver": (200, 10, 10), "skeleton": (10, 200, 10), "face": (10, 10, 200), "output": (200, 200, 10)}
    sizes = {"driver": (90, 160), "skeleton": (90, 160), "face": (64, 64), "output": (180, 320)}
    sources = [
        (name, ArrayFrames(np.full((20, *sizes[name], 3), colour, np.uint8))) for name, colour in colours.items()
    ]
    sheet = sheet_of_sources(sources, fps=10, columns=4, title="demo", row_height=90)
    places = {name: np.argwhere((sheet == colour).all(axis=2)) for name, colour in colours.items()}
    tops = [int(places[name][:, 0].min()) for name in colours]
    assert tops == sorted(tops)
    assert all(len(places[name]) == 4 * 90 * 160 for name in ("driver", "skeleton", "output"))
    assert len(places["face"]) == 4 * 90 * 90  # keeps its aspect
    labels = sheet[:, :100]
    assert (labels.min(axis=(1, 2)) < 100).sum() > 20  # something is written at the left
    assert (cv2.imdecode(np.frombuffer(png_bytes(sheet), np.uint8), cv2.IMREAD_COLOR)[..., ::-1] == sheet).all()


def test_sheet_shows_the_frames_of_the_sampled_moments() -> None:
    frames = np.arange(40, dtype=np.uint8)[:, None, None, None].repeat(32, 1).repeat(32, 2).repeat(3, 3) * 5
    sheet = sheet_of_sources([("clip", ArrayFrames(frames))], fps=10, columns=4, row_height=32)
    assert {i * 5 for i in sample_columns(40, 4)} <= set(np.unique(sheet[-40:, 120:]))


def test_sheet_needs_one_frame_a_time() -> None:
    with pytest.raises(AssertionError, match="one frame per time"):
        contact_sheet([("a", [np.zeros((8, 8, 3), np.uint8)])], [0.0, 1.0])
