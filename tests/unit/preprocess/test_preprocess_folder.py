"""A guides folder takes the place of older guides only, and there is never a moment without either."""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from wanimate.errors import OutputError
from wanimate.media import names
from wanimate.media.files import sha256
from wanimate.preprocess import folder as folders
from wanimate.preprocess.folder import FORMAT, MANIFEST, NewFolder, check_folder


def write(place: Path, content: str) -> None:
    (place / "pose.mkv").write_text(content)
    manifest = {"format": FORMAT, "sha256": {"pose.mkv": sha256(place / "pose.mkv")}}
    (place / MANIFEST).write_text(json.dumps(manifest))


@pytest.fixture
def guides(tmp_path: Path) -> Path:
    folder = tmp_path / "guides"
    folder.mkdir()
    write(folder, "older")
    return folder


def replace(folder: Path, content: str = "newer") -> None:
    with NewFolder(folder) as place:
        write(place, content)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_older_guides_are_replaced_and_their_mode_stays(guides: Path) -> None:
    guides.chmod(0o700)
    replace(guides)
    assert (guides / "pose.mkv").read_text() == "newer"
    assert guides.stat().st_mode & 0o777 == 0o700
    assert os.listdir(guides.parent) == ["guides"]


def strange_file(guides: Path) -> None:
    (guides / "holiday.mp4").write_text("mine")


def strange_folder(guides: Path) -> None:
    (guides / "photos").mkdir()


def changed(guides: Path) -> None:
    (guides / "pose.mkv").write_text("painted by hand")


def linked(guides: Path) -> None:
    (guides / "pose.mkv").rename(guides.parent / "pose.mkv")
    (guides / "pose.mkv").symlink_to(guides.parent / "pose.mkv")


@pytest.mark.parametrize(
    ("change", "name"),
    [(strange_file, "holiday.mp4"), (strange_folder, "photos"), (changed, "pose.mkv"), (linked, "pose.mkv")],
)
def test_a_file_that_is_not_of_the_guides_is_refused_by_name(guides: Path, change: Any, name: str) -> None:
    change(guides)
    before = contents(guides)
    for ask in (check_folder, replace):
        with pytest.raises(OutputError, match=f"{name} in it"):
            ask(guides)
    assert contents(guides) == before


@pytest.mark.parametrize(
    "manifest", ['{"format": "wanimate-guides"}', '{"format": "wanimate-guides", "sha256": []}', "[]"]
)
def test_a_manifest_without_hashes_proves_nothing(guides: Path, manifest: str) -> None:
    (guides / MANIFEST).write_text(manifest)
    with pytest.raises(OutputError):
        replace(guides)
    assert (guides / "pose.mkv").read_text() == "older"


def late_file(guides: Path) -> None:
    with NewFolder(guides) as place:
        write(place, "newer")
        strange_file(guides)


def test_a_file_that_comes_meanwhile_is_not_lost(guides: Path) -> None:
    with pytest.raises(OutputError, match=r"files have changed meanwhile.*kept as") as said:
        late_file(guides)
    assert (guides / "holiday.mp4").read_text() == "mine"
    kept = next(path for path in guides.parent.iterdir() if ".kept-" in path.name)
    assert str(kept) in str(said.value)
    assert (kept / "pose.mkv").read_text() == "newer"


def test_a_file_that_comes_between_the_last_look_and_the_rename_is_not_lost(
    guides: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = folders.exchanged

    def exchanged(new: Path, place: Path) -> Path:
        strange_file(guides)
        return real(new, place)

    monkeypatch.setattr(folders, "exchanged", exchanged)
    replace(guides)
    assert (guides / "pose.mkv").read_text() == "newer"
    kept = next(path for path in guides.parent.iterdir() if ".kept-" in path.name)
    assert (kept / "holiday.mp4").read_text() == "mine"


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
def test_killed_at_any_moment_one_of_the_two_is_there(
    guides: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every rename and removal is a place to be killed at. What is there then is found by the next job under the name."""

    class Killed(BaseException):
        pass

    if not exchange:
        monkeypatch.setattr(names.ctypes, "CDLL", lambda *_, **__: object())
    pid = os.getpid()
    for moment in range(6):
        left = moment

        def killing(real: Any) -> Any:
            def call(*args: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    raise Killed
                return real(*args)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 2**22 + 5)  # a process that is dead afterwards
            patch.setattr(os, "rename", killing(os.rename))
            patch.setattr(folders, "remove", killing(folders.remove))
            with suppress(Killed):
                replace(guides)
        assert os.getpid() == pid
        if exchange:
            assert (guides / "pose.mkv").read_text() in ("older", "newer")
        check_folder(guides)  # the next job
        assert (guides / "pose.mkv").read_text() in ("older", "newer")
        replace(guides, "older")
        folders.remove_leftovers(guides)
        assert [path.name for path in guides.parent.iterdir() if ".kept-" not in path.name] == ["guides"]


def test_guides_that_cannot_get_their_name_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.rename

    def refuse(source: Path, target: Path) -> None:
        if Path(target).name == "guides":
            raise OSError(errno.EROFS, "Read-only file system")
        real(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OutputError, match="kept as"):
        replace(tmp_path / "guides")
    (kept,) = tmp_path.iterdir()
    assert (kept / "pose.mkv").read_text() == "newer"


def test_long_names_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="the name is too long"):
        check_folder(tmp_path / ("n" * 250))
    assert os.listdir(tmp_path) == []
