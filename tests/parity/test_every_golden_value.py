"""Every golden value is read by some test, and the notes that show it tell the truth."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import golden
from golden import READ, Noted, Taps, every_reader_is_in, places, read_json, unread, unread_values


def test_every_golden_value_is_read(every_reader_ran: bool) -> None:
    """Runs last, and only where every module that reads golden values runs whole; else it is skipped.

    Where processes share the tests, `conftest` puts together what each has read, at the end.
    """
    if not every_reader_ran:
        pytest.skip("not every module that reads golden values ran whole and well")
    missed = unread_values(READ)
    assert not missed, f"{len(missed)} golden values that no test reads:\n" + "\n".join(missed[:200])


def test_modules_that_the_readmes_name_are_there() -> None:
    modules = {path.stem for path in golden.FOLDER.parent.rglob("test_*.py")}
    named = {name for file in golden.FOLDER.rglob("*.md") for name in re.findall(r"`(test_\w+)`", file.read_text())}
    assert named
    assert named <= modules


def test_what_was_not_read_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "FOLDER", tmp_path)
    monkeypatch.setattr(golden, "READ", read := type(READ)(set))
    (tmp_path / "a.json").write_text(json.dumps({"cases": [{"x": [1, 2], "y": {"z": 3}}, {"x": [], "y": {}}], "w": 4}))
    np.savez(tmp_path / "b.npz", seen=1, missed=2)
    (tmp_path / "README.md").touch()
    everything = ["a.json: cases.0.x", "a.json: cases.0.y.z", "a.json: cases.1.x", "a.json: cases.1.y", "a.json: w"]
    assert unread(read) == [*everything, "b.npz: missed", "b.npz: seen"]
    cases = read_json("a.json")["cases"]
    assert cases[0]["x"] == [1, 2]
    assert unread(read) == [*everything[1:], "b.npz: missed", "b.npz: seen"]
    assert cases[0]["y"].get("z") == 3
    assert golden.read_npz("b.npz")["seen"] == 1
    assert list(cases[1].values()) == [[], {}]
    assert unread(read) == ["a.json: w", "b.npz: missed"]


def test_a_run_of_a_part_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "FOLDER", tmp_path / "golden")
    for name, text in (
        ("test_a", "read_json('x')"),
        ("test_b", "def test(golden_npz): ..."),
        ("test_c", "assert True"),
    ):
        (tmp_path / f"{name}.py").write_text(text)

    def item(module: str, test: str, *keywords: str) -> Any:
        return SimpleNamespace(path=tmp_path / f"{module}.py", nodeid=f"{module}.py::{test}", keywords=keywords)

    a, slow, b, c = item("test_a", "one"), item("test_a", "two", "slow"), item("test_b", "one"), item("test_c", "one")
    assert every_reader_is_in(["tests"], [a, slow, b, c], [a, b, c])
    assert every_reader_is_in(["test_a.py", "test_b.py"], [a, slow, b], [a, slow, b])
    assert not every_reader_is_in(["tests"], [a, slow, b, c], [a, slow, c])
    assert not every_reader_is_in(["test_a.py"], [a, slow], [a, slow])
    assert not every_reader_is_in(["test_a.py::one", "test_b.py"], [a, b], [a, b])


def test_looking_for_a_name_is_not_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "READ", read := type(READ)(set))
    values = Noted("file", "", {"a": 1})
    assert "a" in values
    assert list(values) == ["a"]
    assert values.get("b") is None
    assert not read["file"]
    assert values["a"] == 1
    assert read["file"] == {"a"}


def test_files_of_an_unknown_kind_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "FOLDER", tmp_path)
    (tmp_path / "a.pt").touch()
    with pytest.raises(AssertionError, match=r"a\.pt: no test knows"):
        places("a.pt")


def test_a_tap_that_cannot_fire_fails() -> None:
    used, unused = nn.Linear(2, 2), nn.Linear(2, 2)
    with pytest.raises(AssertionError, match="never called as modules: silent"), Taps(heard=used, silent=unused):
        used(torch.zeros(1, 2))
    with Taps(heard=used) as taps:
        expected = used(torch.ones(1, 2))
    used(torch.zeros(1, 2))
    assert torch.equal(taps["heard"], expected)
