"""What cannot end well is refused before a model is loaded or a frame is decoded; whatever is accepted can be read again."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_preprocess_drive import IMAGE, FakePeople
from test_preprocess_drive import clip as clip
from test_preprocess_replacement import FakeMasks

from wanimate.config import PreprocessSettings
from wanimate.errors import InputError, OutputError
from wanimate.integrations.published import write_published_guides
from wanimate.preprocess.drive import check, preprocess
from wanimate.preprocess.folder import NewFolder, check_folder
from wanimate.types import Clip, Frame, Guides, Mode

MODES: tuple[Mode, ...] = ("animation", "replacement")
WIDE = np.full((100, 1000, 3), 90, np.uint8)


@pytest.fixture(params=[False, True], ids=["own", "compat"])
def compat(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def gone(clip: Clip, tmp_path: Path) -> Clip:
    """A probed clip whose file is there no more: whoever decodes it fails otherwise."""
    return replace(clip, path=tmp_path / "gone.mkv")


@pytest.fixture(autouse=True)
def _no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("models are loaded too early")

    monkeypatch.setattr("wanimate.preprocess.drive.open_detector", refuse)
    monkeypatch.setattr("wanimate.preprocess.drive.open_masks", refuse)


def refused(
    mode: Mode, clip: Clip, folder: Path, area: int = 128 * 128, image: Frame = IMAGE, **settings: Any
) -> InputError:
    with pytest.raises(InputError) as caught:
        next(preprocess(mode, clip, image, PreprocessSettings().model_copy(update=settings), folder, area))
    return caught.value


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("area", [1, 255, 16 * 16, 16 * 32, 31 * 31, 10**9, 10**12])
def test_areas(gone: Clip, tmp_path: Path, mode: Mode, compat: bool, area: int) -> None:
    error = refused(mode, gone, tmp_path / "g", area, compat=compat)
    assert (error.field, error.value) == ("preprocess.area", area)
    assert list(tmp_path.iterdir()) == []


def test_an_area_that_leaves_a_short_side(gone: Clip, tmp_path: Path, compat: bool) -> None:
    error = refused("animation", gone, tmp_path / "g", 64 * 64, WIDE, compat=compat)
    assert "x16 pixels, but each side has to be at least 32" in error.rule


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("side", [1, 4097, 10**6])
def test_face_sizes(gone: Clip, tmp_path: Path, mode: Mode, compat: bool, side: int) -> None:
    error = refused(mode, gone, tmp_path / "g", face_size=side, compat=compat)
    assert (error.field, error.value) == ("preprocess.face_size", side)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fps", [Fraction(1001), Fraction(10**7), Fraction(2**31 + 1, 2**31), Fraction(1, 2**31)])
def test_rates(gone: Clip, tmp_path: Path, mode: Mode, fps: Fraction) -> None:
    error = refused(mode, gone, tmp_path / "g", fps=fps)
    assert (error.field, error.value) == ("preprocess.fps", fps)


@pytest.mark.parametrize("mode", MODES)
def test_taken_folders(gone: Clip, tmp_path: Path, mode: Mode) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    error = refused(mode, gone, tmp_path / "mine")
    assert isinstance(error, OutputError)
    assert error.field == "guides"


def test_what_a_mode_cannot_do(gone: Clip, tmp_path: Path) -> None:
    for mode, settings, field in (
        ("animation", {"mask": tmp_path / "m.mkv"}, "preprocess.mask"),
        ("animation", {"sam2": tmp_path}, "preprocess.sam2"),
        ("replacement", {"retarget": "auto"}, "preprocess.retarget"),
        ("replacement", {"mask": tmp_path / "m.mkv", "sam2": tmp_path}, "preprocess.sam2"),
    ):  # fmt: skip
        with pytest.raises(InputError) as caught:
            check(mode, PreprocessSettings().model_copy(update=settings))
        assert caught.value.field == field
        assert refused(mode, gone, tmp_path / "g", **settings).field == field
    check("replacement", PreprocessSettings(sam2=tmp_path, retarget="off"))
    check("animation", PreprocessSettings(retarget="published"))


def test_an_odd_face_for_the_published_set(gone: Clip, tmp_path: Path) -> None:
    settings = PreprocessSettings(face_size=63, compat=True, area=128 * 128)
    with pytest.raises(InputError, match="even"):
        next(write_published_guides("animation", gone, IMAGE, settings, tmp_path / "g", FakePeople(), (), {}))
    assert list(tmp_path.iterdir()) == []


def made(mode: Mode, clip: Clip, folder: Path, image: Frame, area: int, **settings: Any) -> Guides:
    steps = preprocess(mode, clip, image, PreprocessSettings(**settings), folder, area, FakePeople(), FakeMasks())
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            found: Guides = stop.value
            return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "settings",
    [{"face_size": 2}, {"face_size": 33}, pytest.param({"fps": Fraction(1000)}, marks=pytest.mark.slow),
     {"fps": Fraction(1, 10)}, {"fps": Fraction(30000, 1001)}],
    ids=str,
)  # fmt: skip
def test_the_smallest_and_quickest_guides_can_be_read(clip: Clip, tmp_path: Path, mode: Mode, settings: Any) -> None:
    guides = made(mode, clip, tmp_path / "g", IMAGE, 48 * 48, **({"face_size": 8} | settings))
    assert min(guides.size) >= 32
    assert guides.pose.take([guides.count - 1]).shape == (1, *guides.size[::-1], 3)
    assert guides.fps == settings.get("fps", clip.fps)


def test_a_long_picture_in_replacement_can_be_read(clip: Clip, tmp_path: Path) -> None:
    guides = made("replacement", clip, tmp_path / "g", np.full((64, 2560, 3), 90, np.uint8), 64 * 64, face_size=8)
    assert guides.reference.shape == (32, 1280, 3)


def left(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def fails(path: Path, message: str) -> None:
    """Both ways to ask give the same answer."""
    for ask in (lambda: check_folder(path), lambda: NewFolder(path).__enter__()):
        with pytest.raises(OutputError, match=message):
            ask()


def test_a_folder_that_can_be_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_folder(tmp_path / "new" / "and" / "deep")
    (tmp_path / "empty").mkdir()
    check_folder(tmp_path / "empty")
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    check_folder(tmp_path / "link")
    monkeypatch.chdir(tmp_path / "empty")
    check_folder(Path("."))
    assert left(tmp_path) == ["empty", "link"]


def test_folders_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    before = left(tmp_path)
    fails(tmp_path / "file", "the name is taken")
    fails(tmp_path / "full", "the name is taken")
    fails(tmp_path / "file" / "g", "not a folder")
    fails(tmp_path / "new" / ("n" * 250), "the name is too long")
    fails(tmp_path / "loop", "names no folder")
    fails(Path("a\0b"), "names no folder")
    fails(Path("/"), "the name is taken")
    assert left(tmp_path) == before


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.EACCES, "not writable"), (errno.EROFS, "not writable"), (errno.ENOSPC, "the disk is full")],
)
def test_folders_that_may_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    real = os.mkdir

    def mkdir(path: str, mode: int = 0o777) -> None:
        if str(path).endswith(".part"):
            raise OSError(number, os.strerror(number))
        real(path, mode)

    monkeypatch.setattr(os, "mkdir", mkdir)
    fails(tmp_path / "new" / "deep" / "g", message)
    assert left(tmp_path) == []


def test_a_failure_removes_the_parents_that_were_made(tmp_path: Path) -> None:
    def interrupted() -> None:
        with NewFolder(tmp_path / "new" / "deep" / "g") as place:
            (place / "half").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert left(tmp_path) == []


def test_a_link_to_guides_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with NewFolder(tmp_path / "link") as place:
        (place / "whole").write_text("x")
    assert left(tmp_path) == ["link", "real", "real/whole"]
    assert (tmp_path / "link").is_symlink()
