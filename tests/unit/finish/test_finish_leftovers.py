"""What a killed job has left beside its result goes with the next job of that name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
    OutputLock(out, "png").release()
    assert sorted(os.listdir(tmp_path)) == sorted(stay)
