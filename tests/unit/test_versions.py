"""The commit that records tell."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wanimate import versions


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    versions.commit.cache_clear()
    yield
    versions.commit.cache_clear()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository that this module seems to lie in."""
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "src" / "wanimate").mkdir(parents=True)
    line = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "a"], ["tag", "v1"]):
        subprocess.run([*line, *words], check=True)
    monkeypatch.setattr(versions, "__file__", str(tmp_path / "src" / "wanimate" / "versions.py"))
    monkeypatch.setattr(versions, "distribution", lambda _: SimpleNamespace(read_text=lambda _: None))
    return tmp_path


def head(checkout: Path) -> str:
    line = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    return subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip()


def test_of_a_checkout(checkout: Path) -> None:
    assert versions.commit() == head(checkout)
    versions.commit.cache_clear()
    (checkout / "pyproject.toml").write_text("changed")
    assert versions.commit() == f"{head(checkout)}-dirty"


def test_of_a_repository_around_it(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that lies in somebody's repository."""
    inner = checkout / ".venv" / "lib" / "wanimate" / "versions.py"
    monkeypatch.setattr(versions, "__file__", str(inner))
    assert versions.commit() is None


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ('{"url": "https://example.com/a.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}', "abc"),
        ('{"url": "file:///src", "dir_info": {"editable": true}}', None), ("no JSON", None),
    ],
)  # fmt: skip
def test_of_an_installation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: str, found: Any) -> None:
    monkeypatch.setattr(versions, "distribution", lambda _: SimpleNamespace(read_text=lambda _: told))
    monkeypatch.setattr(versions, "__file__", str(tmp_path / "a" / "b" / "versions.py"))
    assert versions.commit() == found
