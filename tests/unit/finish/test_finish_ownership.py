"""What exists is replaced only where the record beside it proves that this program made it."""

from __future__ import annotations

import errno
import json
import os
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wanimate.config import OutputSettings
from wanimate.errors import OutputError
from wanimate.finish.commit import commit
from wanimate.finish.encode import OutputWriter
from wanimate.finish.lock import OutputLock, record_path, sheet_path, work_path
from wanimate.finish.record import record_bytes
from wanimate.media.files import AtomicFile
from wanimate.media.levels import from_levels
from wanimate.weights.fingerprint import file_hash

GREY = np.full((2, 48, 64, 3), 90, np.uint8)
SHEET = OutputSettings(sheet=True)


def make(out: Path, output: OutputSettings = SHEET, grey: int = 90) -> dict[str, Any]:
    """A small job's files."""
    sheet = np.full((8, 8, 3), grey, np.uint8) if output.sheet else None
    with OutputLock(out, output) as lock, OutputWriter(out, Fraction(30), 64, 48, output, lock=lock) as writer:
        writer.write(from_levels(GREY))
        writer.finish()
        return commit(writer, lock, {"seed": grey}, sheet)


def refused(out: Path, said: str, output: OutputSettings = SHEET) -> None:
    before = {path.name: path.read_bytes() for path in out.parent.iterdir() if path.is_file()}
    with pytest.raises(OutputError, match=said) as caught:
        OutputLock(out, output)
    assert caught.value.exit_code == 2
    assert {path.name: path.read_bytes() for path in out.parent.iterdir() if path.is_file()} == before


def test_the_record_proves_what_is_ours(tmp_path: Path) -> None:
    out = tmp_path / "hero.mp4"
    record = make(out)
    assert record == json.loads(record_path(out).read_text())
    assert record["result"] == {"name": "hero.mp4", "sha256": file_hash(out), "replaces": None}
    assert record["sheet"] == {"name": "hero.sheet.png", "sha256": file_hash(sheet_path(out)), "replaces": None}
    older = file_hash(out)
    again = make(out, grey=91)  # ours: replaced without a flag
    assert again["result"]["replaces"] == older
    assert sorted(os.listdir(tmp_path)) == ["hero.json", "hero.mp4", "hero.sheet.png"]


@pytest.mark.parametrize("name", ["hero.mp4", "hero.sheet.png"])
def test_a_strangers_file_is_refused_and_may_be_given_away(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"holiday")
    refused(tmp_path / "hero.mp4", f"{name}: a file of this name is there already")
    make(tmp_path / "hero.mp4", OutputSettings(sheet=True, overwrite=True))
    assert (tmp_path / name).read_bytes() != b"holiday"


@pytest.mark.parametrize("name", ["hero.mp4", "hero.sheet.png"])
def test_a_file_that_has_changed_since_is_not_ours(tmp_path: Path, name: str) -> None:
    make(tmp_path / "hero.mp4")
    with (tmp_path / name).open("ab") as file:
        file.write(b"cut by hand")
    refused(tmp_path / "hero.mp4", f"{name}: a file of this name is there already")


def test_a_record_is_no_proof_of_another_file(tmp_path: Path) -> None:
    make(tmp_path / "hero.mp4")
    shutil.copy(tmp_path / "hero.mp4", tmp_path / "villain.mp4")
    shutil.copy(tmp_path / "hero.json", tmp_path / "villain.json")
    refused(tmp_path / "villain.mp4", r"villain\.json beside it is the record of hero\.mp4")
    (tmp_path / "hero.mp4").unlink()
    refused(tmp_path / "villain.mp4", r"villain\.mp4: a file of this name is there already")


def test_two_results_do_not_share_a_record(tmp_path: Path) -> None:
    make(tmp_path / "hero.mkv", OutputSettings())
    for overwrite in (False, True):
        output = OutputSettings(overwrite=overwrite)
        refused(tmp_path / "hero.mp4", r"hero\.json beside it is the record of hero\.mkv", output)
    (tmp_path / "hero.mkv").unlink()
    make(tmp_path / "hero.mp4", OutputSettings())


@pytest.mark.parametrize(
    "content", ['{"name": "hero", "version": "1.0"}', "[1]", '{"wanimate": "1", "schema": 2, "out": "../a"}']
)
def test_a_strangers_json_is_never_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "hero.json").write_text(content)
    for overwrite in (False, True):
        refused(tmp_path / "hero.mp4", r"hero\.json beside it is not ours", OutputSettings(overwrite=overwrite))


def test_links_under_the_names(tmp_path: Path) -> None:
    """A link is the user's: its target is never written to, and the link itself goes only where that is allowed."""
    (tmp_path / "away").mkdir()
    target = tmp_path / "away" / "film.mp4"
    target.write_bytes(b"film")
    (tmp_path / "hero.mp4").symlink_to(target)
    refused(tmp_path / "hero.mp4", "a link of this name is there")
    make(tmp_path / "hero.mp4", OutputSettings(overwrite=True))
    assert target.read_bytes() == b"film"
    assert not (tmp_path / "hero.mp4").is_symlink()
    (tmp_path / "b.json").symlink_to(tmp_path / "hero.json")
    refused(tmp_path / "b.mp4", r"b\.json beside it is not ours", OutputSettings(overwrite=True))
    (tmp_path / "frames").symlink_to(tmp_path / "away")
    refused(tmp_path / "frames", "the name is taken", OutputSettings(codec="png", overwrite=True))
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    refused(tmp_path / "link", "the name is taken", OutputSettings(codec="png"))  # the rename would fail hours later


@pytest.mark.parametrize("kind", ["file", "link", "folder", "other"])
def test_the_folder_of_segments_is_ours_or_refused(tmp_path: Path, kind: str) -> None:
    out, work = tmp_path / "hero.mp4", work_path(tmp_path / "hero.mp4")
    assert work.name == ".hero.mp4.work"
    (tmp_path / "mine").mkdir()
    {
        "file": work.touch, "link": lambda: work.symlink_to(tmp_path / "mine"),
        "folder": lambda: (work.mkdir(), (work / "diary.txt").touch()),
        "other": lambda: (work.mkdir(), (work / "job.json").write_text('{"format": "something"}')),
    }[kind]()  # fmt: skip
    refused(out, "is no folder of this program", OutputSettings(overwrite=True))
    if kind == "folder":
        (work / "job.json").write_text('{"format": "wanimate-work"}')
        OutputLock(out).release()


def test_names_without_room_for_what_is_added(tmp_path: Path) -> None:
    for name in ("n" * 246 + ".mp4", "é" * 120 + ".mp4"):
        refused(tmp_path / name, "the name is too long")
    make(tmp_path / ("n" * 200 + ".mp4"))


def test_a_job_killed_between_two_names_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record has its name already, the new video not: the older video is proved by what the record says it replaces."""

    class Killed(BaseException):
        pass

    out, real = tmp_path / "hero.mp4", os.replace
    done: list[str] = []

    def killed_after(steps: int) -> None:
        done.clear()

        def replace(source: Path, target: Path) -> None:
            if len(done) == steps:
                raise Killed
            done.append(target.name)
            real(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            make(out, grey=91)

    for steps in (1, 2):
        make(out)
        before = out.read_bytes()
        with pytest.raises(Killed):
            killed_after(steps)
        assert out.read_bytes() == before
        assert done == ["hero.json", "hero.sheet.png"][:steps]
        make(out, grey=91)  # no flag is needed


def test_a_full_disk_before_the_first_name_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "hero.mp4"
    make(out)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def full(self: AtomicFile, data: bytes) -> int:
        if self.path.suffix == ".json":
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(self, data)

    whole = AtomicFile.write
    monkeypatch.setattr(AtomicFile, "write", full)
    with pytest.raises(OutputError, match="disk is full"):
        make(out, grey=91)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(("name", "codec"), [("hero.mp4", "h264"), ("hero", "png")])
def test_a_result_that_cannot_get_its_name_is_kept_and_told(
    tmp_path: Path, name: str, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace

    def refuse(source: Path, target: Path) -> None:
        if target == tmp_path / name:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        real(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OutputError, match="The finished result is kept as") as said:
        make(tmp_path / name, OutputSettings(codec=codec))
    kept = next(path for path in tmp_path.iterdir() if ".kept-" in path.name)
    assert str(kept) in str(said.value)
    assert kept.stat().st_size > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([kept.name, "hero.json"])
    OutputLock(tmp_path / "hero2.mp4").release()
    assert kept.exists()  # no later job takes it for a leftover


@pytest.mark.parametrize("name", ["hero.mp4", "hero.json", "hero.sheet.png"])
def test_private_files_stay_private(tmp_path: Path, name: str) -> None:
    make(tmp_path / "hero.mp4")
    assert (tmp_path / name).stat().st_mode & 0o077
    (tmp_path / name).chmod(0o600)
    make(tmp_path / "hero.mp4", grey=91)
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_a_read_only_result_is_refused_before_work(tmp_path: Path) -> None:
    make(tmp_path / "hero.mp4")
    (tmp_path / "hero.mp4").chmod(0o444)
    refused(tmp_path / "hero.mp4", "read-only", OutputSettings(sheet=True, overwrite=True))


def test_a_folder_of_pictures_is_not_written_through_links(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    output = OutputSettings(codec="png")

    def planted() -> None:
        with OutputWriter(tmp_path / "a", Fraction(30), 64, 48, output) as writer:
            folder = next(path for path in tmp_path.iterdir() if path.name.endswith(".part"))
            (folder / "000000.png").symlink_to(tmp_path / "thesis.txt")
            writer.write(from_levels(GREY))

    with pytest.raises(OutputError):
        planted()
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_the_hash_of_a_folder_is_that_of_its_pictures_on_end(tmp_path: Path) -> None:
    record = make(tmp_path / "a", OutputSettings(codec="png"))
    (tmp_path / "all").write_bytes(b"".join(path.read_bytes() for path in sorted((tmp_path / "a").iterdir())))
    assert record["result"]["sha256"] == file_hash(tmp_path / "all")


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    out = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    record = make(out)
    assert record["out"] == out.name == record["result"]["name"]
    record_path(out).read_bytes().decode("utf-8")
    make(out, grey=91)  # and it is known again


def test_a_large_or_strange_record_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "hero.json")  # reading it would wait for ever
    with pytest.raises(OutputError, match="not ours"):
        OutputLock(tmp_path / "hero.mp4")
    (tmp_path / "hero.json").unlink()
    (tmp_path / "hero.json").write_bytes(record_bytes(tmp_path / "hero.mp4", {}))
    OutputLock(tmp_path / "hero.mp4").release()
    os.truncate(tmp_path / "hero.json", 2**33)
    with pytest.raises(OutputError, match="not ours"):
        OutputLock(tmp_path / "hero.mp4")


@pytest.mark.parametrize("name", ["hero.mp4", "hero.json", "hero.sheet.png"])
@pytest.mark.parametrize("older", [False, True], ids=["new", "older"])
def test_a_file_that_comes_while_the_job_runs_is_not_lost(tmp_path: Path, name: str, older: bool) -> None:
    out = tmp_path / "hero.mp4"
    if older:
        make(out)

    def job() -> None:
        with OutputLock(out, SHEET) as lock, OutputWriter(out, Fraction(30), 64, 48, SHEET, lock=lock) as writer:
            writer.write(from_levels(GREY))
            (tmp_path / name).unlink(missing_ok=True)
            (tmp_path / name).write_bytes(b"holiday")
            writer.finish()
            commit(writer, lock, {}, GREY[0])

    with pytest.raises(OutputError, match=rf"somebody has written {name} meanwhile.*kept as"):
        job()
    assert (tmp_path / name).read_bytes() == b"holiday"
    kept = [path for path in tmp_path.iterdir() if ".kept-" in path.name]
    assert len(kept) == 1
    assert kept[0].stat().st_size > 500
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_two_jobs_at_once_do_not_share_a_record(tmp_path: Path) -> None:
    with OutputLock(tmp_path / "hero.mkv"), pytest.raises(OutputError, match=r"hero\.json: another job"):
        OutputLock(tmp_path / "hero.mp4")
    assert os.listdir(tmp_path) == []
