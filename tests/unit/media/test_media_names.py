"""Temporary names tell who made them, and only what dead processes have left is removed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wanimate.media.lock import NameLock
from wanimate.media.names import leftovers, lock_name, owner_pid, remove_leftovers, temporary_name


@pytest.fixture(scope="module")
def dead() -> int:
    """The number of a process that has ended."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    return gone.pid


def named_by(pid: int, path: Path, monkeypatch: pytest.MonkeyPatch, ending: str = "part") -> Path:
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: pid)
        return temporary_name(path, ending)


def test_temporary_names_are_new_each_time_and_tell_their_owner(tmp_path: Path) -> None:
    made = {temporary_name(tmp_path / "a.b.mp4") for _ in range(100)}
    assert len(made) == 100
    assert {owner_pid(path) for path in made} == {os.getpid()}
    for other in ("hero.mp4", ".hero.part", ".hero.mp4.12-xyz.part", ".hero.mp4.lock", ".12-0a1b2c3d4e.part"):
        assert owner_pid(tmp_path / other) is None


def test_leftovers_of_a_folder(tmp_path: Path, dead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = named_by(os.getpid(), tmp_path / "a.mp4", monkeypatch)
    gone = named_by(dead, tmp_path / "a.mp4", monkeypatch)
    old = named_by(dead, tmp_path / "guides", monkeypatch, "old")
    away = tmp_path / f".a.mp4.{dead}-ffff0a1b2c.part"
    for path in (ours, gone, away, tmp_path / ".notes.part", tmp_path / ".mail.lock"):
        path.write_bytes(b"1234\n")
    old.mkdir()
    killed = [sys.executable, "-c", "import os, sys; from pathlib import Path; from wanimate.media.lock import NameLock\n"
              "NameLock(Path(sys.argv[1])); os._exit(9)"]  # fmt: skip
    subprocess.run([*killed, str(tmp_path / "b.mp4")], check=False)
    with NameLock(tmp_path / "c.mp4"):
        found = {left.path.name: (left.of, left.alive) for left in leftovers(tmp_path)}
    assert found == {
        ours.name: ("a.mp4", True),
        gone.name: ("a.mp4", False),
        away.name: ("a.mp4", True),  # of another machine: nobody knows here
        old.name: ("guides", False),
        ".b.mp4.lock": ("b.mp4", False),
        ".c.mp4.lock": ("c.mp4", True),
    }


def test_what_was_put_aside_gets_its_name_back(tmp_path: Path, dead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was killed between two renames has left the older folder under a name that nobody looks for."""
    place = tmp_path / "guides"
    old = named_by(dead, place, monkeypatch, "old")
    old.mkdir()
    (old / "pose.mkv").write_bytes(b"older")
    assert remove_leftovers(place) == []
    assert (place / "pose.mkv").read_bytes() == b"older"
    again = named_by(dead, place, monkeypatch, "old")
    again.mkdir()
    assert remove_leftovers(place) == [again]
    assert os.listdir(tmp_path) == ["guides"]


def test_a_leftover_that_is_a_link_goes_without_what_it_leads_to(
    tmp_path: Path, dead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    named_by(dead, tmp_path / "a", monkeypatch).symlink_to(tmp_path / "mine")
    assert len(remove_leftovers(tmp_path / "a")) == 1
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_a_lock_lies_beside_its_name(tmp_path: Path) -> None:
    assert lock_name(tmp_path / "a.mp4") == tmp_path / ".a.mp4.lock"
