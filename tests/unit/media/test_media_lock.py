"""A lock harms no file that lies under its name, and works where the file system knows no locks."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wanimate.errors import OutputError
from wanimate.media import lock as locks
from wanimate.media.lock import NameLock
from wanimate.media.names import Owner

WITHOUT = [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL]


@pytest.fixture(params=WITHOUT, ids=errno.errorcode.get)
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.parametrize("plant", ["link", "dangling", "hard link", "empty twin", "folder", "pipe", "stranger"])
def test_nothing_is_written_through_a_planted_lock(tmp_path: Path, plant: str) -> None:
    victim, lock, away = tmp_path / "thesis.txt", tmp_path / ".hero.mp4.lock", tmp_path / "new.txt"
    content = "" if plant == "empty twin" else "precious"
    victim.write_text(content)
    {
        "link": lambda: lock.symlink_to(victim),
        "dangling": lambda: lock.symlink_to(away),
        "hard link": lambda: lock.hardlink_to(victim),
        "empty twin": lambda: lock.hardlink_to(victim),
        "folder": lock.mkdir,
        "pipe": lambda: os.mkfifo(lock),
        "stranger": lambda: lock.write_text("4711\n"),
    }[plant]()
    with pytest.raises(OutputError, match=r"\.hero\.mp4\.lock beside it is no lock of this program"):
        NameLock(tmp_path / "hero.mp4")
    assert victim.read_text() == content
    assert not away.exists()
    assert os.path.lexists(lock)


def test_a_lock_left_by_a_killed_process_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / ".a.lock").write_bytes(Owner(2**22 + 1, 1, socket.gethostname()).written())
    with NameLock(tmp_path / "a") as lock:
        assert Owner.read((tmp_path / ".a.lock").read_bytes()) == Owner.this()
        assert lock.notices == []
    assert os.listdir(tmp_path) == []


def test_a_folder_without_locks_works_and_says_so(tmp_path: Path, no_locks: None) -> None:
    with NameLock(tmp_path / "a.mp4") as lock:
        assert len(lock.notices) == 1
        assert "knows no locks" in lock.notices[0]
        with pytest.raises(OutputError, match=rf"another job \(process {os.getpid()}\) is writing it"):
            NameLock(tmp_path / "a.mp4")
        with NameLock(tmp_path / "b.mp4"):
            pass
        assert os.listdir(tmp_path) == [".a.mp4.lock"]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("owner", "refused"),
    [
        (Owner(2**22 + 1, 1, socket.gethostname()), None),  # a dead process of this machine
        (Owner(os.getpid(), 1, socket.gethostname()), None),  # its number has gone to another process
        (Owner(2**22 + 1, 1, "elsewhere"), r"process 4194305 on elsewhere"),
    ],
    ids=["dead", "number taken", "elsewhere"],
)
def test_who_is_dead_is_known_in_a_folder_without_locks(
    tmp_path: Path, no_locks: None, owner: Owner, refused: str | None
) -> None:
    (tmp_path / ".a.lock").write_bytes(owner.written())
    if refused is None:
        NameLock(tmp_path / "a").release()
        assert os.listdir(tmp_path) == []
        return
    with pytest.raises(OutputError, match=refused) as said:
        NameLock(tmp_path / "a")
    assert "remove .a.lock" in said.value.remedy
    assert os.listdir(tmp_path) == [".a.lock"]


def test_a_lock_file_that_is_just_being_written_holds(tmp_path: Path, no_locks: None) -> None:
    lock = tmp_path / ".a.lock"
    lock.touch()
    with pytest.raises(OutputError, match="another job"):
        NameLock(tmp_path / "a")
    os.utime(lock, (time.time() - 60,) * 2)
    NameLock(tmp_path / "a").release()
    assert os.listdir(tmp_path) == []


def test_an_error_leaves_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OutputError, match="disk is full"):
            NameLock(tmp_path / "new" / "a")
    assert os.listdir(tmp_path) == []
    monkeypatch.setattr(locks, "remove_leftovers", full)
    with pytest.raises(OutputError, match="disk is full"):
        NameLock(tmp_path / "new" / "a")
    assert os.listdir(tmp_path) == []


def test_one_of_many_holds_a_name_in_a_folder_without_locks(tmp_path: Path) -> None:
    script = """
import errno, fcntl, sys
from pathlib import Path
from wanimate.errors import OutputError
from wanimate.media.lock import NameLock
def flock(*_):
    raise OSError(errno.ENOLCK, "none")
fcntl.flock = flock
out, mark, won = Path(sys.argv[1]), Path(sys.argv[1] + ".mark"), 0
while won < 10:
    try:
        with NameLock(out):
            mark.touch(exist_ok=False)  # fails when another holds the name too
            mark.unlink()
            won += 1
    except OutputError:
        pass
"""
    jobs = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "a")]) for _ in range(2)]
    assert [job.wait(60) for job in jobs] == [0, 0]
    assert os.listdir(tmp_path) == []
