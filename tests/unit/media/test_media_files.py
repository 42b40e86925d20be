"""Files that appear whole: no link is followed, modes stay, and a finished file that cannot get its name is kept."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from wanimate.errors import OutputError
from wanimate.media import files
from wanimate.media.files import AtomicFile, in_utf8, json_bytes, read_own_json


@pytest.fixture
def _umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.usefixtures("_umask")
def test_a_private_file_stays_private_and_a_new_one_is_as_usual(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with AtomicFile(path) as file:
        assert mode(file.temporary) == 0o640
    assert mode(path) == 0o640
    for wanted in (0o600, 0o664, 0o400):
        path.chmod(wanted)
        with AtomicFile(path) as file:
            assert mode(file.temporary) == wanted  # nobody reads it meanwhile, either
        assert mode(path) == wanted


def test_a_link_under_the_final_name_is_replaced_and_its_target_stays(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    for target in ("thesis.txt", "nothing"):
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(tmp_path / target)
        with AtomicFile(tmp_path / "link") as file:
            file.write(b"new")
        assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "thesis.txt").read_text() == "precious"
    assert sorted(os.listdir(tmp_path)) == ["link", "thesis.txt"]


def test_a_link_under_the_temporary_name_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    (tmp_path / "planted").symlink_to(tmp_path / "thesis.txt")
    made = iter([tmp_path / "planted", tmp_path / "free"])
    monkeypatch.setattr(files, "temporary_name", lambda _: next(made))
    with AtomicFile(tmp_path / "a") as file:
        file.write(b"new")
    assert (tmp_path / "thesis.txt").read_text() == "precious"
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_file_that_cannot_get_its_name_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = AtomicFile(tmp_path / "hero.mp4")
    file.write(b"hours of work")
    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(OutputError, match=r"disk is full.*kept as .*hero\.kept-[0-9a-f]{6}\.mp4") as said:
        file.commit(keep=True)
    (kept,) = tmp_path.iterdir()
    assert str(kept) in str(said.value)
    assert kept.read_bytes() == b"hours of work"


def test_a_file_whose_folder_is_gone_is_kept(tmp_path: Path) -> None:
    file = AtomicFile(tmp_path / "results" / "hero.mp4")
    file.write(b"hours of work")
    shutil.rmtree(tmp_path / "results")
    with pytest.raises(OutputError, match="The finished result is kept as"):
        file.commit(keep=True)
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith("hero.kept-")
    assert kept.read_bytes() == b"hours of work"


def test_a_file_whose_folder_is_gone_with_the_working_folder_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    file = AtomicFile(Path("hero.mp4"))
    file.write(b"hours of work")
    shutil.rmtree(tmp_path / "work")
    with pytest.raises(OutputError, match="The finished result is kept as"):
        file.commit(keep=True)
    (kept,) = (tmp_path / "tmp").glob("wanimate-kept-*/hero.kept-*.mp4")
    assert kept.read_bytes() == b"hours of work"


def test_a_file_that_is_not_to_be_kept_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    file = AtomicFile(tmp_path / "hero.mp4")
    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(OutputError, match="not writable"):
        file.commit()
    assert os.listdir(tmp_path) == []


def test_json_of_this_program_is_read_from_plain_files_only(tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xc3\xa9-\xff")
    (tmp_path / "a.json").write_bytes(json_bytes({"name": odd}))
    assert (tmp_path / "a.json").read_text("utf-8").isprintable() is False  # a line end, and no byte that is not UTF-8
    assert read_own_json(tmp_path / "a.json") == {"name": odd}
    (tmp_path / "link").symlink_to(tmp_path / "a.json")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "deep").write_text("[" * 100_000)
    (tmp_path / "bad").write_bytes(b"\xff{")
    for name in ("link", "pipe", "deep", "bad", "nothing", "."):
        assert read_own_json(tmp_path / name) is None


def test_names_for_libraries_that_know_utf8_only(tmp_path: Path) -> None:
    for name in ("plain", os.fsdecode(b"odd-\xff")):
        (tmp_path / name).write_text(name, errors="surrogateescape")
        with in_utf8(tmp_path / name) as given:
            given.encode()
            assert Path(given).read_text(errors="surrogateescape") == name
