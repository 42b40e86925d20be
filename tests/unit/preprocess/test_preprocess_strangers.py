"""Guides of strangers: what their manifest may say, and what becomes of the clip that it names."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tracemalloc
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wanimate.errors import InputError
from wanimate.media.video import write_h264
from wanimate.preprocess.guides import GuidesWriter, load_guides
from wanimate.preprocess.manifest import source_clip, told_settings

COUNT = 5


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strangers") / "guides"
    with GuidesWriter(folder, "animation", Fraction(30), (64, 48), 32) as writer:
        for _ in range(COUNT):
            writer.write(np.zeros((48, 64, 3), np.uint8), np.zeros((32, 32, 3), np.uint8))
        writer.finish(np.zeros((48, 64, 3), np.uint8), {}, {"source": np.zeros((COUNT, 133, 3))})
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "guides"))


def edit(folder: Path, **change: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


SOURCE = {"path": "/nowhere.mp4", "sha256": "0" * 64, "frames": list(range(COUNT))}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"count": 20_000_000_000}, "count: it has to be less than or equal to 2147483647"),
        ({"count": 0}, "count: it has to be greater than or equal to 1"),
        ({"count": "5"}, "count: it has to be a valid integer"),
        ({"count": True}, "count: it has to be a valid integer"),
        ({"count": 5.0}, "count: it has to be a valid integer"),
        ({"size": [64]}, "size:"),
        ({"size": [64, -48]}, "size.1:"),
        ({"face_size": 10**9}, "face_size:"),
        ({"fps": "1/0"}, "fps has to be above 0"),
        ({"fps": "5000"}, "fps has to be above 0 and at most 1000"),
        ({"fps": 30}, "fps: it has to be a valid string"),
        ({"mode": ["animation"]}, "mode:"),
        ({"files": {"pose": "pose.mkv"}}, "files has to name the face video"),
        ({"files": {"pose": "../pose.mkv", "face": "face.mkv"}}, "files.pose:"),
        ({"files": {"pose": "/etc/passwd", "face": "face.mkv"}}, "files.pose:"),
        ({"reference": ".."}, "a file in the folder"),
        ({"reference": "a\0b"}, "reference:"),
        ({"no_person": [[3, 2]]}, "stretches"),
        ({"no_person": [[0, COUNT + 1]]}, "stretches"),
        ({"no_person": [[2, 3], [1, 2]]}, "stretches"),
        ({"no_person": [[-1, 2]]}, "no_person.0.0"),
        ({"no_person": 7}, "no_person"),
        ({"warnings": [{"a": 1}]}, "warnings.0"),
        ({"source": "clip.mp4"}, "source"),
        ({"source": SOURCE | {"sha256": "short"}}, "source.sha256"),
        ({"source": SOURCE | {"path": "a\0b"}}, "source.path"),
        ({"source": SOURCE | {"frames": [0]}}, "one frame of the clip for each frame"),
        ({"source": SOURCE | {"frames": [0, 1, 2, 3, 10**12]}}, "source.frames.4"),
        ({"settings": []}, "settings"),
    ],
    ids=lambda part: part if isinstance(part, str) else json.dumps(part)[:40],
)
def test_manifests_that_break_a_rule(folder: Path, change: dict[str, Any], rule: str) -> None:
    edit(folder, **change)
    with pytest.raises(InputError) as caught:
        load_guides(folder)
    assert rule in str(caught.value)
    assert str(folder / "manifest.json") in str(caught.value)
    assert str(caught.value).endswith("Run `wanimate preprocess` again.")


def test_a_count_that_is_not_the_videos_takes_no_memory(folder: Path) -> None:
    edit(folder, count=2_000_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="not those of the manifest"):
            load_guides(folder)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_keys_of_others_are_kept(folder: Path) -> None:
    edit(folder, studio={"shot": [1, 2]}, source=SOURCE)
    assert load_guides(folder).manifest["studio"] == {"shot": [1, 2]}


def test_a_link_that_leads_out_of_the_folder(folder: Path) -> None:
    (folder / "pose.mkv").rename(folder.parent / "elsewhere.mkv")
    (folder / "pose.mkv").symlink_to(folder.parent / "elsewhere.mkv")
    with pytest.raises(InputError, match=r"pose\.mkv: it is a link that leads out of the folder"):
        load_guides(folder)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "dance.mp4"
    with write_h264(path, Fraction(30), 64, 48, 23) as writer:
        for level in range(COUNT):
            writer.write(np.full((48, 64, 3), 40 * level, np.uint8))
    return path


def named(path: Path | str, sha256: str) -> dict[str, Any]:
    return {"source": SOURCE | {"path": str(path), "sha256": sha256}}


def test_the_clip_is_used_only_if_it_is_the_very_one(clip: Path) -> None:
    digest = hashlib.sha256(clip.read_bytes()).hexdigest()
    found, notice = source_clip(named(clip, digest))
    assert found is not None
    assert (found.path, notice) == (clip, None)
    for wrong, reason in (
        (named(clip, "0" * 64), "has changed"),
        (named(clip.with_name("x.mp4"), digest), "is not there"),
    ):
        found, notice = source_clip(wrong)
        assert found is None
        assert notice is not None
        assert notice.level == "warning"
        assert reason in notice.message
    assert source_clip({}) == (None, None)


def test_what_is_no_plain_file_is_never_opened(clip: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")

    def opened(path: Path) -> str:
        raise AssertionError(f"{path} was opened")

    for path in (
        tmp_path / "pipe",
        tmp_path / "link",
        "/dev/zero",
        "/proc/kmsg",
        "relative.mp4",
        "//host/share.mp4",
        tmp_path,
    ):
        found, notice = source_clip(named(path, "0" * 64), opened)
        assert found is None
        assert notice is not None


def test_settings_that_are_none_stay_out_of_the_record() -> None:
    assert told_settings({}) is None
    assert told_settings({"settings": {"fps": "fast"}}) is None
    assert told_settings({"settings": {"wings": 2}}) is None
    assert told_settings({"settings": {"fps": "24"}}) == {"fps": "24"}
