"""What a killed job has left beside its result goes with the next job of that name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wanimate.config import OutputSettings
from wanimate.errors import OutputError
from wanimate.finish.lock import OutputLock


def test_leftovers_of_dead_processes_are_removed(tmp_path: Path) -> None:
    """Files and folders, of this name only, and of no process that is alive."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    out = tmp_path / "take[1]"
    left = [f".take[1].{gone.pid}-0a1b2c.part", f".take[1].{gone.pid}-ffffff.part"]
    stay = [f".take[1].{os.getpid()}-0a1b2c.part", f".take1.{gone.pid}-0a1b2c.part", ".take[1].notes.part"]
    (tmp_path / left[0]).mkdir()
    (tmp_path / left[0] / "000000.png").write_bytes(b"1")
    (tmp_path / left[1]).write_bytes(b"2")
    for name in stay:
        (tmp_path / name).write_bytes(b"3")
    OutputLock(out, OutputSettings(codec="png")).release()
    assert sorted(os.listdir(tmp_path)) == sorted(stay)


def test_leftovers_of_record_and_sheet_are_removed(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for name in ("a.mp4", "a.json", "a.sheet.png", "b.json"):
        (tmp_path / f".{name}.{gone.pid}-0a1b2c.part").write_bytes(b"1")
    OutputLock(tmp_path / "a.mp4").release()
    assert os.listdir(tmp_path) == [f".b.json.{gone.pid}-0a1b2c.part"]


def test_folders_made_for_a_result_that_did_not_come_are_removed(tmp_path: Path) -> None:
    OutputLock(tmp_path / "new" / "deep" / "a.mp4").release()
    assert not list(tmp_path.iterdir())
    with OutputLock(tmp_path / "new" / "deep" / "a.mp4"):
        (tmp_path / "new" / "kept").write_bytes(b"")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["kept"]


@pytest.mark.parametrize("out", ["", "/"])
def test_a_result_has_a_name(out: str) -> None:
    with pytest.raises(OutputError, match="names no file"):
        OutputLock(Path(out))
