"""Files are told by what they are, not by how they are spelled; what cannot be written is refused at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wanimate.errors import OutputError
from wanimate.media.places import check_apart_from, check_file, check_names


def refused(field: str, target: Path, *inputs: Path) -> str:
    with pytest.raises(OutputError) as caught:
        check_apart_from(field, (target,), inputs)
    assert (caught.value.field, caught.value.exit_code) == (field, 2)
    return caught.value.rule


def test_an_input_is_known_under_every_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = tmp_path / "in" / "clip.mp4"
    clip.parent.mkdir()
    clip.write_bytes(b"1")
    (tmp_path / "soft.mp4").symlink_to(clip)
    (tmp_path / "hard.mp4").hardlink_to(clip)
    (tmp_path / "folder").symlink_to(clip.parent)
    (tmp_path / "other.mp4").write_bytes(b"1")
    monkeypatch.chdir(clip.parent)
    same = [
        clip, tmp_path / "soft.mp4", tmp_path / "hard.mp4", tmp_path / "folder" / "clip.mp4", Path("clip.mp4"),
        Path("../in/./clip.mp4"),
    ]  # fmt: skip
    for target in same:
        for read in same:
            assert "an input of the job" in refused("out", target, read)
    check_apart_from("out", same, [tmp_path / "other.mp4"])


def test_an_input_that_is_not_there_yet_is_known(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "dangling").symlink_to(tmp_path / "real" / "a.mp4")
    assert "an input" in refused("out", tmp_path / "link" / "a.mp4", tmp_path / "real" / "a.mp4")
    assert "an input" in refused("out", tmp_path / "real" / "a.mp4", tmp_path / "dangling")
    check_apart_from("out", [tmp_path / "link" / "b.mp4"], [tmp_path / "real" / "a.mp4"])


def test_folders_and_what_lies_in_them(tmp_path: Path) -> None:
    read = tmp_path / "guides"
    read.mkdir()
    (read / "pose.mkv").write_bytes(b"1")
    (tmp_path / "soft").symlink_to(read)
    (read / "away.png").symlink_to(tmp_path / "elsewhere.png")
    (tmp_path / "hard.mkv").hardlink_to(read / "pose.mkv")
    assert "this is an input" in refused("out", read / "pose.mkv", read)
    assert "an input" in refused("out", tmp_path / "hard.mkv", read)
    assert "which is read" in refused("out", read / "new.mp4", read)
    assert "which is read" in refused("out", tmp_path / "soft" / "new.mp4", read)
    assert "in it is an input" in refused("guides", read, read / "pose.mkv")
    assert "in it is an input" in refused("guides", tmp_path / "soft", read / "pose.mkv")
    assert "in it is an input" in refused("guides", read, read / "away.png")  # the link would go with the folder
    check_apart_from("out", [tmp_path / "new.mp4"], [read, Path()])


@pytest.mark.parametrize("letter", ["n", "ñ", "\udcff"], ids=ascii)
def test_long_names_work_or_are_refused(tmp_path: Path, letter: str) -> None:
    """A name of 250 bytes has no room for what is added to it."""
    size = len(os.fsencode(letter))
    check_names("out", tmp_path, (tmp_path / (letter * (220 // size)),))
    (tmp_path / (letter * (250 // size))).touch()  # the file system takes it
    with pytest.raises(OutputError, match="the name is too long") as caught:
        check_names("out", tmp_path, (tmp_path / "new" / (letter * (250 // size)),))
    assert "bytes shorter" in caught.value.remedy


def test_what_may_be_replaced(tmp_path: Path) -> None:
    file, link, folder, pipe = (tmp_path / name for name in ("file", "link", "folder", "pipe"))
    file.write_bytes(b"1")
    link.symlink_to(file)
    folder.mkdir()
    os.mkfifo(pipe)
    check_file("out", tmp_path / "nothing", ours=False, overwrite=False)
    check_file("out", file, ours=True, overwrite=False)
    for path in (file, link):
        with pytest.raises(OutputError, match="nothing proves that this program made it"):
            check_file("out", path, ours=False, overwrite=False)
        check_file("out", path, ours=False, overwrite=True)
    for path, said in ((folder, "this is a folder"), (pipe, "a device or a pipe")):
        with pytest.raises(OutputError, match=said):
            check_file("out", path, ours=True, overwrite=True)
    file.chmod(0o444)
    with pytest.raises(OutputError, match="read-only"):
        check_file("out", file, ours=True, overwrite=True)
    assert file.read_bytes() == b"1"
