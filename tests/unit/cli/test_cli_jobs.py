"""`wanimate jobs`: what is listed, what is removed, and what never is."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from wanimate.cli.main import app
from wanimate.finish.lock import STORE_MARK, OutputLock, work_path
from wanimate.jobs.store import Store, StoredOwner, StoreFile
from wanimate.media.names import temporary_name


def run(*words: object) -> Any:
    done = CliRunner().invoke(app, ["jobs", *map(str, words), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout.splitlines()[-1])


def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def store(out: Path, owner: StoredOwner) -> Path:
    """Finished work of a job of `owner`."""
    place = work_path(out)
    Store(out).begin()
    facts = json.loads((place / STORE_MARK).read_text())
    (place / STORE_MARK).write_text(json.dumps(facts | {"owner": owner.model_dump()}))
    (place / "segment-0000-aaaa.safetensors").write_bytes(b"x" * 1000)
    return place


DEAD = StoredOwner(pid=2**22 + 1, start=1, host=socket.gethostname())


def leave_some(folder: Path) -> dict[str, Path]:
    inner = folder / "week"
    inner.mkdir()
    stopped = store(inner / "a.mp4", DEAD)
    running = store(folder / "b.mp4", StoredOwner.this())
    away = store(folder / "c.mp4", DEAD.model_copy(update={"host": "elsewhere"}))
    part = temporary_name(folder / "d.mp4")
    dead = part.with_name(part.name.replace(f".{os.getpid()}-", f".{gone()}-"))
    part.write_bytes(b"mine")
    dead.write_bytes(b"left")
    (folder / ".strange.work").mkdir()
    (folder / ".strange.work" / "diary.txt").touch()
    return {"stopped": stopped, "running": running, "away": away, "part": part, "dead": dead}


def test_what_is_left_is_listed(tmp_path: Path) -> None:
    left = leave_some(tmp_path)
    found = {Path(one["path"]): one for one in run(tmp_path)["jobs"]}
    assert set(found) == set(left.values())
    listed = {Path(one["path"]): one for one in run("list", tmp_path)["jobs"]}
    for path, one in listed.items():  # a second may have begun meanwhile
        assert 0 <= one.pop("age_seconds") - found[path]["age_seconds"] < 60
        assert one == {key: value for key, value in found[path].items() if key != "age_seconds"}
    assert set(found) == set(listed)
    running = {name for name, path in left.items() if found[path]["running"]}
    assert running == {"running", "away", "part"}
    one = found[left["stopped"]]
    assert (one["kind"], Path(one["of"]), one["segments"]) == ("work", tmp_path / "week" / "a.mp4", 1)
    assert one["bytes"] >= 1000
    assert 0 <= one["age_seconds"] < 60


def test_cleaning_removes_what_dead_processes_have_left(tmp_path: Path) -> None:
    left = leave_some(tmp_path)
    removed = {Path(one["path"]) for one in run("clean", tmp_path)["removed"]}
    assert removed == {left["stopped"], left["dead"]}
    assert {name for name, path in left.items() if path.exists()} == {"running", "away", "part"}
    assert (tmp_path / ".strange.work" / "diary.txt").exists()
    assert not list(tmp_path.rglob("*.lock"))


def test_work_of_a_held_name_stays(tmp_path: Path) -> None:
    """Whoever its owner was: another job is about to go on from it."""
    place = store(tmp_path / "a.mp4", DEAD)
    with OutputLock(tmp_path / "a.mp4"):
        assert run("clean", tmp_path)["removed"] == []
    assert place.exists()


def test_links_are_not_followed(tmp_path: Path) -> None:
    away = tmp_path / "away"
    away.mkdir()
    real = store(away / "a.mp4", DEAD)
    here = tmp_path / "here"
    here.mkdir()
    (here / "link").symlink_to(away)
    (here / real.name).symlink_to(real)
    assert run("clean", here)["removed"] == []
    assert real.exists()


def test_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    invoke = CliRunner().invoke
    assert "nothing is left of any job" in invoke(app, ["jobs"]).stdout
    store(tmp_path / "a.mp4", DEAD)
    said = invoke(app, ["jobs"]).stdout
    assert "a.mp4" in said
    assert "stopped" in said
    assert "are free again" in invoke(app, ["jobs", "clean"]).stdout
    assert invoke(app, ["jobs", str(tmp_path / "nowhere")]).exit_code == 2


def test_the_form_of_the_file_is_what_the_lock_looks_for(tmp_path: Path) -> None:
    store(tmp_path / "a.mp4", DEAD)
    assert StoreFile.model_fields["format"].default == "wanimate-work"
    OutputLock(tmp_path / "a.mp4").release()
