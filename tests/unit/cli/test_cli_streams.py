"""Streams that take nothing: a closed pipe, a full disk, no stream at all. Nothing of it is a defect, or a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from wanimate.__main__ import _stop

NOWHERE = ("generate", "nowhere", "--out", "x.mp4", "--json")
MISUSED = ("generate", "--json")


def ran(words: tuple[str, ...], redirected: str, folder: Path) -> tuple[int, str]:
    """(exit code, stderr) of the command behind a shell's redirection of its streams."""
    script = f'"$@" {redirected}'
    done = subprocess.run(
        ["bash", "-c", script, "sh", sys.executable, "-m", "wanimate", *words],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--version",),
        pytest.param(("doctor",), marks=pytest.mark.slow),
        MISUSED,
        pytest.param(NOWHERE, marks=pytest.mark.slow),
    ],
    ids=["version", "tables", "misused", "error"],
)
def test_a_full_stdout_is_one_sentence(words: tuple[str, ...], tmp_path: Path) -> None:
    code, said = ran(words, ">/dev/full", tmp_path)
    assert code == 2
    assert said == "error stdout cannot be written (No space left on device). Send it somewhere else.\n"


def test_a_reader_that_is_gone_ends_the_command_quietly(tmp_path: Path) -> None:
    assert ran(MISUSED, "| true; exit ${PIPESTATUS[0]}", tmp_path) in [(141, ""), (2, "")]


@pytest.mark.parametrize("redirected", ["2>/dev/full", ">&-", "<&- >&- 2>&-"])
def test_a_command_without_streams_ends_as_with_them(redirected: str, tmp_path: Path) -> None:
    assert ran(MISUSED, redirected + (" >/dev/null" if redirected.startswith("2") else ""), tmp_path) == (2, "")


@pytest.mark.parametrize("redirected", ["2>&-", "<&- >&- 2>&-"])
def test_an_error_that_nobody_can_read_keeps_its_code(redirected: str, tmp_path: Path) -> None:
    assert ran(("jobs", "nowhere"), redirected, tmp_path) == (2, "")


def test_a_signal_while_modules_load_needs_no_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended(Exception):
        pass

    def closed(*_: object) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    def ended(code: int) -> NoReturn:
        raise Ended(code)

    monkeypatch.setattr(os, "write", closed)
    monkeypatch.setattr(os, "_exit", ended)
    with pytest.raises(Ended, match="130"):
        _stop()
