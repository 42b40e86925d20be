from __future__ import annotations

import errno
import json
import os
import shutil
from fractions import Fraction

import numpy as np
import pytest

from wanimate.errors import InputError, OutputError
from wanimate.media.video import ArrayFrames, LosslessWriter, write_h264
from wanimate.preprocess import guides as guides_module
from wanimate.preprocess.guides import GuidesWriter, export_published, load_guides, write_png
from wanimate.types import Guides

FPS = Fraction(30000, 1001)
RANDOM = np.random.default_rng(0)
POSE = RANDOM.integers(0, 255, (5, 48, 64, 3), dtype=np.uint8)
FACE = RANDOM.integers(0, 255, (5, 32, 32, 3), dtype=np.uint8)
REFERENCE = RANDOM.integers(0, 255, (48, 64, 3), dtype=np.uint8)


def _write(folder, **manifest):
    with GuidesWriter(folder, "animation", FPS, (64, 48), 32) as writer:
        for pose, face in zip(POSE, FACE, strict=True):
            writer.write(pose, face)
        writer.finish(REFERENCE, manifest, {"source": np.zeros((5, 133, 3))})
    return folder


def test_what_is_written_is_read_back_exactly(tmp_path):
    guides = load_guides(_write(tmp_path / "new" / "guides", no_person=[[1, 3]], warnings=["w"]))
    assert (guides.mode, guides.fps, guides.count, guides.size) == ("animation", FPS, 5, (64, 48))
    np.testing.assert_array_equal(guides.pose.take(range(5)), POSE)
    np.testing.assert_array_equal(guides.face.take([4, 0]), FACE[[4, 0]])
    np.testing.assert_array_equal(guides.reference, REFERENCE)
    assert guides.valid == (True, False, False, True, True)
    assert guides.manifest["warnings"] == ["w"]
    assert guides.manifest["fps"] == "30000/1001"
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["guides"]


def test_a_failure_leaves_nothing(tmp_path):
    def interrupted():
        with GuidesWriter(tmp_path / "g", "animation", FPS, (64, 48), 32) as writer:
            writer.write(POSE[0], FACE[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_own_guides_are_replaced_and_other_folders_are_not(tmp_path):
    _write(tmp_path / "g", note=1)
    assert load_guides(_write(tmp_path / "g", note=2)).manifest["note"] == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(OutputError, match="taken"):
        _write(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    _write(tmp_path / "empty")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "g", "mine"]


@pytest.mark.parametrize(("number", "message"), [(errno.EACCES, "not writable"), (errno.ENOSPC, "disk is full")])
def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, number, message):
    def refuse(path, image):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(guides_module, "write_png", refuse)
    with pytest.raises(OutputError, match=message):
        _write(tmp_path / "g")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="not a folder"):
        _write(tmp_path / "file" / "g")
    with pytest.raises(OutputError, match="taken"):
        _write(tmp_path / "file")


@pytest.mark.parametrize("part", ["pose.mkv", "face.mkv", "reference.png"])
def test_missing_and_damaged_parts_are_named(tmp_path, part):
    folder = _write(tmp_path / "g")
    (folder / part).write_bytes(b"not what it was")
    with pytest.raises(InputError, match=part):
        load_guides(folder)
    (folder / part).unlink()
    with pytest.raises(InputError, match=part):
        load_guides(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "version 99"),
        ({"fps": "fast"}, "damaged"),
        ({"fps": "30/0"}, "damaged"),
        ({"mode": "musical"}, "damaged"),
        ({"files": {}}, "damaged"),
        ({"count": 6}, "not those of the manifest"),
        ({"size": [64, 64]}, "not those of the manifest"),
    ],
)
def test_wrong_manifests(tmp_path, change, message):
    folder = _write(tmp_path / "g")
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        load_guides(folder)


def test_a_manifest_that_is_no_json(tmp_path):
    folder = _write(tmp_path / "g")
    (folder / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        load_guides(folder)


def test_parts_of_different_length(tmp_path):
    folder = _write(tmp_path / "g")
    with LosslessWriter(folder / "face.mkv", FPS, 32, 32) as writer:
        writer.write(FACE[0])
    with pytest.raises(InputError, match="face video has 1 frames, the pose video 5"):
        load_guides(folder)


def test_no_guides(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        load_guides(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"src_pose\.mp4"):
        load_guides(tmp_path)


def _smooth_video(shape):
    ramp = np.linspace(0, 200, shape[2])[None, None, :, None]
    return np.broadcast_to(ramp, (*shape, 3)).astype(np.uint8)


def test_published_set_there_and_back(tmp_path):
    pose, face = _smooth_video((5, 48, 64)), _smooth_video((5, 32, 32))
    mask = np.zeros((5, 48, 64, 3), np.uint8)
    mask[:, 8:40, 16:48] = 255
    before = Guides(
        "replacement", FPS, ArrayFrames(pose), ArrayFrames(face), REFERENCE, ArrayFrames(pose), ArrayFrames(mask)
    )
    export_published(before, tmp_path / "set")
    names = ["src_bg.mp4", "src_face.mp4", "src_mask.mp4", "src_pose.mp4", "src_ref.png"]
    assert sorted(p.name for p in (tmp_path / "set").iterdir()) == names
    guides = load_guides(tmp_path / "set")
    assert (guides.mode, guides.fps, guides.count, guides.size) == ("replacement", FPS, 5, (64, 48))
    assert np.abs(guides.pose.take([2])[0].astype(int) - pose[2]).max() <= 12
    np.testing.assert_array_equal(guides.reference, REFERENCE)
    read = guides.mask.take(range(5))
    assert set(np.unique(read)) == {0, 255}
    assert (read == mask).mean() > 0.99
    assert guides.valid is None


def test_published_animation_set(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for name, frames in (("src_pose.mp4", POSE), ("src_face.mp4", FACE)):
        with write_h264(folder / name, Fraction(30), frames.shape[2], frames.shape[1], 23) as writer:
            for frame in frames:
                writer.write(frame)
    write_png(folder / "src_ref.png", REFERENCE)
    assert load_guides(folder).mode == "animation"
    shutil.copy(folder / "src_pose.mp4", folder / "src_bg.mp4")
    with pytest.raises(InputError, match=r"src_mask\.mp4"):
        load_guides(folder)


def test_an_odd_face_cannot_be_exported(tmp_path):
    guides = Guides("animation", FPS, ArrayFrames(POSE), ArrayFrames(FACE[:, :31, :31]), REFERENCE)
    with pytest.raises(InputError, match="even"):
        export_published(guides, tmp_path / "set")
    assert list(tmp_path.iterdir()) == []
