"""Benchmarks start, and their table names every script and every result."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
README = (FOLDER / "README.md").read_text()
SCRIPTS = sorted(file.name for file in FOLDER.glob("*.py") if "__main__" in file.read_text())


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_printed_without_work(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(FOLDER / script), run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: {script}")


def test_every_script_and_every_helper_is_named() -> None:
    table, below = README.split("\n\nCommands run as", 1)
    assert set(re.findall(r"`(\w+\.py)", table)) == set(SCRIPTS)
    helpers = {file.name for file in FOLDER.glob("*.py")} - set(SCRIPTS)
    assert set(re.findall(r"`(\w+\.py)`", below.split("These files are no scripts")[1])) == helpers


def test_every_result_is_named_and_there() -> None:
    linked = {FOLDER / place for place in re.findall(r"\]\((results/[^)]+)\)", README)}
    assert all(place.is_file() for place in linked)
    assert set(FOLDER.glob("results/*.md")) <= linked


def test_kept_truths_are_of_the_world_that_drew_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The version of the world comes from its own files."""
    monkeypatch.syspath_prepend(str(FOLDER))
    world_version = runpy.run_path(str(FOLDER / "animation.py"))["world_version"]
    bodies = tmp_path / "mannequins.npz"
    bodies.write_bytes(b"bodies")
    monkeypatch.setenv("WANIMATE_MANNEQUINS", str(bodies))
    read: set[Path] = set()
    read_bytes = Path.read_bytes

    def noted(path: Path) -> bytes:
        read.add(path)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", noted)
    assert world_version()
    world = FOLDER.parent / "tools" / "mannequin" / "src" / "mannequin" / "world"
    assert {file.name for file in read} == {bodies.name, *(file.name for file in world.glob("*.py"))}
